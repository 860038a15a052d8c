"""Affine-invariant disparity, the inverse of depth. Labels: 1 / depth of the valid pixels, min-max to [-1, 1].

Invalid pixels are -1 in the public code (aim-uofa/GenPercept src/util/depth_transform.py; Marigold has no disparity):
far, whatever is stored there. With `root` it is the square root of disparity, as DepthMaster predicts it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genpercept.core.options import check_flag
from genpercept.tasks._affine import AffineTask, quantiles_of


def normalise(depth_HW: Tensor, valid_HW: Tensor, invalid: str = "published", *, root: bool = False) -> Tensor:
    """Metres -> [-1, 1], far to near, by the smallest and largest disparity of the valid pixels. float32.

    invalid: of the other pixels: "near" is 1, "far" and "published" are -1. Min-max and not quantiles, as the release has
    it (FACTS 3). root: of the square root of disparity, by its 2 % and 98 % quantiles, clipped, as DepthMaster's training
    has it (its src/dataset/base_depth_dataset.py). A flat map becomes zeros where valid.
    """
    fill = 1.0 if invalid == "near" else -1.0
    disparity = torch.where(valid_HW, 1 / depth_HW.double(), 0.0)
    if not bool(valid_HW.any()):
        return torch.full_like(depth_HW, fill, dtype=torch.float32)
    values = disparity.sqrt() if root else disparity
    low, high = quantiles_of(values[valid_HW].float()).double() if root else torch.aminmax(values[valid_HW])
    scaled = (values - low) / (high - low) * 2 - 1 if high > low else torch.zeros_like(values)
    return torch.where(valid_HW, scaled.float().clamp(-1, 1), fill)


@dataclass(frozen=True)
class Disparity(AffineTask):
    """root: the map is the square root of disparity, up to scale and shift: a kind of its own, since none gives the other."""

    root: bool = False

    name = "disparity"
    metric = "disparity"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag("root", self.root)

    @property
    def kind(self) -> str:
        return "root_disparity_affine" if self.root else "disparity_affine"

    def metric_options(self) -> dict[str, Any]:
        """Where predictions are aligned; nothing for the metric's own space."""
        return {"space": "root_disparity"} if self.root else {}

    def normalise(self, depth_HW: Tensor, valid_HW: Tensor) -> Tensor:
        return normalise(depth_HW, valid_HW, self.invalid, root=self.root)


PLUGIN = Disparity()
