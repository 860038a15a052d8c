"""What the tasks have in common whose maps are right up to scale and shift: depth and disparity."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from genpercept.prediction import Prediction
from genpercept.types import Geometry, Sample, Target


class AffineTask(ABC):
    """A task on labels of depth. Subclasses give `name`, `kind`, `metric` and `normalise`."""

    kind: str
    channels = 3
    spaces = ("image", "affine")
    labels = ("depth",)
    head = "vae"
    losses: Mapping[str, float] = {"mse": 1.0, "ssi": 0.5, "gradient": 2.0}

    @abstractmethod
    def normalise(self, depth_HW: Tensor, valid_HW: Tensor) -> Tensor:
        """Depth in metres -> label in [-1, 1], -1 where invalid. float32."""

    def encode(self, sample: Sample) -> Target:
        """Depth (H, W) in metres -> map (1, 3, H, W) in [-1, 1], valid (1, 1, H, W)."""
        depth = sample.label("depth")
        valid = sample.valid_or_all() & torch.isfinite(depth) & (depth > 0)
        scaled = self.normalise(depth, valid)
        return Target(scaled[None, None].expand(1, 3, -1, -1).contiguous(), valid[None, None])

    def decode(self, raw: Tensor, geometry: Geometry) -> Prediction:
        """Three channels (space "image"): their mean, clipped to [-1, 1], to [0, 1]. One ("affine"): min-max to [0, 1].

        Both resized to the image. The minimum and maximum are the image's own, its padding left out.
        """
        values = geometry.invert(_min_max(raw.float(), geometry) if raw.shape[1] == 1 else _unpaint(raw.float()))[0, 0]
        return Prediction(values=values.cpu().numpy(), kind=self.kind, raw=raw[0].float().cpu().numpy())

    def flip(self, map_BCHW: Tensor) -> Tensor:
        return map_BCHW.flip(-1)


def _unpaint(raw_BCHW: Tensor) -> Tensor:
    return (raw_BCHW.mean(dim=1, keepdim=True).clamp(-1, 1) + 1) / 2


def _min_max(raw_B1HW: Tensor, geometry: Geometry) -> Tensor:
    """Per image; a flat map becomes zeros."""
    h, w = geometry.resized
    low, high = torch.aminmax(raw_B1HW[..., :h, :w].flatten(1), dim=1)
    low, spread = low.view(-1, 1, 1, 1), (high - low).view(-1, 1, 1, 1)
    # padding may lie outside
    return ((raw_B1HW - low) / torch.where(spread > 0, spread, 1.0)).clamp(0, 1)
