"""Affine-invariant depth along the optical axis. Labels: 2 % and 98 % quantiles of the valid depth to [-1, 1].

Invalid pixels, in the public code (prs-eth/Marigold src/util/depth_transform.py and src/dataset/base_depth_dataset.py,
aim-uofa/GenPercept the same names): the scale of the valid pixels is applied to whatever is stored, and clipped. So
Hypersim's holes, stored as 0, are near, and Virtual KITTI's sky, stored as 655.35 m, is far. Their option
`move_invalid_to_far_plane` touches filled depth alone, which neither trains on. The latent loss leaves out every cell
of 8 x 8 pixels that has an invalid one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genpercept.core import arrays
from genpercept.core.options import check_flag
from genpercept.core.values import Geometry
from genpercept.imaging.prediction import Prediction
from genpercept.tasks._affine import AffineTask, quantiles_of
from genpercept.tasks._task import min_max, on_host

if TYPE_CHECKING:
    from genpercept.core.arrays import Map

_NEAREST = 1e-3  # metres: what a missing depth of 0 is taken for before its logarithm


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
    """log: the network's values are logarithms of depth, of any range (DepthFM): labels are the depth's logarithm, and an
    answer is exp of the channels' mean, not clipped, stretched to [0, 1]; runs are averaged as logarithms.
    """

    log: bool = False

    name = "depth"
    kind = "depth_affine"
    metric = "depth"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag("log", self.log)
        if self.log and self.clip != "mean":
            raise ValueError(f"log=true with clip={self.clip!r}: logarithms are not clipped; leave clip out")

    def normalise(self, depth_HW: Tensor, valid_HW: Tensor) -> Tensor:
        if self.log:
            depth_HW = torch.nan_to_num(depth_HW.float(), nan=0.0, posinf=torch.inf).clamp_min(_NEAREST).log()
        return normalise(depth_HW, valid_HW, self.invalid)

    def decode(self, raw: Map, geometry: Geometry) -> Prediction:
        """As every affine task; with `log`, exp of the channels' mean, min-max to [0, 1], resized to the image."""
        if not self.log:
            return super().decode(raw, geometry)
        values, raw_CHW = on_host(geometry.invert(min_max(_exp(raw), geometry))[0, 0], raw)
        return Prediction(values, self.kind, raw=raw_CHW)

    def merge_runs(self, raw_MCHW: Tensor, geometry: Geometry) -> Prediction | None:
        """With `log`: the mean of the runs' logarithms, as one run's. uncertainty: standard deviation of their depth, in
        units of the answer. Without: None.
        """
        if not self.log:
            return None
        mean, (h, w) = raw_MCHW.mean(0, keepdim=True), geometry.resized
        merged = self.decode(mean, geometry)
        low, high = torch.aminmax(_exp(mean)[..., :h, :w])
        spread = _exp(raw_MCHW).std(0, keepdim=True) / (high - low if high > low else 1)
        return replace(merged, uncertainty=geometry.invert(spread)[0, 0].clamp_min(0).cpu().numpy())


def _exp(raw_BCHW: Map) -> Map:
    """exp of the mean of the channels, (B, 1, H, W)."""
    raw = arrays.floats(raw_BCHW)
    xp = arrays.space(raw)
    return xp.exp(xp.mean(raw, 1))[:, None]


PLUGIN = Depth()
