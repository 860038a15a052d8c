"""TIFF files of pixel types that Pillow does not read, by tifffile: floats with colours, and more than four channels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from genpercept.imaging.budget import READING
from genpercept.imaging.pixels import Refused, blocks, by_257, check_finite, scaled

_TYPES = "8 and 16 bits, and floats of 16 to 64 bits, grey or RGB, with or without further channels, are read"
_PHOTOMETRIC, _YCBCR, _SUBSAMPLING = 262, 6, 530  # tags of TIFF 6.0


def is_tiff(head: bytes) -> bool:
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def mend_ycbcr(image: Any) -> None:
    """Before it is loaded: Pillow up to 12 takes four bytes for each pixel of an uncompressed YCbCr TIFF, which has three."""
    tags, tiles = getattr(image, "tag_v2", {}), getattr(image, "tile", [])
    whole = tags.get(_PHOTOMETRIC) == _YCBCR and tuple(tags.get(_SUBSAMPLING, (2, 2))) == (1, 1)
    if image.format == "TIFF" and whole and tiles and all(t[0] == "raw" and t[3][0] == "RGBX" for t in tiles):
        image._mode = "YCbCr"  # as Pillow 13 has it
        image.tile = [(*t[:3], ("YCbCr", *t[3][1:])) for t in tiles]


def read(path: Path, name: str, check: Callable[[tuple[int, int], int], None]) -> np.ndarray:
    """The first page as (H, W, 3) uint8; of several channels the first three where the file says that they are RGB.

    check((width, height), bytes for each pixel) raises ValueError for what is too large; nothing is decoded before.
    Floats: within [0, 1] fractions of white, within [0, 255] 8-bit values, others are stretched from the lowest to the
    highest value of all three colours. Refused for other types, for NaN, and without tifffile.
    """
    try:
        import tifffile
    except ImportError:
        raise Refused(
            f"{name}: a TIFF that Pillow does not read: pip install 'genpercept[tiff]' for floats with colours and more "
            "than four channels, or export it with 8 or 16 bits"
        ) from None
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        if not isinstance(page, tifffile.TiffPage):
            raise Refused(f"{name}: a TIFF without a page; get or export it again")
        size, channels = (page.imagelength, page.imagewidth), _channels(page, name)
        each = 3 + -(-_scratch(page) // max(1, size[0] * size[1]))
        check((size[1], size[0]), each)
        with READING.take(size[0] * size[1] * each):
            return _rgb(page, path, name, size, channels)


def _scratch(page: Any) -> int:
    """Bytes of one strip or tile, coded and decoded; none to speak of where rows are read one by one."""
    if _plain(page):
        return 0
    rows, columns = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    samples = page.samplesperpixel if page.planarconfig == 1 else 1
    return 2 * min(rows, 2**32) * columns * samples * page.dtype.itemsize


def _plain(page: Any) -> bool:
    """Whether pixels lie one after the other in the file, just as an array has them."""
    return page.is_memmappable and page.planarconfig == 1


def _channels(page: Any, name: str) -> int:
    """3 for RGB, 1 for grey. Refused where nobody says which channels are colours."""
    kind, samples = page.photometric.name if page.photometric is not None else "none", page.samplesperpixel
    what = f"{page.dtype} x {samples}, {kind}"
    if page.dtype is None or page.dtype.name not in ("uint8", "uint16", "float16", "float32", "float64"):
        raise Refused(f"{name}: a TIFF of {what}; {_TYPES}")
    if kind == "RGB" and samples >= 3:
        return 3
    if kind == "MINISBLACK" and samples == 1:
        return 1
    raise Refused(f"{name}: a TIFF of {what}: which channels are red, green and blue? {_TYPES}; export those alone")


def _rgb(page: Any, path: Path, name: str, size: tuple[int, int], channels: int) -> np.ndarray:
    to_8 = by_257 if page.dtype.itemsize == 2 else np.asarray
    if page.dtype.kind == "f":
        low, high = np.inf, -np.inf
        for _, part in _parts(page, path, name, channels):
            check_finite(part, name)
            low, high = min(low, float(part.min())), max(high, float(part.max()))
        to_8 = scaled(low, high)
    out = np.empty((*size, 3), np.uint8)
    for (top, left, channel), part in _parts(page, path, name, channels):
        h, w, depth = part.shape
        to = slice(channel, channel + depth) if channels == 3 else slice(0, 3)
        out[top : top + h, left : left + w, to] = to_8(part)
    return out


def _parts(page: Any, path: Path, name: str, channels: int) -> Iterator[tuple[tuple[int, int, int], np.ndarray]]:
    """((top, left, first channel), values (h, w, channels)) in blocks of few pixels; Refused where some are missing."""
    for (top, left, channel), values in _rows(page, path, channels) if _plain(page) else _segments(page, name):
        if channel < channels:
            for x, y, to_x, to_y in blocks((values.shape[1], values.shape[0])):
                yield (top + y, left + x, channel), values[y:to_y, x:to_x, : channels - channel]


def _rows(page: Any, path: Path, channels: int) -> Iterator[tuple[tuple[int, int, int], np.ndarray]]:
    w, h, samples = page.imagewidth, page.imagelength, page.samplesperpixel
    dtype = page.dtype.newbyteorder(page.parent.byteorder)
    for left, top, right, bottom in blocks((w, h)):
        start = page.dataoffsets[0] + (top * w + left) * samples * dtype.itemsize
        count = (bottom - top) * (right - left)
        values = np.fromfile(path, dtype, count * samples, offset=start)
        yield (top, left, 0), values.reshape(bottom - top, right - left, samples)


def _segments(page: Any, name: str) -> Iterator[tuple[tuple[int, int, int], np.ndarray]]:
    for values, (sample, _, top, left, first), _ in page.segments(maxworkers=1):
        if values is None:
            raise Refused(f"{name}: a truncated TIFF; get or export it again")
        yield (
            (top, left, sample + first),
            values[0][: page.imagelength - top, : page.imagewidth - left],
        )  # tiles may jut out
