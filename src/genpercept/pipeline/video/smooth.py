"""A recursive mean along the motion, and how much of a clip's flicker is left.

A pixel is mixed with what it was in the frame before, where motion and colours say that it is the same one: at the edges of
what moves they do not, so that no edge is smeared. A value that changes by more than noise is taken as it is.
"""

from __future__ import annotations

import numpy as np

from genpercept.pipeline.video.motion import Motion, grown, opencv, sampled, shrunk

STRENGTH = 0.8  # the weight of what was before: a mean over about five frames (benchmarks/quality/video.md)
_CHANGE = 0.1  # of the values' span: from where a change is more than noise, and is mixed less


class Smoother:
    """strength: weight of the frame before, 0 (none) to below 1. span: of the values, as far as they usually reach.

    directions: values are unit vectors, and stay so.
    """

    def __init__(self, strength: float, span: float, directions: bool = False) -> None:
        self.strength, self._span, self._directions = strength, span, directions
        self._before: np.ndarray | None = None
        self._age = np.zeros((1, 1), np.float32)  # frames that a pixel is the mean of, (h, w)

    def add(self, values: np.ndarray, known: np.ndarray, motion: Motion | None) -> np.ndarray:
        """values (H, W[, C]), finite; known (H, W) bool; motion: back to the frame before, None at a shot's beginning."""
        seen = shrunk(known.astype(np.float32)) > 0.99
        if motion is None or self._before is None or not self.strength:
            self._before, self._age = values, seen.astype(np.float32)
            return values
        age = motion.warp(self._age) * (motion.seen & seen)
        weight = _full(np.minimum(self.strength, age / (age + 1)), values.shape)
        before = sampled(self._before, grown(motion, values.shape))
        change = before - values
        far = np.abs(change) if change.ndim == 2 else np.sqrt((change**2).sum(-1))
        weight = weight * known * np.exp(-((far / (_CHANGE * self._span)) ** 2))
        out = values + change * (weight if values.ndim == 2 else weight[..., None])
        if self._directions:
            out /= np.maximum(np.sqrt((out**2).sum(-1, keepdims=True)), 1e-6)
        out = out.astype(np.float32, copy=False)
        self._before, self._age = out, age + seen
        return out


class Flicker:
    """By how much a pixel's value changes between a frame and the one before, along the motion: the mean over a clip.

    In shares of the values' span, or, span None, of the spread of each frame's values (from their 5 % to their 95 % quantile).
    """

    def __init__(self, span: float | None = None) -> None:
        self._span, self._sum, self._frames = span, 0.0, 0
        self._before: np.ndarray | None = None

    def add(self, values: np.ndarray, known: np.ndarray, motion: Motion | None) -> None:
        """As `Smoother.add`."""
        small = shrunk(values.astype(np.float32, copy=False))
        if motion is not None and self._before is not None:
            there = motion.seen & (shrunk(known.astype(np.float32)) > 0.99)
            change = np.abs(small - motion.warp(self._before))[there]
            span = self._span or float(np.subtract(*np.quantile(small, (0.95, 0.05))))
            if change.size and span > 0:
                self._sum += float(change.mean()) / span
                self._frames += 1
        self._before = small

    @property
    def mean(self) -> float | None:
        """None where no frame follows another."""
        return self._sum / self._frames if self._frames else None


def _full(weight: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(h, w) -> (H, W), without steps; beside what has no weight a pixel has none, either."""
    cv2 = opencv()
    lowest = cv2.erode(weight, np.ones((3, 3), np.uint8))
    even = np.minimum(cv2.blur(lowest, (3, 3)), lowest)
    return cv2.resize(even, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
