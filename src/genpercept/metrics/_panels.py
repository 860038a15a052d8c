"""Pictures of a sample: what the model said, what is true, and where the two differ."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from genpercept.imaging.colour import colourise
from genpercept.imaging.prediction import Prediction

Panels = list[tuple[Image.Image, str]]  # each with the words under it


@dataclass(frozen=True)
class Scale:
    """What the colours of a prediction and its truth mean: those of the `kind`, whose 0 is `low` and whose 1 is `high`."""

    kind: str
    low: float
    high: float
    unit: str


def error(values: np.ndarray, most: float, valid: np.ndarray | None = None) -> Image.Image:
    """(H, W), dark (none) to bright (`most` and more); grey where there is no truth."""
    share = np.clip(np.nan_to_num(values), 0, most) / max(most, 1e-6)
    return colourise(share.astype(np.float32), "anomaly", valid)


def maps(prediction: Prediction, gt: Any) -> Panels:
    """Of maps in [0, 1]: the error is their difference."""
    truth = np.asarray(gt, np.float32)
    return [
        (prediction.colourise(), "prediction"),
        (colourise(truth, "mask"), "truth"),
        (error(np.abs(prediction.values - truth), 1), "absolute error"),
    ]


def by_kind(prediction: Prediction, gt: Any, valid: Any, image: np.ndarray) -> Panels:
    """What any kind of prediction allows: the truth in the same colours, and of maps the absolute difference.

    The prediction alone where the truth is not of its kind: of another shape or range.
    """
    panels: Panels = [(prediction.colourise(image), "prediction")]
    truth = _like(prediction, gt, valid)
    if truth is None:
        return panels
    panels.append((truth.colourise(image), "truth, the same colours"))
    if truth.values.shape[:2] != image.shape[:2]:  # points and the like
        return panels
    if np.issubdtype(truth.values.dtype, np.floating):
        difference = np.abs(prediction.values - truth.values)
        difference = difference if difference.ndim == 2 else difference.mean(-1)
        most = float(np.percentile(difference[truth.valid], 98)) if np.any(truth.valid) else 1.0
        return [*panels, (error(difference, most, truth.valid), f"absolute error, bright: {most:.2g} and more")]
    return [*panels, (error((prediction.values != truth.values) * 1.0, 1, truth.valid), "bright: wrong")]


def _like(prediction: Prediction, gt: Any, valid: Any) -> Prediction | None:
    """The truth as a prediction of the same kind, with the same names and colours; None where it is not one."""
    array = np.asarray(gt)
    if array.shape != prediction.values.shape or array.ndim < 2:
        return None
    keep = np.isfinite(array) if array.ndim == 2 else np.isfinite(array).all(tuple(range(2, array.ndim)))
    keep = keep if valid is None else keep & np.asarray(valid, bool)
    try:
        return replace(prediction, values=np.nan_to_num(array), valid=keep, raw=None, uncertainty=None)
    except ValueError:
        return None
