"""ADE20K: scenes with 150 classes (Zhou et al., CVPR 2017), as the SceneParsing benchmark or as the full data set of 2021."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from genpercept.core.classes import IGNORED, convert
from genpercept.core.names import choose
from genpercept.core.texts import read_lines
from genpercept.core.values import Sample
from genpercept.data._files import About, FileDataset, images_in, read_json, read_rgb, read_values, same_size
from genpercept.imaging.read import shown

_FOLDERS = {"train": "training", "val": "validation"}
_CLASSES = ("ade20k150", "shared", "full")
_FULL = "ADE20K_2021_17_01"
_BENCHMARK = "ADEChallengeData2016"

# The index of each of the 150 classes in the full data set, and of further full classes that fall into one of them:
# facts of the benchmark's convertFromADE/mapFromADE.txt (github.com/CSAILVision/sceneparsing).
_FULL_INDEX = """
2978 312 2420 976 2855 447 2131 165 3055 1125 350 2377 1831 838 774 2684 1610 1910 687 471 401 2994 1735 2473 2329 1276
2264 1564 2178 913 57 2272 907 724 2138 2985 1395 155 2053 689 137 266 581 2380 491 627 2212 2388 2423 943 2096 1121
1788 2530 2185 420 1948 1869 2251 2531 2128 294 239 212 571 2793 978 236 1240 181 629 2598 1744 1374 591 2679 223 123 47
1282 327 2821 1451 2880 2828 480 77 2616 246 2733 14 738 38 1936 1401 120 868 1702 249 308 1969 2526 2928 2337 1023 609
389 2989 1930 2668 2586 131 146 3016 2739 95 1563 642 1708 103 1002 2569 2704 2833 1551 1981 29 187 1393 747 2254 206
2262 1260 2243 2932 2836 2850 64 894 1858 3109 1919 1583 318 2356 2046 1098 530 954
"""
_FURTHER = {783: 14, 533: 35, 247: 88}  # double door, closet, a second booth


@dataclass(frozen=True)
class Entry:
    name: str
    image: Path
    label: Path
    full: bool  # which of the two encodings the label has
    scene: str = ""

    def files(self) -> tuple[Path, ...]:
        return (self.names,) if self.full else ()

    @property
    def names(self) -> Path:
        """Of the classes in the image, in the full data set."""
        return self.image.with_suffix(".json")


@dataclass(frozen=True)
class Ade20k(FileDataset):
    """classes: "ade20k150" (0 ... 149), "shared" (ids of nyu40, for comparing with Hypersim; the rest is no class), or
    "full" (the full release's own index - 1, with the names of the classes present in meta)."""

    name = "ade20k"
    about = About(
        title="ADE20K",
        url="https://ade20k.csail.mit.edu",
        obtain="The benchmark: data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip (1 GB). The full data set: "
        "register at ade20k.csail.mit.edu.",
        licence="ADE20K terms: images for non-commercial research and education; annotations BSD 3-clause",
        layout=(
            "the benchmark: images/{training,validation}/ADE_*.jpg, annotations/{training,validation}/ADE_*.png "
            "(8 bits: 0 none, 1 ... 150), or both in ADEChallengeData2016/",
            "the full data set: images/ADE/{training,validation}/KIND/SCENE/ADE_*.jpg with ADE_*_seg.png (index = "
            "R // 10 * 256 + G) and ADE_*.json, or in ADE20K_2021_17_01/",
        ),
        provides=("class_ids",),
        splits=tuple(_FOLDERS),
        protocols={"segmentation": ""},
        classes="ade20k150",
        reference="Zhou et al., Scene Parsing through ADE20K Dataset, CVPR 2017",
    )

    classes: str = "ade20k150"

    def __post_init__(self) -> None:
        choose("classes of ade20k", self.classes, _CLASSES)
        if self.classes == "shared":  # the labels cannot hold the other classes of nyu40: another protocol
            shared = replace(self.about, protocols={"segmentation": "shared"}, classes="nyu40")
            object.__setattr__(self, "about", shared)

    def index(self, root: Path | None, split: str) -> Sequence[Entry]:
        root = self.folder(root, split)
        home = next((root / name for name in (_BENCHMARK, _FULL) if (root / name).is_dir()), root)
        part = _FOLDERS[split]
        if (home / "images" / "ADE").is_dir():
            return self._full(home, part)
        if self.classes == "full":
            self.wrong_layout(home, f"images/ADE/{part}/ of the full data set, for classes 'full'")
        images, labels = images_in(home / "images" / part), home / "annotations" / part
        if not images or not labels.is_dir():
            self.wrong_layout(home, f"images/{part}/*.jpg and annotations/{part}/*.png")
        scenes = _scenes(home / "sceneCategories.txt")
        return [Entry(f"{part}/{i.stem}", i, labels / f"{i.stem}.png", False, scenes.get(i.stem, "")) for i in images]

    def _full(self, home: Path, part: str) -> list[Entry]:
        folder = home / "images" / "ADE" / part
        images = sorted(folder.rglob("*.jpg")) if folder.is_dir() else []
        if not images:
            self.wrong_layout(home, f"images/ADE/{part}/KIND/SCENE/*.jpg")
        return [Entry(f"{part}/{i.stem}", i, i.with_name(f"{i.stem}_seg.png"), True, i.parent.name) for i in images]

    def load(self, entry: Entry) -> Sample:
        """class_ids with -1 for no class; domain: the scene."""
        image = read_rgb(entry.image)
        ids = _full_ids(entry.label) if entry.full else _benchmark_ids(entry.label)
        same_size(entry.label, ids, image)
        meta: dict[str, object] = {"classes": "nyu40" if self.classes == "shared" else self.classes}
        if self.classes == "full":
            meta["class_names"] = _present(entry.names, ids)
        elif entry.full:
            ids = np.where(ids >= 0, _from_full()[np.maximum(ids, 0)], IGNORED)
        if self.classes == "shared":
            ids = convert(ids, "ade20k150", "nyu40")
        return Sample(entry.name, image, class_ids=torch.from_numpy(ids), domain=entry.scene, meta=meta)


def _benchmark_ids(path: Path) -> np.ndarray:
    stored = read_values(path, ("uint8",)).astype(np.int64)
    if stored.max(initial=0) > 150:
        raise ValueError(
            f"{shown(path)}: the value {stored.max()} is no class; the benchmark has 0 (none) and 1 to 150"
        )
    return stored - 1


def _full_ids(path: Path) -> np.ndarray:
    """The full data set's index - 1; -1 where nothing is annotated."""
    stored = read_values(path, ("uint8",), ndim=3).astype(np.int64)
    return stored[..., 0] // 10 * 256 + stored[..., 1] - 1


def _from_full() -> np.ndarray:
    """(6656,) full index - 1 -> id of the 150, or IGNORED."""
    table = np.full(26 * 256, IGNORED, np.int64)
    for i, index in enumerate(_FULL_INDEX.split()):
        table[int(index) - 1] = i
    for index, i in _FURTHER.items():
        table[index - 1] = i
    return table


def _present(path: Path, ids: np.ndarray) -> dict[int, str]:
    """The names of the classes in the label, from the annotation beside the image."""
    try:
        objects = read_json(path)["annotation"]["object"]
        known = {int(o["name_ndx"]) - 1: str(o["name"]).split(",")[0] for o in objects}
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ValueError):
            raise
        raise ValueError(f"{shown(path)}: not an annotation of the full data set: no {error}") from None
    return {i: known[i] for i in np.unique(ids).tolist() if i in known}


def _scenes(path: Path) -> dict[str, str]:
    """Image name -> scene, where the benchmark's list is there."""
    if not path.is_file():
        return {}
    rows = [line.split() for line in read_lines(path, errors="replace")]
    return {row[0]: row[1] for row in rows if len(row) == 2}


PLUGIN = Ade20k()
