"""DIS5K: 5 470 images with very fine foreground masks (Qin et al., ECCV 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from genpercept.core.values import Sample
from genpercept.data._files import About, FileDataset, images_in, read_grey, read_rgb, same_size, same_stem

_FOLDERS = {"train": "DIS-TR", "val": "DIS-VD", **{f"test{i}": f"DIS-TE{i}" for i in range(1, 5)}}
_TESTS = ("test1", "test2", "test3", "test4")


@dataclass(frozen=True)
class Entry:
    name: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class Dis5k(FileDataset):
    """No options. Split "test" is the four test sets together, as the field reports them."""

    name = "dis5k"
    grouped = "set"
    about = About(
        title="DIS5K",
        url="https://xuebinqin.github.io/dis/index.html",
        obtain="Accept the terms of use linked from the project page and fetch DIS5K.zip (Google Drive or Baidu).",
        licence="DIS5K terms of use: non-commercial research and education",
        layout=(
            "DIS-TR/, DIS-VD/, DIS-TE1/ ... DIS-TE4/, or all of them in DIS5K/",
            "each: im/1#Accessories#1#Bag#....jpg and gt/1#Accessories#1#Bag#....png (foreground above 128)",
        ),
        provides=("mask",),
        splits=(*_FOLDERS, "test"),
        protocols={"dis": "genpercept"},
        reference="Qin et al., Highly Accurate Dichotomous Image Segmentation, ECCV 2022",
    )

    def index(self, root: Path | None, split: str) -> Sequence[Entry]:
        """By name within each of the sets; the name of a sample is SET/NAME."""
        root = self.folder(root, split)
        home = root / "DIS5K" if (root / "DIS5K").is_dir() else root
        entries: list[Entry] = []
        for part in _TESTS if split == "test" else (split,):
            folder = _FOLDERS[part]
            images = images_in(home / folder / "im")
            if not images or not (home / folder / "gt").is_dir():
                self.wrong_layout(home, f"{folder}/im/*.jpg and {folder}/gt/*.png")
            labels = home / folder / "gt"
            entries += [Entry(f"{folder}/{image.stem}", image, same_stem(labels, image)) for image in images]
        return entries

    def group(self, entry: Entry) -> str:
        """The set: DIS-TE1, ..."""
        return entry.name.partition("/")[0]

    def load(self, entry: Entry) -> Sample:
        """domain: the group of the name, such as Accessories."""
        image, mask = read_rgb(entry.image), read_grey(entry.mask)
        same_size(entry.mask, mask, image)
        words = entry.image.stem.split("#")
        domain = words[1] if len(words) > 1 else ""
        return Sample(entry.name, image, mask=torch.from_numpy(mask > 128), domain=domain)


PLUGIN = Dis5k()
