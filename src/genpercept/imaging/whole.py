"""Is all of an image there? Some decoders fill up what a file lacks: with zeros (PNG, TIFF, JPEG 2000), or grey (JPEG).

What looks filled is looked into; what does not costs next to nothing.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from genpercept.imaging.pixels import Refused, blocks

_JPEG = ("JPEG", "MPO")  # several of them in one file
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)  # in coded data: neither a byte FF nor a restart
_JPEG_MORE = b"\x5a\x3c\x96\x65" * 32  # coded data as good as any
_PNG_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # colour type -> samples of a pixel
_CHUNK = 2**20


def check_header(image: Image.Image, path: Path, name: str) -> None:
    """Before decoding. Refused where the header promises more pixels than the file can hold."""
    w, h = image.size
    if image.format in _JPEG:
        # Huffman codes take one bit at least: one for a block of 8 x 8 pixels, two where scans are not progressive.
        least = -(-w // 8) * -(-h // 8) * (1 if "progressive" in image.info else 2) // 8
        if path.stat().st_size < least and not _arithmetic(path):
            raise _short(image, name, f"which take {least:,} bytes at least, more than the file has")
    elif image.format in ("TIFF", "JPEG2000"):
        area = sum((right - left) * (bottom - top) for left, top, right, bottom in {tile[1] for tile in image.tile})  # type: ignore[attr-defined]
        if area < w * h:
            raise _short(image, name, "but does not say where all of them are")
    if image.format == "JPEG2000":
        with path.open("rb") as file:
            there, wanted = _jpeg2000_tiles(file)
        if there < wanted:
            raise _short(image, name, f"but holds {there} of its {wanted} tiles")


def check_pixels(image: Image.Image, path: Path, name: str) -> None:
    """After decoding. Refused where the last pixels look filled up, and are."""
    w, h = image.size
    if image.format == "PNG" and (image.info.get("interlace") or _within(image, (0, h - 1, w, h), 0, 0)):
        with path.open("rb") as file:
            there, wanted = _png_bytes(file)
        if there < wanted:
            raise _short(image, name, f"but holds {there / wanted:.1%} of them")
    if image.format in _JPEG:
        corner = (w - 1) // 8 * 8, (h - 1) // 8 * 8, w, h
        if _within(image, corner, 127, 128) and _jpeg_takes_more(image, path):
            raise _short(image, name, "but ends before the last of them")


def _short(image: Image.Image, name: str, what: str) -> Refused:
    w, h = image.size
    return Refused(f"{name}: a truncated {image.format}: claims {w} x {h} pixels, {what}; get or export it again")


def _within(image: Image.Image, box: tuple[int, int, int, int], low: int, high: int) -> bool:
    """Whether all values in the box are between `low` and `high`."""
    left, top, right, bottom = box
    last: Any = image.getpixel((right - 1, bottom - 1))  # which nearly always says it
    if not all(low <= value <= high for value in (last if isinstance(last, tuple) else (last,))):
        return False
    for x, y, to_x, to_y in blocks((right - left, bottom - top)):
        part = np.asarray(image.crop((left + x, top + y, left + to_x, top + to_y)))
        if part.min() < low or part.max() > high:
            return False
    return True


# ---- PNG


def _png_bytes(file: BinaryIO) -> tuple[int, int]:
    """Bytes of filtered rows that the first image holds, and that its header promises."""
    w, h, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", file.read(29)[16:29])
    bits *= _PNG_SAMPLES[colour]
    sizes = [(w, h)]
    if interlaced:
        sizes = [(-(-(w - x) // dx), -(-(h - y) // dy)) for x, y, dx, dy in _PNG_PASSES]
    wanted = sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in sizes if columns > 0 and rows > 0)
    inflate, there = zlib.decompressobj(), 0
    for data in _png_data(file):
        while data and not inflate.eof and there < wanted:
            there += len(inflate.decompress(data, _CHUNK))
            data = inflate.unconsumed_tail
    return there, wanted


def _png_data(file: BinaryIO) -> Iterator[bytes]:
    """What the IDAT chunks hold, in pieces."""
    file.seek(8)
    begun = False
    while len(head := file.read(8)) == 8:
        left, kind = struct.unpack(">I4s", head)
        if kind != b"IDAT":
            if begun:
                return
            file.seek(left + 4, 1)
            continue
        begun = True
        while left and (piece := file.read(min(left, _CHUNK))):
            left -= len(piece)
            yield piece
        file.seek(4, 1)  # its checksum


# ---- JPEG


def _jpeg_takes_more(image: Image.Image, path: Path) -> bool:
    """Whether more coded data before the end marker would change the picture: what is there was not enough for it."""
    data = path.read_bytes()
    end = _jpeg_end(data)
    with Image.open(io.BytesIO(data[:end] + _JPEG_MORE + data[end:]), formats=["JPEG"]) as longer:
        longer.load()
        return any(image.crop(box).tobytes() != longer.crop(box).tobytes() for box in blocks(image.size))


def _jpeg_end(data: bytes) -> int:
    """Where the first image's end marker is; the end of the data where there is none."""
    at = 2
    while found := _JPEG_MARKER.search(data, at):
        marker, at = data[found.start() + 1], found.end()
        if marker == 0xD9:
            return found.start()
        at += int.from_bytes(data[at : at + 2], "big")
    return len(data)


def _arithmetic(path: Path) -> bool:
    """Whether a JPEG is coded in another way than by Huffman's, which may take less than a bit."""
    with path.open("rb") as file:
        data = file.read(_CHUNK)
    at = 2
    while found := _JPEG_MARKER.search(data, at):
        marker, at = data[found.start() + 1], found.end()
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return marker > 0xC8
        at += int.from_bytes(data[at : at + 2], "big")
    return True  # nobody knows


# ---- JPEG 2000


def _jpeg2000_tiles(file: BinaryIO) -> tuple[int, int]:
    """Tiles that a codestream has parts of, and those that its size marker promises. (0, 0) where there is none to be seen."""
    if not _to_codestream(file):
        return 0, 0
    file.read(2)
    found, wanted = set[int](), 0
    while len(head := file.read(4)) == 4:
        marker, length = struct.unpack(">HH", head)
        if marker == 0xFF51:  # SIZ
            to_x, to_y, _, _, w, h, x, y = struct.unpack(">8I", file.read(length - 2)[2:34])
            wanted = -(-(to_x - x) // w) * -(-(to_y - y) // h)
        elif marker == 0xFF90:  # SOT, and how far it is to the next one
            tile, part = struct.unpack(">HI", file.read(6))
            found.add(tile)
            if not part:  # up to the end
                break
            file.seek(part - 10, 1)
        elif marker == 0xFFD9:
            break
        else:
            file.seek(length - 2, 1)
    return len(found), wanted


def _to_codestream(file: BinaryIO) -> bool:
    """Moves to the codestream: to the contents of the box jp2c, or to the beginning where there are no boxes."""
    if file.read(4) == b"\xff\x4f\xff\x51":
        file.seek(0)
        return True
    file.seek(0)
    while len(head := file.read(8)) == 8:
        size, kind = struct.unpack(">I4s", head)
        skip = size - 8
        if size == 1:
            skip = struct.unpack(">Q", file.read(8))[0] - 16
        if kind == b"jp2c":
            return True
        if skip < 0:
            return False
        file.seek(skip, 1)
    return False
