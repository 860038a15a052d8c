"""Bilinear resizing of large images and maps, strip by strip: what torch's antialiased interpolation gives, in one pass.

A row of the result is a weighted sum of a few rows of the source: rows are resized by small matrices. So an image of 8 bits
needs no copy in floats, and a map at the size of a photograph is written once. The weights are torch's own, to the bit; sums
are taken in another order, which makes differences of a few 1e-7 of the range. NumPy's arrays are resized without torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from genpercept.core import arrays

if TYPE_CHECKING:
    from torch import Tensor

    from genpercept.core.arrays import Map

Size = tuple[int, int]  # height, width

PILLOW = ("bilinear", "bicubic")  # filters that public code resizes photographs with
NEAREST = "nearest"
_STRIP = 2**18  # values of a strip: they fit into a processor's cache
_ROWS = 32  # of a strip at most: the matrices of more are mostly zeros


def resize(x_BCHW: Map, size: Size) -> Map:
    """Bilinear, antialiased when shrinking; the identity (same object) when nothing changes."""
    if tuple(x_BCHW.shape[-2:]) == size:
        return x_BCHW
    if isinstance(x_BCHW, np.ndarray):
        return by_strips(x_BCHW, size)
    if size[1] == 1 and size[0] != 1:  # torch 2.13 repeats the first row when the result is one pixel wide
        return resize(x_BCHW.mT, (1, size[0])).mT
    return F.interpolate(x_BCHW, size, mode="bilinear", align_corners=False, antialias=True)


def by_pillow(image_BCHW: Tensor, size: Size, name: str) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] as Pillow resizes their 8-bit pixels with the filter of this name, its own sums."""
    from PIL import Image

    pixels = (image_BCHW * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    kernel = Image.Resampling[name.upper()]
    height, width = size
    resized = np.stack([np.asarray(Image.fromarray(each).resize((width, height), kernel)) for each in pixels])
    return torch.from_numpy(resized).permute(0, 3, 1, 2).to(image_BCHW) / 255


def back(map_BCHW: Map, size: Size, name: str) -> Map:
    """Maps of floats (B, C, h, w) at this size: nearest, or with the filter of Pillow's of this name, kept in each map's range.

    On the CPU; arrays give arrays.
    """
    x = arrays.to_numpy(arrays.on_cpu(map_BCHW))
    h, w = x.shape[-2:]
    if (h, w) == size:
        return map_BCHW
    if name == NEAREST:
        rows, columns = (np.arange(edge) * own // edge for edge, own in zip(size, (h, w), strict=True))
        found = x[..., rows[:, None], columns]
    else:
        from PIL import Image

        kernel, (height, width) = Image.Resampling[name.upper()], size
        planes = x.reshape(-1, h, w).astype(np.float32)
        resized = [np.asarray(Image.fromarray(each).resize((width, height), kernel)) for each in planes]
        found = np.stack([to.clip(of.min(), of.max()) for to, of in zip(resized, planes, strict=True)])
        found = found.reshape(*x.shape[:-2], *size)
    return arrays.like(map_BCHW, np.ascontiguousarray(found))


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


def by_strips(x_BCHW: Map, size: Size) -> Map:
    """`resize` of maps on the CPU, strip by strip, to float32."""
    # NumPy asks for large pages, which torch does not: writing a large map for the first time takes a quarter of the time
    out = arrays.like(x_BCHW, np.empty((*x_BCHW.shape[:2], *size), np.float32))
    for i, map_CHW in enumerate(x_BCHW):
        for rows, strip in strips(map_CHW, size):
            out[i, :, rows] = strip
    return out


def shrink_rows(image_HWC: Map, height: int) -> Map:
    """(H, W, C) of any dtype -> (height, W, C) float32, antialiased, in the units of the image; height at most H."""
    h, w, channels = image_HWC.shape
    rows = image_HWC.reshape(h, -1)
    first, weights = taps(h, height)
    last = np.minimum(first + weights.shape[1], h)
    out = arrays.like(image_HWC, np.zeros((height, w * channels), np.float32))
    step = _step(w * channels)
    for start in range(0, h, step):
        stop = min(start + step, h)
        top, bottom = int(np.searchsorted(last, start, "right")), int(np.searchsorted(first, stop, "left"))
        matrix = arrays.like(out, _matrix(first, weights, top, bottom, start, stop))
        arrays.add_product(out[top:bottom], matrix, arrays.floats(rows[start:stop]))
    return out.reshape(height, w, channels)


def strips(map_CHW: Map, size: Size) -> Iterator[tuple[slice, Map]]:
    """Rows of a float32 map on the CPU resized to `size`, (C, rows, W) in turn. Each is overwritten by the next one."""
    channels, h, _ = map_CHW.shape
    height, width = size
    array = isinstance(map_CHW, np.ndarray)
    wide = _widened(map_CHW, width) if array else resize(map_CHW[None], (h, width))[0].contiguous()
    if h == height:
        yield slice(0, h), wide
        return
    first, weights = taps(h, height)
    step = min(height, _step(width * channels))
    xp = arrays.space(wide)
    buffer = xp.empty((channels, step, width), dtype=xp.float32)
    for start in range(0, height, step):
        stop = min(start + step, height)
        top, bottom = int(first[start]), int(min(first[stop - 1] + weights.shape[1], h))
        matrix = arrays.like(wide, _matrix(first, weights, start, stop, top, bottom))
        part = buffer[:, : stop - start]
        for c in range(channels):
            xp.matmul(matrix, wide[c, top:bottom], out=part[c])
        yield slice(start, stop), part


def _widened(rows_CHW: np.ndarray, width: int) -> np.ndarray:
    """(C, H, W) -> (C, H, width), contiguous."""
    channels, h, w = rows_CHW.shape
    rows = np.ascontiguousarray(rows_CHW, np.float32)
    if w == width:
        return rows
    first, weights = taps(w, width)
    out = np.empty((channels, h, width), np.float32)
    step = max(_ROWS, _ROWS * width // w)
    for start in range(0, width, step):
        stop = min(start + step, width)
        left, right = int(first[start]), int(min(first[stop - 1] + weights.shape[1], w))
        out[..., start:stop] = rows[..., left:right] @ _matrix(first, weights, start, stop, left, right).T
    return out


def _step(values: int) -> int:
    """Rows of a strip, by the values of one."""
    return max(1, min(_ROWS, _STRIP // values))


def _matrix(first: np.ndarray, weights: np.ndarray, top: int, bottom: int, start: int, stop: int) -> np.ndarray:
    """Weights of the source's pixels `start` to `stop` in the result's `top` to `bottom`, (bottom - top, stop - start)."""
    place = first[top:bottom, None] + np.arange(weights.shape[1]) - start
    inside = (place >= 0) & (place < stop - start)
    row, _ = np.nonzero(inside)
    matrix = np.zeros((bottom - top, stop - start), np.float32)
    matrix[row, place[inside]] = weights[top:bottom][inside]
    return matrix
