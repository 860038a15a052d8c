"""Keypoints and heatmaps. Pixel centres lie at half-integers; a heatmap has a quarter of its image's size.

Gaussian heatmaps: Xiao et al. 2018, "Simple Baselines". Sub-pixel decoding as in DARK (Zhang et al. 2020), from the logarithm
of the map, but by a fit (Guo 2011, "A simple algorithm for fitting a Gaussian function").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from genpercept.core import arrays
from genpercept.core.values import Region, Size, resize

if TYPE_CHECKING:
    from genpercept.core.arrays import Map

JOINTS = 17
STRIDE = 4  # image pixels per heatmap pixel
SIGMA = 2.0  # heatmap pixels, for a map of 64 x 48; smaller maps have a smaller one
OF_BOX = 0.53  # of a box is the person where no area is labelled, as mmpose takes it
_FULL_HEIGHT = 64
# Twice the standard deviation of people's own labels, by joint, over the root of the person's area (COCO's evaluation)
_FALLOFF = 2 * np.repeat([0.026, 0.025, 0.035, 0.079, 0.072, 0.062, 0.107, 0.087, 0.089], [1] + 8 * [2])
_EXTENT = 1.25  # of the joints' bounding box, as a stand-in for a person's
_REACH = 2  # heatmap pixels around the highest one that tell where a peak's middle is
_FLAT = 1e-10  # least over largest singular value below which the pixels tell nothing: one alone, a row, a tiny map
_SEEN = 0.2  # joints that count in a person's score, as in Simple Baselines


def sigma(height: int) -> float:
    """Standard deviation in heatmap pixels: 2 at 64 rows, in proportion below, at least 0.75."""
    return max(0.75, SIGMA * min(1.0, height / _FULL_HEIGHT))


def heatmaps(points_J3: Tensor, size: Size, spread: float = 0.0) -> tuple[Tensor, Tensor]:
    """Joints (J, 3) in pixels of an image of `size` -> (maps (J, H / 4, W / 4) with peaks of 1, labelled (J,) bool).

    spread: standard deviation of the peaks in heatmap pixels; 0: `sigma` of the map's rows.
    """
    h, w = max(1, size[0] // STRIDE), max(1, size[1] // STRIDE)
    labelled = points_J3[:, 2] > 0
    x = points_J3[:, 0] * (w / size[1]) - 0.5
    y = points_J3[:, 1] * (h / size[0]) - 0.5
    dx = (torch.arange(w) - x[:, None]).square()
    dy = (torch.arange(h) - y[:, None]).square()
    maps = torch.exp(-(dy[:, :, None] + dx[:, None, :]) / (2 * (spread or sigma(h)) ** 2))
    return torch.where(labelled[:, None, None], maps, 0.0), labelled


def locate(maps_JHW: np.ndarray | Tensor, size: Size) -> np.ndarray:
    """Heatmaps of an image of `size` -> joints (J, 3): x, y in its pixels, and the peak's height in [0, 1]."""
    maps = arrays.to_numpy(maps_JHW).astype(np.float64)
    joints, h, w = maps.shape
    top = maps.reshape(joints, -1).argmax(1)
    rows, columns = np.divmod(top, w)
    scores = maps.reshape(joints, -1).max(1).clip(0, 1)
    offsets = _refine(maps, rows, columns)
    x = (columns + offsets[:, 0] + 0.5) * size[1] / w
    y = (rows + offsets[:, 1] + 0.5) * size[0] / h
    return np.stack([x, y, scores], 1).astype(np.float32)


def _refine(maps: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """From its highest pixel to a peak's middle, (J, 2) in x, y; at most one pixel.

    The logarithm of a Gaussian is a paraboloid. It is fitted to the pixels around that lie on the map, by least squares of
    errors weighted with the squared values, which is exact for a Gaussian wherever it is cut off. DARK's step needs
    neighbours on both sides and smooths across the border: a joint there came out up to a pixel off.
    """
    joints, h, w = maps.shape
    dy, dx = (steps.ravel() for steps in np.mgrid[-_REACH : _REACH + 1, -_REACH : _REACH + 1])
    y, x = rows[:, None] + dy, columns[:, None] + dx
    inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
    values = np.where(inside, maps[np.arange(joints)[:, None], y.clip(0, h - 1), x.clip(0, w - 1)], 0).clip(0)
    values /= np.maximum(values.max(1, keepdims=True), 1e-300)
    terms = np.stack([np.ones_like(dx), dx, dy, dx * dx, dy * dy, dx * dy], 1).astype(np.float64)
    weights = np.square(values)
    u, spread, vt = np.linalg.svd(weights[..., None] * terms, full_matrices=False)  # (J, pixels, 6), (J, 6), (J, 6, 6)
    solvable = spread[:, -1] > _FLAT * spread[:, 0]
    right = (weights * np.log(np.maximum(values, 1e-300)))[..., None]
    parts = u.transpose(0, 2, 1) @ right / np.where(solvable[:, None], spread, 1.0)[..., None]
    _, bx, by, ax, ay, xy = (vt.transpose(0, 2, 1) @ parts)[..., 0].T
    determinant = 4 * ax * ay - xy**2
    peaked = solvable & (determinant > 1e-12) & (ax < 0)
    step = np.stack([xy * by - 2 * ay * bx, xy * bx - 2 * ax * by], 1) / np.where(peaked, determinant, 1.0)[:, None]
    return np.where(peaked[:, None], step, 0.0).clip(-1, 1)


def crop(image_1CHW: Map, box: Sequence[float], padding: float, size: Size, score: float | None = None) -> Region:
    """The box, padded and brought to the aspect of `size`, as a Region of that size; black beyond the image's edge."""
    x, y, w, h = box
    aspect = size[1] / size[0]
    width, height = max(w, h * aspect) * padding, max(h, w / aspect) * padding
    left, top = round(x + w / 2 - width / 2), round(y + h / 2 - height / 2)
    width, height = max(1, round(width)), max(1, round(height))
    ih, iw = image_1CHW.shape[-2:]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + width, iw), min(top + height, ih)
    if x0 >= x1 or y0 >= y1:
        raise ValueError(f"box {[round(v, 1) for v in box]}: lies outside of the image of {ih} x {iw} pixels")
    inside = image_1CHW[..., y0:y1, x0:x1]
    part = arrays.pad(inside, x0 - left, left + width - x1, y0 - top, top + height - y1)
    return Region(resize(part, size), (float(left), float(top), float(width), float(height)), score)


def to_image(points_J3: np.ndarray, region: Region) -> np.ndarray:
    """Joints in pixels of a region's part -> in pixels of the image."""
    (x, y, w, h), (rows, columns) = region.box, region.image.shape[-2:]
    out = np.array(points_J3, np.float32)
    out[:, 0], out[:, 1] = x + out[:, 0] * (w / columns), y + out[:, 1] * (h / rows)
    return out


def to_region(points_J3: np.ndarray, region: Region) -> np.ndarray:
    """Joints in pixels of the image -> in pixels of the region's part; those outside become unlabelled."""
    (x, y, w, h), (rows, columns) = region.box, region.image.shape[-2:]
    out = np.array(points_J3, np.float32)
    out[:, 0], out[:, 1] = (out[:, 0] - x) * (columns / w), (out[:, 1] - y) * (rows / h)
    gone = (out[:, 0] < 0) | (out[:, 1] < 0) | (out[:, 0] > columns) | (out[:, 1] > rows) | (points_J3[:, 2] <= 0)
    out[gone] = 0
    return out


def extent(points_J3: np.ndarray) -> tuple[float, float, float, float]:
    """A person's box (x, y, width, height) by its labelled joints."""
    seen = points_J3[points_J3[:, 2] > 0, :2]
    low, high = seen.min(0), seen.max(0)
    middle, size = (low + high) / 2, np.maximum((high - low) * _EXTENT, 4.0)
    (x, y), (w, h) = middle - size / 2, size
    return float(x), float(y), float(w), float(h)


def jitter(box: Sequence[float], rng: np.random.Generator | None) -> tuple[float, ...]:
    """The box, in training scaled by 0.75 to 1.25 and shifted by up to a tenth of its size."""
    if rng is None:
        return tuple(box)
    x, y, w, h = box
    scale = rng.uniform(0.75, 1.25)
    cx, cy = x + w / 2 + rng.uniform(-0.1, 0.1) * w, y + h / 2 + rng.uniform(-0.1, 0.1) * h
    return (cx - w * scale / 2, cy - h * scale / 2, w * scale, h * scale)


def distinct(people_NJ3: np.ndarray, scores: Sequence[float], regions: Sequence[Region], most: float) -> list[int]:
    """People that stay, in order: of two from a detector's boxes whose similarity (OKS) is above `most`, the surer one.

    Simple Baselines' suppression; the area of a person is that of the crop, as there.
    """
    kept: list[int] = []
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        others = [j for j in kept if regions[j].score is not None]
        if regions[i].score is None or all(_similarity(people_NJ3, regions, i, j) <= most for j in others):
            kept.append(i)
    return sorted(kept)


def _similarity(people: np.ndarray, regions: Sequence[Region], i: int, j: int) -> float:
    """COCO's object keypoint similarity of two people, over all joints."""
    area = sum(regions[k].box[2] * regions[k].box[3] for k in (i, j)) / 2
    apart = np.square(people[i, :, :2] - people[j, :, :2]).sum(1)
    return float(np.exp(-apart / (2 * area * _FALLOFF**2)).mean())


def person_score(scores_J: np.ndarray) -> float:
    """Mean of the joints' scores above 0.2; 0 where there is none."""
    seen = scores_J[scores_J > _SEEN]
    return float(seen.mean()) if seen.size else 0.0
