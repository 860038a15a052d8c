"""Families: layouts of public checkpoints, which hold only what was trained; the rest comes from their base model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from genpercept.core.registry import Registry
from genpercept.pipeline.pipeline import GenPerceptPipeline


@dataclass(frozen=True)
class Candidate:
    """A family that a folder could be of. tasks: what it could be for; one, where the folder says it.

    sure: no other family, and no model that predicts nothing, looks the same. why: what it was told by, for people.
    backbone: the plugin that takes its network.
    """

    family: str
    tasks: tuple[str, ...]
    why: str
    sure: bool
    backbone: str = "sd21"


class Family(Protocol):
    name: str
    published: Mapping[str, str]  # repositories of the hub ("owner/name", or with "/subfolder") and their tasks

    def recognise(self, folder: Path, *, allow_pickle: bool = False) -> Candidate | None:
        """What the folder is, if it can be of this family. Reads configs and headers, no weights."""
        ...

    def beside(self, folder: Path) -> tuple[str, ...]:
        """Names of folders that the checkpoint in `folder` needs from beside it, for downloads to bring them too."""
        ...

    def lacking(self, folder: Path, *, allow_pickle: bool = False) -> list[str]:
        """Parts that the folder does not hold and a base must give."""
        ...

    def load(
        self, folder: Path, base: str | Path | None, task: str, torch_dtype: torch.dtype | None, where: dict[str, Any]
    ) -> GenPerceptPipeline:
        """The predictor made of the checkpoint in `folder` and its base. ValueError when they do not fit each other."""
        ...


FAMILIES = Registry[Family](__name__, "family", "genpercept.families", Family)
find = FAMILIES.find
