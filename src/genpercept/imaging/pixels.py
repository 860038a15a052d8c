"""A loaded PIL image of any mode -> (H, W, 3) uint8, block by block: beside image and result there are no full copies."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

_BLOCK = 2**17  # pixels: what they need in between fits into a processor's cache

Box = tuple[int, int, int, int]  # left, top, right, bottom


class Refused(ValueError):
    """Our own refusal, not to be taken for a decoder's."""


class TooManyPixels(Refused):
    """By the header, more than the limit."""


def to_rgb(image: Image.Image, name: str, orientation: int = 1) -> np.ndarray:
    """Any mode -> (H, W, 3) uint8, contiguous, turned by the EXIF orientation 1 .. 8 (others: as it is stored).

    ValueError, beginning with `name`, for NaN and infinite values.
    """
    w, h = image.size
    out = np.empty((w, h, 3) if orientation in (5, 6, 7, 8) else (h, w, 3), np.uint8)
    as_stored, convert = _as_stored(out, orientation), _converter(image, name)
    for box in blocks(image.size):
        left, top, right, bottom = box
        as_stored[top:bottom, left:right] = convert(image if box == (0, 0, w, h) else image.crop(box))
    return out


def blocks(size: tuple[int, int]) -> Iterator[Box]:
    """Boxes of at most 2^17 pixels that cover (width, height): whole rows, or parts of one where rows are longer."""
    w, h = size
    columns = min(w, _BLOCK)
    rows = max(1, _BLOCK // columns)
    for top in range(0, h, rows):
        for left in range(0, w, columns):
            yield left, top, min(left + columns, w), min(top + rows, h)


def by_257(values: np.ndarray) -> np.ndarray:
    """16 bits -> 8, rounded: 0 and 65535 become 0 and 255."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def scaled(low: float, high: float) -> Callable[[np.ndarray], np.ndarray]:
    """What makes uint8 of floats between `low` and `high`: fractions of white, 8-bit values, or neither: stretched."""
    if low < 0 or high > 255:
        return _stretched(low, high)
    return lambda values: np.rint(values * (255.0 if high <= 1 else 1.0)).astype(np.uint8)


def _as_stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """The view of an upright image (H, W, C) that has its pixels where a file of this EXIF orientation stores them."""
    rows = slice(None, None, -1) if orientation in (3, 4, 7, 8) else slice(None)
    columns = slice(None, None, -1) if orientation in (2, 3, 6, 7) else slice(None)
    turned = upright[rows, columns]
    return turned.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else turned


def _converter(image: Image.Image, name: str) -> Callable[[Image.Image], np.ndarray]:
    """What makes (h, w, 3 or 1) uint8 of a part of `image`."""
    if image.mode.startswith("I;16"):
        return lambda part: by_257(np.asarray(part.convert("I")))[..., None]
    if image.mode == "I":
        low, high = _range(image, name)
        to_8 = by_257 if low >= 0 and high <= 65535 else _stretched(low, high)
        return lambda part: to_8(np.asarray(part))[..., None]
    if image.mode == "F":
        to_8 = scaled(*_range(image, name))
        return lambda part: to_8(np.asarray(part))[..., None]
    if image.has_transparency_data:
        return _over_white
    if image.mode == "L":
        return lambda part: np.asarray(part)[..., None]
    return lambda part: np.asarray(part if part.mode == "RGB" else part.convert("RGB"))


def _over_white(part: Image.Image) -> np.ndarray:
    if part.mode in ("1", "La"):  # which Pillow takes to RGBA only by way of these
        part = part.convert("L" if part.mode == "1" else "LA")
    rgba = part.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))


def _range(image: Image.Image, name: str) -> tuple[float, float]:
    """Lowest and highest value of an image of one channel; both are exact. Refused where one is not finite."""
    low, high = np.inf, -np.inf
    for box in blocks(image.size):
        part = np.asarray(image.crop(box))
        check_finite(part, name)
        low, high = min(low, float(part.min())), max(high, float(part.max()))
    return low, high


def check_finite(values: np.ndarray, name: str) -> None:
    if not np.isfinite(values).all():
        raise Refused(f"{name}: holds NaN or infinite values; replace them by a number first")


def _stretched(low: float, high: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: np.rint((values.astype(np.float64) - low) * (255.0 / max(high - low, 1e-30))).astype(np.uint8)
