"""MVTec AD: 15 kinds of objects and textures, defects only in the test images (Bergmann et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from genpercept.core.names import choose
from genpercept.core.values import Sample
from genpercept.data._files import About, FileDataset, images_in, read_grey, read_rgb, same_size
from genpercept.imaging.read import shown


@dataclass(frozen=True)
class Entry:
    name: str
    category: str
    kind: str  # good, or the kind of defect
    image: Path
    mask: Path | None


@dataclass(frozen=True)
class MvtecAd(FileDataset):
    """category: one of those in the root, such as hazelnut; all of them when empty. The root may be a category's folder.
    held_out: share of each category's good training images that split "train" leaves to split "val", evenly spaced."""

    name = "mvtec_ad"
    about = About(
        title="MVTec AD",
        url="https://www.mvtec.com/company/research/datasets/mvtec-ad",
        obtain="Fill in the form at mvtec.com and fetch mvtec_anomaly_detection.tar.xz (5 GB), or single categories.",
        licence="CC BY-NC-SA 4.0",
        layout=(
            "CATEGORY/train/good/NNN.png",
            "CATEGORY/test/good/NNN.png and CATEGORY/test/KIND/NNN.png",
            "CATEGORY/ground_truth/KIND/NNN_mask.png (not 0: defect)",
        ),
        provides=("defect",),
        splits=("train", "val", "test"),
        protocols={"anomaly": ""},
        reference="Bergmann et al., MVTec AD: A Comprehensive Real-World Dataset for Unsupervised Anomaly Detection, "
        "CVPR 2019",
    )

    category: str = ""
    held_out: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out={self.held_out!r} of mvtec_ad: must be a share from 0 to below 1")

    def index(self, root: Path | None, split: str) -> Sequence[Entry]:
        """By category, kind and number. ValueError for split "val" where nothing is held out."""
        if split == "val" and not self.held_out:
            raise ValueError('mvtec_ad has no split "val" of its own: set the option held_out, such as held_out=0.1')
        root = self.folder(root, split)
        here = (root / "train" / "good").is_dir()
        folders = [root] if here else sorted(p for p in root.iterdir() if (p / "train" / "good").is_dir())
        there = {p.name: p for p in folders}
        if not there:
            self.wrong_layout(root, "CATEGORY/train/good/")
        if self.category:
            there = {self.category: there[choose(f"category of {shown(root)}", self.category, there)]}
        entries = [entry for category, folder in there.items() for entry in self._entries(folder, category, split)]
        if not entries:
            self.wrong_layout(root, f"CATEGORY/{split}/KIND/*.png")
        return entries

    def _entries(self, folder: Path, category: str, split: str) -> list[Entry]:
        if split == "test" or not self.held_out:
            return list(_entries(folder, category, split))
        good = list(_entries(folder, category, "train"))
        return [e for i, e in enumerate(good) if _held_out(i, self.held_out) == (split == "val")]

    def load(self, entry: Entry) -> Sample:
        """defect: the mask, all False for a good one. domain: the category; meta: the kind."""
        image = read_rgb(entry.image)
        defect = torch.zeros(image.shape[-2:], dtype=torch.bool)
        if entry.mask is not None:
            mask = read_grey(entry.mask)
            same_size(entry.mask, mask, image)
            defect = torch.from_numpy(mask > 0)
        return Sample(entry.name, image, defect=defect, domain=entry.category, meta={"kind": entry.kind})


def _entries(folder: Path, category: str, split: str) -> Iterator[Entry]:
    kinds = sorted(p.name for p in (folder / split).iterdir() if p.is_dir()) if (folder / split).is_dir() else []
    for kind in kinds:
        for image in images_in(folder / split / kind):
            mask = None if kind == "good" else folder / "ground_truth" / kind / f"{image.stem}_mask.png"
            yield Entry(f"{category}/{split}/{kind}/{image.stem}", category, kind, image, mask)


def _held_out(index: int, share: float) -> bool:
    """Whether the entry is one of those that are set aside: about every (1 / share)-th, the first among them."""
    return index == 0 or int(index * share + 1e-9) > int((index - 1) * share + 1e-9)


PLUGIN = MvtecAd()
