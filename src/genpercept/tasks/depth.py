"""Affine-invariant depth along the optical axis. Labels: 2 % and 98 % quantiles of the valid depth to [-1, 1]."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genpercept.tasks._affine import AffineTask

QUANTILES = (0.02, 0.98)
_MAX_QUANTILE_PIXELS = 2**24  # torch.quantile takes no more


def normalise(depth_HW: Tensor, valid_HW: Tensor) -> Tensor:
    """Metres -> [-1, 1], near to far, by the quantiles of the valid pixels; clipped; -1 where invalid. float32.

    A flat map (both quantiles equal) and one without a valid pixel become all zeros where valid.
    """
    values = depth_HW[valid_HW].float()
    if values.numel() == 0:
        return torch.full_like(depth_HW, -1.0, dtype=torch.float32)
    stride = -(-values.numel() // _MAX_QUANTILE_PIXELS)
    low, high = torch.quantile(values[::stride], torch.tensor(QUANTILES, device=values.device))
    spread = high - low
    scaled = (
        (depth_HW.float() - low) / spread * 2 - 1 if spread > 0 else torch.zeros_like(depth_HW, dtype=torch.float32)
    )
    return torch.where(valid_HW, scaled.clamp(-1, 1), -1.0)


@dataclass(frozen=True)
class Depth(AffineTask):
    name = "depth"
    kind = "depth_affine"
    metric = "depth"

    def normalise(self, depth_HW: Tensor, valid_HW: Tensor) -> Tensor:
        return normalise(depth_HW, valid_HW)


PLUGIN = Depth()
