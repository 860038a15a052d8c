"""Weights & Biases and trackio, which have the same three calls, beside TensorBoard."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def find(names: Sequence[str]) -> list[Any]:
    """The trackers' modules. ValueError for one that is not installed."""
    found = []
    for name in names:
        try:
            found.append(importlib.import_module(name))
        except ImportError:
            raise ValueError(
                f"logging.trackers: {name} is not installed: pip install {name}, or leave it out"
            ) from None
    return found


class Trackers:
    def __init__(self, names: Sequence[str], project: str, run: Path, config: Mapping[str, Any]) -> None:
        self._modules = find(names)
        for module in self._modules:
            module.init(project=project, name=run.name, config=dict(config))

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        for module in self._modules:
            module.log(dict(figures), step=step)

    def close(self) -> None:
        for module in self._modules:
            module.finish()
