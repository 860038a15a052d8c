"""Class tables: names and colours of the classes that segmentation data sets label, and how one set's map to another's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from genpercept.core.names import hint
from genpercept.core.texts import read_json, read_toml

IGNORED = -1  # of class_ids: no class


@dataclass(frozen=True)
class ClassTable:
    """Classes 0 ... C - 1. colours (C, 3) uint8, all different: what the codec paints and pictures show."""

    name: str
    names: tuple[str, ...]
    colours: np.ndarray

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError(f"class table {self.name!r}: it has no classes")
        if self.colours.shape != (len(self.names), 3) or self.colours.dtype != np.uint8:
            raise ValueError(
                f"class table {self.name!r}: {len(self.names)} names, but colours of shape {list(self.colours.shape)} "
                f"and type {self.colours.dtype}; give one colour of three numbers from 0 to 255 for each name"
            )
        first: dict[tuple[int, ...], int] = {}
        for i, colour in enumerate(map(tuple, self.colours.tolist())):
            if colour in first:
                one, other = self.names[first[colour]], self.names[i]
                raise ValueError(f"class table {self.name!r}: {one!r} and {other!r} have the same colour {colour}")
            first[colour] = i
        if len(set(self.names)) != len(self.names):
            twice = next(n for n in self.names if self.names.count(n) > 1)
            raise ValueError(f"class table {self.name!r}: the name {twice!r} is there twice")

    def __len__(self) -> int:
        return len(self.names)


def names() -> tuple[str, ...]:
    """The tables that are known by name."""
    return tuple(_TABLES)


def find(name_or_path: str | Path) -> ClassTable:
    """A table by its name, or from a .toml or .json file. ValueError for an unknown name, or what `load` refuses."""
    text = str(name_or_path)
    if text in _TABLES:
        return _named(text)
    if text.endswith((".toml", ".json")):
        return load(Path(text).expanduser())
    raise ValueError(f"unknown class table {text!r}: {hint(text, _TABLES)}, or a .toml or .json file of yours")


def load(path: Path) -> ClassTable:
    """A table of your own: {names = ["road", ...], colours = [[128, 64, 128], ...]}; without colours it gets ours.

    ValueError for an unreadable file, missing or unknown keys, colours that are not 0 ... 255 or that collide.
    """
    read = read_json if path.suffix.lower() == ".json" else read_toml
    table: Any = read(path, " as a class table")
    if not isinstance(table, Mapping) or not isinstance(table.get("names"), list):
        raise ValueError(f"{path}: a class table has the key names, a list, and may have colours")
    for key in table:
        if key not in ("names", "colours"):
            raise ValueError(f"{path}: unknown key {key!r}: {hint(key, ('names', 'colours'))}")
    listed = tuple(str(name) for name in table["names"])
    try:
        colours = _checked(table["colours"]) if "colours" in table else spread(len(listed))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return ClassTable(str(path), listed, colours)


def spread(n: int) -> np.ndarray:
    """n colours (n, 3) uint8 on the coarsest lattice of the RGB cube that holds so many: far apart, so they decode well."""
    levels = [1, 1, 1]
    while np.prod(levels) < n:
        levels[levels.index(min(levels))] += 1
    steps = [np.linspace(0, 255, k) if k > 1 else np.array([255.0]) for k in levels]
    lattice = np.stack(np.meshgrid(*steps, indexing="ij"), -1).reshape(-1, 3).round().astype(np.uint8)
    stride = next(s for s in range(round(len(lattice) * 0.618), len(lattice) + 2) if np.gcd(s, len(lattice)) == 1)
    return lattice[(np.arange(n) * stride + stride // 2) % len(lattice)]  # neighbours in the list differ in colour


def mapping(source: str, target: str) -> np.ndarray:
    """(C_source,) int64: each class's id in the target table, or IGNORED where it has none. ValueError if unknown."""
    if (source, target) not in _MAPPINGS:
        known = [f"{s} to {t}" for s, t in _MAPPINGS]
        raise ValueError(f"no mapping of classes from {source!r} to {target!r}; there is {', '.join(known)}")
    pairs, of = _MAPPINGS[source, target], find(target).names
    return np.array([of.index(pairs[n]) if n in pairs else IGNORED for n in find(source).names], np.int64)


def convert(ids: np.ndarray, source: str, target: str) -> np.ndarray:
    """Class ids of one table -> int64 ids of the other; IGNORED stays, and so becomes what the target lacks."""
    table = mapping(source, target)
    return np.where(ids >= 0, table[np.clip(ids, 0, len(table) - 1)], IGNORED)


def shared() -> tuple[int, ...]:
    """Ids of the nyu40 classes that ADE20K-150 has too: what the paper compares Hypersim and ADE20K on."""
    there = mapping("ade20k150", "nyu40")
    return tuple(sorted(int(i) for i in set(there.tolist()) if i != IGNORED))


def _checked(colours: Any) -> np.ndarray:
    array = np.asarray(colours)
    if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "iu" or array.min() < 0 or array.max() > 255:
        raise ValueError("colours must be lists of three whole numbers from 0 to 255")
    return array.astype(np.uint8)


@cache
def _named(name: str) -> ClassTable:
    words, codes = _TABLES[name]
    listed = tuple(word.strip() for word in words.replace("\n", " ").split(","))
    colours = np.array([tuple(bytes.fromhex(c)) for c in codes.split()], np.uint8) if codes else spread(len(listed))
    colours.flags.writeable = False  # one table for all callers
    return ClassTable(name, listed, colours)


# Names in their official order and, where they are fit for it (all different), the official colours in hex: of nyu40 those
# of Hypersim's and ScanNet's tools, of cityscapes19 those of cityscapesScripts. ADE20K's give road and skyscraper one grey,
# so that table has ours.
_TABLES: dict[str, tuple[str, str]] = {
    "nyu40": (
        """wall, floor, cabinet, bed, chair, sofa, table, door, window, bookshelf, picture, counter, blinds, desk, shelves,
        curtain, dresser, pillow, mirror, floor mat, clothes, ceiling, books, refrigerator, television, paper, towel,
        shower curtain, box, whiteboard, person, night stand, toilet, sink, lamp, bathtub, bag, other structure,
        other furniture, other prop""",
        """aec7e8 98df8a 1f77b4 ffbb78 bcbd22 8c564b ff9896 d62728 c5b0d5 9467bd c49c94 17becf b24c4c f7b6d2 42bc66
        dbdb8d 8c39c5 cab934 33b0cb c83683 5cc13d 4e47b7 ac7252 ff7f0e 5ba38a 99629c 8c9965
        9edae5 647d9a b27f87 78b980 926fc2 2ca02c 708090 60cfd1 e377c2 d55cb0 5e6ad3
        5254a3 645590""",
    ),
    "ade20k150": (
        """wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, door,
        table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field, armchair,
        seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard, chest of drawers,
        counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case, pool table,
        pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill, bench,
        countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, hovel, bus, towel,
        light, truck, tower, chandelier, awning, streetlight, booth, television receiver, airplane, dirt track, apparel,
        pole, land, bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship, fountain, conveyer belt,
        canopy, washer, plaything, swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball,
        food, step, tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood,
        sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator,
        glass, clock, flag""",
        "",
    ),
    "cityscapes19": (
        """road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain, sky, person,
        rider, car, truck, bus, train, motorcycle, bicycle""",
        """804080 f423e8 464646 66669c be9999 999999 faaa1e dcdc00 6b8e23 98fb98 4682b4 dc143c
        ff0000 00008e 000046 003c64 005064 0000e6 770b20""",
    ),
    "synthetic": (
        """sky, ground, floor, wall, ceiling, building, road, plant, person, animal, furniture, vehicle, container, lamp,
        picture, window, door, pole, book, machine, textile, object""",
        """87bae6 796145 b08968 d6cfbe f0f0e8 965448 5a5a60 408c3c dc3c3c e69628 8c5aa0 2846aa 3cbeb4 fae65a
        e66eaa 78d2fa 643c1e 141414 be3c78 466e78 c8aae6 aabe3c""",
    ),
}

# ADE20K classes that have a class of their own among the NYU-40, which Hypersim labels; all others have none. Where ADE20K
# is finer (armchair, swivel chair) several meet in one.
_SAME = """wall, floor, cabinet, bed, chair, sofa, table, door, counter, desk, curtain, pillow, mirror, ceiling, refrigerator,
towel, box, person, toilet, sink, lamp, bathtub, bag"""
_ADE20K_TO_NYU40: Mapping[str, str] = {
    **{name.strip(): name.strip() for name in _SAME.split(",")},
    "windowpane": "window",
    "bookcase": "bookshelf",
    "painting": "picture",
    "poster": "picture",
    "blind": "blinds",
    "shelf": "shelves",
    "chest of drawers": "dresser",
    "rug": "floor mat",
    "apparel": "clothes",
    "book": "books",
    "television receiver": "television",
    "armchair": "chair",
    "swivel chair": "chair",
    "coffee table": "table",
    "countertop": "counter",
    "kitchen island": "counter",
    "cushion": "pillow",
    "screen door": "door",
}
_MAPPINGS: Mapping[tuple[str, str], Mapping[str, str]] = {("ade20k150", "nyu40"): _ADE20K_TO_NYU40}
