"""ScanNet: rooms seen by an RGB-D sensor; exported frames with depth, or FrameNet's normals.

[scans/]sceneNNNN_NN/color/FFFFFF.jpg, depth/FFFFFF.png     SensReader's export (numbers padded or not): uint16 mm
[scans/]sceneNNNN_NN/intrinsic/intrinsic_{depth,color}.txt  optional, 4 x 4
scannetv2_{train,val,test}.txt                              the official lists of scenes, one a line
sceneNNNN_NN/frame-FFFFFF-{color,normal,orient-mask}.png    FrameNet's archive (scannet-frames)
sceneNNNN_NN/FFFFFF_img.png, FFFFFF_normal.{png,npy}        its test frames as DSINE (.png) and Marigold (.npy) ship them

Depth has 480 x 640 pixels and colour 968 x 1296: the colour is shrunk to the depth's size, as in the public evaluations, so
that no depth is made up. Axes of the normals: see `read_eval_normals`. FrameNet's own archive does not say their sign: those
that point away from its camera (of its code) are turned around.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from genpercept.core.texts import read_lines
from genpercept.core.values import Sample, resize
from genpercept.data._files import (
    About,
    FileDataset,
    as_depth,
    as_normals,
    check_first,
    pinhole,
    pinhole_at,
    pinhole_rays,
    read_eval_normals,
    read_list,
    read_rgb,
    read_values,
    same_size,
)
from genpercept.imaging.read import shown

_NUMBER = re.compile(r"\d+")
_FRAMENET_CAMERA = (577.591, 578.73, 318.905, 242.684)  # fx, fy, cx, cy at 480 x 640, for all of its frames
# Pictures of the layouts, under a scene's folder.
_PATTERNS = ("color/*.jpg", "color/*.png", "frame-*-color.png", "*_img.png")


@dataclass(frozen=True)
class Entry:
    """A frame: SCENE/FRAME. The layouts have depth or normals."""

    name: str
    image: Path
    depth: Path | None = None
    normals: Path | None = None
    mask: Path | None = None  # of FrameNet's normals

    def files(self) -> tuple[Path, ...]:
        calibration = self.image.parents[1] / "intrinsic"
        return (calibration / "intrinsic_depth.txt", calibration / "intrinsic_color.txt")


@dataclass(frozen=True)
class ScanNet(FileDataset):
    """split_list: a public list of colour and depth (or normals) files; it takes the place of the split.

    every: only each so many-th frame of a scene, for the export has 30 a second.
    """

    name = "scannet"
    about = About(
        title="ScanNet",
        url="http://www.scan-net.org",
        obtain="Ask for access (terms of use), fetch the .sens files and export colour, depth and intrinsics with its "
        "SensReader. For the field's 800 frames give split_list; scannetv2_{train,val,test}.txt (its Tasks/Benchmark) "
        "are the official splits. Normals: FrameNet's scannet-frames, or DSINE's dsine_eval.zip.",
        licence="ScanNet terms of use, non-commercial",
        layout=(
            "[scans/]sceneNNNN_NN/color/FFFFFF.jpg, depth/FFFFFF.png, intrinsic/intrinsic_depth.txt",
            "scannetv2_{train,val,test}.txt",
            "or sceneNNNN_NN/frame-FFFFFF-{color,normal,orient-mask}.png",
            "or sceneNNNN_NN/FFFFFF_img.png, FFFFFF_normal.png or .npy",
        ),
        provides=("depth", "normals", "valid", "intrinsics"),
        splits=("train", "val", "test", "all"),
        protocols={"depth": "scannet", "disparity": "scannet", "normals": "dsine"},
        reference="Dai et al., ScanNet, 2017; Huang et al., FrameNet, 2019",
    )

    split_list: Path | str | None = None
    every: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.every, int) or isinstance(self.every, bool) or self.every < 1:
            raise ValueError(f"every {self.every!r} of scannet: must be a whole number from 1 up")

    def index(self, root: Path | None, split: str) -> Sequence[Entry]:
        """Frames of a split's scenes. ValueError for another layout, or a split without its list of scenes."""
        root = self.folder(root, split)
        scans = root / "scans" if (root / "scans").is_dir() else root
        if self.split_list is not None:
            entries = [_entry(scans / row[0]) for row in read_list(Path(self.split_list), 2)]
            if entries:
                check_first(entries[0].image, self.split_list)
            return entries
        scenes = sorted(p for p in scans.glob("scene*/") if p.is_dir())
        if not scenes:
            self.wrong_layout(root, "folders sceneNNNN_NN")
        if split != "all" and next(scans.glob("scene*/*_img.png"), None) is None:
            wanted = _scenes(root, split)
            scenes = [p for p in scenes if p.name in wanted]
        elif split in ("train", "val"):
            raise ValueError(f"{shown(root)}: these are DSINE's test frames: use the split 'test' or 'all'")
        entries = [_entry(p) for scene in scenes for p in _frames(scene)[:: self.every]]
        if not entries:
            self.wrong_layout(root, f"frames of split {split!r}")
        return entries

    def load(self, entry: Entry) -> Sample:
        """A frame at the size of its label. ValueError that names the file."""
        image = read_rgb(entry.image)
        if entry.depth is None:
            return _with_normals(Sample(entry.name, image), entry)
        stored = read_values(entry.depth, ("uint16",))
        size = (int(stored.shape[0]), int(stored.shape[1]))
        sample = Sample(entry.name, resize(image[None], size)[0].clamp(0, 1))
        sample.depth, sample.valid = as_depth(stored / 1000)
        calibration = entry.image.parents[1] / "intrinsic"
        if (calibration / "intrinsic_depth.txt").is_file():
            sample.intrinsics = _intrinsics(calibration / "intrinsic_depth.txt")
        elif (calibration / "intrinsic_color.txt").is_file():
            k = _intrinsics(calibration / "intrinsic_color.txt")
            camera = [float(n) for n in (k[0, 0], k[1, 1], k[0, 2], k[1, 2])]
            sample.intrinsics = pinhole_at(camera, (image.shape[-2], image.shape[-1]), size)
        return sample


def _with_normals(sample: Sample, entry: Entry) -> Sample:
    if entry.normals is None:
        raise ValueError(f"{shown(entry.image)}: neither depth nor normals go with it")
    vectors = read_eval_normals(entry.normals)
    same_size(entry.normals, vectors, sample.image)
    size = (int(vectors.shape[0]), int(vectors.shape[1]))
    rays = None
    if entry.mask is not None:
        sample.intrinsics = pinhole_at(_FRAMENET_CAMERA, (480, 640), size)
        rays = pinhole_rays(sample.intrinsics, size)
    if entry.mask is not None and entry.mask.is_file():
        mask = read_values(entry.mask)
        same_size(entry.mask, mask, sample.image)
        vectors = vectors * (mask > 0)[..., None]
    sample.normals = as_normals(vectors, rays)
    sample.valid = (sample.normals != 0).any(0)
    return sample


def _scenes(root: Path, split: str) -> set[str]:
    path = root / f"scannetv2_{split}.txt"
    if not path.is_file():
        raise ValueError(
            f"{shown(path)}: no such file, which lists the scenes of split {split!r}: put it there, or give split_list, "
            "or use the split 'all'"
        )
    return {row[0] for row in read_list(path, 1)}


def _frames(scene: Path) -> list[Path]:
    paths = next((found for pattern in _PATTERNS if (found := list(scene.glob(pattern)))), [])
    return sorted(paths, key=_frame)


def _frame(path: Path) -> int:
    match = _NUMBER.search(path.name)
    return int(match[0]) if match else -1


def _entry(image: Path) -> Entry:
    """A frame by its picture: its other files are where the picture's name says."""
    number = _NUMBER.search(image.name)
    if number is None:
        raise ValueError(f"{shown(image)}: expected the frame's number in the name")
    if image.parent.name == "color":
        scene = image.parents[1]
        return Entry(f"{scene.name}/{number[0]}", image, depth=scene / "depth" / f"{number[0]}.png")
    name = f"{image.parent.name}/{number[0]}"
    if image.name.endswith("_img.png"):
        normals = image.with_name(f"{number[0]}_normal.npy")
        return Entry(name, image, normals=normals if normals.is_file() else normals.with_suffix(".png"))
    if image.name.endswith("-color.png"):
        stem = f"frame-{number[0]}"
        normals, mask = (image.with_name(f"{stem}-{kind}.png") for kind in ("normal", "orient-mask"))
        return Entry(name, image, normals=normals, mask=mask)
    raise ValueError(
        f"{shown(image)}: expected sceneNNNN_NN/color/FFFFFF.jpg, frame-FFFFFF-color.png or FFFFFF_img.png"
    )


def _intrinsics(path: Path) -> Tensor:
    try:
        k = np.array([line.split() for line in read_lines(path)], float)
        return pinhole(k[0, 0], k[1, 1], k[0, 2], k[1, 2])
    except (ValueError, IndexError):
        raise ValueError(f"{shown(path)}: cannot be read as a 4 x 4 matrix; export it again") from None


PLUGIN = ScanNet()
