"""A sample as pictures: the image, and what its metric shows of the prediction, the truth and the error."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from genpercept.core.values import Sample
from genpercept.imaging.prediction import Prediction
from genpercept.metrics import METRICS
from genpercept.tasks import Task

Panels = list[tuple[Image.Image, str]]

_MOST = 640  # pixels: what a page shows


def panels(task: Task, sample: Sample, prediction: Prediction, metric: Any) -> Panels:
    """(picture, words) of the image, the prediction, the truth and the error; `metric`: a fresh one, which may align."""
    image = np.rint(sample.image.permute(1, 2, 0).numpy() * 255).clip(0, 255).astype(np.uint8)
    height, width = image.shape[:2]
    first = (Image.fromarray(image), f"image, {width} x {height}")
    rest = METRICS.find(task.metric).panels(prediction, task.truth(sample), image, metric, sample.name)
    return [(_small(picture), words) for picture, words in [first, *rest]]


def _small(picture: Image.Image) -> Image.Image:
    picture = picture.convert("RGB")
    if max(picture.size) > _MOST:
        picture.thumbnail((_MOST, _MOST), Image.Resampling.LANCZOS)
    return picture
