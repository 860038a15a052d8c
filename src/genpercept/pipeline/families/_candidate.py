"""What a family is asked, and how it answers what a folder could be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import torch

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


@dataclass(frozen=True)
class FullFolder:
    """How a family's own code loads a model: every part of a diffusers pipeline, for the class `pipeline`.

    index: what else model_index.json says; scheduler: the paradigm's options that its scheduler says, None where it has none;
    padded: whether that code pads the empty prompt.
    """

    pipeline: str
    index: Mapping[str, Any] = field(default_factory=dict)
    scheduler: Mapping[str, Any] | None = None
    padded: bool = False


class Family(Protocol):
    """`folder`, below, is a checkpoint's folder, or the file that it is all in (checkpoints.weights.lone_file)."""

    name: str
    # Repositories of the hub ("owner/name", or with "/subfolder") and their tasks; several, with commas, where it answers both
    published: Mapping[str, str]
    base: str  # the model that gives what its checkpoints lack, in words

    @property
    def options(self) -> dict[str, Any]:
        """Choices that its checkpoints leave open, with their values; most families have none."""
        ...

    def with_options(self, **options: Any) -> Self:
        """The family with these choices made. ValueError for an unknown one, or for a value that it cannot have."""
        ...

    def recognise(self, folder: Path, *, allow_pickle: bool = False) -> Candidate | None:
        """What the folder is, if it can be of this family. Reads configs and headers, no weights."""
        ...

    def beside(self, folder: Path) -> tuple[str, ...]:
        """Names of folders that the checkpoint in `folder` needs from beside it, for downloads to bring them too."""
        ...

    def lacking(self, folder: Path, *, allow_pickle: bool = False) -> list[str]:
        """Parts that the folder does not hold and a base must give."""
        ...

    def problems(
        self, folder: Path, base: str | None = None, there: Path | None = None, *, allow_pickle: bool = False
    ) -> list[str]:
        """Why `load` would refuse the checkpoint, alone or with the base that lies in `there`, as far as headers tell."""
        ...

    def load(
        self, folder: Path, base: str | Path | None, task: str, torch_dtype: torch.dtype | None, where: dict[str, Any]
    ) -> GenPerceptPipeline:
        """The predictor made of the checkpoint in `folder` and its base. ValueError when they do not fit each other."""
        ...
