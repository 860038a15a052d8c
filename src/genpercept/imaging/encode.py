"""Predictions as pixels of 16 bits, with the words that say how to get the values back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from genpercept.imaging.kinds import KINDS
from genpercept.imaging.painters import known, span
from genpercept.imaging.png import bands

_TOP = 65535
_WORDS = re.compile(rf"value = (?:(\S+) \+ )?pixel / {_TOP}(?: \* ([^\s;]+))?(?:; side by side: (.+))?$")
# Distances in metres are stored as other programs store them: so many steps to a metre, 0 where unknown. The finest that
# holds the farthest: millimetres (up to 65.5 m; RealSense, Kinect, Open3D), KITTI's (256 m), and coarser ones beyond.
STEPS = (1000, 256, 100, 10, 1)
_METRES = re.compile(r"metres = pixel / (\d+), 0 where unknown$")
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


def kept(result: Result, part: slice = slice(None)) -> np.ndarray:
    """(H, W) bool: where values are valid and finite; of these rows."""
    return known(result.values[part], None if result.valid is None else result.valid[part])


def image_names(result: Result) -> list[str]:
    """Names of a stack's images in their order."""
    count = result.values.shape[-1] // 3
    described = result.meta.get(KINDS[result.kind].legend) or ()
    return [str(t["name"]) for t in described] or [f"image{i + 1}" for i in range(count)]


@dataclass(frozen=True)
class Coded:
    """A result as pixels of 16 bits: their shape, in words how to get the values back; `rows` makes a band of them."""

    shape: tuple[int, ...]
    words: str
    rows: Callable[[slice], np.ndarray]

    def bands(self) -> Iterator[np.ndarray]:
        """All of it, from the top."""
        return (self.rows(part) for part in bands(self.shape))


def encode16(result: Result) -> tuple[np.ndarray, str]:
    """(H, W) or (H, W, 3) uint16, and how to get the values back, in words; as `coded` has it."""
    code = coded(result)
    pixels = np.empty(code.shape, np.uint16)
    for part in bands(code.shape):
        pixels[part] = code.rows(part)
    return pixels, code.words


def coded(result: Result) -> Coded:
    """(H, W) or (H, W, 3) uint16, and how to get the values back, in words. Images of a stack side by side: (H, n W, 3).

    Quantities: a kind's limits are 0 and 65535; without limits [0, 1], or lowest and highest where some are outside.
    Pixels that are not valid are 0. Metres: so many steps each, see STEPS. Ids: as they are, 65535 where there is none.
    ValueError for an id that 16 bits cannot hold.
    """
    row, values = KINDS[result.kind], result.values
    if row.ids:
        return _coded_ids(result, row.item)
    if row.metric:
        return _coded_metres(result)
    low, high = row.limits or span(values[kept(result)])
    stacked = values.shape[-1] // 3 if row.layout == "stack" else 1

    def rows(part: slice) -> np.ndarray:
        x = values[part]
        keep = kept(result, part)
        whole = bool(keep.all())
        scaled = (x if whole else np.nan_to_num(x)) - low
        if high - low != 1:
            scaled /= high - low
        np.clip(scaled, 0, 1, out=scaled)
        scaled *= _TOP
        pixels = np.rint(scaled, out=scaled).astype(np.uint16)
        if not whole:
            pixels[~keep] = 0
        return np.concatenate(np.split(pixels, stacked, axis=-1), axis=1) if row.layout == "stack" else pixels

    words = f"pixel / {_TOP}" if (low, high) == (0, 1) else f"{low:.9g} + pixel / {_TOP} * {high - low:.9g}"
    shape = values.shape
    if row.layout == "stack":
        shape = (shape[0], shape[1] * stacked, 3)
        words += f"; side by side: {', '.join(image_names(result))}"
    return Coded(shape, f"value = {words}", rows)


def decode16(pixels: np.ndarray, words: str) -> np.ndarray:
    """What `encode16` made (uint16), back: float32 to half a step, or int32 ids, -1 where none. A stack: (H, W, 3 n).

    Metres are 0 where they are unknown.

    words: of a PNG's text `Description`, or of the sidecar. ValueError where they are not ours.
    """
    if _IDS.search(words):
        return np.where(pixels == _TOP, -1, pixels.astype(np.int32))
    if metres := _METRES.search(words):
        return pixels.astype(np.float32) / np.float32(metres[1])
    code = _WORDS.search(words)
    if code is None:
        raise ValueError(f"{words!r}: says nothing of 16-bit values that `predict` writes; use its npy or npz")
    values = (float(code[1] or 0) + pixels / _TOP * float(code[2] or 1)).astype(np.float32)
    return np.concatenate(np.split(values, len(code[3].split(", ")), axis=1), axis=-1) if code[3] else values


def in_metres(words: str) -> bool:
    """Whether the words are those of a depth in metres."""
    return _METRES.search(words) is not None


def value_words(words: str) -> tuple[float, float] | None:
    """(low, span) of words that say value = low + fraction of white * span; None for others, those of ids too."""
    if metres := _METRES.search(words):
        return 0.0, _TOP / float(metres[1])
    code = _WORDS.search(words)
    return None if code is None else (float(code[1] or 0), float(code[2] or 1))


def _coded_metres(result: Result) -> Coded:
    values = result.values
    inside = values[kept(result)]
    farthest = float(inside.max()) if inside.size else 0.0
    steps = next((n for n in STEPS if farthest * n < _TOP - 0.5), STEPS[-1])  # 65535 is no depth for many programs

    def rows(part: slice) -> np.ndarray:
        keep = kept(result, part) & (values[part] > 0)
        pixels = np.rint(np.where(keep, values[part], 0) * np.float32(steps)).clip(0, _TOP - 1)
        return np.where(keep, np.maximum(pixels, 1), 0).astype(np.uint16)

    return Coded(values.shape, f"metres = pixel / {steps}, 0 where unknown", rows)


def _coded_ids(result: Result, item: str) -> Coded:
    ids = result.values
    if ids.max(initial=0) >= _TOP:
        raise ValueError(f"{item} {ids.max()}: a 16-bit PNG holds ids up to {_TOP - 1}; use npy")

    def rows(part: slice) -> np.ndarray:
        x, keep = ids[part], kept(result, part)
        there = (keep if x.ndim == 2 else keep[..., None]) & (x >= 0)
        return np.where(there, x, _TOP).astype(np.uint16)

    return Coded(ids.shape, f"pixel = {item}, {_TOP} where none", rows)
