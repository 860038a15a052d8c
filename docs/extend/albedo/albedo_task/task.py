"""How the label is taught, and how the network's answer is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from genpercept.core.values import Geometry, Sample, Target
from genpercept.imaging.prediction import Prediction
from genpercept.tasks import TaskOptions


@dataclass(frozen=True)
class Albedo(TaskOptions):
    """No options."""

    name = "albedo"
    kind = "albedo"
    spaces = ("image",)
    labels = ("albedo",)
    head = "vae"
    losses: ClassVar[Mapping[str, Mapping[str, float]]] = {"image": {"mse": 1.0}}
    metric = "albedo"

    def encode(self, sample: Sample, space: str = "image") -> Target:
        """Label (3, H, W) in [0, 1] -> map (1, 3, H, W) in [-1, 1]."""
        albedo, known = sample.label("albedo"), _known(sample)
        return Target(torch.where(known, albedo * 2 - 1, 0.0)[None], known[None, None])

    def decode(self, raw: Tensor, geometry: Geometry) -> Prediction:
        """Map (1, 3, h, w) -> (H, W, 3) in [0, 1], of the image's own size."""
        values = geometry.invert((raw.float().clamp(-1, 1) + 1) / 2)[0]
        return Prediction(values.permute(1, 2, 0).cpu().numpy(), self.kind, raw=raw[0].float().cpu().numpy())

    def truth(self, sample: Sample) -> dict[str, Any]:
        """What the metric compares a prediction with."""
        return {"gt": sample.label("albedo").permute(1, 2, 0).numpy(), "valid": _known(sample).numpy()}


def _known(sample: Sample) -> Tensor:
    """(H, W) bool: where there is a label."""
    return sample.valid_or_all() & sample.label("albedo").isfinite().all(0)


PLUGIN = Albedo()
