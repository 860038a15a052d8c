"""PNG of 16 bits per channel with several channels, of which Pillow gives the upper 8 bits only."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {2: 3, 4: 2, 6: 4}  # of the colour types that Pillow cuts


def read(path: Path) -> np.ndarray | None:
    """(H, W, 2 to 4) uint16; None for a PNG that Pillow reads whole. ValueError for a damaged or interlaced one.

    PNG filters each byte by the same byte of the pixel before and above. So the bytes of one place in all pixels are by
    themselves the rows of a PNG of 8 bits, which Pillow decodes.
    """
    with path.open("rb") as file:
        head = file.read(33)
        if head[:8] != _SIGNATURE or len(head) < 33:
            return None
        width, height, bits, colour, *_, interlaced = struct.unpack(">IIBBBBB", head[16:29])
        if bits != 16 or colour not in _CHANNELS:
            return None
        if interlaced:
            raise ValueError(
                "16 bits per channel, interlaced, of which only the upper 8 could be read; save it without"
            )
        packed = b"".join(_data(file))
    stride = 2 * _CHANNELS[colour]
    size = height * (width * stride + 1)
    rows = zlib.decompressobj().decompress(packed, size)
    if len(rows) != size:
        raise ValueError("the PNG is cut short")
    lines = np.frombuffer(rows, np.uint8).reshape(height, -1)
    pixels = lines[:, 1:].reshape(height, width, stride)
    planes = [_plane(lines[:, :1], pixels[..., i]) for i in range(stride)]
    return np.ascontiguousarray(np.stack(planes, -1)).view(">u2").astype(np.uint16)


def _data(file: BinaryIO) -> Iterator[bytes]:
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        body = file.read(length)
        file.read(4)
        if name == b"IDAT":
            yield body
        if name == b"IEND":
            return


def _plane(filters: np.ndarray, bytes_HW: np.ndarray) -> np.ndarray:
    height, width = bytes_HW.shape
    rows = zlib.compress(np.concatenate([filters, bytes_HW], 1).tobytes(), 0)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    png = _SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    with Image.open(io.BytesIO(png)) as image:
        return np.array(image)
