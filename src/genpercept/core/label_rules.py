"""What the rows of `labels` say by functions: a crop and a mirror of a label, how it is packed, what a file of it has.

Arrays are in the order of records: a map is (H, W), or (H, W, C).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genpercept.core.notes import note

NO_CLASS = (255, 65535)  # in files; the second is what `predict` writes into 16-bit PNG
NO_DEPTH = _TOP16 = 65535
_SLACK = 1e-3  # rounding is no mistake
MIRRORED_JOINTS = (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)  # COCO's left and right, exchanged


@dataclass(frozen=True)
class Crop:
    """A part of an image, resized: (left, top) is its corner, `factor` pixels become one, to `size` (height, width).

    Pixel centres lie at half-integers: the image's own corner is (0, 0).
    """

    left: float
    top: float
    factor: float
    size: tuple[int, int]


@dataclass(frozen=True)
class Packing:
    """How a label is kept on disk, smaller. An array of `dtype` is a packed one.

    error: the most that packing changes a value, or, where it is relative, a share of the value.
    """

    dtype: type[np.generic]
    pack: Callable[[np.ndarray], np.ndarray]
    unpack: Callable[[np.ndarray], np.ndarray]
    error: float = 0.0
    relative: bool = False


# What a crop and a mirror do ----------------------------------------------------------------------------------------


def unchanged(values: np.ndarray, crop: Crop) -> np.ndarray:
    """A crop of something that has no place in the image."""
    return values


def gone(values: np.ndarray, crop: Crop) -> None:
    """A crop of what nobody reads of an augmented image: it is left out, also where nothing is cropped."""


def cropped_joints(keypoints: np.ndarray, crop: Crop) -> np.ndarray:
    """Joints moved with the box; those outside it become unlabelled (visibility 0)."""
    points = np.array(keypoints, np.float32)
    points[..., :2] = (points[..., :2] - (crop.left, crop.top)) / crop.factor
    x, y = points[..., 0], points[..., 1]
    points[(x < 0) | (y < 0) | (x > crop.size[1]) | (y > crop.size[0]) | (keypoints[..., 2] == 0)] = 0
    return points


def mirrored_joints(keypoints: np.ndarray, width: int) -> np.ndarray:
    points = np.array(keypoints, np.float32)[..., list(MIRRORED_JOINTS), :]
    labelled = points[..., 2] > 0
    points[..., 0] = np.where(labelled, width - points[..., 0], points[..., 0])
    return points


def mirrored_boxes(boxes: np.ndarray, width: int) -> np.ndarray:
    mirrored = np.array(boxes, np.float32)
    mirrored[:, 0] = width - mirrored[:, 0] - mirrored[:, 2]
    return mirrored


def cropped_camera(intrinsics: np.ndarray, crop: Crop) -> np.ndarray:
    k = np.array(intrinsics, np.float32)
    k[0, 2] -= crop.left
    k[1, 2] -= crop.top
    k[:2] /= crop.factor
    return k


def mirrored_camera(intrinsics: np.ndarray, width: int) -> np.ndarray:
    k = np.array(intrinsics, np.float32)
    k[0, 2] = width - k[0, 2]
    return k


def mirrored_normals(normals: np.ndarray, width: int) -> np.ndarray:
    return normals * np.array([-1, 1, 1], normals.dtype)


def turned_normals(normals: np.ndarray, orientation: int) -> np.ndarray:
    """Vectors (H, W, 3) of a camera whose image is turned by an EXIF orientation: their x and y turn with it."""
    x, y, z = np.moveaxis(normals, -1, 0)
    if orientation in (5, 6, 7, 8):
        x, y = -y, -x
    x = -x if orientation in (2, 3, 6, 7) else x
    y = -y if orientation in (3, 4, 7, 8) else y
    return np.stack([x, y, z], -1)


def as_people(keypoints: np.ndarray) -> np.ndarray:
    """(17, 3), one figure that may have no joint, -> (1 or 0, 17, 3)."""
    if keypoints.ndim != 2:
        return keypoints
    return keypoints[None][: int(bool((keypoints[:, 2] > 0).any()))]


# On disk ------------------------------------------------------------------------------------------------------------


def _packed_normals(normals: np.ndarray) -> np.ndarray:
    return np.round(np.nan_to_num(normals) * 127).clip(-127, 127).astype(np.int8)


def _unpacked_normals(packed: np.ndarray) -> np.ndarray:
    n = packed.astype(np.float32)
    return n / np.maximum(np.sqrt((n * n).sum(-1, keepdims=True)), 1e-6)


def _packed_ids(ids: np.ndarray) -> np.ndarray:
    """In 8 bits, where they fit."""
    return ids.astype(np.uint8) if ids.min(initial=0) >= 0 and ids.max(initial=0) < 256 else ids


HALF = Packing(np.float16, lambda x: x.astype(np.float16), lambda x: x.astype(np.float32), 1 / 2048, relative=True)
DIRECTIONS = Packing(np.int8, _packed_normals, _unpacked_normals, 1 / 127)
SHARES = Packing(
    np.uint8,
    lambda x: np.round(x * 255).clip(0, 255).astype(np.uint8),
    lambda x: x.astype(np.float32) / 255,
    0.5 / 255 + 1e-6,
)
SMALL_IDS = Packing(np.uint8, _packed_ids, lambda x: x)


# Files --------------------------------------------------------------------------------------------------------------


def one_per_pixel(stored: np.ndarray) -> np.ndarray:
    """One value per pixel, (H, W)."""
    array = stored[..., 0] if stored.ndim == 3 and stored.shape[-1] == 1 else stored
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"shape {list(array.shape)}; it must hold one value per pixel (height, width)")
    return array


def read_depth(stored: np.ndarray, options: Mapping[str, Any]) -> np.ndarray:
    """Metres, (H, W) float32; 0 where unknown: at 0, below, where not finite, and at 65535 of 16 bits."""
    array = one_per_pixel(stored)
    if array.dtype == np.uint8 or array.dtype == np.bool_:
        raise ValueError("8 bits are too few for depth; write 16-bit PNG or .npy in metres")
    metres = array.astype(np.float32) / (options["depth_scale"] if np.issubdtype(array.dtype, np.integer) else 1)
    known = np.isfinite(metres) & (metres > 0)
    if array.dtype == np.uint16 and (largest := array == NO_DEPTH).any():
        known &= ~largest
        note("depth: 65535, the largest 16-bit value, is taken for no depth", _share(largest))
    if not known.any():
        raise ValueError("no pixel has a depth above 0" + (" and below 65535" if array.dtype == np.uint16 else ""))
    return np.where(known, metres, 0).astype(np.float32)


def read_normals(stored: np.ndarray, options: Mapping[str, Any]) -> np.ndarray:
    """Unit vectors in our axes, (H, W, 3) float32; 0 where unknown (black, gray or NaN)."""
    if stored.ndim != 3 or stored.shape[-1] < 3:
        raise ValueError(f"shape {list(stored.shape)}; normals have three values per pixel")
    array = stored[..., :3]
    if np.issubdtype(array.dtype, np.integer):
        known = (array > 0).any(-1)
        n = array.astype(np.float32) / np.iinfo(array.dtype).max * 2 - 1
    else:
        known, n = np.isfinite(array).all(-1), np.nan_to_num(array.astype(np.float32))
    length = np.sqrt((n * n).sum(-1))
    known &= length > 0.5
    if not known.any():
        raise ValueError("no pixel has a normal")
    n = np.where(known[..., None], n / np.maximum(length, 1e-6)[..., None], 0)
    return (n * (1 if options["normals_axes"] == "ours" else np.array([1, -1, -1]))).astype(np.float32)


def read_mask(stored: np.ndarray, options: Mapping[str, Any]) -> np.ndarray:
    """True from half of the range on, (H, W) bool; of two values, one of them 0, at the other one."""
    array = one_per_pixel(stored)
    if array.dtype == np.bool_:
        return array
    low, high = _limits(array)
    if high > 0 and bool(((array == 0) | (array == high)).all()):  # 0 and 1, 0 and 255, whatever
        return array == high
    top = _top(array, high)
    found = array >= top / 2  # NaN is not
    if high > 0 and not found.any():
        raise ValueError(
            f"values from {low:g} to {high:g}, all below half of {top:g}: numbers of classes or parts, where a mask has 0 and "
            f"{top:g}; export it so"
        )
    between = (array > 0.1 * top) & (array < 0.9 * top)
    if between.any():
        note("grey values in a mask: from half of the range on it is foreground", _share(between))
    return found


def read_alpha(stored: np.ndarray, options: Mapping[str, Any]) -> np.ndarray:
    """Opacity in [0, 1], (H, W) float32: whole numbers by their range, floats up to 255 by 255; 0 where NaN."""
    array = one_per_pixel(stored)
    _, high = _limits(array)
    top = _top(array, high)
    if high == 1 == top and np.issubdtype(array.dtype, np.integer):
        note("alpha: whole numbers up to 1 are taken for clear and solid")
    if np.issubdtype(array.dtype, np.floating):
        if top > 1:
            note(f"alpha: floats up to 255 are divided by {top:g}", f"up to {high:g}")
        if not (known := np.isfinite(array)).all():
            note("alpha: what is not finite is taken for 0", _share(~known))
            array = np.where(known, array, 0)
    return np.clip(array.astype(np.float32) / top, 0, 1)


def read_trimap(stored: np.ndarray, options: Mapping[str, Any]) -> np.ndarray:
    """0, 128 where unknown, 255, (H, W) uint8; of floats in [0, 1] and of 16 bits, scaled to that."""
    array = one_per_pixel(stored)
    low, high = _limits(array)
    top = _top(array, high)
    if 1 < high < 128:
        raise ValueError(f"values from {low:g} to {high:g}, but a trimap has 0, 128 (unknown) and 255; export it so")
    return (
        array.astype(np.uint8) if top == 255 else np.floor(array.astype(np.float32) / top * 255 + 0.5).astype(np.uint8)
    )


def read_ids(stored: np.ndarray, options: Mapping[str, Any]) -> np.ndarray:
    """Numbers of classes, (H, W) int64; -1, no class, at 255, 65535, below 0, and at the numbers that `ignore` has."""
    array = one_per_pixel(stored)
    if np.issubdtype(array.dtype, np.floating):
        array = np.where(np.isfinite(array), array, -1)
        if (array != np.round(array)).any():
            raise ValueError(
                "values with fractions, where each pixel has the number of its class; export whole numbers"
            )
    ids = array.astype(np.int64)
    for number in (*NO_CLASS, *options.get("ignore", ())):
        if (none := ids == number).any():
            note(f"class_ids: {number} is taken for no class", _share(none))
            ids[none] = -1
    return np.maximum(ids, -1)


def _limits(array: np.ndarray) -> tuple[float, float]:
    """The lowest and highest finite value, of no negative ones."""
    inside = array[np.isfinite(array)] if np.issubdtype(array.dtype, np.floating) else array
    if not inside.size:
        raise ValueError("no pixel has a value that is finite")
    low, high = float(inside.min()), float(inside.max())
    if low < -_SLACK:
        raise ValueError(f"values from {low:.4g} to {high:.4g}, some below 0; scale them to 0 ... 1")
    return low, high


def _top(array: np.ndarray, high: float) -> float:
    """What white is, of values up to `high`: 1 of truth values, 0 and 1, and floats up to 1; else of 8 or 16 bits."""
    if array.dtype == np.bool_:
        return 1
    if np.issubdtype(array.dtype, np.floating):
        if high <= 1 + _SLACK:
            return 1
        if high <= 2 or high > 255 + _SLACK:
            raise ValueError(f"values up to {high:.4g}, neither of 0 ... 1 nor of 0 ... 255; scale them to 0 ... 1")
        return 255
    if high <= 1:
        return 1
    if array.dtype == np.uint8:
        return 255
    if array.dtype != np.uint16 and high > _TOP16:
        raise ValueError(f"values up to {high:.0f}, more than 16 bits hold; scale them to 0 ... 1")
    return 255 if high <= 255 else _TOP16


def _share(where: np.ndarray) -> str:
    return f"{where.mean():.1%} of its pixels"


# What a set of them looks like --------------------------------------------------------------------------------------


def odd_depth(medians: Sequence[float]) -> str:
    (metres,) = medians
    if 0.05 <= metres <= 500:
        return ""
    return f"the median depth is {metres:.3g} m: is depth_scale right (units of 16-bit images per metre)?"


def odd_normals(medians: Sequence[float]) -> str:
    if medians[2] >= 0:
        return ""
    return 'most normals point away from the viewer: set normals_axes = "opencv", if that is what they are'
