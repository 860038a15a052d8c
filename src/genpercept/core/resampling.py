"""Bilinear resizing of large images and maps, strip by strip: what torch's antialiased interpolation gives, in one pass.

A row of the result is a weighted sum of a few rows of the source: rows are resized by small matrices. So an image of 8 bits
needs no copy in floats, and a map at the size of a photograph is written once. The weights are torch's own, to the bit; sums
are taken in another order, which makes differences of a few 1e-7 of the range.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]  # height, width

_STRIP = 2**18  # values of a strip: they fit into a processor's cache
_ROWS = 32  # of a strip at most: the matrices of more are mostly zeros


def resize(x_BCHW: Tensor, size: Size) -> Tensor:
    """Bilinear, antialiased when shrinking; the identity (same tensor) when nothing changes."""
    if tuple(x_BCHW.shape[-2:]) == size:
        return x_BCHW
    if size[1] == 1 and size[0] != 1:  # torch 2.13 repeats the first row when the result is one pixel wide
        return resize(x_BCHW.mT, (1, size[0])).mT
    return F.interpolate(x_BCHW, size, mode="bilinear", align_corners=False, antialias=True)


@lru_cache(64)
def taps(source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of `target` pixels along an axis the first of the `source` pixels that it is made of, and their weights.

    (target,) int64 and (target, K) float32; weights beyond the last pixel are 0. In the precision that torch computes them in.
    """
    scale = np.float32(source) / np.float32(target)
    support = max(scale, np.float32(1))
    centre = (np.float64(scale) * (np.arange(target) + 0.5)).astype(np.float32)
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    last = np.minimum(((centre + support).astype(np.float64) + 0.5).astype(np.int64), source)
    place = first[:, None] + np.arange(int((last - first).max()))
    away = ((place - centre[:, None]).astype(np.float32).astype(np.float64) + 0.5) * np.float64(1 / support)
    weights = np.maximum(np.float32(1) - np.abs(away.astype(np.float32)), np.float32(0))
    weights[place >= last[:, None]] = 0
    total = np.zeros(target, np.float32)
    for column in weights.T:  # one after the other, as torch adds them
        total += column
    return first, weights / total[:, None]


def shrink_rows(image_HWC: Tensor, height: int) -> Tensor:
    """(H, W, C) of any dtype -> (height, W, C) float32, antialiased, in the units of the image; height at most H."""
    h, w, channels = image_HWC.shape
    rows = image_HWC.reshape(h, -1)
    first, weights = taps(h, height)
    last = np.minimum(first + weights.shape[1], h)
    out = torch.zeros(height, w * channels)
    step = _step(w * channels)
    for start in range(0, h, step):
        stop = min(start + step, h)
        top, bottom = int(np.searchsorted(last, start, "right")), int(np.searchsorted(first, stop, "left"))
        out[top:bottom].addmm_(_matrix(first, weights, top, bottom, start, stop), rows[start:stop].float())
    return out.view(height, w, channels)


def strips(map_CHW: Tensor, size: Size) -> Iterator[tuple[slice, Tensor]]:
    """Rows of a float32 map on the CPU resized to `size`, (C, rows, W) in turn. Each is overwritten by the next one."""
    channels, h, _ = map_CHW.shape
    height, width = size
    wide = resize(map_CHW[None], (h, width))[0].contiguous()
    if h == height:
        yield slice(0, h), wide
        return
    first, weights = taps(h, height)
    step = min(height, _step(width * channels))
    buffer = torch.empty(channels, step, width)
    for start in range(0, height, step):
        stop = min(start + step, height)
        top, bottom = int(first[start]), int(min(first[stop - 1] + weights.shape[1], h))
        matrix = _matrix(first, weights, start, stop, top, bottom)
        part = buffer[:, : stop - start]
        for c in range(channels):
            torch.mm(matrix, wide[c, top:bottom], out=part[c])
        yield slice(start, stop), part


def _step(values: int) -> int:
    """Rows of a strip, by the values of one."""
    return max(1, min(_ROWS, _STRIP // values))


def _matrix(first: np.ndarray, weights: np.ndarray, top: int, bottom: int, start: int, stop: int) -> Tensor:
    """Weights of the source's pixels `start` to `stop` in the result's `top` to `bottom`, (bottom - top, stop - start)."""
    place = first[top:bottom, None] + np.arange(weights.shape[1]) - start
    inside = (place >= 0) & (place < stop - start)
    row, _ = np.nonzero(inside)
    matrix = np.zeros((bottom - top, stop - start), np.float32)
    matrix[row, place[inside]] = weights[top:bottom][inside]
    return torch.from_numpy(matrix)
