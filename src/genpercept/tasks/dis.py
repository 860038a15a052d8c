"""Dichotomous image segmentation: the object of an image as a sharp mask (Qin et al. 2022; DIS5K)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from genpercept.core.options import check_flag
from genpercept.core.values import Geometry, Sample
from genpercept.tasks._task import ScalarTask, min_max


@dataclass(frozen=True)
class DIS(ScalarTask):
    """minmax: stretch each image's probabilities to [0, 1], as the paper does before its threshold of 0.5 (FACTS 4)."""

    minmax: bool = True

    name = "dis"
    kind = "mask"
    labels = ("mask",)
    head = "vae"
    losses: ClassVar[Mapping[str, Mapping[str, float]]] = {"image": {"mse": 1.0}, "affine": {"mse": 1.0}}
    metric = "dis"

    def __post_init__(self) -> None:
        check_flag("minmax", self.minmax)

    def label(self, sample: Sample) -> Tensor:
        return sample.label("mask").float()

    def finish(self, values_B1HW: Tensor, geometry: Geometry) -> Tensor:
        return min_max(values_B1HW, geometry) if self.minmax else values_B1HW


PLUGIN = DIS()
