"""Depth and directions at the image's own edges: what the network says of smooth places, spread until the image changes.

A network of few pixels knows depth on both sides of an edge, but not where the edge is: brought up to the image's size, it is a
ramp some pixels of the network wide. Values are trusted as little as they vary around, and each pixel takes the mean of trusted
ones, weighted by how much the image changes on the way to them: the domain transform's recursive filter (Gastal & Oliveira
2011), normalised by its trust, as fast bilateral solvers are (Barron & Poole 2016). Nothing leaves the range of the values.
"""

from __future__ import annotations

import numpy as np

REACH = 2.0  # standard deviation of the filter where the image is even, in pixels that the network saw
CONTRAST = 0.2  # change of the image, summed over channels in [0, 1], that counts as much as the whole reach
VARIATION = 0.03  # of values, in units of their range, around a pixel that is half trusted
_AROUND = 1.0  # how far around, in pixels that the network saw
_LEAST_TRUST = 1e-3
_ROUNDS = 3  # of the filter, each across and down


def refine(values_HW: np.ndarray, image_HWC: np.ndarray, scale: float, valid_HW: np.ndarray | None = None) -> np.ndarray:
    """Values (H, W) float32 at the edges of the image, uint8 or float in [0, 1]. scale: pixels of the image along an edge
    of one that the network saw. What is not valid stays, and tells others nothing.
    """
    return spread(values_HW[..., None], image_HWC, scale, valid_HW)[..., 0]


def refine_vectors(
    values_HW3: np.ndarray, image_HWC: np.ndarray, scale: float, valid_HW: np.ndarray | None = None
) -> np.ndarray:
    """The same of unit vectors (H, W, 3), made unit length again; opposite ones that cancel out stay as they were."""
    mean = spread(values_HW3, image_HWC, scale, valid_HW)
    length = np.linalg.norm(mean, axis=-1, keepdims=True)
    return np.where(length > 1e-3, mean / np.maximum(length, 1e-3), values_HW3)


def spread(values_HWC: np.ndarray, image_HWC: np.ndarray, scale: float, valid_HW: np.ndarray | None) -> np.ndarray:
    """Means of trusted values, up to where the image changes, (H, W, C) float32."""
    known = np.ones(values_HWC.shape[:2], bool) if valid_HW is None else valid_HW
    values = np.where(known[..., None], values_HWC, 0).astype(np.float32)
    trust = trusted(values, max(1, round(_AROUND * scale))) * known
    fields = np.concatenate([values * trust[..., None], trust[..., None]], axis=-1)
    domain_transform(fields, image_HWC, max(1.0, REACH * scale))
    told = fields[..., -1:]
    new = fields[..., :-1] / np.maximum(told, 1e-12)
    return np.where(known[..., None] & (told > 1e-12), new, values_HWC)


def trusted(values_HWC: np.ndarray, radius: int) -> np.ndarray:
    """How much each pixel counts, (H, W) in (0, 1]: less, the more values vary within `radius` pixels of it."""
    from scipy import ndimage

    size = (2 * radius + 1, 2 * radius + 1)
    varied = np.zeros(values_HWC.shape[:2], np.float32)
    for channel in np.moveaxis(values_HWC, -1, 0):
        across = ndimage.maximum_filter(channel, size) - ndimage.minimum_filter(channel, size)
        np.maximum(varied, across, out=varied)
    return 1 / (1 + (varied / VARIATION) ** 4) + np.float32(_LEAST_TRUST)


def domain_transform(fields_HWF: np.ndarray, image_HWC: np.ndarray, deviation: float) -> None:
    """The recursive edge-preserving filter of each field, in place; deviation: in pixels, where the image is even."""
    distances = [
        1 + np.float32(deviation / CONTRAST / white) * _changes(image_HWC, axis)
        for axis in (0, 1)
        for white in [255 if image_HWC.dtype == np.uint8 else 1]
    ]
    for i in range(_ROUNDS):
        width = deviation * np.sqrt(3) * 2 ** (_ROUNDS - i - 1) / np.sqrt(4**_ROUNDS - 1)
        rate = np.float32(-np.sqrt(2) / width)
        turned = fields_HWF.transpose(1, 0, 2)
        rows = np.ascontiguousarray(turned)
        _recurse(rows, np.exp(rate * distances[1]).T)
        turned[...] = rows
        _recurse(fields_HWF, np.exp(rate * distances[0]))


def _changes(image_HWC: np.ndarray, axis: int) -> np.ndarray:
    """How much neighbours along the axis differ, summed over channels, in the units of the image. float32."""
    total = 0
    for channel in np.moveaxis(image_HWC, -1, 0):
        total = total + np.abs(np.diff(channel.astype(np.float32), axis=axis))
    return np.asarray(total, np.float32)


def _recurse(lines_LWF: np.ndarray, kept_LW: np.ndarray) -> None:
    """Forth and back along the first axis; kept (L - 1, W): what of a line's neighbour is kept in it."""
    kept = np.ascontiguousarray(kept_LW)[..., None]
    for i in range(1, len(lines_LWF)):
        lines_LWF[i] += kept[i - 1] * (lines_LWF[i - 1] - lines_LWF[i])
    for i in range(len(lines_LWF) - 2, -1, -1):
        lines_LWF[i] += kept[i] * (lines_LWF[i + 1] - lines_LWF[i])
