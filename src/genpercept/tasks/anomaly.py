"""Anomaly detection, one model per category: the map of what does not belong on a product (MVTec AD).

The network answers an image with its defect map. It learns that from good images alone: `prepare` puts synthetic defects on
them. The other design, to answer with the defect-free image and to score by the difference, finds mostly what the codec
cannot restore (pixel AUROC 0.818 against the map's 0.898 on such defects: benchmarks/quality/anomaly_designs.md,
docs/development/decisions.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from genpercept.core.options import check_fraction
from genpercept.core.values import Sample
from genpercept.imaging.prediction import Prediction
from genpercept.tasks._defects import spoil
from genpercept.tasks._task import ScalarTask


@dataclass(frozen=True)
class Anomaly(ScalarTask):
    """synthetic: share of the good training images that get a synthetic defect.

    image_threshold: an image whose strangest pixel is above it is anomalous. pixel_threshold: a pixel above it is defective.
    Both are set by `fitted` on good images; None: nobody has, and predictions have scores without a verdict.
    """

    synthetic: float = 0.7
    image_threshold: float | None = None
    pixel_threshold: float | None = None

    name = "anomaly"
    kind = "anomaly"
    takes_arrays = True
    labels = ("defect",)
    head = "vae"
    losses: ClassVar[Mapping[str, Mapping[str, float]]] = {
        "image": {"mse": 1.0, "l1": 0.5},
        "affine": {"mse": 1.0, "l1": 0.5},
    }
    metric = "anomaly"
    verdict = ("image_threshold", "pixel_threshold")

    def __post_init__(self) -> None:
        check_fraction("synthetic", self.synthetic)
        for name in self.verdict:
            if getattr(self, name) is not None:
                check_fraction(name, getattr(self, name))

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

    # ---- the verdict

    def judge(self, prediction: Prediction) -> dict[str, Any]:
        """image_score: of the strangest pixel. With thresholds also them, whether it is anomalous, and its defective share."""
        score = float(prediction.values.max())
        found: dict[str, Any] = {"image_score": score}
        if self.image_threshold is not None:
            found |= {"image_threshold": self.image_threshold, "anomalous": score > self.image_threshold}
        if self.pixel_threshold is not None:
            share = float((prediction.values > self.pixel_threshold).mean())
            found |= {"pixel_threshold": self.pixel_threshold, "defect_share": share}
        return found

    def fitted(self, good: Sequence[Prediction], image_rate: float, pixel_rate: float) -> Self:
        """The task with the least thresholds that at most these shares of good images, and of their pixels, are above.

        ValueError without a good image, and for shares outside [0, 1).
        """
        if not good:
            raise ValueError("thresholds need good images that the model was not trained on, and there is none")
        scores = [self.judge(prediction)["image_score"] for prediction in good]
        pixels = np.concatenate([prediction.values.ravel() for prediction in good])
        image, pixel = _exceeded_by(np.asarray(scores), image_rate), _exceeded_by(pixels, pixel_rate)
        return self.with_options(image_threshold=image, pixel_threshold=pixel)


def _exceeded_by(scores: np.ndarray, share: float) -> float:
    """The least score that at most `share` of them are above."""
    if not 0 <= share < 1:
        raise ValueError(f"a false positive rate of {share:g}: must be at least 0 and below 1")
    index = scores.size - 1 - int(share * scores.size)
    return float(np.partition(scores, index)[index])


PLUGIN = Anomaly()
