"""Files as the arrays that metrics take, by the one reader of `genpercept.imaging.stored`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genpercept.core.label_rules import read_mask as mask_of
from genpercept.imaging.encode import value_words
from genpercept.imaging.stored import KEYS, Stored, read_stored

EXTENSIONS = (".npy", ".npz", ".exr", ".png", ".tif", ".tiff")  # of one sample in several formats the first counts
# What data sets append to an image's name, beside _TASK, which `predict` appends: x_depth.npy and x.png are the same sample.
SUFFIXES = (
    *("_normal", "_valid", "_mask", "_trimap", "_skeleton", "_alpha", "_pred", "_gt"),
    *("_leftImg8bit", "_gtFine_labelTrainIds", "_gtFine_labelIds"),  # Cityscapes
)
_NO_CLASS = 65535  # what `predict` writes into 16-bit PNG of class ids where there is none


class Pair(NamedTuple):
    """Files of one sample. gt None: a picture known to be good (in trees). extras: by the metric's keyword."""

    name: str
    pred: Path
    gt: Path | None
    valid: Path | None = None
    extras: dict[str, Path] = {}  # noqa: RUF012 (never written to)
    category: str = ""


def read_map(path: Path, keys: Sequence[str] = KEYS) -> NDArray[Any]:
    """(H, W) or (H, W, C): floating point as stored, whole numbers as fractions of what their bits hold.

    Of a PNG the encoding that `predict` wrote into it is undone.
    """
    array, words = read_array(path, keys)
    if array.dtype.kind == "f":
        return array
    if array.dtype not in (np.uint8, np.uint16, np.bool_):
        raise ValueError(f"{path}: holds {array.dtype} values: expected floating point, or 8 or 16 bits")
    top = {"uint16": 65535, "bool": 1}.get(str(array.dtype), 255)
    low, span = value_words(words) or (0.0, 1.0)
    return low + array / top * span


def read_unit(path: Path) -> NDArray[Any]:
    """(H, W) mask or matte: 8 bits and floating point as stored, 16 bits as fractions of 65535."""
    array = read_grey(path, ("values", "mask", "alpha", "pred", "gt"))
    return array / 65535 if array.dtype == np.uint16 else array


def read_ids(path: Path) -> NDArray[np.integer[Any]]:
    """(H, W) class ids of npy, npz or a single-channel image; of palettes the indices, of 16 bits 65535 as -1."""
    stored = read(path, ("values", "class_ids", "pred", "gt"))
    try:
        array = stored.indices
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if array.ndim != 2 or array.dtype.kind not in "uib":
        what = f"{array.dtype} of shape {array.shape}"
        raise ValueError(f"{path}: holds {what}: expected one class id per pixel, not a coloured picture")
    return np.where(array == _NO_CLASS, -1, array.astype(np.int64)) if array.dtype == np.uint16 else array


def read_mask(path: Path) -> NDArray[np.bool_]:
    """(H, W) bool: True where the file is, as `genpercept.core.label_rules.read_mask` says."""
    array = read_grey(path, ("valid", "mask", "values"))
    try:
        return mask_of(array, {})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_grey(path: Path, keys: Sequence[str] = KEYS) -> NDArray[Any]:
    """(H, W) out of that, equal channels, or whatever else is one value per pixel. ValueError for a coloured picture."""
    return grey(read(path, keys))


def grey(stored: Stored) -> NDArray[Any]:
    """The same of a file that is read."""
    path = stored.path
    try:
        array = stored.single
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if array.ndim != 2:
        raise ValueError(f"{path}: has shape {array.shape}: expected a single-channel map, not a picture")
    return array


def read_array(path: Path, keys: Sequence[str] = KEYS) -> tuple[NDArray[Any], str]:
    """What a file holds, colours without opacity, and what `predict` wrote of its encoding. ValueError names the file."""
    stored = read(path, keys)
    colours = stored.colours
    if stored.opacity or (stored.palette is not None and colours.shape[-1] == 4):
        colours = colours[..., :-1]
    return colours[..., 0] if colours.ndim == 3 and colours.shape[-1] == 1 else colours, stored.words


def read(path: Path, keys: Sequence[str] = KEYS) -> Stored:
    """The file as it is stored. ValueError that names it for another ending, too."""
    if path.suffix.lower() not in EXTENSIONS:
        raise ValueError(f"{path}: is no {', '.join(EXTENSIONS)} file")
    return read_stored(path, keys)
