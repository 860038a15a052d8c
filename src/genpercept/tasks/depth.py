"""Affine-invariant depth along the optical axis. Labels: 2 % and 98 % quantiles of the valid depth to [-1, 1].

Invalid pixels, in the public code (prs-eth/Marigold src/util/depth_transform.py and src/dataset/base_depth_dataset.py,
aim-uofa/GenPercept the same names): the scale of the valid pixels is applied to whatever is stored, and clipped. So
Hypersim's holes, stored as 0, are near, and Virtual KITTI's sky, stored as 655.35 m, is far. Their option
`move_invalid_to_far_plane` touches filled depth alone, which neither trains on. The latent loss leaves out every cell
of 8 x 8 pixels that has an invalid one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genpercept.tasks._affine import AffineTask, quantiles_of


def normalise(depth_HW: Tensor, valid_HW: Tensor, invalid: str = "published") -> Tensor:
    """Metres -> [-1, 1], near to far, by the quantiles of the valid pixels; clipped. float32.

    invalid: of the other pixels. "near": -1; "far": 1; "published": their own depth on the same scale, clipped: what is
    missing (0, NaN) is near, the sky (infinite) and what is beyond the range far.
    A flat map (both quantiles equal) is all zeros where valid. Without a valid pixel all that is finite is near.
    """
    depth = torch.nan_to_num(depth_HW.float(), nan=0.0, posinf=torch.inf, neginf=0.0)
    fill = torch.full_like(depth, 1.0 if invalid == "far" else -1.0)
    values = depth[valid_HW]
    if values.numel() == 0:
        return torch.where(torch.isinf(depth), 1.0, fill) if invalid == "published" else fill
    low, high = quantiles_of(values)
    spread = high - low
    scaled = ((depth - low) / spread * 2 - 1).clamp(-1, 1) if spread > 0 else (depth - low).sign()
    if invalid == "published":
        fill = scaled
    return torch.where(valid_HW, scaled if spread > 0 else 0.0, fill)


@dataclass(frozen=True)
class Depth(AffineTask):
    name = "depth"
    metric = "depth"

    @property
    def kind(self) -> str:
        return "depth_affine"

    def normalise(self, depth_HW: Tensor, valid_HW: Tensor) -> Tensor:
        return normalise(depth_HW, valid_HW, self.invalid)


PLUGIN = Depth()
