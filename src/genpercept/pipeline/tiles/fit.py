"""A tile's answer brought to the whole picture's: by least squares, as far as the kind of answer leaves it open.

A network that sees a part of a scene does not know how far away it is: depth comes at a scale and a shift of its own. Both
answers are averaged to the pixels of the whole's own pass before they are compared, so that the tile's sharper edges do not
count as errors. Which kinds are fitted, and how, was measured (benchmarks/quality/tiles.md): a rotation of normals, which a
network might owe to a part that is not in the middle, brought nothing, so that they are taken as they are.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from genpercept.imaging.kinds import Kind, MergeRule

_ROUNDS = 4  # of reweighting
_TUNE = 1.345  # deviations from which an error counts by its size, not its square (Huber)
_MOST_SCALE = 4.0
_EPS = 1e-6
Fit = Callable[
    [np.ndarray, np.ndarray, int], np.ndarray
]  # (tile (C, h, w), whole (C, h, w), pixels to average) -> tile


def of(kind: Kind) -> Fit:
    """What brings tiles of this kind to the whole. Scores of classes, and the colours that stand for them, as one quantity."""
    return together if kind.gray or kind.merge is None else _FITS[kind.merge]


def together(tile_CHW: np.ndarray, whole_CHW: np.ndarray, pixels: int) -> np.ndarray:
    """One scale and one shift for all channels, which are one quantity painted several times.

    Robust (Huber's weights). A tile that has nothing to do with the whole gets a scale of 0, so that the whole remains.
    """
    scale, shift = line(averaged(tile_CHW, pixels).ravel(), averaged(whole_CHW, pixels).ravel())
    return tile_CHW * np.float32(scale) + np.float32(shift)


def by_channel(tile_CHW: np.ndarray, whole_CHW: np.ndarray, pixels: int) -> np.ndarray:
    """A scale and a shift for each channel."""
    return np.concatenate([together(t[None], w[None], pixels) for t, w in zip(tile_CHW, whole_CHW, strict=True)])


def as_it_is(tile_CHW: np.ndarray, whole_CHW: np.ndarray, pixels: int) -> np.ndarray:
    """Nothing is left open."""
    return tile_CHW


_FITS: dict[MergeRule, Fit] = {"affine": together, "mean": by_channel, "channels": by_channel, "unit vectors": as_it_is}


def line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Scale and shift with the least sum of Huber's errors between scale x + shift and y. The scale is in [0, 4]."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    weight = np.ones_like(x)
    scale, shift = 1.0, 0.0
    for _ in range(_ROUNDS):
        weight /= weight.sum()
        mean_x, mean_y = weight @ x, weight @ y
        spread = weight @ (x - mean_x) ** 2
        scale = float(np.clip(weight @ ((x - mean_x) * (y - mean_y)) / max(spread, _EPS), 0, _MOST_SCALE))
        shift = float(mean_y - scale * mean_x)
        weight = huber(scale * x + shift - y)
    return scale, shift


def huber(error: np.ndarray) -> np.ndarray:
    """Weights of reweighted least squares; the deviation is told by the median, as a normal distribution has it."""
    size = np.abs(error)
    limit = _TUNE * max(1.4826 * float(np.median(size)), _EPS)
    return limit / np.maximum(size, limit)


def averaged(map_CHW: np.ndarray, pixels: int) -> np.ndarray:
    """Means over squares of so many pixels; what is left at the right and at the bottom is not looked at."""
    channels, h, w = map_CHW.shape
    n = max(1, min(pixels, h, w))
    whole = map_CHW[:, : h // n * n, : w // n * n]
    return whole.reshape(channels, h // n, n, w // n, n).mean((2, 4))
