"""Cityscapes: street scenes with 19 classes and disparity of a stereo rig (Cordts et al., CVPR 2016)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genpercept.core.classes import IGNORED
from genpercept.core.names import choose
from genpercept.core.values import Sample
from genpercept.data._files import About, FileDataset, need, read_json, read_rgb, read_values, same_size
from genpercept.imaging.read import shown

# labelIds -> train ids, in the order of the 19 classes; every other label is left out of training and evaluation.
_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_IMAGE = "_leftImg8bit.png"
# Of the rig that most of the data was taken with, where a frame's calibration is missing.
_CAMERA = {"baseline": 0.209313, "fx": 2262.52, "fy": 2265.3017905988554, "u0": 1096.98, "v0": 513.137}
_LABELS = ("class_ids", "depth")


@dataclass(frozen=True)
class Entry:
    name: str
    city: str
    image: Path
    label_ids: Path | None  # gtFine or gtCoarse ..._labelIds.png
    train_ids: Path | None
    disparity: Path | None
    camera: Path | None


@dataclass(frozen=True)
class Cityscapes(FileDataset):
    """labels: which to read of class_ids and depth (default: those that the root has). annotations: gtFine or gtCoarse.

    sequences: the 30-frame snippets around the annotated frames (89,250 in train), which have depth and no classes.
    """

    name = "cityscapes"
    about = About(
        title="Cityscapes",
        url="https://www.cityscapes-dataset.com",
        obtain="Register at cityscapes-dataset.com; leftImg8bit_trainvaltest.zip, gtFine_trainvaltest.zip and, for depth, "
        "disparity_trainvaltest.zip and camera_trainvaltest.zip, all unpacked into one folder; for sequences also "
        "leftImg8bit_sequence_trainvaltest.zip (324 GB) and disparity_sequence_trainvaltest.zip (106 GB).",
        licence="Cityscapes licence: non-commercial use such as research and teaching",
        layout=(
            "leftImg8bit/SPLIT/CITY/CITY_SEQ_FRAME_leftImg8bit.png",
            "gtFine/SPLIT/CITY/CITY_SEQ_FRAME_gtFine_labelIds.png (to 19 train ids), or ..._labelTrainIds.png",
            "disparity/SPLIT/CITY/CITY_SEQ_FRAME_disparity.png: uint16 p, d = (p - 1) / 256 pixels, 0 unknown",
            "camera/SPLIT/CITY/CITY_SEQ_FRAME_camera.json: baseline and focal length; depth = baseline fx / d",
            "leftImg8bit_sequence/ and disparity_sequence/, the same for every frame of the snippets",
        ),
        provides=("class_ids", "depth", "valid", "intrinsics"),
        splits=("train", "val", "test", "train_extra"),
        protocols={"segmentation": "", "depth": "", "disparity": ""},
        classes="cityscapes19",
        reference="Cordts et al., The Cityscapes Dataset for Semantic Urban Scene Understanding, CVPR 2016",
    )

    labels: tuple[str, ...] = ()
    annotations: str = "gtFine"
    sequences: bool = False

    def __post_init__(self) -> None:
        given = (self.labels,) if isinstance(self.labels, str) else tuple(self.labels)
        object.__setattr__(self, "labels", tuple(choose("label of cityscapes", label, _LABELS) for label in given))
        choose("annotations of cityscapes", self.annotations, ("gtFine", "gtCoarse"))
        if self.sequences and "class_ids" in self.labels:
            raise ValueError("cityscapes: the frames of sequences have no class_ids: take labels = ['depth']")

    def index(self, root: Path | None, split: str) -> Sequence[Entry]:
        root = self.folder(root, split)
        kind = "_sequence" if self.sequences else ""
        home = root / f"leftImg8bit{kind}" / split
        images = sorted(home.glob(f"*/*{_IMAGE}")) if home.is_dir() else []
        if not images:
            self.wrong_layout(root, f"leftImg8bit{kind}/{split}/CITY/*{_IMAGE}")
        folder = {"class_ids": f"{self.annotations}/{split}", "depth": f"disparity{kind}/{split}"}
        has = {label: (root / path).is_dir() for label, path in folder.items()}
        has["class_ids"] &= not self.sequences
        for label in self.labels:
            if not has[label]:
                self.wrong_layout(root, f"{folder[label]}/ for the label {label}")
        wanted = self.labels or tuple(label for label in _LABELS if has[label])
        if not wanted:
            self.wrong_layout(root, f"{folder['class_ids']}/ or {folder['depth']}/ beside the images")
        return list(self._entries(root, images, split, wanted))

    def _entries(self, root: Path, images: list[Path], split: str, wanted: Sequence[str]) -> Iterator[Entry]:
        kind = "_sequence" if self.sequences else ""
        cameras = _snippets(root / "camera" / split) if self.sequences else {}
        for image in images:
            stem, city = image.name.removesuffix(_IMAGE), image.parent.name
            label = root / self.annotations / split / city / f"{stem}_{self.annotations}"
            classes, depth = "class_ids" in wanted, "depth" in wanted
            yield Entry(
                name=f"{split}/{city}/{stem}",
                city=city,
                image=image,
                label_ids=label.with_name(f"{label.name}_labelIds.png") if classes else None,
                train_ids=label.with_name(f"{label.name}_labelTrainIds.png") if classes else None,
                disparity=root / f"disparity{kind}" / split / city / f"{stem}_disparity.png" if depth else None,
                camera=cameras.get(stem, root / "camera" / split / city / f"{stem}_camera.json") if depth else None,
            )

    def load(self, entry: Entry) -> Sample:
        """class_ids 0 ... 18, -1 elsewhere; depth in metres, 0 where unknown; valid: where it is known."""
        sample = Sample(entry.name, read_rgb(entry.image), domain=entry.city, meta={"classes": self.about.classes})
        if entry.label_ids is not None and entry.train_ids is not None:
            by_name = entry.label_ids.is_file() or not entry.train_ids.is_file()
            path = entry.label_ids if by_name else entry.train_ids
            ids = _classes(path, by_name)
            same_size(path, ids, sample.image)
            sample.class_ids = torch.from_numpy(ids)
        if entry.disparity is not None and entry.camera is not None:
            stored = read_values(entry.disparity, ("uint16",))
            same_size(entry.disparity, stored, sample.image)
            camera, sample.meta["camera"] = _camera(entry.camera)
            d = (stored.astype(np.float32) - 1) / 256
            known = d > 0  # 0 is unknown, and 1 would be infinitely far
            metres = np.where(known, camera["baseline"] * camera["fx"] / np.where(known, d, 1), 0)
            sample.depth, sample.valid = torch.from_numpy(metres.astype(np.float32)), torch.from_numpy(known)
            rows = [[camera["fx"], 0, camera["u0"]], [0, camera["fy"], camera["v0"]], [0, 0, 1]]
            sample.intrinsics = torch.tensor(rows, dtype=torch.float32)
        return sample


def _snippets(folder: Path) -> dict[str, Path]:
    """Calibration of each frame of the snippets, CITY_SEQ_FRAME -> that of the annotated one, which is the twentieth of 30."""
    found: dict[str, Path] = {}
    for path in folder.glob("*/*_camera.json"):
        city, sequence, frame = path.name.removesuffix("_camera.json").rsplit("_", 2)
        found |= {f"{city}_{sequence}_{int(frame) + i:06d}": path for i in range(-19, 11)}
    return found


def _classes(path: Path, by_name: bool) -> np.ndarray:
    """(H, W) int64 train ids, IGNORED elsewhere, from labelIds or labelTrainIds."""
    stored = read_values(need(path), ("uint8",))
    table = np.full(256, IGNORED, np.int64)
    if by_name:
        table[list(_LABEL_IDS)] = np.arange(len(_LABEL_IDS))
        limit = 33
    else:
        table[: len(_LABEL_IDS)] = np.arange(len(_LABEL_IDS))
        limit = len(_LABEL_IDS) - 1
    strange = stored[(stored > limit) & (stored != 255)]
    if strange.size:
        kind = "labelIds" if by_name else "labelTrainIds"
        raise ValueError(f"{shown(path)}: the value {strange[0]} is none of {kind} (0 to {limit}, or 255)")
    return table[stored]


def _camera(path: Path) -> tuple[dict[str, float], str]:
    """Baseline in metres and intrinsics in pixels, and where they are from."""
    if not path.is_file():
        return _CAMERA, "defaults of the rig: camera/ has no file for this frame"
    found: Any = read_json(path)
    try:
        both = {**found["intrinsic"], **found["extrinsic"]}
        camera = {key: float(both[key]) for key in _CAMERA}
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{shown(path)}: not a calibration: it lacks one of {', '.join(_CAMERA)}") from None
    if not (camera["baseline"] > 0 and camera["fx"] > 0):
        raise ValueError(f"{shown(path)}: baseline {camera['baseline']} and fx {camera['fx']} must be positive")
    return camera, path.name


PLUGIN = Cityscapes()
