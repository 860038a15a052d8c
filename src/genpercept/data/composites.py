"""The synthetic world's foregrounds over photographs of your own: exact mattes before backgrounds that no world has.

ROOT is a folder of photographs of places, such as rooms, streets and landscapes: whatever else they show is background, so that
pictures of people and animals would teach that those are none. Every picture is keyed by (seed, split, number), as the
world's are: the same photographs give the same pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genpercept.core import arrays
from genpercept.core.resampling import resize
from genpercept.core.rng import generator
from genpercept.core.values import Sample, planes
from genpercept.data._files import About, FileDataset
from genpercept.data._scenes import DOMAINS, SPLITS, render
from genpercept.imaging.read import SUFFIXES, read, shown

_SPLIT_CODE = {"train": 21, "val": 22, "test": 23}
_HELD_OUT = 20  # of so many photographs one is for val, and one for test
_TRIES = 24  # scenes that are looked at for a foreground
_LEAST, _MOST = 0.02, 0.7  # share of a scene that its foreground covers
_SCALES = (0.7, 1.25)  # of a foreground, against the scene that it is taken from
_INSIDE = 0.6  # share of a foreground that stays within the picture
_SEEN = 0.05  # opacity from which a pixel belongs to a foreground
_FURTHER = 1 << 20  # added to a scene's number for each further try: numbers of other pictures are not touched


@dataclass(frozen=True)
class Entry:
    """One picture: the photograph behind, and what its foregrounds are drawn by."""

    name: str
    photograph: Path
    split: str
    index: int
    seed: int


@dataclass(frozen=True)
class Composites(FileDataset):
    """size: height and width. domain: of the scenes whose foregrounds are taken. count: pictures of a split. most: foregrounds
    in a picture, at least one. matched: how far their brightness and contrast go towards the photograph's, at most, in [0, 1].
    seed: other pictures.
    """

    name = "composites"
    about = About(
        title="composites of the synthetic world over photographs",
        url="docs/world.md",
        obtain="Give a folder of photographs of your own as root; its subfolders are read, too.",
        licence="of your photographs",
        layout=("ROOT/**/*.jpg, .png, ...: photographs without labels; one of 20 is for val, and one for test",),
        provides=("mask", "alpha"),
        splits=SPLITS,
        protocols={"dis": "", "matting": "p3m"},
        extra="synthetic",
    )

    size: tuple[int, int] = (128, 160)
    domain: str = "mixed"
    count: int = 4096
    most: int = 3
    matched: float = 0.7
    seed: int = 0

    def __post_init__(self) -> None:
        size: Any = self.size
        if not isinstance(size, Sequence) or len(size) != 2 or not all(isinstance(n, int) and n >= 16 for n in size):
            raise ValueError(f"composites: size {self.size!r}: give [HEIGHT, WIDTH], both at least 16 pixels")
        if self.domain not in DOMAINS:
            raise ValueError(f"composites: domain {self.domain!r}: choose one of {', '.join(DOMAINS)}")
        for name, least in (("count", 1), ("most", 1), ("seed", 0)):
            value: Any = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"composites: {name} {value!r}: must be a whole number from {least} up")
        if not isinstance(self.matched, int | float) or not 0 <= self.matched <= 1:
            raise ValueError(f"composites: matched {self.matched!r}: must lie between 0 and 1")
        object.__setattr__(self, "size", (size[0], size[1]))

    def index(self, root: Path | None, split: str) -> Sequence[Entry]:
        """`count` entries over the split's photographs, each photograph as often as any other, up to one."""
        root = self.folder(root, split)
        found = [path for path in _photographs(root) if _split_of(path.relative_to(root)) == split]
        if not found:
            raise ValueError(f"{shown(root)}: no photographs for split {split!r} in it: one of {_HELD_OUT} is needed")
        order = [found[i] for i in generator(self.seed, _SPLIT_CODE[split], 0, "data").permutation(len(found))]
        return [
            Entry(f"composite-{split}-{self.seed}-{i:06d}", order[i % len(order)], split, i, self.seed)
            for i in range(self.count)
        ]

    def load(self, entry: Entry) -> Sample:
        """One to `most` foregrounds over a photograph, the same for the same entry; alpha is that of all of them together."""
        g = generator(entry.seed, _SPLIT_CODE[entry.split], entry.index, "prepare")
        image = _background(read(entry.photograph), self.size, g)
        behind = image
        alpha = np.zeros(self.size, np.float32)
        for layer in range(1 + int(g.integers(self.most))):
            colours, matte = self._foreground(entry, layer, g)
            colours = _matched(colours, matte, behind, self.matched * g.random())
            image = matte[..., None] * colours + (1 - matte[..., None]) * image
            alpha = matte + (1 - matte) * alpha
        planar = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)).clip(0, 1))
        return Sample(entry.name, planar, mask=torch.from_numpy(alpha >= 0.5), alpha=torch.from_numpy(alpha))

    def _foreground(self, entry: Entry, layer: int, g: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A scene's foreground where it lies in the picture: colours (H, W, 3) and matte (H, W), float32 in [0, 1]."""
        scale = float(g.uniform(*_SCALES))
        size = (max(16, round(self.size[0] * scale)), max(16, round(self.size[1] * scale)))
        number = entry.index * self.most + layer
        for _ in range(_TRIES):
            scene = render([number], self.domain, entry.split, size, entry.seed)
            matte = scene.alpha[0].astype(np.float32)
            places = _places(matte, self.size) if _LEAST <= float(matte.mean()) <= _MOST else None
            if places is not None:
                break
            number += _FURTHER
        else:
            raise ValueError(
                f"sample {entry.name!r}: no foreground in {_TRIES} scenes of {self.domain}: take another domain"
            )
        colours = scene.foreground[0].astype(np.float32) / 255
        top, left = (int(g.integers(low, high + 1)) for low, high in places)
        return _moved(colours, self.size, top, left), _moved(matte, self.size, top, left)


def _photographs(root: Path) -> list[Path]:
    """All below a folder, by their paths."""
    return sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and not _hidden(p.relative_to(root)))


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _split_of(path: Path) -> str:
    """By the photograph's path alone: further photographs change no other's split."""
    place = int.from_bytes(hashlib.sha256(path.as_posix().encode()).digest()[:8]) % _HELD_OUT
    return {0: "val", 1: "test"}.get(place, "train")


def _background(photograph: np.ndarray, size: tuple[int, int], g: np.random.Generator) -> np.ndarray:
    """A part of the photograph of the picture's shape, (H, W, 3) float32 in [0, 1]; every second one is mirrored."""
    height, width = photograph.shape[:2]
    whole = min(height / size[0], width / size[1]) * float(g.uniform(0.6, 1.0))
    h, w = min(height, max(1, round(size[0] * whole))), min(width, max(1, round(size[1] * whole)))
    top, left = int(g.integers(height - h + 1)), int(g.integers(width - w + 1))
    part = photograph[top : top + h, left : left + w]
    if g.random() < 0.5:
        part = part[:, ::-1]
    small = arrays.to_numpy(resize(planes(np.ascontiguousarray(part)), size))[0]
    return np.ascontiguousarray(small.transpose(1, 2, 0))


def _places(matte: np.ndarray, size: tuple[int, int]) -> list[tuple[int, int]] | None:
    """How far down and right a foreground may go: (least, most) each, with enough of it in the picture.

    What the scene's edge cuts off stays cut off by the picture's. None where it cannot.
    """
    found = []
    for axis in (0, 1):
        there = np.flatnonzero(matte.max(1 - axis) > _SEEN)
        first, last, edge, whole = int(there[0]), int(there[-1]) + 1, size[axis], matte.shape[axis]
        kept = round(_INSIDE * min(last - first, edge))
        low, high = kept - last, edge - first - kept
        if first == 0:
            high = min(high, 0)
        if last == whole:
            low = max(low, edge - whole)
        if low > high:
            return None
        found.append((low, high))
    return found


def _moved(layer: np.ndarray, size: tuple[int, int], top: int, left: int) -> np.ndarray:
    """A layer put at (top, left) of a picture of `size`, zeros around it."""
    out = np.zeros((*size, *layer.shape[2:]), np.float32)
    rows = slice(max(top, 0), min(top + layer.shape[0], size[0]))
    columns = slice(max(left, 0), min(left + layer.shape[1], size[1]))
    out[rows, columns] = layer[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return out


def _matched(colours: np.ndarray, matte: np.ndarray, behind: np.ndarray, share: float) -> np.ndarray:
    """Colours with mean and spread moved by `share` towards those of what lies behind: one light falls on both."""
    inside = colours[matte > 0.5]
    if share == 0 or not len(inside):
        return colours
    mean, spread = inside.mean(0), inside.std() + 1e-3
    gain = (1 - share) + share * float(np.clip((behind.std() + 1e-3) / spread, 0.5, 2.0))
    shift = share * (behind.mean((0, 1)) - mean)
    return ((colours - mean) * gain + mean + shift).clip(0, 1).astype(np.float32)


PLUGIN = Composites()
