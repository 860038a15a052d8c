"""DIODE: rooms and streets with dense depth from a laser scanner, and normals.

[{train,val}/]{indoors,outdoor,outdoors}/scene_NNNNN/scan_NNNNN/NAME.png, NAME_depth.npy, NAME_depth_mask.npy
                                                          NAME_normal.npy, a download of its own, optional

Depth: float32 (H, W, 1), metres; the mask is 1 where the scanner answered. Normals: float32 (H, W, 3) in the camera's x
right, y up, z towards the viewer, of either sign: those that face away are turned around (as Metric3D's reader, which turns
them into x right, y down, z away; the data set says nothing of its axes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genpercept.core.values import Sample
from genpercept.data._files import (
    About,
    FileDataset,
    as_depth,
    as_normals,
    check_first,
    pinhole_at,
    pinhole_rays,
    read_list,
    read_rgb,
    read_values,
    same_size,
)
from genpercept.imaging.read import shown

KINDS = ("indoors", "outdoor", "outdoors")
# intrinsics.txt of the devkit, at 1024 x 768. fx and fy do differ.
_CAMERA = 886.81, 927.06, 512.0, 384.0


@dataclass(frozen=True)
class Entry:
    """A crop. depth and mask: as a list names them, or by the image's name."""

    name: str
    image: Path
    depth: Path
    mask: Path

    @property
    def normals(self) -> Path:
        return self.image.with_name(f"{self.image.stem}_normal.npy")

    def files(self) -> tuple[Path, ...]:
        return (self.normals,)


@dataclass(frozen=True)
class Diode(FileDataset):
    """split_list: a public list of image, depth and mask files; it takes the place of the split."""

    name = "diode"
    grouped = "kind of scene"
    about = About(
        title="DIODE",
        url="https://diode-dataset.org",
        obtain="Fetch val.tar.gz (2.6 GB; train.tar.gz: 81 GB) and, for normals, val_normals.tar.gz, and extract them into "
        "one folder.",
        licence="MIT",
        layout=(
            "[{train,val}/]{indoors,outdoor}/scene_NNNNN/scan_NNNNN/NAME.png, NAME_depth.npy, NAME_depth_mask.npy",
            "[{train,val}/]{indoors,outdoor}/scene_NNNNN/scan_NNNNN/NAME_normal.npy",
        ),
        provides=("depth", "normals", "valid", "intrinsics"),
        splits=("train", "val", "all"),
        protocols={"depth": "diode", "disparity": "diode", "normals": "dsine"},
        reference="Vasiljevic et al., DIODE: A Dense Indoor and Outdoor DEpth Dataset, 2019",
    )

    split_list: Path | str | None = None

    def index(self, root: Path | None, split: str) -> Sequence[Entry]:
        """Crops of a split (771 in val). A folder without train/ and val/ is taken for what is asked."""
        root = self.folder(root, split)
        if self.split_list is not None:
            base = next((p for p in (root, root / "val", root / "train") if _has_scenes(p)), root)
            rows = read_list(Path(self.split_list), 3)
            entries = [Entry(Path(a).with_suffix("").as_posix(), base / a, base / b, base / c) for a, b, c, *_ in rows]
            if entries:
                check_first(entries[0].image, self.split_list)
            return entries
        parts = ("train", "val") if split == "all" else (split,)
        bases = [root / p for p in parts if _has_scenes(root / p)] or [root]
        entries = [_entry(base, image) for base in bases for image in _images(base)]
        if not entries:
            self.wrong_layout(root, f"{parts[0]}/indoors/scene_NNNNN/scan_NNNNN/*.png")
        return entries

    def group(self, entry: Entry) -> str:
        """indoors or outdoor."""
        return next((part for part in entry.image.parts if part in KINDS), "")

    def load(self, entry: Entry) -> Sample:
        """A crop; valid is the scanner's mask. Normals where their file is. ValueError that names the file."""
        sample = Sample(entry.name, read_rgb(entry.image))
        size = (int(sample.image.shape[-2]), int(sample.image.shape[-1]))
        sample.intrinsics = pinhole_at(_CAMERA, (768, 1024), size)
        metres = read_values(entry.depth, ("float32",), ndim=3)[..., 0]
        same_size(entry.depth, metres, sample.image)
        mask = read_values(entry.mask)
        same_size(entry.mask, mask, sample.image)
        if not np.isin(mask, (0, 1)).all():
            raise ValueError(f"{shown(entry.mask)}: values other than 0 and 1; fetch it again")
        sample.depth, sample.valid = as_depth(metres, mask == 1)
        if entry.normals.is_file():
            normals = read_values(entry.normals, ("float32", "float64"), ndim=3)
            same_size(entry.normals, normals, sample.image)
            sample.normals = as_normals(normals, pinhole_rays(sample.intrinsics, size))
        return sample


def _has_scenes(folder: Path) -> bool:
    return any((folder / kind).is_dir() for kind in KINDS)


def _images(base: Path) -> list[Path]:
    return sorted(p for kind in KINDS for p in base.glob(f"{kind}/scene_*/scan_*/*.png"))


def _entry(base: Path, image: Path) -> Entry:
    depth, mask = (image.with_name(f"{image.stem}_{kind}.npy") for kind in ("depth", "depth_mask"))
    return Entry(image.relative_to(base).with_suffix("").as_posix(), image, depth, mask)


PLUGIN = Diode()
