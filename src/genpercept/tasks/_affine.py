"""What the tasks have in common whose maps are right up to scale and shift: depth and disparity."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from genpercept.core import arrays
from genpercept.core.options import check_choice, check_flag
from genpercept.core.values import Geometry, Sample, Target
from genpercept.imaging.prediction import Prediction
from genpercept.tasks._task import TaskOptions, min_max, on_host, painted, unpainted

if TYPE_CHECKING:
    from genpercept.core.arrays import Map

QUANTILES = (0.02, 0.98)
_MAX_QUANTILE_PIXELS = 2**24  # torch.quantile takes no more
_LOSSES = {"mse": 1.0, "ssi": 0.5, "gradient": 2.0}
CLIPS = ("mean", "channels")
INVALID = ("published", "near", "far")


@dataclass(frozen=True)
class AffineTask(TaskOptions, ABC):
    """A task on labels of depth. Subclasses give `name`, `kind`, `metric` and `normalise`.

    invalid: what is painted where there is no valid depth, which no loss looks at, but a codec sees it beside what is
    valid: "near", "far", or "published", as Marigold's and GenPercept's code paint it (see `normalise`).

    How three decoded channels become a map differs between families of checkpoints. clip: their mean (GenPercept,
    Marigold), or each of them before it (Lotus). stretch: to [0, 1] by the image's own minimum and maximum, too (E2E-FT).
    """

    clip: str = "mean"
    stretch: bool = False
    invalid: str = "published"

    takes_arrays = True
    spaces = ("image", "affine")
    labels = ("depth",)
    head = "vae"
    losses: ClassVar[Mapping[str, Mapping[str, float]]] = {"image": _LOSSES, "affine": _LOSSES}

    def __post_init__(self) -> None:
        check_choice("clip", self.clip, CLIPS)
        check_flag("stretch", self.stretch)
        check_choice("invalid", self.invalid, INVALID)

    @property
    @abstractmethod
    def kind(self) -> str:
        """Of its predictions."""

    @abstractmethod
    def normalise(self, depth_HW: Tensor, valid_HW: Tensor) -> Tensor:
        """Depth in metres -> label in [-1, 1], by `invalid` where not valid. float32."""

    def encode(self, sample: Sample, space: str = "image") -> Target:
        """Depth (H, W) in metres -> map (1, 3 or 1, H, W) in [-1, 1], valid (1, 1, H, W)."""
        depth, valid = sample.label("depth"), _known(sample)
        return painted(self.normalise(depth, valid), valid, space)

    def decode(self, raw: Map, geometry: Geometry) -> Prediction:
        """Three channels (space "image"): their mean, clipped to [-1, 1], to [0, 1]. One ("affine"), and three with
        `stretch`: min-max to [0, 1].

        Both resized to the image. The minimum and maximum are the image's own, its padding left out.
        """
        map_11HW = arrays.floats(raw) if raw.shape[1] == 1 else unpainted(raw, self.clip)
        if self.stretch or raw.shape[1] == 1:
            map_11HW = min_max(map_11HW, geometry)
        values, raw_CHW = on_host(geometry.invert(map_11HW)[0, 0], raw)
        return Prediction(values, self.kind, raw=raw_CHW)

    def truth(self, sample: Sample) -> dict[str, Any]:
        return {"gt": sample.label("depth").numpy(), "valid": _known(sample).numpy()}


def _known(sample: Sample) -> Tensor:
    depth = sample.label("depth")
    return sample.valid_or_all() & torch.isfinite(depth) & (depth > 0)


def quantiles_of(values: Tensor) -> Tensor:
    """The quantiles of valid values (N,) between which a label lies: of so many that torch can sort them."""
    return quantiles(values[:: -(-values.numel() // _MAX_QUANTILE_PIXELS)])


def quantiles(values: Tensor) -> Tensor:
    """What torch.quantile gives at QUANTILES for float32 without NaN, the same bits; CPUs take a tenth of its time."""
    if values.device.type != "cpu":
        return torch.quantile(values, torch.tensor(QUANTILES, device=values.device))
    ranks = torch.tensor(QUANTILES) * (values.numel() - 1)
    below, above = ranks.floor().long(), ranks.ceil().long()
    ordered = torch.from_numpy(np.partition(values.numpy(), sorted({*below.tolist(), *above.tolist()})))
    return torch.lerp(ordered[below], ordered[above], ranks - below)
