"""Matting: the opacity of the foreground (P3M-10k, Composition-1k)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from genpercept.core import arrays
from genpercept.core.options import check_flag, check_fraction
from genpercept.core.values import Geometry, Sample
from genpercept.tasks._task import ScalarTask, min_max

if TYPE_CHECKING:
    from genpercept.core.arrays import Map

_LEAST_RANGE = 0.1  # below this an image has no foreground, or nothing else: stretching would make one out of noise


@dataclass(frozen=True)
class Matting(ScalarTask):
    """postprocess: min-max per image, then alpha above `opaque` is 1 and below `clear` 0 (FACTS 4, [v1])."""

    postprocess: bool = True
    opaque: float = 0.95
    clear: float = 0.1

    name = "matting"
    kind = "alpha"
    takes_arrays = True
    labels = ("alpha",)
    head = "vae"
    losses: ClassVar[Mapping[str, Mapping[str, float]]] = {"image": {"mse": 1.0}, "affine": {"mse": 1.0}}
    metric = "matting"

    def __post_init__(self) -> None:
        check_flag("postprocess", self.postprocess)
        check_fraction("opaque", self.opaque)
        check_fraction("clear", self.clear)
        if self.clear >= self.opaque:
            raise ValueError(f"clear={self.clear} and opaque={self.opaque}: clear must be the smaller one")

    def label(self, sample: Sample) -> Tensor:
        return sample.label("alpha").float().clamp(0, 1)

    def finish(self, values_B1HW: Map, geometry: Geometry) -> Map:
        return min_max(values_B1HW, geometry, _LEAST_RANGE) if self.postprocess else values_B1HW

    def settle(self, values_HW: Map) -> Map:
        if not self.postprocess:
            return values_HW
        where = arrays.space(values_HW).where
        return where(values_HW > self.opaque, 1.0, where(values_HW < self.clear, 0.0, values_HW))

    @property
    def post_processing(self) -> str:
        return f"min-max, then 1 above {self.opaque:g} and 0 below {self.clear:g}" if self.postprocess else "none"

    def truth(self, sample: Sample) -> dict[str, Any]:
        """The alpha, and the trimap where the data set has one."""
        trimap = {} if sample.trimap is None else {"trimap": sample.trimap.numpy()}
        return super().truth(sample) | trimap


PLUGIN = Matting()
