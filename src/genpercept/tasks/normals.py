"""Surface normals in the camera frame: x right, y up, z towards the viewer, painted as (n + 1) / 2 as the field does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genpercept.core.options import check_flag
from genpercept.core.values import Geometry, Sample, Target
from genpercept.imaging.prediction import Prediction
from genpercept.tasks._task import TaskOptions

_EPS = 1e-6


@dataclass(frozen=True)
class Normals(TaskOptions):
    """clip: decoded channels to [-1, 1] before they become unit vectors; E2E-FT's code does not."""

    clip: bool = True

    name = "normals"
    kind = "normals"
    spaces = ("image",)
    labels = ("normals",)
    head = "vae"
    losses: ClassVar[Mapping[str, Mapping[str, float]]] = {"image": {"angular": 1.0}}
    metric = "normals"

    def __post_init__(self) -> None:
        check_flag("clip", self.clip)

    def encode(self, sample: Sample, space: str = "image") -> Target:
        """Unit vectors (3, H, W) -> map (1, 3, H, W) in [-1, 1]; zero vectors and invalid pixels are 0 and not valid."""
        normals, valid = sample.label("normals").float(), _known(sample)
        unit = torch.where(valid, F.normalize(torch.nan_to_num(normals), dim=0, eps=_EPS), 0.0)
        return Target(unit[None], valid[None, None])

    def decode(self, raw: Tensor, geometry: Geometry) -> Prediction:
        """Clipped to [-1, 1] (see `clip`), resized, then made unit length; a zero vector faces the viewer."""
        raw = raw.float().cpu()  # the only copy from a GPU: what is made of it is made on the host, strip by strip
        n = raw.clamp(-1, 1) if self.clip else F.normalize(raw, dim=1)
        values = np.empty((*geometry.original, 3), np.float32)
        for rows, strip in geometry.strips(n[0]):
            values[rows] = _unit(strip).permute(1, 2, 0).numpy()
        return Prediction(values, kind=self.kind, raw=raw[0].numpy())

    def flip(self, map_BCHW: Tensor) -> Tensor:
        """Mirrored, with the x component negated."""
        return map_BCHW.flip(-1) * torch.tensor([-1.0, 1.0, 1.0], device=map_BCHW.device).view(1, 3, 1, 1)

    def truth(self, sample: Sample) -> dict[str, Any]:
        return {"gt": sample.label("normals").permute(1, 2, 0).numpy(), "valid": _known(sample).numpy()}


def _unit(n_CHW: Tensor) -> Tensor:
    x, y, z = n_CHW
    length = (x * x).addcmul_(y, y).addcmul_(z, z).sqrt_()
    unit = n_CHW / length.clamp_min(_EPS)
    if float(length.min()) <= _EPS:
        towards_viewer = torch.tensor([0.0, 0.0, 1.0])[:, None, None]
        return torch.where(length > _EPS, unit, towards_viewer)
    return unit


def _known(sample: Sample) -> Tensor:
    normals = sample.label("normals").float()
    return sample.valid_or_all() & torch.isfinite(normals).all(dim=0) & (normals.norm(dim=0) > 0.5)


PLUGIN = Normals()
