"""Families: layouts of public checkpoints, which hold only what was trained; the rest comes from their base model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch

from genpercept.pipeline import GenPerceptPipeline


class Family(Protocol):
    name: str

    def beside(self, folder: Path) -> tuple[str, ...]:
        """Names of folders that the checkpoint in `folder` needs from beside it, for downloads to bring them too."""
        ...

    def load(
        self, folder: Path, base: str | Path, task: str, torch_dtype: torch.dtype | None, where: dict[str, Any]
    ) -> GenPerceptPipeline:
        """The predictor made of the checkpoint in `folder` and its base. ValueError when they do not fit each other."""
        ...
