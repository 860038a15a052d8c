"""Predictions as pixels of 16 bits, with the words that say how to get the values back."""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from genpercept.imaging.kinds import KINDS

_TOP = 65535
_WORDS = re.compile(rf"value = (?:(\S+) \+ )?pixel / {_TOP}(?: \* ([^\s;]+))?(?:; side by side: (.+))?$")
_IDS = re.compile(rf"pixel = .+, {_TOP} where none$")


class Result(Protocol):
    """What the writers need to know of a Prediction."""

    @property
    def values(self) -> np.ndarray: ...
    @property
    def kind(self) -> str: ...
    @property
    def valid(self) -> np.ndarray | None: ...
    @property
    def uncertainty(self) -> np.ndarray | None: ...
    @property
    def raw(self) -> np.ndarray | None: ...
    @property
    def meta(self) -> Mapping[str, Any]: ...


def kept(result: Result) -> np.ndarray:
    """(H, W) bool: where values are valid and finite."""
    values = result.values
    finite = np.isfinite(values if values.ndim == 2 else values.sum(-1))
    return finite if result.valid is None else finite & result.valid


def image_names(result: Result) -> list[str]:
    """Names of a stack's images in their order."""
    count = result.values.shape[-1] // 3
    described = result.meta.get(KINDS[result.kind].legend) or ()
    return [str(t["name"]) for t in described] or [f"image{i + 1}" for i in range(count)]


def encode16(result: Result) -> tuple[np.ndarray, str]:
    """(H, W) or (H, W, 3) uint16, and how to get the values back, in words. Images of a stack side by side: (H, n W, 3).

    Quantities: a kind's limits are 0 and 65535; without limits [0, 1], or lowest and highest where some are outside.
    Pixels that are not valid are 0. Ids: as they are, 65535 where there is none. ValueError for an id that 16 bits
    cannot hold.
    """
    row, values, keep = KINDS[result.kind], result.values, kept(result)
    if row.ids:
        return _encode_ids(values, keep, row.item)
    low, high = row.limits or _span(values[keep])
    pixels: np.ndarray = np.empty(values.shape, np.uint16)
    for part in bands(values.shape):
        scaled = np.clip((np.nan_to_num(values[part]) - low) / (high - low), 0, 1)
        pixels[part] = np.rint(scaled * _TOP)
        pixels[part][~keep[part]] = 0
    words = f"pixel / {_TOP}" if (low, high) == (0, 1) else f"{low:.9g} + pixel / {_TOP} * {high - low:.9g}"
    if row.layout == "stack":
        pixels = np.concatenate(np.split(pixels, pixels.shape[-1] // 3, axis=-1), axis=1)
        words += f"; side by side: {', '.join(image_names(result))}"
    return pixels, f"value = {words}"


def decode16(pixels: np.ndarray, words: str) -> np.ndarray:
    """What `encode16` made (uint16), back: float32 to half a step, or int32 ids, -1 where none. A stack: (H, W, 3 n).

    words: of a PNG's text `Description`, or of the sidecar. ValueError where they are not ours.
    """
    if _IDS.search(words):
        return np.where(pixels == _TOP, -1, pixels.astype(np.int32))
    code = _WORDS.search(words)
    if code is None:
        raise ValueError(f"{words!r}: says nothing of 16-bit values that `predict` writes; use its npy or npz")
    values = (float(code[1] or 0) + pixels / _TOP * float(code[2] or 1)).astype(np.float32)
    return np.concatenate(np.split(values, len(code[3].split(", ")), axis=1), axis=-1) if code[3] else values


def value_words(words: str) -> tuple[float, float] | None:
    """(low, span) of words that say value = low + fraction of white * span; None for others, those of ids too."""
    code = _WORDS.search(words)
    return None if code is None else (float(code[1] or 0), float(code[2] or 1))


def png16_bytes(pixels: np.ndarray, text: str = "") -> bytes:
    """(H, W) or (H, W, 3) uint16 -> a PNG of 16 bits per channel (Pillow writes no 16-bit RGB)."""
    h, w = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", w, h, 16, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    chunks = [(b"IHDR", header)]
    if text:
        chunks.append((b"tEXt", b"Description\0" + text.encode("latin-1", "replace")))
    chunks += [(b"IDAT", _deflated(pixels)), (b"IEND", b"")]
    pieces = [b"\x89PNG\r\n\x1a\n"]
    for name, body in chunks:
        pieces += [struct.pack(">I", len(body)), name, body, struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))]
    return b"".join(pieces)


def _deflated(pixels: np.ndarray) -> bytes:
    """Rows by filter type 2, the difference to the row above, compressed band by band."""
    deflate, pieces = zlib.compressobj(4), []
    for part in bands(pixels.shape):
        above = pixels[max(part.start - 1, 0) : part.stop]
        rows = np.ascontiguousarray(above, dtype=">u2").reshape(len(above), -1).view(np.uint8)
        first = rows[:1] if part.start == 0 else rows[:0]  # which has no row above it
        filtered = np.full((part.stop - part.start, rows.shape[1] + 1), 2, np.uint8)
        filtered[: len(first), 1:] = first
        filtered[len(first) :, 1:] = rows[1:] - rows[:-1]  # modulo 256, as uint8 wraps
        pieces.append(deflate.compress(filtered.data))
    return b"".join([*pieces, deflate.flush()])


def bands(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices of rows of about a million values each: what is made of them in between stays small beside a large map."""
    rows = max(1, 2**20 // max(1, math.prod(shape[1:])))
    for start in range(0, shape[0], rows):
        yield slice(start, min(start + rows, shape[0]))


def _encode_ids(ids: np.ndarray, keep: np.ndarray, item: str) -> tuple[np.ndarray, str]:
    ids = ids.astype(np.int64)
    if ids.max(initial=0) >= _TOP:
        raise ValueError(f"{item} {ids.max()}: a 16-bit PNG holds ids up to {_TOP - 1}; use npy")
    there = (keep if ids.ndim == 2 else keep[..., None]) & (ids >= 0)
    return np.where(there, ids, _TOP).astype(np.uint16), f"pixel = {item}, {_TOP} where none"


def _span(inside: np.ndarray) -> tuple[float, float]:
    """[0, 1] where it holds all, else lowest to highest."""
    low, high = (float(inside.min()), float(inside.max())) if inside.size else (0.0, 1.0)
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, max(high, low + 1e-12))
