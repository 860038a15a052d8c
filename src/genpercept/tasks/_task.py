"""What tasks share: options, and the tasks whose label is one value per pixel in [0, 1]."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from genpercept.core import arrays
from genpercept.core.options import Options
from genpercept.core.values import Geometry, Sample, Target
from genpercept.imaging.prediction import Prediction

if TYPE_CHECKING:
    from genpercept.core.arrays import Map

CHANNELS = {"image": 3, "affine": 1}


class TaskOptions(Options):
    """Base of tasks on maps: options as dataclass fields, channels by space, a plain mirror."""

    noun = "task"
    takes_arrays: ClassVar[bool] = False  # see ArrayTask

    def outputs(self, space: str) -> int:
        return CHANNELS[space]

    def flip(self, map_BCHW: Map) -> Map:
        return arrays.space(map_BCHW).flip(map_BCHW, (-1,))

    def metric_options(self) -> dict[str, Any]:
        return {}

    @property
    def post_processing(self) -> str:
        """What `decode` does to values beside scaling them to their range, in words for tables; "": nothing."""
        return ""


def painted(map_HW: Tensor, valid_HW: Tensor, space: str) -> Target:
    """One value per pixel in [-1, 1] as a target: three equal channels in space "image", one in "affine"."""
    return Target(
        map_HW.float()[None, None].expand(1, CHANNELS[space], -1, -1).contiguous(), valid_HW[None, None], space
    )


def unpainted(raw_BCHW: Map, clip: str = "mean") -> Map:
    """Mean of the channels in [-1, 1] as (B, 1, H, W) in [0, 1]. clip: the mean, or each of the channels before it."""
    raw = arrays.floats(raw_BCHW)
    if clip == "channels":
        raw = raw.clip(-1, 1)
    return (arrays.space(raw).mean(raw, 1)[:, None].clip(-1, 1) + 1) / 2


def on_host(values: Map, raw_1CHW: Map) -> tuple[np.ndarray, np.ndarray]:
    """An answer's values, float32 or int32, and its raw map (C, H, W) float32 as arrays.

    From a GPU they come in one copy, so that the host waits for an answer once.
    """
    parts: list[Any] = [values, arrays.floats(raw_1CHW[0])]
    if any(isinstance(part, Tensor) and part.device.type != "cpu" for part in parts):
        parts = unpacked(packed(parts).cpu(), parts)
    array, raw_CHW = (arrays.to_numpy(part) for part in parts)
    return array, raw_CHW


def packed(parts: Sequence[Tensor]) -> Tensor:
    """The bits of tensors of four-byte numbers on one device, end to end, as int32."""
    return torch.cat([part.contiguous().flatten().view(torch.int32) for part in parts])


def unpacked(bits: Tensor, parts: Sequence[Tensor]) -> list[Tensor]:
    """What `packed` made of tensors in the shapes and dtypes of `parts`, as views of `bits`."""
    rows = bits.split([part.numel() for part in parts])
    return [row.view(part.dtype).view(part.shape) for row, part in zip(rows, parts, strict=True)]


def min_max(map_B1HW: Map, geometry: Geometry, least: float = 0.0) -> Map:
    """Stretched to [0, 1] per image, its padding left out.

    A map whose range is not above `least` stays as it is; without `least`, a flat map becomes zeros.
    """
    h, w = geometry.resized
    xp = arrays.space(map_B1HW)
    inside = map_B1HW[..., :h, :w].reshape(len(map_B1HW), -1)
    low, high = (bound(inside, 1).reshape(-1, 1, 1, 1) for bound in (xp.amin, xp.amax))
    spread = high - low
    # padding may lie outside
    stretched = ((map_B1HW - low) / xp.where(spread > 0, spread, 1.0)).clip(0, 1)
    return xp.where(spread > least, stretched, map_B1HW) if least else stretched


class ScalarTask(TaskOptions, ABC):
    """Tasks whose label is in [0, 1] per pixel: masks, alpha, defects. Subclasses give `label` and may refine `finish`."""

    kind: str
    spaces = ("image", "affine")

    @abstractmethod
    def label(self, sample: Sample) -> Tensor:
        """(H, W) in [0, 1]. ValueError that names the sample without one."""

    def finish(self, values_B1HW: Map, geometry: Geometry) -> Map:
        """Values in [0, 1] at the network's size, before they are resized to the image."""
        return values_B1HW

    def settle(self, values_HW: Map) -> Map:
        """Values in [0, 1] at the image's size. What thresholds do belongs here: resized, their steps would be ramps."""
        return values_HW

    def encode(self, sample: Sample, space: str = "image") -> Target:
        """(H, W) in [0, 1] -> [-1, 1], every pixel valid."""
        label = self.label(sample).float()
        return painted(label * 2 - 1, torch.ones_like(label, dtype=torch.bool), space)

    def decode(self, raw: Map, geometry: Geometry) -> Prediction:
        """Mean of the channels, clipped to [-1, 1], to [0, 1], at the image's size."""
        values = self.settle(geometry.invert(self.finish(unpainted(raw), geometry))[0, 0].clip(0, 1))
        meta = {"post_processing": self.post_processing} if self.post_processing else {}
        array, raw_CHW = on_host(values, raw)
        return Prediction(array, self.kind, raw=raw_CHW, meta=meta)

    def truth(self, sample: Sample) -> dict[str, Any]:
        return {"gt": self.label(sample).numpy()}
