"""Composition-1k: the Adobe matting foregrounds, composited on photographs (Xu et al., Deep Image Matting, CVPR 2017)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genpercept.core.rng import generator
from genpercept.core.texts import read_lines
from genpercept.core.values import Sample
from genpercept.data._files import About, FileDataset, images_in, need, read_grey, read_rgb, same_size, same_stem
from genpercept.imaging.read import read, shown

_ADOBE = "Adobe-licensed images"


@dataclass(frozen=True)
class _Part:
    """One split as published."""

    folders: tuple[str, ...]
    groups: tuple[str, ...]
    lists: str  # of names: LISTS_fg_names.txt and LISTS_bg_names.txt
    per_foreground: int
    backgrounds: str


_PARTS = {
    "train": _Part(("Training_set", "train"), (_ADOBE, "Other"), "training", 100, "COCO train2014"),
    "test": _Part(("Test_set", "test"), (_ADOBE,), "test", 20, "the PASCAL VOC images"),
}


@dataclass(frozen=True)
class Entry:
    """A composite that is stored (image), or the parts that it is made of (foreground and background)."""

    name: str
    alpha: Path
    trimap: Path | None = None
    image: Path | None = None
    foreground: Path | None = None
    background: Path | None = None


@dataclass(frozen=True)
class Composition1k(FileDataset):
    """backgrounds: their folder (default: bg/ of the split). per_foreground: composites of each foreground (0: as published,
    100 in training, 20 in test). seed: of the choice of backgrounds where the lists of names are not there."""

    name = "composition1k"
    about = About(
        title="Composition-1k (Adobe Deep Image Matting)",
        url="https://sites.google.com/view/deepimagematting",
        obtain="Ask the authors of Deep Image Matting for Combined_Dataset (by mail, academic address); backgrounds: COCO "
        "train2014 for training, PASCAL VOC 2007 and 2012 for test.",
        licence="Adobe Deep Image Matting licence: non-commercial research; the backgrounds have their own",
        layout=(
            "Training_set/{Adobe-licensed images,Other}/{fg,alpha}/NAME.jpg, training_fg_names.txt, training_bg_names.txt",
            "Test_set/Adobe-licensed images/{fg,alpha,trimaps}/NAME.png, test_fg_names.txt, test_bg_names.txt",
            "or already composited: {merged,alpha,trimap}/ in either of them or, for split all, in the root",
        ),
        provides=("alpha", "trimap"),
        splits=(*_PARTS, "all"),
        protocols={"matting": "dim"},
        reference="Xu et al., Deep Image Matting, CVPR 2017",
    )

    backgrounds: str = ""
    per_foreground: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.per_foreground, int) or self.per_foreground < 0:
            raise ValueError(
                f"composition1k: per_foreground {self.per_foreground!r}: a whole number; 0 for as published"
            )

    def index(self, root: Path | None, split: str) -> Sequence[Entry]:
        """In the order of the lists: foreground by foreground, and the backgrounds of each."""
        root = self.folder(root, split)
        home = root / "Combined_Dataset" if (root / "Combined_Dataset").is_dir() else root
        if split == "all":
            if not (home / "merged").is_dir():
                self.wrong_layout(home, "merged/ and alpha/ for split all")
            return self._merged(home, home)
        base = next((home / name for name in _PARTS[split].folders if (home / name).is_dir()), None)
        if base is None:
            self.wrong_layout(home, f"{_PARTS[split].folders[0]}/")
        return self._merged(home, base) if (base / "merged").is_dir() else self._parts(home, base, _PARTS[split])

    def load(self, entry: Entry) -> Sample:
        """The image is alpha foreground + (1 - alpha) background, not rounded; a stored composite is read as it is."""
        alpha = read_grey(entry.alpha).astype(np.float32) / 255
        meta = {}
        if entry.image is not None:
            image = read_rgb(entry.image)
        else:
            assert entry.foreground is not None and entry.background is not None
            foreground = read_rgb(entry.foreground)
            same_size(entry.alpha, alpha, foreground)
            image = _composite(foreground, entry.background, torch.from_numpy(alpha))
            meta = {"foreground": entry.foreground.name, "background": entry.background.name}
        same_size(entry.alpha, alpha, image)
        sample = Sample(entry.name, image, alpha=torch.from_numpy(alpha), meta=meta)
        if entry.trimap is not None:
            trimap = read_grey(entry.trimap)
            same_size(entry.trimap, trimap, image)
            sample.trimap = torch.from_numpy(np.where((trimap > 0) & (trimap < 255), 128, trimap).astype(np.uint8))
        return sample

    def _merged(self, home: Path, base: Path) -> list[Entry]:
        """Stored composites NAME_i of foreground NAME, or of the same name as their matte."""
        places = [base, base / _ADOBE]
        alphas = next((p / "alpha" for p in places if (p / "alpha").is_dir()), None)
        names = ("trimap", "trimaps")
        trimaps = next((p / name for p in places for name in names if (p / name).is_dir()), None)
        images = images_in(base / "merged")
        if not images or alphas is None:
            self.wrong_layout(home, f"{base.name}/merged/ and {base.name}/alpha/ with images")
        return [Entry(i.stem, _of(alphas, i), trimap=_of(trimaps, i) if trimaps else None, image=i) for i in images]

    def _parts(self, home: Path, base: Path, part: _Part) -> list[Entry]:
        there = {p.name: p for group in part.groups for p in images_in(base / group / "fg")}
        if not there:
            self.wrong_layout(home, f"{base.name}/{_ADOBE}/fg/ and alpha/ (or {base.name}/merged/)")
        folder = Path(self.backgrounds).expanduser() if self.backgrounds else base / "bg"
        if not folder.is_dir():
            raise ValueError(
                f"{shown(folder)}: no such folder; set the option backgrounds to a folder of photographs "
                f"(published: {part.backgrounds})"
            )
        count = self.per_foreground or part.per_foreground
        names = _names(base / f"{part.lists}_fg_names.txt") or list(there)
        listed = _names(base / f"{part.lists}_bg_names.txt")
        share = len(listed) // len(names)  # of the list, for each foreground
        if listed and share < count:
            raise ValueError(
                f"{shown(base / f'{part.lists}_bg_names.txt')}: {len(listed)} backgrounds for {len(names)} foregrounds, "
                f"but {count} are wanted for each: set the option per_foreground to at most {share}"
            )
        pool = [] if listed else [p.name for p in images_in(folder)]
        if not listed and not pool:
            raise ValueError(f"{shown(folder)}: no images in it to put behind the foregrounds")
        entries = []
        for i, name in enumerate(names):
            foreground = there.get(name) or need(base / _ADOBE / "fg" / name)
            chosen = listed[i * share : i * share + count] if listed else _choice(pool, count, self.seed, i)
            for j, background in enumerate(chosen):
                alpha = same_stem(foreground.parent.parent / "alpha", foreground, foreground.suffix)
                trimap = _trimap(foreground, j)
                title = f"{foreground.stem}_{j}"
                entries.append(Entry(title, alpha, trimap, foreground=foreground, background=folder / background))
        return entries


def _composite(foreground: Tensor, path: Path, alpha: Tensor) -> Tensor:
    """alpha F + (1 - alpha) B. As published, B is enlarged (bicubic) where it does not cover F, then cut at its top left."""
    h, w = foreground.shape[-2:]
    background = read(need(path))
    ratio = max(w / background.shape[1], h / background.shape[0])
    if background.dtype != np.uint8:
        background = (background * 255).round().astype(np.uint8)
    if ratio > 1:
        size = (math.ceil(background.shape[1] * ratio), math.ceil(background.shape[0] * ratio))
        background = np.asarray(Image.fromarray(background).resize(size, Image.Resampling.BICUBIC))
    behind = torch.from_numpy(np.ascontiguousarray(background[:h, :w].transpose(2, 0, 1))).float() / 255
    return alpha * foreground + (1 - alpha) * behind


def _of(folder: Path, image: Path) -> Path:
    """The label of a composite: of its own name, or of its foreground's, NAME of NAME_3."""
    own = same_stem(folder, image)
    plain = re.sub(r"_\d+$", "", image.stem)
    shared = same_stem(folder, image.with_name(f"{plain}{image.suffix}"))
    return own if own.is_file() or not shared.is_file() else shared


def _trimap(foreground: Path, number: int) -> Path | None:
    folder = foreground.parent.parent / "trimaps"
    if not folder.is_dir():
        return None
    return _of(folder, foreground.with_name(f"{foreground.stem}_{number}.png"))


def _names(path: Path) -> list[str]:
    """A list of file names, one a line (they may hold spaces); empty where there is none."""
    if not path.is_file():
        return []
    return [line.strip() for line in read_lines(path, errors="replace")]


def _choice(pool: list[str], count: int, seed: int, number: int) -> list[str]:
    """`count` of the pool for foreground `number`: other ones as long as there are enough."""
    order = generator(seed, number, 0, "data").permutation(len(pool))
    return [pool[order[j % len(pool)]] for j in range(count)]


PLUGIN = Composition1k()
