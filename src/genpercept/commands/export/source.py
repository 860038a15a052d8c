"""What is exported: a model as a pipeline, its base, and how it is to be written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torch import nn

from genpercept.imaging.kinds import KINDS, Kind
from genpercept.pipeline import base_model
from genpercept.pipeline.pipeline import GenPerceptPipeline


@dataclass(frozen=True)
class Source:
    """What is exported. base: the folder of its base model; None where none is known. file: the name of a graph's file.

    dtype: of a graph's weights; images: what it is checked on, none for drawn ones.
    """

    pipe: GenPerceptPipeline
    base: Path | None
    allow_pickle: bool = False
    file: str = ""
    dtype: str = "fp32"
    images: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        """Of its predictions."""
        return KINDS.find(self.pipe.task_plugin.kind)

    @property
    def vae(self) -> nn.Module:
        """The codec of a model that has one, which the target sees to."""
        return cast(nn.Module, self.pipe.vae)

    def need_base(self, why: str) -> Path:
        if self.base is None:
            raise ValueError(f"{self.pipe.info.get('model')}: {why}: pass --base, or set {base_model.VARIABLE}")
        return self.base

    def refuse(self, why: str) -> ValueError:
        return ValueError(f"{self.pipe.info.get('model')}: cannot be written for diffusers: {why}")
