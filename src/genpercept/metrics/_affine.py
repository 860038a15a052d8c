"""Alignment of an affine-invariant prediction to the ground truth: target = scale * prediction + shift."""

from __future__ import annotations

import numpy as np

from genpercept.metrics._arrays import FloatArray, label

ALIGNMENTS = ("least_squares", "ransac", "median", "none")

_FLAT = 1e-18  # mean squared deviation, relative to the mean's square, of a prediction that counts as constant
_RANSAC_TRIALS = 500
_RANSAC_INLIER = 0.1  # of the true value
_RANSAC_POOL = 5000  # pixels that vote: a trial costs O(pool), and 5000 estimate a share of inliers to 1 %


def fit(align: str, pred: FloatArray, target: FloatArray, name: str = "") -> tuple[float, float]:
    """(scale, shift) taking `pred` (N,) to `target` (N,), over the valid pixels; (NaN, NaN) when N = 0.

    "least_squares": minimum-norm, so that a constant prediction has a defined answer too. "ransac": least squares over
    the largest consensus of pixels within 10 % of the truth, same draw every time. "median": ratio of the medians,
    no shift. "none": (1, 0).
    """
    if align == "none":
        return 1.0, 0.0
    if pred.size == 0:
        return float("nan"), float("nan")
    if align == "least_squares":
        return least_squares(pred, target)
    if align == "ransac":
        return ransac(pred, target)
    if align == "median":
        return median_ratio(pred, target, name), 0.0
    raise ValueError(f"unknown alignment {align!r}: choose one of {', '.join(ALIGNMENTS)}")


def least_squares(pred: FloatArray, target: FloatArray) -> tuple[float, float]:
    """(scale, shift) of smallest squared error; where several are (a constant prediction), the shortest of them."""
    mean_p, mean_t = pred.mean(), target.mean()
    centred = pred - mean_p
    spread = float(np.sum(centred * centred))  # not @, whose last bits depend on the number of threads
    if spread <= _FLAT * pred.size * (1 + mean_p**2):  # where the closed form would divide rounding errors
        design = np.stack([pred, np.ones_like(pred)], axis=-1)
        (scale, shift), *_ = np.linalg.lstsq(design, target, rcond=None)
        return float(scale), float(shift)
    scale = float(np.sum(centred * target)) / spread
    return scale, float(mean_t - scale * mean_p)


def ransac(pred: FloatArray, target: FloatArray) -> tuple[float, float]:
    """Robust scale and shift: lines through random pairs of pixels vote, least squares over the winner's inliers."""
    rng = np.random.default_rng(0)
    pool = rng.choice(pred.size, _RANSAC_POOL, replace=False) if pred.size > _RANSAC_POOL else np.arange(pred.size)
    x, y = pred[pool], target[pool]
    best, best_votes = None, 1
    for i, j in rng.integers(0, x.size, (_RANSAC_TRIALS, 2)):
        if x[i] == x[j]:
            continue
        scale = (y[j] - y[i]) / (x[j] - x[i])
        shift = y[i] - scale * x[i]
        votes = int(np.count_nonzero(np.abs(scale * x + shift - y) < _RANSAC_INLIER * np.abs(y)))
        if votes > best_votes:
            best, best_votes = (scale, shift), votes
    if best is None:  # a constant prediction has no line through two of its points
        return least_squares(pred, target)
    inliers = np.abs(best[0] * pred + best[1] - target) < _RANSAC_INLIER * np.abs(target)
    return least_squares(pred[inliers], target[inliers])


def median_ratio(pred: FloatArray, target: FloatArray, name: str = "") -> float:
    """Scale alone, for predictions up to scale. ValueError when the prediction's median is not positive."""
    median = float(np.median(pred))
    if median <= 0:
        raise ValueError(f"{label(name)}median alignment needs a positive median of the prediction, got {median:g}")
    return float(np.median(target)) / median


def width_subsample(shape: tuple[int, int], max_res: int | None) -> np.ndarray | slice:
    """Columns that take part in the fit when the longest edge exceeds `max_res`.

    The public evaluation shrinks a (1, H, W) tensor with torch.nn.Upsample(mode="nearest"), which leaves the height
    alone: only columns are dropped. This gives the same columns.
    """
    if max_res is None or max_res >= max(shape):
        return slice(None)
    factor = max_res / max(shape)
    step = np.float32(1.0 / factor)
    columns = np.floor(np.arange(int(shape[1] * factor), dtype=np.float32) * step).astype(np.int64)
    return np.minimum(columns, shape[1] - 1)
