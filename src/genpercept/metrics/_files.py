"""Files as the arrays that metrics take: npy, npz and png."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

EXTENSIONS = (".npy", ".npz", ".png")  # of one sample in several formats the first counts
# What data sets append to an image's name, beside _TASK, which `predict` appends: x_depth.npy and x.png are the same sample.
SUFFIXES = (
    *("_normal", "_valid", "_mask", "_trimap", "_skeleton", "_alpha", "_pred", "_gt"),
    *("_leftImg8bit", "_gtFine_labelTrainIds", "_gtFine_labelIds"),  # Cityscapes
)
ASIDE = ("_overlay", "_color", "_colour", "_colored", "_coloured", "_uncertainty")  # lies beside predictions, is none
_NO_CLASS = 65535  # what `predict` writes into 16-bit PNG of class ids where there is none


class Pair(NamedTuple):
    """Files of one sample. gt None: a picture known to be good (in trees). extras: by the metric's keyword."""

    name: str
    pred: Path
    gt: Path | None
    valid: Path | None = None
    extras: dict[str, Path] = {}  # noqa: RUF012 (never written to)
    category: str = ""


def read_map(path: Path, keys: tuple[str, ...] = ("values", "pred", "gt")) -> NDArray[Any]:
    """(H, W) or (H, W, C): floating point as stored, whole numbers as fractions of what their bits hold.

    Of a PNG the encoding that `predict` wrote into it is undone. Of one of 16 bits with colours only the upper bytes are
    read, as the middle of their range.
    """
    array = read_array(path, keys)
    if array.dtype.kind == "f":
        return array
    if array.dtype not in (np.uint8, np.uint16, np.bool_):
        raise ValueError(f"{path}: holds {array.dtype} values: expected floating point, or 8 or 16 bits")
    deep = array.dtype == np.uint8 and is_deep_png(path)
    top = 65535 if array.dtype == np.uint16 else 1 if array.dtype == np.bool_ else 255
    unit = (array + 0.5) / 256 if deep else array / top
    low, span = encoded(path) or (0.0, 1.0)
    return low + unit * span


def read_unit(path: Path) -> NDArray[Any]:
    """(H, W) mask or matte: 8 bits and floating point as stored, 16 bits as fractions of 65535."""
    array = grey(read_array(path, ("values", "mask", "alpha", "pred", "gt")), path)
    return array / 65535 if array.dtype == np.uint16 else array


def read_ids(path: Path) -> NDArray[np.integer[Any]]:
    """(H, W) class ids of npy, npz or a single-channel PNG; of palettes the indices, of 16 bits 65535 as -1."""
    array = read_array(path, ("values", "class_ids", "pred", "gt"), palette=True)
    if array.ndim != 2 or array.dtype.kind not in "uib":
        what = f"{array.dtype} of shape {array.shape}"
        raise ValueError(f"{path}: holds {what}: expected one class id per pixel, not a coloured picture")
    return np.where(array == _NO_CLASS, -1, array.astype(np.int64)) if array.dtype == np.uint16 else array


def read_mask(path: Path) -> NDArray[np.bool_]:
    """(H, W) bool: True where the file is above 0 (in any channel)."""
    array = read_array(path, ("valid", "mask", "values"))
    above = np.asarray(array > 0)
    return np.any(above, axis=-1) if above.ndim == 3 else above


def encoded(path: Path) -> tuple[float, float] | None:
    """(low, span) where a PNG says value = low + fraction of white * span, as `predict` writes it; None where nothing does."""
    if path.suffix.lower() != ".png":
        return None
    with Image.open(path) as image:
        words = str(image.info.get("Description", ""))
    code = re.search(r"value = (?:(\S+) \+ )?pixel / 65535(?: \* (\S+))?$", words)
    return None if code is None else (float(code[1] or 0), float(code[2] or 1))


def is_deep_png(path: Path) -> bool:
    """Whether it is a PNG of 16 bits per channel, of which Pillow gives only the upper byte when there are colours."""
    with path.open("rb") as file:
        header = file.read(26)
    return header[:4] == b"\x89PNG" and header[24:25] == b"\x10"


def grey(array: NDArray[Any], path: Path) -> NDArray[Any]:
    """(H, W) out of that or of equal channels. ValueError for a coloured picture."""
    if array.ndim == 3 and path.suffix.lower() == ".png" and (array == array[..., :1]).all():
        array = array[..., 0]
    if array.ndim != 2:
        raise ValueError(f"{path}: has shape {array.shape}: expected a single-channel map, not a picture")
    return array


def read_array(path: Path, keys: tuple[str, ...], palette: bool = False) -> NDArray[Any]:
    """An array from npy, npz (the only one, or the first of `keys`) or an image; ValueError names the file."""
    if path.suffix.lower() not in EXTENSIONS:
        raise ValueError(f"{path}: is no {', '.join(EXTENSIONS)} file")
    try:
        if path.suffix.lower() == ".png":
            with Image.open(path) as image:
                if image.mode == "P" and palette:
                    return np.array(image)
                to = {"P": "RGB", "RGBA": "RGB", "LA": "L"}.get(image.mode)
                return np.array(image.convert(to) if to else image)
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            names = loaded.files
            key = next((k for k in keys if k in names), names[0] if len(names) == 1 else None)
            if key is None:
                raise ValueError(f"holds {', '.join(names)}: expected one array, or one called {keys[0]!r}")
            return loaded[key]
    except UnidentifiedImageError:
        raise ValueError(f"{path}: not an image") from None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None
