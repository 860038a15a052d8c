"""Masks and alpha mattes as maps in [0, 1], whatever they were stored as."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from genpercept.imaging.prediction import Prediction
from genpercept.metrics import _baselines, _files, _panels
from genpercept.metrics._arrays import BoolArray, FloatArray, as_map, as_mask, label, same_shape, to_numpy
from genpercept.metrics._metric import M, MetricPlugin

_SLACK = 1e-6  # rounding of a resize that should have stayed inside [0, 1]
_SINGLE = 1e-7  # float32 rounds numbers up to 1 by less

POST = ("none", "min_max", "threshold")  # what a metric may do to predictions, see its own words


def unit_map(value: Any, what: str, name: str) -> FloatArray:
    """(H, W) float64 in [0, 1] out of bool, whole numbers 0..255, or floats in [0, 1].

    What single precision made of k / 255 is k / 255 again, so that figures do not hang on how a file was read.
    ValueError for an empty map, NaN or infinite values, values outside the range, and for a ground truth in whole
    numbers that stop at 1: read as 0..255 it would be all background, without a word.
    """
    array = to_numpy(value)
    values = as_map(array, what, name)
    if values.size == 0:
        raise ValueError(f"{label(name)}{what} is empty: shape {values.shape}")
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        raise ValueError(f"{label(name)}{what} has {bad} NaN or infinite values")
    low, high = float(values.min()), float(values.max())
    if array.dtype.kind in "iu":
        if high == 1 and what == "ground truth":
            raise ValueError(f"{label(name)}{what} is 0 and 1 in whole numbers: give it as bool, or as 0 to 255")
        top, wanted = 255, "0 to 255 in whole numbers"
    else:
        top, wanted = 1, "[0, 1] (or whole numbers 0 to 255)"
    if low < -_SLACK or high > top + _SLACK:
        raise ValueError(f"{label(name)}{what} runs from {low:g} to {high:g}: expected {wanted}")
    unit = np.clip(values / top, 0, 1)
    level = np.rint(255 * unit) / 255
    return np.where(np.abs(unit - level) < _SINGLE, level, unit)


def pair(pred: Any, gt: Any, name: str) -> tuple[FloatArray, FloatArray]:
    """Prediction and ground truth by `unit_map`; ValueError when their sizes differ."""
    p, g = unit_map(pred, "prediction", name), unit_map(gt, "ground truth", name)
    same_shape(p.shape, g.shape, "prediction", name)
    return p, g


def stretched(unit: FloatArray) -> FloatArray:
    """(H, W) from its lowest to its highest value to [0, 1]; a constant map as it is."""
    low, high = unit.min(), unit.max()
    return (unit - low) / (high - low) if high > low else unit


def whole(valid: Any, shape: tuple[int, ...], name: str, why: str) -> BoolArray:
    """The mask (H, W), all True. ValueError that says `why` when it leaves pixels out."""
    mask = as_mask(valid, shape, name)
    left_out = int(np.count_nonzero(~mask))
    if left_out:
        raise ValueError(f"{label(name)}valid leaves out {left_out} pixels: {why}")
    return mask


class ForegroundPlugin(MetricPlugin[M]):
    """What the metrics of masks and of mattes declare alike: baselines' means, pictures, files. Subclasses give the rest."""

    ndim = 2

    def observe(self, task: Any, sample: Any) -> _baselines.Known:
        return _baselines.observe_maps(task, sample)

    def panels(
        self, prediction: Prediction, truth: Mapping[str, Any], image: Any, metric: M, name: str
    ) -> _panels.Panels:
        return _panels.maps(prediction, truth["gt"])

    def showable(self, truth: Mapping[str, Any]) -> bool:
        return _baselines.partly(truth["gt"])

    def read_pred(self, path: Path, scale: float | None = None) -> Any:
        return _files.read_unit(path)
