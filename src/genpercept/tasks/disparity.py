"""Affine-invariant disparity, the inverse of depth. Labels: 1 / depth of the valid pixels, min-max to [-1, 1].

Invalid pixels are -1 in the public code (aim-uofa/GenPercept src/util/depth_transform.py; Marigold has no disparity):
far, whatever is stored there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genpercept.tasks._affine import AffineTask


def normalise(depth_HW: Tensor, valid_HW: Tensor, invalid: str = "published") -> Tensor:
    """Metres -> [-1, 1], far to near, by the smallest and largest disparity of the valid pixels. float32.

    invalid: of the other pixels: "near" is 1, "far" and "published" are -1. Min-max and not quantiles, as the release has
    it (FACTS 3). A flat map becomes zeros where valid.
    """
    fill = 1.0 if invalid == "near" else -1.0
    disparity = torch.where(valid_HW, 1 / depth_HW.double(), 0.0)
    if not bool(valid_HW.any()):
        return torch.full_like(depth_HW, fill, dtype=torch.float32)
    low, high = torch.aminmax(disparity[valid_HW])
    scaled = (disparity - low) / (high - low) * 2 - 1 if high > low else torch.zeros_like(disparity)
    return torch.where(valid_HW, scaled.float(), fill)


@dataclass(frozen=True)
class Disparity(AffineTask):
    name = "disparity"
    kind = "disparity_affine"
    metric = "disparity"

    def normalise(self, depth_HW: Tensor, valid_HW: Tensor) -> Tensor:
        return normalise(depth_HW, valid_HW, self.invalid)


PLUGIN = Disparity()
