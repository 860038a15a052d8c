"""Anomaly detection, one model per category: the map of what does not belong on a product (MVTec AD).

The network answers an image with its defect map. It learns that from good images alone: `prepare` puts synthetic defects on
them. The other design, to answer with the defect-free image and to score by the difference, finds mostly what the codec
cannot restore (pixel AUROC 0.818 against the map's 0.898 on such defects: benchmarks/quality/anomaly_designs.md,
docs/development/decisions.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from genpercept.core.options import check_fraction
from genpercept.core.values import Sample
from genpercept.tasks._defects import spoil
from genpercept.tasks._task import ScalarTask


@dataclass(frozen=True)
class Anomaly(ScalarTask):
    """synthetic: share of the good training images that get a synthetic defect."""

    synthetic: float = 0.7

    name = "anomaly"
    kind = "anomaly"
    labels = ("defect",)
    head = "vae"
    losses: ClassVar[Mapping[str, Mapping[str, float]]] = {
        "image": {"mse": 1.0, "l1": 0.5},
        "affine": {"mse": 1.0, "l1": 0.5},
    }
    metric = "anomaly"

    def __post_init__(self) -> None:
        check_fraction("synthetic", self.synthetic)

    def label(self, sample: Sample) -> Tensor:
        return sample.label("defect").float()

    def prepare(self, sample: Sample, rng: np.random.Generator | None) -> Sample:
        """A good image, most often with a synthetic defect; an image that has real ones, and any in validation, as it is."""
        defect = sample.label("defect")
        if rng is None or bool(defect.any()) or rng.random() >= self.synthetic:
            return sample
        image, where = spoil(sample.image.permute(1, 2, 0).numpy(), rng)
        return replace(
            sample, image=torch.from_numpy(image).permute(2, 0, 1).contiguous(), defect=torch.from_numpy(where)
        )


PLUGIN = Anomaly()
