"""Depth and directions at the image's own edges: weighted medians, from the network's pixels up to the image's by twos.

A network of few pixels knows depth on both sides of an edge, but not where the edge is: enlarged, it is a ramp. Here each pixel
of a map twice as large takes the median of the nine that lie around it in the smaller map, weighted by how near they are and
how much they look like it in the image, which was shrunk to both sizes. A median is one side or the other, never a value
between them. Where the nine are much alike, it is their mean, so that slopes stay smooth. This is joint bilateral upsampling
(Kopf et al. 2007) with the weighted median of Ma et al. (2013). Measured against the guided filter and the domain transform it
had more of the edges and the least error (benchmarks/quality/tiles.md). Nothing leaves the range of the values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from genpercept.core.resampling import resize
from genpercept.core.values import Geometry, Size

LIKE = 0.05  # deviation of the difference in colour, in [0, 1], of pixels that look alike
NEAR = 1.5  # deviation of the distance, in pixels of the smaller map
ALIKE = 0.02  # difference of values from the median that counts half in the mean
_LEAST = 1e-6  # weight of what looks different
_STRIP = 2**17  # pixels that are worked on at once: they fit into a processor's cache


def refine(
    values_HW: np.ndarray, image_HWC: np.ndarray, scale: float, valid_HW: np.ndarray | None = None
) -> np.ndarray:
    """Values (H, W) float32 at the edges of the image, uint8 or float in [0, 1]. scale: pixels of the image along an edge
    of one that the network saw; from 1 on, below 1.5 nothing is done. What is not valid stays, and tells others nothing.
    """
    return enlarged(values_HW[..., None], image_HWC, scale, valid_HW)[..., 0]


def refine_vectors(
    values_HW3: np.ndarray, image_HWC: np.ndarray, scale: float, valid_HW: np.ndarray | None = None
) -> np.ndarray:
    """The same of unit vectors (H, W, 3), component by component, made unit length again; what has no length stays."""
    found = enlarged(values_HW3, image_HWC, scale, valid_HW)
    length = np.linalg.norm(found, axis=-1, keepdims=True)
    return np.where(length > 1e-3, found / np.maximum(length, 1e-3), values_HW3)


def enlarged(values_HWC: np.ndarray, image_HWC: np.ndarray, scale: float, valid_HW: np.ndarray | None) -> np.ndarray:
    """Values as the network's pixels have them, brought up to the image's size, (H, W, C) float32."""
    size = (values_HWC.shape[0], values_HWC.shape[1])
    known = np.ones(size, bool) if valid_HW is None else valid_HW
    seen = sizes(size, scale)
    at = np.ix_(*(_centres(n, small) for n, small in zip(size, seen[0], strict=True)))
    found, weight = np.where(known[..., None], values_HWC, 0)[at].astype(np.float32), known[at].astype(np.float32)
    guide = shrunk(image_HWC, seen[0])
    for larger in seen[1:]:
        finer = shrunk(image_HWC, larger)
        found, weight = doubled(found, weight, guide, finer)
        guide = finer
    return np.where((known & (weight > 0))[..., None], found, values_HWC) if len(seen) > 1 else values_HWC


def sizes(size: Size, scale: float) -> list[Size]:
    """From that of the network's pixels to the image's, each at most twice as large as the one before."""
    steps = math.ceil(math.log2(scale) - 1e-6) if scale >= 1.5 else 0
    factors = (scale ** (1 - i / steps) for i in range(steps)) if steps else ()
    return [*((max(1, round(size[0] / f)), max(1, round(size[1] / f))) for f in factors), size]


def doubled(
    values_hwC: np.ndarray, weight_hw: np.ndarray, guide_hw3: np.ndarray, finer_HW3: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One step: values and what they count, of pixels with the colours `guide`, for those with the colours `finer`."""
    (h, w), (height, width) = values_hwC.shape[:2], finer_HW3.shape[:2]
    out = np.empty((height, width, values_hwC.shape[2]), np.float32)
    counts = np.empty((height, width), np.float32)
    rows, columns = _places(h, height), _places(w, width)
    step = max(1, _STRIP // width)
    for start in range(0, height, step):
        part = slice(start, start + step)
        strip = (rows[0][part], rows[1][part]), columns
        weights = list(_weights(weight_hw, guide_hw3, finer_HW3[part], *strip))
        counts[part] = sum(weights)
        for channel in range(values_hwC.shape[2]):
            near = [values_hwC[..., channel][at] for at in _around((h, w), *strip)]
            out[part, :, channel] = _mean(near, weights, weighted_median(near, weights))
    return out, np.minimum(counts, 1)


def weighted_median(near: list[np.ndarray], weights: list[np.ndarray]) -> np.ndarray:
    """By pixel, of a few values: the least one that half of the weight does not exceed."""
    half = sum(weights) * np.float32(0.5 - 1e-6)
    best = np.full(near[0].shape, np.inf, np.float32)
    for value in near:
        below = sum(weight * (other <= value) for other, weight in zip(near, weights, strict=True))
        np.minimum(best, value, out=best, where=below >= half)
    return best


def _mean(near: list[np.ndarray], weights: list[np.ndarray], median: np.ndarray) -> np.ndarray:
    """Of what is like the median."""
    alike = [weight / (1 + ((value - median) / ALIKE) ** 4) for value, weight in zip(near, weights, strict=True)]
    total = sum(alike)
    mean = sum(value * weight for value, weight in zip(near, alike, strict=True))
    return np.where(total > 0, mean / np.where(total > 0, total, 1), median)


_Places = tuple[
    np.ndarray, np.ndarray
]  # the nearest pixel of the smaller map, and how far its centre is from one's own


def _places(small: int, large: int) -> _Places:
    place = (np.arange(large) + 0.5) * small / large - 0.5
    nearest = np.rint(place).astype(np.intp)
    return nearest, (nearest - place).astype(np.float32)


def _around(size: Size, rows: _Places, columns: _Places) -> Iterator[tuple[np.ndarray, ...]]:
    """Indices of the nine, one after the other."""
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            yield np.ix_((rows[0] + dy).clip(0, size[0] - 1), (columns[0] + dx).clip(0, size[1] - 1))


def _weights(
    weight_hw: np.ndarray, guide_hw3: np.ndarray, finer_HW3: np.ndarray, rows: _Places, columns: _Places
) -> Iterator[np.ndarray]:
    away = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    size = (weight_hw.shape[0], weight_hw.shape[1])
    for (dy, dx), at in zip(away, _around(size, rows, columns), strict=True):
        unlike = np.square(guide_hw3[at] - finer_HW3).sum(-1) / (-2 * LIKE**2)
        y, x = (np.exp((places[1] + d) ** 2 / (-2 * NEAR**2)) for places, d in ((rows, dy), (columns, dx)))
        yield (np.exp(unlike) + np.float32(_LEAST)) * y[:, None] * x * weight_hw[at]


def _centres(length: int, small: int) -> np.ndarray:
    """The pixels at the centres of `small` equal parts: there an enlarged map has the values of the small one."""
    return ((np.arange(small) + 0.5) * length / small).astype(np.intp)


def shrunk(image_HWC: np.ndarray, size: Size) -> np.ndarray:
    """Antialiased, (h, w, 3) float32 in [0, 1]."""
    own = (image_HWC.shape[0], image_HWC.shape[1])
    planes = Geometry(own, size, size).apply_pixels(image_HWC)
    return np.ascontiguousarray(np.moveaxis(resize(planes, size)[0], 0, -1))
