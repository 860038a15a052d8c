"""PNG files out of pixels, band by band: 8 or 16 bits, grey, RGB or with opacity (Pillow writes no 16-bit RGB).

Compressed by ISA-L (Intel's library for deflate, in the package isal), at its level 1: several times as fast as zlib's level 4,
for files of about the same size (benchmarks/speed/pixels.py). Any reader of PNG reads them. Where there is no isal, by zlib.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

try:
    from isal import isal_zlib as _deflate
except ImportError:  # no wheel for this machine
    _deflate = zlib

_LEVEL = 1
_SUB, _UP = 1, 2  # types of filter: the difference to the pixel on the left, or above
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by channels
_BAND = 2**18  # values: what is made of them in between fits into a processor's cache


def png_bytes(pixels: np.ndarray, text: str = "") -> bytes:
    """(H, W) or (H, W, 1 to 4), uint8 or uint16 -> a PNG. text: its `Description`, of which Latin letters are kept."""
    rows = (pixels[part] for part in bands(pixels.shape))
    return png_of(pixels.shape, pixels.dtype, rows, text)


def png_of(shape: tuple[int, ...], dtype: Any, rows: Iterable[np.ndarray], text: str = "") -> bytes:
    """A PNG of pixels of this shape and dtype that come as bands of rows, from the top."""
    dtype, channels = np.dtype(dtype), math.prod(shape[2:])
    bits = 8 * dtype.itemsize
    header = struct.pack(">IIBBBBB", shape[1], shape[0], bits, _COLOUR_TYPES[channels], 0, 0, 0)
    pieces = [b"\x89PNG\r\n\x1a\n", *_chunk(b"IHDR", header)]
    if text:
        pieces += _chunk(b"tEXt", b"Description\0" + text.encode("latin-1", "replace"))
    # Differences to the left say more of a smooth map of 16 bits, whose rows are alike but for their last bits.
    filtered = _by_the_left(rows, dtype.itemsize * channels) if bits == 16 else _by_the_row_above(rows)
    return b"".join([*pieces, *_chunk(b"IDAT", _deflated(filtered)), *_chunk(b"IEND", b"")])


def bands(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices of rows of about 2^18 values each: what is made of them in between stays small beside a large map."""
    rows = max(1, _BAND // max(1, math.prod(shape[1:])))
    for start in range(0, shape[0], rows):
        yield slice(start, min(start + rows, shape[0]))


def _chunk(name: bytes, body: bytes) -> list[bytes]:
    return [struct.pack(">I", len(body)), name, body, struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))]


def _deflated(filtered: Iterable[np.ndarray]) -> bytes:
    deflate = _deflate.compressobj(_LEVEL)
    pieces = [deflate.compress(each.data) for each in filtered]
    return b"".join([*pieces, deflate.flush()])


def _by_the_left(rows: Iterable[np.ndarray], bytes_each: int) -> Iterator[np.ndarray]:
    for band in rows:
        raw = _bytes(band)
        out = _with_filters(raw, _SUB)
        out[:, 1 : 1 + bytes_each] = raw[:, :bytes_each]
        np.subtract(
            raw[:, bytes_each:], raw[:, :-bytes_each], out=out[:, 1 + bytes_each :]
        )  # modulo 256, as uint8 wraps
        yield out


def _by_the_row_above(rows: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    above: np.ndarray | int = 0
    for band in rows:
        raw = _bytes(band)
        out = _with_filters(raw, _UP)
        np.subtract(raw[0], above, out=out[0, 1:])
        np.subtract(raw[1:], raw[:-1], out=out[1:, 1:])
        above = raw[-1].copy()
        yield out


def _bytes(band: np.ndarray) -> np.ndarray:
    """(rows, bytes), the high byte first."""
    values = np.ascontiguousarray(band, dtype=band.dtype.newbyteorder(">"))
    return values.reshape(len(band), -1).view(np.uint8)


def _with_filters(raw: np.ndarray, kind: int) -> np.ndarray:
    out = np.empty((raw.shape[0], raw.shape[1] + 1), np.uint8)
    out[:, 0] = kind
    return out
