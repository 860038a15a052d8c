"""Where tiles lie: they cover a picture exactly, all of one size, and overlap by at least the share that was asked for.

Everything here is in pixels of the joined map: the picture as a network would see it whole, if it could. So tiles lie on one
grid of pixels, on multiples of the network's stride, and nothing shifts between a tile and the whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np

from genpercept.core.values import Geometry, Size

AUTO = "auto"
OVERLAP = 0.25
_MOST_OVERLAP = 0.9  # above it a tile would be done ten times and more
_MOST_ZOOM = 4  # of AUTO: a tile that shows less than a quarter of the picture's edge has lost what it is a part of


@dataclass(frozen=True)
class Tiling:
    """What was asked for. size: edge of a tile in pixels of the image, or "auto": as many pixels as the network sees, but at
    least a quarter of the image's longest edge. overlap: the least share of a tile's edge that its neighbour has, too.

    ValueError for sizes below 1 and for overlaps outside [0, 0.9).
    """

    size: int | Literal["auto"] = AUTO
    overlap: float = OVERLAP

    def __post_init__(self) -> None:
        if self.size != AUTO and (not isinstance(self.size, int) or isinstance(self.size, bool) or self.size < 1):
            raise ValueError(f"tiles={self.size!r}: give the edge of a tile in pixels, at least 1, or 'auto'")
        if not 0 <= self.overlap < _MOST_OVERLAP:
            raise ValueError(f"overlap={self.overlap:g} of tiles: must be at least 0 and below {_MOST_OVERLAP:g}")

    def edge(self, size: Size, seen: int) -> int:
        """Pixels of the image along a tile's edge; seen: pixels along the longest edge that the network sees, 0: any."""
        if self.size != AUTO:
            return cast(int, self.size)
        return max(seen, -(-max(size) // _MOST_ZOOM))

    def plan(self, size: Size, resolution: int, stride: int) -> Plan | None:
        """The tiles of an image of `size`, each seen at `resolution`, or pixel by pixel where that is 0 or more than it has: no
        tile is enlarged. None: one tile is the whole image.
        """
        edge = self.edge(size, resolution)
        if edge >= max(size):
            return None
        seen = min(resolution or edge, edge)
        joined = 0 if seen == edge else max(1, round(max(size) * seen / edge))
        geometry = Geometry.plan(size, joined, stride)
        tile = -(-seen // stride) * stride
        rows, columns = (Axis.of(length, tile, stride, self.overlap) for length in geometry.padded)
        return None if len(rows.starts) == len(columns.starts) == 1 else Plan(self, edge, geometry, rows, columns)


@dataclass(frozen=True)
class Axis:
    """Tiles along one axis of `length` pixels: `starts` of tiles of `tile` pixels each, in ascending order."""

    length: int
    tile: int
    starts: tuple[int, ...]

    @classmethod
    def of(cls, length: int, tile: int, stride: int, overlap: float) -> Axis:
        """The fewest tiles, evenly spread over multiples of the stride. length and tile are such multiples."""
        tile = min(tile, length)
        cells = (length - tile) // stride
        step = max(1, int(tile * (1 - overlap) + 1e-6) // stride)
        gaps = -(-cells // step)
        return cls(length, tile, (*(i * cells // gaps * stride for i in range(gaps)), cells * stride))

    @cached_property
    def centres(self) -> list[np.ndarray]:
        """Of each tile the weights (tile,) of its pixels; those of all tiles sum to 1 at every pixel. float32."""
        return self._shared([self._ramp(i) for i in range(len(self.starts))], self.length)

    @cached_property
    def between(self) -> list[np.ndarray]:
        """The same of the pairs of neighbouring pixels (tile - 1,). Where tiles abut, a pair belongs to none: see `lonely`."""
        pairs = [np.minimum(ramp[1:], ramp[:-1]) for ramp in map(self._ramp, range(len(self.starts)))]
        return self._shared(pairs, self.length - 1)

    @cached_property
    def lonely(self) -> np.ndarray:
        """Pixels whose pair with the one before lies in no tile."""
        covered = np.zeros(max(0, self.length - 1), bool)
        for start in self.starts:
            covered[start : start + self.tile - 1] = True
        return np.flatnonzero(~covered) + 1

    @property
    def seams(self) -> tuple[int, ...]:
        """Pixels at which a tile begins, or the first after one that ended, inside the picture."""
        ends = {start + self.tile for start in self.starts} | set(self.starts)
        return tuple(sorted(ends - {0, self.length}))

    def _ramp(self, i: int) -> np.ndarray:
        """1 inside, falling to 0 over what the tile shares with its neighbours, smoothly; 1 up to the picture's own edges."""
        place = np.arange(self.tile) + 0.5
        weight = np.ones(self.tile)
        if i > 0 and (shared := self.starts[i - 1] + self.tile - self.starts[i]) > 0:
            weight *= _rise(place / shared)
        if i + 1 < len(self.starts) and (shared := self.starts[i] + self.tile - self.starts[i + 1]) > 0:
            weight *= _rise((self.tile - place) / shared)
        return weight

    def _shared(self, weights: list[np.ndarray], length: int) -> list[np.ndarray]:
        total = np.zeros(length)
        spans = [slice(start, start + len(weight)) for start, weight in zip(self.starts, weights, strict=True)]
        for span, weight in zip(spans, weights, strict=True):
            total[span] += weight
        return [(weight / total[span]).astype(np.float32) for span, weight in zip(spans, weights, strict=True)]


def _rise(x: np.ndarray) -> np.ndarray:
    return np.sin(np.pi / 2 * x.clip(0, 1)) ** 2


@dataclass(frozen=True)
class Place:
    """One tile: its place along the rows' axis and the columns', and the pixels that it covers."""

    row: int
    column: int
    rows: slice
    columns: slice


@dataclass(frozen=True)
class Plan:
    """Tiles of one image. edge: of a tile, in pixels of the image. geometry: from the image to the joined map and back."""

    asked: Tiling
    edge: int
    geometry: Geometry
    rows: Axis
    columns: Axis

    def __iter__(self) -> Iterator[Place]:
        """Every tile, row by row."""
        for i, top in enumerate(self.rows.starts):
            for j, left in enumerate(self.columns.starts):
                yield Place(i, j, slice(top, top + self.rows.tile), slice(left, left + self.columns.tile))

    def __len__(self) -> int:
        return len(self.rows.starts) * len(self.columns.starts)

    def meta(self) -> dict[str, Any]:
        """What a prediction says of its tiles."""
        grid = [len(self.rows.starts), len(self.columns.starts)]
        seen = [self.rows.tile, self.columns.tile]
        return {"edge": self.edge, "overlap": self.asked.overlap, "grid": grid, "seen": seen}
