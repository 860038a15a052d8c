"""Dichotomous image segmentation: the object of an image as a sharp mask (Qin et al. 2022; DIS5K)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from genpercept.core import arrays
from genpercept.core.options import check_flag, check_fraction
from genpercept.core.values import Geometry, Sample
from genpercept.tasks._task import ScalarTask, min_max

if TYPE_CHECKING:
    from genpercept.core.arrays import Map


@dataclass(frozen=True)
class DIS(ScalarTask):
    """minmax: stretch each image's probabilities to [0, 1]. threshold: values from it on are 1, all others 0; 0: left soft.

    The paper does both, with 0.5 (v1); protocol "genpercept" of the metric does the same to soft masks.
    """

    minmax: bool = True
    threshold: float = 0.0

    name = "dis"
    kind = "mask"
    takes_arrays = True
    labels = ("mask",)
    head = "vae"
    losses: ClassVar[Mapping[str, Mapping[str, float]]] = {"image": {"mse": 1.0}, "affine": {"mse": 1.0}}
    metric = "dis"

    def __post_init__(self) -> None:
        check_flag("minmax", self.minmax)
        check_fraction("threshold", self.threshold)

    def label(self, sample: Sample) -> Tensor:
        return sample.label("mask").float()

    def finish(self, values_B1HW: Map, geometry: Geometry) -> Map:
        return min_max(values_B1HW, geometry) if self.minmax else values_B1HW

    def settle(self, values_HW: Map) -> Map:
        return arrays.floats(values_HW >= self.threshold) if self.threshold else values_HW

    @property
    def post_processing(self) -> str:
        steps = ["min-max"] * self.minmax + [f"1 from {self.threshold:g} on and 0 below"] * bool(self.threshold)
        return ", then ".join(steps) or "none"


PLUGIN = DIS()
