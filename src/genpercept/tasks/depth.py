"""Affine-invariant depth along the optical axis. Labels: 2 % and 98 % quantiles of the valid depth to [-1, 1]."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from genpercept.prediction import Prediction
from genpercept.types import Geometry, Sample, Target

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


class Depth:
    name = "depth"
    kind = "depth_affine"
    channels = 3
    labels = ("depth",)
    head = "vae"
    losses: Mapping[str, float] = {"mse": 1.0, "ssi": 0.5, "gradient": 2.0}
    metric = "depth"

    def encode(self, sample: Sample) -> Target:
        """Depth (H, W) in metres -> map (1, 3, H, W) in [-1, 1], valid (1, 1, H, W)."""
        depth = sample.label("depth")
        valid = sample.valid_or_all() & torch.isfinite(depth) & (depth > 0)
        scaled = normalise(depth, valid)
        return Target(scaled[None, None].expand(1, 3, -1, -1).contiguous(), valid[None, None])

    def decode(self, raw: Tensor, geometry: Geometry) -> Prediction:
        """Mean of the three channels, clipped to [-1, 1], to [0, 1] with 0 near, resized to the image."""
        unit = (raw.float().mean(dim=1, keepdim=True).clamp(-1, 1) + 1) / 2
        values = geometry.invert(unit)[0, 0]
        return Prediction(values=values.cpu().numpy(), kind=self.kind, raw=raw[0].float().cpu().numpy())

    def flip(self, map_BCHW: Tensor) -> Tensor:
        return map_BCHW.flip(-1)


PLUGIN = Depth()
