"""Damage to files, by a generator of random numbers: the same numbers, the same damage."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Sequence

_SIZES = (0, 1, 2, 3, 7, 8, 16, 47, 255, 256, 1000, 4096, 32767, 65535, 100_000, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
_HEADER = 96  # bytes within which most formats have their sizes
_PNG = b"\x89PNG\r\n\x1a\n"


def mutant(seeds: Sequence[bytes], which: int, rng: random.Random) -> bytes:
    """seeds[which] with one to three kinds of damage; another of `seeds` may lend a piece."""
    data = bytearray(seeds[which])
    for _ in range(rng.randint(1, 3)):
        rng.choice(_DAMAGES)(data, rng, seeds)
    if data.startswith(_PNG) and rng.random() < 0.7:  # else nearly all would fail at a checksum
        data = _with_checksums(bytes(data))
    return bytes(data)


def _flip(data: bytearray, rng: random.Random, seeds: Sequence[bytes]) -> None:
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _overwrite(data: bytearray, rng: random.Random, seeds: Sequence[bytes]) -> None:
    start, length = _span(data, rng)
    data[start : start + length] = bytes([rng.choice((0, 255, rng.randrange(256)))]) * length


def _truncate(data: bytearray, rng: random.Random, seeds: Sequence[bytes]) -> None:
    del data[rng.randint(0, len(data)) :]


def _resize(data: bytearray, rng: random.Random, seeds: Sequence[bytes]) -> None:
    """A number of 2 or 4 bytes, of either order, near the beginning; for text, other digits."""
    value, form = rng.choice(_SIZES), rng.choice(("<H", ">H", "<I", ">I"))
    number = struct.pack(form, value % 2 ** (8 * struct.calcsize(form)))
    if data[:1] == b"P":
        number = str(value).encode()
    start = rng.randrange(min(len(data), _HEADER) + 1)
    data[start : start + len(number)] = number


def _splice(data: bytearray, rng: random.Random, seeds: Sequence[bytes]) -> None:
    other = rng.choice(seeds)
    start, length = _span(other, rng)
    at = rng.randint(0, len(data))
    data[at : at + rng.choice((0, length))] = other[start : start + length]


def _duplicate(data: bytearray, rng: random.Random, seeds: Sequence[bytes]) -> None:
    start, length = _span(data, rng)
    at = rng.randint(0, len(data))
    data[at:at] = data[start : start + length]


def _delete(data: bytearray, rng: random.Random, seeds: Sequence[bytes]) -> None:
    start, length = _span(data, rng)
    del data[start : start + length]


def _span(data: bytes | bytearray, rng: random.Random) -> tuple[int, int]:
    start = rng.randint(0, len(data))
    return start, min(rng.choice((1, 2, 4, 12, 64, 300)), len(data) - start)


_DAMAGES: tuple[Callable[[bytearray, random.Random, Sequence[bytes]], None], ...] = (
    *(_flip, _flip, _overwrite, _truncate, _resize, _resize, _splice, _duplicate, _delete),
)


def _with_checksums(data: bytes) -> bytearray:
    """A PNG whose chunks have the checksums of what they hold by now; what is no chunk any more stays."""
    out, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        length = struct.unpack_from(">I", data, at)[0]
        if at + 12 + length > len(data):
            break
        body = data[at + 4 : at + 8 + length]
        out += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return out + data[at:]
