"""What moved where between two frames, and whether they belong to one shot. By OpenCV's DIS flow, on small copies.

DIS: Kroeger et al., Fast Optical Flow using Dense Inverse Search, ECCV 2016. Flow is found in both directions; a pixel counts
as seen in both frames where the two agree (Sundaram et al., ECCV 2010) and the colours do.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

EDGE = 384  # longest edge of the copies: motion of a few thousandths of the width is still seen
# Squared pixels: how far from where it began there-and-back may end, beside a share of the motion.
_MISS, _MISS_SHARE = 0.5, 0.01
_COLOUR = 24.0  # of 255: by how much a pixel seen in both frames may change, beside what all pixels change by
# A cut, where flow explains less than this and colours changed by more: two frames of one shot, however fast, keep their
# colours, and two shots of one place are not explained by any motion.
_EXPLAINED, _COLOURS = 0.35, 0.12
_BINS = 8  # of each colour's histogram


def opencv() -> Any:
    """OpenCV. ImportError with what to install where it is not there."""
    try:
        import cv2
    except ImportError:
        raise ImportError("clips need OpenCV: pip install 'genpercept[video]'") from None
    return cv2


@dataclass(frozen=True, eq=False)
class Look:
    """A small copy of a frame: rgb (h, w, 3) uint8."""

    rgb: np.ndarray

    @classmethod
    def at(cls, image: np.ndarray) -> Look:
        """Of (H, W, 3) uint8."""
        return cls(shrunk(image))

    @cached_property
    def grey(self) -> np.ndarray:
        cv2 = opencv()
        return cv2.cvtColor(self.rgb, cv2.COLOR_RGB2GRAY)

    @cached_property
    def histogram(self) -> np.ndarray:
        """Shares of its pixels in 8 x 8 x 8 boxes of colour."""
        box = (self.rgb // (256 // _BINS)).reshape(-1, 3).astype(np.int64)
        counts = np.bincount(box @ (_BINS * _BINS, _BINS, 1), minlength=_BINS**3)
        return counts / counts.sum()


@dataclass(frozen=True, eq=False)
class Motion:
    """From a frame back to an earlier one. back (h, w, 2): x, y in pixels to be added to reach where a pixel was then.

    seen (h, w) bool: whether it was in sight, as far as flow and colours tell. colours: the share of the pixels' colours
    that changed, 0 to 1.
    """

    back: np.ndarray
    seen: np.ndarray
    colours: float = 0.0

    @property
    def explained(self) -> float:
        """The share of pixels that the earlier frame explains."""
        return float(self.seen.mean())

    @property
    def is_cut(self) -> bool:
        """Whether another shot begins: neither motion nor colours join the two frames."""
        return self.explained < _EXPLAINED and self.colours > _COLOURS

    def warp(self, earlier: np.ndarray) -> np.ndarray:
        """Values of the earlier frame (h, w[, C]) where this frame's pixels were."""
        return sampled(earlier, self.back)


class Flow:
    """Motion between small copies. One for each thread: OpenCV's object keeps buffers."""

    def __init__(self) -> None:
        cv2 = opencv()
        self._dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def between(self, old: Look, new: Look) -> Motion:
        """From the new frame back to the old one."""
        back = self._find(new.grey, old.grey)
        forth = sampled(self._find(old.grey, new.grey), back)
        miss = ((back + forth) ** 2).sum(-1)
        size = (back**2).sum(-1) + (forth**2).sum(-1)
        seen = _even((miss < _MISS + _MISS_SHARE * size) & alike(old, new, back)) & _inside(back)
        return Motion(back, seen, 0.5 * float(np.abs(old.histogram - new.histogram).sum()))

    def _find(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """(h, w, 2); none for frames too small for DIS's patches."""
        if min(one.shape) < 16:
            return np.zeros((*one.shape, 2), np.float32)
        return self._dis.calc(one, other, None)


def alike(old: Look, new: Look, back: np.ndarray) -> np.ndarray:
    """(h, w) bool: where colours agree, but for a sensor's noise and what changed all over the picture, as exposure does."""
    change = new.rgb.astype(np.float32) - sampled(old.rgb.astype(np.float32), back)
    change -= np.median(change.reshape(-1, 3), axis=0)
    return np.abs(opencv().blur(change, (3, 3))).mean(-1) < _COLOUR


def _even(seen: np.ndarray) -> np.ndarray:
    """What most of the 5 x 5 pixels around say: single ones that stand out are noise, and would show as dots."""
    return opencv().medianBlur(seen.astype(np.uint8), 5) > 0


def sampled(values: np.ndarray, by: np.ndarray) -> np.ndarray:
    """values (h, w[, C]) at each pixel's place plus `by` (h, w, 2), bilinear; the border's beyond it."""
    cv2 = opencv()
    h, w = by.shape[:2]
    x = np.arange(w, dtype=np.float32) + by[..., 0]
    y = np.arange(h, dtype=np.float32)[:, None] + by[..., 1]
    return cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def shrunk(values: np.ndarray, edge: int = EDGE) -> np.ndarray:
    """(H, W[, C]) to a longest edge of at most `edge` pixels, each the mean of those that it covers."""
    h, w = values.shape[:2]
    factor = edge / max(h, w)
    if factor >= 1:
        return values
    cv2 = opencv()
    size = (max(1, round(w * factor)), max(1, round(h * factor)))
    return cv2.resize(values, size, interpolation=cv2.INTER_AREA)


def grown(motion: Motion, shape: tuple[int, ...]) -> np.ndarray:
    """`back` (H, W, 2) for frames of the full size, in their pixels."""
    h, w = shape[:2]
    small = motion.back.shape[:2]
    if small == (h, w):
        return motion.back
    cv2 = opencv()
    large = cv2.resize(motion.back, (w, h), interpolation=cv2.INTER_LINEAR)
    return large * np.array((w / small[1], h / small[0]), np.float32)


def _inside(back: np.ndarray) -> np.ndarray:
    h, w = back.shape[:2]
    x = np.arange(w, dtype=np.float32) + back[..., 0]
    y = np.arange(h, dtype=np.float32)[:, None] + back[..., 1]
    return (x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1)
