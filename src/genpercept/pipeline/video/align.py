"""Frames of a shot on one scale and shift: robust lines from each frame's values to those of the frame before.

Each frame's depth is right up to a scale and a shift of its own. A line's scale is the ratio of the values' spreads over the
pixels that both frames show, found along the motion. In a chain of ratios what a frame's error adds, the next one takes away
again; chains of least squares shrink to nothing, and lines to a key frame that lasts hand its error on to all that follow
(benchmarks/quality/video_drift.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genpercept.pipeline.video.motion import Motion, opencv, shrunk

_ROUNDS = 12  # of reweighting; a line moves by less than 1e-6 after five to ten
_HUBER, _TUKEY = 1.345, 6.0  # in standard deviations of the errors: from where they weigh less, and nothing
_POINTS = 20_000  # of a fit
_LEAST = 200  # seen points for a line, or, of small pictures, a fiftieth of them
_LEAST_SHARE = 0.02
_FACTOR = 4.0  # scales further off than that from the frame's before are no change of scale but a wrong fit
_BLUR = 1.5  # pixels: sampling along a flow blurs, and what is not blurred alike has another spread


@dataclass(frozen=True)
class Line:
    """value -> scale * value + shift."""

    scale: float = 1.0
    shift: float = 0.0

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return (
            values if (self.scale, self.shift) == (1, 0) else values * np.float32(self.scale) + np.float32(self.shift)
        )

    def then(self, other: Line) -> Line:
        """This one first, then the other."""
        return Line(other.scale * self.scale, other.scale * self.shift + other.shift)


def fit(x: np.ndarray, y: np.ndarray) -> Line | None:
    """The line with a positive scale from values x to values y (N,), both with errors; None where there is none.

    The slope is the ratio of their robust spreads (the geometric mean regression): least squares of y on x would shrink every
    scale by the share of x's errors, and a chain of such lines to nothing. Errors are weighted by Huber's function, those
    beyond six standard deviations not at all.
    """
    x, y = x.astype(np.float64), y.astype(np.float64)
    scale = _median_slope(x, y)
    if scale is None:
        return None
    shift = float(np.median(y - scale * x))
    for _ in range(_ROUNDS):
        error = np.abs(y - scale * x - shift)
        deviation = max(1.4826 * float(np.median(error)), 1e-7)
        weight = np.minimum(1.0, _HUBER * deviation / np.maximum(error, 1e-12)) * (error < _TUKEY * deviation)
        total = weight.sum()
        mean_x, mean_y = (weight @ x) / total, (weight @ y) / total
        var_x, var_y = weight @ (x - mean_x) ** 2, weight @ (y - mean_y) ** 2
        if weight @ ((x - mean_x) * (y - mean_y)) <= 0 or min(var_x, var_y) <= 0:
            return None
        scale = float(np.sqrt(var_y / var_x))
        shift = float(mean_y - scale * mean_x)
    return Line(float(scale), shift)


def _median_slope(x: np.ndarray, y: np.ndarray) -> float | None:
    """To begin with: the median slope between a low and a high x (Theil and Sen), right with a quarter of the values wrong."""
    order = np.argsort(x, kind="stable")
    half = len(order) // 2
    low, high = order[:half], order[half : 2 * half]
    apart = x[high] - x[low]
    apart, rise = apart[apart > 1e-6], (y[high] - y[low])[apart > 1e-6]
    scale = float(np.median(rise / apart)) if len(apart) else 0.0
    return scale if scale > 1e-6 else None


class Aligner:
    """The line of each frame of a shot, in the units of the shot's first frame. One for each shot."""

    def __init__(self) -> None:
        self._line = Line()
        self._before: tuple[np.ndarray, np.ndarray] | None = (
            None  # the frame before: its values, and where they are known
        )

    def add(self, values: np.ndarray, valid: np.ndarray | None, motion: Motion | None) -> Line:
        """values (H, W) of a frame, finite; valid (H, W) or None; motion: back to the frame before, None of a shot's first.

        Where too little of the frame before is in sight, or its line is out of all bounds, that one's line holds on.
        """
        small, known = _blurred(shrunk(values)), _blurred(shrunk(known_part(values, valid).astype(np.float32))) > 0.99
        if motion is not None and self._before is not None:
            found = _fitted(small, known, self._before, motion)
            if found is not None and self._line.scale / _FACTOR < found.scale < self._line.scale * _FACTOR:
                self._line = found
        self._before = self._line(small), known
        return self._line


def _fitted(small: np.ndarray, known: np.ndarray, before: tuple[np.ndarray, np.ndarray], motion: Motion) -> Line | None:
    """From a frame's values to those of the frame before, where both are known; None where that is too little."""
    there = motion.seen & known & (motion.warp(before[1].astype(np.float32)) > 0.99)
    places = np.flatnonzero(there)
    if len(places) < min(_LEAST, small.size // 50) or len(places) < _LEAST_SHARE * small.size:
        return None
    places = places[:: max(1, len(places) // _POINTS)]
    return fit(small.ravel()[places], motion.warp(before[0]).ravel()[places])


def known_part(values: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    """(H, W) bool: where values (H, W[, C]) are valid."""
    return np.ones(values.shape[:2], bool) if valid is None else valid


def _blurred(values: np.ndarray) -> np.ndarray:
    return opencv().GaussianBlur(values.astype(np.float32), (0, 0), _BLUR)
