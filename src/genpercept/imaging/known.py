"""Distances along the optical axis that are known of an image: a few points, or a map.

A file of points is CSV: x, y, metres in each line, with or without a line of names before (also u, v, column, row, depth, z,
distance), between commas, semicolons, tabs or spaces; lines that begin with # do not count. x and y are in pixels of the
image as one sees it, turned upright, counted from its upper left corner: 0.5 and 10.5 are in the first column and the
eleventh row. A map is npy, npz, exr, or a TIFF of floats, in metres, or a PNG or TIFF of 16 bits in millimetres; one that
`predict` wrote in metres says its own unit. 0, less, NaN and infinity are unknown, and so is 65535 of 16 bits. A map of
another size than the image's shows the same view: the middles of its pixels are points of the image. A folder has a
file for each image, of its name.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from genpercept.core.label_rules import NO_DEPTH, one_per_pixel
from genpercept.core.texts import shown
from genpercept.imaging.encode import decode16, in_metres
from genpercept.imaging.kinds import KINDS
from genpercept.imaging.stored import Stored, read_stored

KnownSource: TypeAlias = "str | os.PathLike[str] | np.ndarray | Known"
MAPS = (".npy", ".npz", ".exr", ".png", ".tif", ".tiff")
POINTS = (".csv", ".tsv", ".txt")
ENDINGS = ("", "_depth", "_gt", "_known", "_points", "_sparse")  # behind an image's name in a folder
MILLIMETRE = 1e-3
_NAMES = {
    "x": ("x", "u", "col", "column"),
    "y": ("y", "v", "row"),
    "metres": ("metres", "meters", "metre", "meter", "m", "depth", "z", "distance"),
}
_ASPECT = 0.02  # by which the ratio of a map's edges may differ from the image's
_MOST = 2**18  # points of a map that count, of more: drawn evenly, the same ones each time
_KEYS = ("depth", "values", "metres", "gt")  # of arrays in an npz


@dataclass(frozen=True)
class Known:
    """x, y (N,): pixels of the image, from its corner; metres (N,), positive and finite. name: of the file, if one."""

    x: np.ndarray
    y: np.ndarray
    metres: np.ndarray
    name: str = ""


def find(where: Path, stem: str) -> Path:
    """The file of known distances of an image: `where`, or, of a folder, the one of the image's name.

    ValueError where there is none, or several.
    """
    if where.is_dir():
        names = [f"{stem}{ending}{suffix}" for ending in ENDINGS for suffix in (*POINTS, *MAPS)]
        found = [where / name for name in names if (where / name).is_file()]
        if not found:
            raise ValueError(
                f"{shown(where)}: no known distances of {stem!r}: {stem}.csv, {stem}_depth.png or the like, with "
                f"{' '.join(suffix[1:] for suffix in (*POINTS, *MAPS))}"
            )
        if len(found) > 1:
            raise ValueError(f"{shown(found[0])} and {found[1].name}: both are known distances of {stem!r}; keep one")
        return found[0]
    if not where.is_file():
        raise ValueError(f"{shown(where)}: no such file or folder of known distances; check the path")
    return where


def distances(source: KnownSource, size: tuple[int, int], scale: float | None = None) -> Known:
    """Known distances of an image of `size` (height, width). scale: metres for each unit; None: 1, or 0.001 of whole numbers.

    ValueError for files that hold something else, points outside the image, and a scale that is not positive.
    """
    if scale is not None and not (scale > 0 and math.isfinite(scale)):
        raise ValueError(f"scale {scale:g} of known distances: metres for each unit, above 0 (0.001: millimetres)")
    if isinstance(source, Known):
        return source
    if isinstance(source, np.ndarray):
        return _of_array(source, size, scale)
    path = Path(source).expanduser()
    if path.suffix.lower() in POINTS:
        if not path.is_file():
            raise ValueError(f"{shown(path)}: no such file of known distances; check the path")
        return of_text(_text(path), size, scale, shown(path), path.name)
    if path.suffix.lower() not in MAPS:
        can = " ".join(suffix[1:] for suffix in (*POINTS, *MAPS))
        raise ValueError(f"{shown(path)}: no file of known distances; these are read: {can}")
    try:
        return _of_map(_metres(read_stored(path, _KEYS).upright(), scale), size, path.name)
    except ValueError as error:
        raise ValueError(f"{shown(path)}: {str(error).removeprefix(f'{shown(path)}: ')}") from None


# ---- points


def of_text(
    text: str, size: tuple[int, int], scale: float | None = None, what: str = "known points", name: str = ""
) -> Known:
    """What a CSV file of points holds, for an image of `size` (height, width). ValueError begins by `what` and the line."""
    return _of_rows(list(_rows(text.splitlines(), what)), size, scale, what, name)


def _of_array(array: np.ndarray, size: tuple[int, int], scale: float | None) -> Known:
    """Points (N, 3), or a map (h, w) of an image's shape."""
    if array.ndim == 2 and array.shape[1] == 3 and array.shape != size:
        points = np.asarray(array, np.float64)
        if not np.isfinite(points[:, :2]).all():
            raise ValueError("known points (N, 3): x and y must be finite, in pixels")
        rows = [(i, float(x), float(y), float(z)) for i, (x, y, z) in enumerate(points)]
        return _of_rows(rows, size, scale, "known points", "", "row")
    if array.ndim != 2:
        raise ValueError(f"known distances of shape {array.shape}: points (N, 3) of x, y, metres, or a map (h, w)")
    values = np.asarray(array, np.float64) * (scale or 1.0)
    return _of_map(values, size, "")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{shown(path)}: cannot be read as text ({type(error).__name__}); save it as CSV") from error


def _rows(lines: Sequence[str], what: str) -> Iterator[tuple[int, float, float, float]]:
    """(line, x, y, metres as the text has them) of each line of CSV. ValueError names the line."""
    order: Sequence[int] = (0, 1, 2)
    first = True
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        cells = _cells(line)
        where = f"{what}, line {number}"
        if first and not any(map(_is_number, cells)):
            order, first = _columns(cells, where), False
            continue
        first = False
        try:
            x, y, metres = (float(cells[i]) for i in order)
        except (ValueError, IndexError):
            raise ValueError(f"{where}: {line.strip()[:60]!r}: must be x, y and metres, three numbers") from None
        if not (math.isfinite(x) and math.isfinite(y)):
            raise ValueError(f"{where}: x and y must be finite, in pixels")
        yield number, x, y, metres


def _cells(line: str) -> list[str]:
    separator = next((s for s in (";", "\t", ",") if s in line), None)
    cells = line.split() if separator is None else next(csv.reader([line], delimiter=separator))
    return [cell.strip() for cell in cells]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _columns(names: Sequence[str], where: str) -> list[int]:
    """Which columns are x, y and metres, by the names in the first line."""
    low = [name.lower().split("[")[0].split("(")[0].strip() for name in names]
    found = []
    for wanted, also in _NAMES.items():
        at = [low.index(name) for name in also if name in low]
        if not at:
            raise ValueError(f"{where}: no column {wanted} among {', '.join(names)[:80]}: name them x, y, metres")
        found.append(at[0])
    return found


def _of_rows(
    rows: Sequence[tuple[int, float, float, float]],
    size: tuple[int, int],
    scale: float | None,
    what: str,
    name: str,
    each: str = "line",
) -> Known:
    if not rows:
        raise ValueError(f"{what}: no points: x, y and metres in each line")
    table = np.array(rows, np.float64)
    number, x, y, metres = table[:, 0], table[:, 1], table[:, 2], table[:, 3] * (scale or 1.0)
    outside = (x < 0) | (y < 0) | (x >= size[1]) | (y >= size[0])
    if outside.any():
        i = int(np.argmax(outside))
        raise ValueError(
            f"{what}, {each} {int(number[i])}: x = {x[i]:g}, y = {y[i]:g} lies outside the image of {size[1]} x {size[0]} "
            "pixels: points are in pixels of the upright image, width first"
        )
    good = np.isfinite(metres) & (metres > 0)
    return Known(x[good], y[good], metres[good], name)


# ---- maps


def _metres(stored: Stored, scale: float | None) -> np.ndarray:
    """(h, w) float64; 0 or not finite where unknown."""
    row = KINDS.get(stored.kind)
    if row is not None and not row.metric:
        raise ValueError(f"a prediction of kind {stored.kind}, which knows no metres; give measured distances")
    array: Any = one_per_pixel(stored.single)
    if in_metres(stored.words) and array.dtype == np.uint16:
        metres = decode16(array, stored.words).astype(np.float64)
    elif array.dtype.kind in "ui":
        if array.dtype.itemsize == 1:
            raise ValueError("8 bits are too few for distances; save 16-bit PNG in millimetres, or npy in metres")
        metres = array.astype(np.float64) * (scale or MILLIMETRE)
        if array.dtype == np.uint16:
            metres[array == NO_DEPTH] = 0
    elif array.dtype.kind == "f":
        metres = array.astype(np.float64) * (scale or 1.0)
    else:
        raise ValueError(f"holds {array.dtype} values, no distances")
    return metres if stored.valid is None else np.where(stored.valid, metres, 0)


def _of_map(metres: np.ndarray, size: tuple[int, int], name: str) -> Known:
    height, width = metres.shape
    if abs(width * size[0] / (height * size[1]) - 1) > _ASPECT:
        turned = abs(height * size[0] / (width * size[1]) - 1) <= _ASPECT
        raise ValueError(
            f"a map of {width} x {height} for an image of {size[1]} x {size[0]} pixels: it must show the same view"
            + (", upright as the image is: turn it" if turned else ", not a part of it")
        )
    rows, columns = np.nonzero(np.isfinite(metres) & (metres > 0))
    if not len(rows):
        raise ValueError("no known distance: none is above 0")
    if len(rows) > _MOST:
        some = np.sort(np.random.default_rng(0).choice(len(rows), _MOST, replace=False))
        rows, columns = rows[some], columns[some]
    x, y = (columns + 0.5) * (size[1] / width), (rows + 0.5) * (size[0] / height)
    return Known(x, y, metres[rows, columns], name)
