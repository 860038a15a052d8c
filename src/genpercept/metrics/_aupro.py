"""Areas under the curves of anomaly detection, over sorted scores: exact, all thresholds, no bins."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from genpercept.metrics._arrays import BoolArray, FloatArray

_EIGHT = np.ones((3, 3), dtype=bool)  # neighbours at edges and at corners


def auroc(normal: FloatArray, anomalous: FloatArray) -> float:
    """Share of (normal, anomalous) pairs that are in order, ties half: the area under the ROC curve.

    Both ascending. NaN where one of them is empty. Equal to scikit-learn's roc_auc_score.
    """
    if normal.size == 0 or anomalous.size == 0:
        return float("nan")
    below = np.searchsorted(normal, anomalous, side="left").sum(dtype=np.int64)
    not_above = np.searchsorted(normal, anomalous, side="right").sum(dtype=np.int64)
    return (int(below) + int(not_above)) / 2 / (normal.size * anomalous.size)


def aupro(normal: FloatArray, anomalous: FloatArray, weights: FloatArray, limit: float) -> float:
    """Area under the per-region overlap over the false positive rate, up to `limit`, divided by it.

    normal, anomalous: ascending scores. weights: of each anomalous pixel 1 / size of its region. The rule of the
    official MVTec code with every threshold: the k-th highest normal score is a threshold with a false positive
    rate of k / N, and overlaps count scores strictly above it; straight lines between. Equal normal scores thus count
    against the detector, and a constant map gets 0. NaN without a region or without a normal pixel.
    """
    if normal.size == 0 or anomalous.size == 0:
        return float("nan")
    n = normal.size
    last = min(math.floor(limit * n) + 1, n - 1)  # the first point beyond the limit closes the last piece
    thresholds = normal[::-1][: last + 1]
    above = np.concatenate([np.cumsum(weights[::-1])[::-1], [0.0]])  # weight from a position to the end
    overlap = above[np.searchsorted(anomalous, thresholds, side="right")] / above[0]
    rate = np.arange(last + 1) / n
    if last == n - 1:
        overlap, rate = np.append(overlap, 1.0), np.append(rate, 1.0)
    end = float(np.interp(limit, rate, overlap))
    inside = rate < limit
    x, y = np.append(rate[inside], limit), np.append(overlap[inside], end)
    return float((np.diff(x) * (y[1:] + y[:-1])).sum() / 2 / limit)


def region_weights(mask: BoolArray) -> NDArray[np.float64]:
    """(H, W): 1 / size of the 8-connected region that a pixel belongs to; 0 outside."""
    labels = np.empty(mask.shape, np.int32)
    ndimage.label(mask, _EIGHT, output=labels)
    sizes = np.bincount(labels.ravel(), minlength=1)
    inverse = 1.0 / np.maximum(sizes, 1)
    inverse[0] = 0
    return inverse[labels]
