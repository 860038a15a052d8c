"""Surface normals in the camera frame: x right, y up, z towards the viewer, painted as (n + 1) / 2 as the field does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genpercept.core import arrays
from genpercept.core.options import check_flag
from genpercept.core.values import Geometry, Sample, Target
from genpercept.imaging.prediction import Prediction
from genpercept.tasks._task import TaskOptions

if TYPE_CHECKING:
    from genpercept.core.arrays import Map

_EPS = 1e-6
_MIRRORED = np.array([-1, 1, 1], np.float32)[:, None, None]
_TOWARDS_VIEWER = np.array([0, 0, 1], np.float32)[:, None, None]


@dataclass(frozen=True)
class Normals(TaskOptions):
    """clip: decoded channels to [-1, 1] before they become unit vectors; E2E-FT's code does not. soften: what is added to
    the length that vectors are divided by, so that short ones stay shorter than 1 unless they are resized (GeoWizard: 1e-5).
    """

    clip: bool = True
    soften: float = 0.0

    name = "normals"
    kind = "normals"
    takes_arrays = True
    spaces = ("image",)
    labels = ("normals",)
    head = "vae"
    losses: ClassVar[Mapping[str, Mapping[str, float]]] = {"image": {"angular": 1.0}}
    metric = "normals"

    def __post_init__(self) -> None:
        check_flag("clip", self.clip)
        if not isinstance(self.soften, int | float) or isinstance(self.soften, bool) or not 0 <= self.soften < 1:
            raise ValueError(f"soften={self.soften!r}: must be a number from 0, below 1")

    def encode(self, sample: Sample, space: str = "image") -> Target:
        """Unit vectors (3, H, W) -> map (1, 3, H, W) in [-1, 1]; zero vectors and invalid pixels are 0 and not valid."""
        normals, valid = sample.label("normals").float(), _known(sample)
        unit = torch.where(valid, F.normalize(torch.nan_to_num(normals), dim=0, eps=_EPS), 0.0)
        return Target(unit[None], valid[None, None])

    def decode(self, raw: Map, geometry: Geometry) -> Prediction:
        """Clipped to [-1, 1] (see `clip`), resized, then made unit length; a zero vector faces the viewer."""
        n = arrays.on_cpu(arrays.floats(raw))  # the only copy from a GPU: the host does the rest, strip by strip
        raw_CHW = arrays.to_numpy(n[0])
        n = n.clip(-1, 1) if self.clip else n if self.soften else arrays.normalised(n)
        if self.soften:
            n = n / (arrays.length(n[0]) + self.soften)
        exact = self.soften and geometry.keeps_values
        values = np.empty((*geometry.original, 3), np.float32)
        for rows, strip in geometry.strips(n[0]):
            values[rows] = np.moveaxis(arrays.to_numpy(strip if exact else _unit(strip)), 0, -1)
        return Prediction(values, kind=self.kind, raw=raw_CHW)

    def flip(self, map_BCHW: Map) -> Map:
        """Mirrored, with the x component negated."""
        return super().flip(map_BCHW) * arrays.like(map_BCHW, _MIRRORED)

    def truth(self, sample: Sample) -> dict[str, Any]:
        return {"gt": sample.label("normals").permute(1, 2, 0).numpy(), "valid": _known(sample).numpy()}


def _unit(n_CHW: Map) -> Map:
    length = arrays.length(n_CHW)
    unit = n_CHW / length.clip(_EPS, None)
    if float(length.min()) <= _EPS:
        return arrays.space(n_CHW).where(length > _EPS, unit, arrays.like(n_CHW, _TOWARDS_VIEWER))
    return unit


def _known(sample: Sample) -> Tensor:
    normals = sample.label("normals").float()
    return sample.valid_or_all() & torch.isfinite(normals).all(dim=0) & (normals.norm(dim=0) > 0.5)


PLUGIN = Normals()
