"""Modules of diffusers and transformers, with types for what they have beyond torch's.

torch says of every attribute of an nn.Module that it is a Tensor or a Module, so that a type checker sees neither their
configuration nor their own methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from torch import nn


class Pretrained(Protocol):
    """What modules of both libraries, and ours that are stored as theirs, have in common."""

    @property
    def config(self) -> object:
        """diffusers' FrozenDict, or a configuration object of transformers. `config_of` reads both."""
        ...

    def save_pretrained(self, save_directory: str | Path, *, safe_serialization: bool = True) -> object:
        """config.json and the weights, into a folder."""
        ...

    def enable_gradient_checkpointing(self) -> None: ...


def pretrained(module: nn.Module) -> Pretrained:
    """The same module, of which it is known that a plugin built it."""
    return cast(Pretrained, module)


def config_of(module: nn.Module) -> dict[str, Any]:
    """A copy of a module's configuration as in its config.json."""
    config = pretrained(module).config
    to_dict = getattr(config, "to_dict", None)
    return dict(cast(Mapping[str, Any], config) if to_dict is None else to_dict())
