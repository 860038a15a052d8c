"""Taskonomy: 537 scanned buildings with depth and normals (Zamir et al., CVPR 2018), as published or as Omnidata gives it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from genpercept.core.texts import read_csv
from genpercept.core.values import Sample
from genpercept.data._files import About, FileDataset, read_json, read_rgb, read_values, same_size
from genpercept.imaging.read import shown

_UNITS = 512.0  # of depth_zbuffer per metre
_NO_DEPTH = 65535
_VIEW = re.compile(r"point_(\d+)_view_(\d+)_domain_rgb\.png")


@dataclass(frozen=True)
class Entry:
    """A view's files; None where the root has no such domain."""

    name: str
    building: str
    image: Path
    depth: Path | None
    normals: Path | None
    valid: Path | None
    camera: Path | None


@dataclass(frozen=True)
class Taskonomy(FileDataset):
    """splits_file: the public CSV (id,train,val,test; a line a building) that the splits train, val and test come from."""

    name = "taskonomy"
    about = About(
        title="Taskonomy",
        url="https://github.com/StanfordVL/taskonomy/tree/master/data",
        obtain="omnitools.download rgb depth_zbuffer normal mask_valid point_info --components taskonomy --subset tiny "
        "(Omnidata's tool, after agreeing to the licence); the split files are in splits_taskonomy.zip of the repository.",
        licence="Taskonomy licence: research and education only, not commercial",
        layout=(
            "rgb/BUILDING/point_N_view_M_domain_rgb.png (as published) or rgb/taskonomy/BUILDING/... (Omnidata)",
            "depth_zbuffer/.../point_N_view_M_domain_depth_zbuffer.png: uint16, 1/512 m, 65535 unknown",
            "normal/.../point_N_view_M_domain_normal.png: 127.5-centred; red right, green down, blue towards the camera",
            "mask_valid/... and point_info/... (optional): where the mesh has no holes; the field of view",
        ),
        provides=("depth", "normals", "valid", "intrinsics"),
        splits=("train", "val", "test", "all"),
        protocols={"depth": "", "disparity": "", "normals": "dsine"},
        reference="Zamir et al., Taskonomy: Disentangling Task Transfer Learning, CVPR 2018",
    )

    splits_file: str = ""

    def check(self, split: str) -> None:
        super().check(split)
        if split != "all" and not self.splits_file:
            raise ValueError(
                f"{self.name}: split {split!r} needs the option splits_file, such as train_val_test_tiny.csv of "
                "splits_taskonomy.zip in the Taskonomy repository; or take split all"
            )

    def index(self, root: Path | None, split: str) -> Sequence[Entry]:
        """Views by building, point and view. train, val and test need splits_file; absent buildings are left out."""
        root = self.folder(root, split)
        home = root / "rgb" / "taskonomy" if (root / "rgb" / "taskonomy").is_dir() else root / "rgb"
        there = sorted(p.name for p in home.iterdir() if p.is_dir()) if home.is_dir() else []
        if not there:
            self.wrong_layout(root, "rgb/BUILDING/ or rgb/taskonomy/BUILDING/")
        wanted = there if split == "all" else self._buildings(split)
        entries = [e for building in there if building in wanted for e in _views(root, home, building)]
        if not entries and split != "all":
            raise ValueError(
                f"{shown(root)}: none of its {len(there)} buildings ({there[0]}, ...) is in split {split!r} of "
                f"{self.splits_file}; fetch some of {', '.join(sorted(wanted)[:3])}, ..."
            )
        if not entries:
            self.wrong_layout(root, "point_N_view_M_domain_rgb.png in the folders of the buildings")
        return entries

    def load(self, entry: Entry) -> Sample:
        """Metres along the optical axis; normals turned from (right, down, towards the camera) to our axes."""
        sample = Sample(entry.name, read_rgb(entry.image), domain=entry.building)
        known = np.ones(sample.image.shape[-2:], bool)
        if entry.valid is not None:
            mask = read_values(entry.valid, ("uint8", "uint16", "bool"))
            same_size(entry.valid, mask, sample.image)
            known &= mask > 0
        if entry.depth is not None:
            stored = read_values(entry.depth, ("uint16",))
            same_size(entry.depth, stored, sample.image)
            known &= (stored > 0) & (stored < _NO_DEPTH)
            sample.depth = torch.from_numpy(np.where(known, stored / np.float32(_UNITS), 0).astype(np.float32))
        if entry.normals is not None:
            normals = _normals(entry.normals)
            same_size(entry.normals, normals, sample.image)
            if entry.depth is None:
                known &= np.abs(normals).sum(-1) > 0
            normals[~known] = 0
            sample.normals = torch.from_numpy(np.ascontiguousarray(normals.transpose(2, 0, 1)))
            sample.meta["normals_axes"] = "stored: x right, y down, z towards the camera (as 2D-3D-S); y is turned here"
        if entry.camera is not None:
            sample.intrinsics = _intrinsics(entry.camera, sample.image.shape[-2:])
        sample.valid = torch.from_numpy(known)
        return sample

    def _buildings(self, split: str) -> set[str]:
        path = Path(self.splits_file).expanduser()
        rows = read_csv(path, " as a split file")
        if not rows or not {"id", split} <= set(rows[0]):
            raise ValueError(f"{shown(path)}: not a split file of Taskonomy: its first line must be id,train,val,test")
        return {row["id"] for row in rows if row[split] == "1"}


def _views(root: Path, home: Path, building: str) -> Iterator[Entry]:
    found = [(m, p) for p in (home / building).iterdir() if (m := _VIEW.fullmatch(p.name))]
    below = home.relative_to(root / "rgb") / building

    def label(domain: str, image: Path, *words: str, suffix: str = "png") -> Path | None:
        """The view's file of a domain, under the first of its names that is there; None where there is no such domain."""
        folder = root / domain / below
        if not folder.is_dir():
            return None
        paths = [folder / image.name.replace("domain_rgb.png", f"domain_{word}.{suffix}") for word in words]
        return next((p for p in paths if p.is_file()), paths[0])

    for match, image in sorted(found, key=lambda pair: (int(pair[0][1]), int(pair[0][2]))):
        camera = label("point_info", image, "point_info", "fixatedpose", suffix="json")
        yield Entry(
            name=f"{building}/point_{match[1]}_view_{match[2]}",
            building=building,
            image=image,
            depth=label("depth_zbuffer", image, "depth_zbuffer"),
            normals=label("normal", image, "normal"),
            valid=label("mask_valid", image, "mask_valid", "depth_zbuffer"),
            camera=camera if camera and camera.is_file() else None,
        )


def _normals(path: Path) -> np.ndarray:
    """(H, W, 3) float32 unit vectors in our axes, 0 where the file is mid-grey, which is no direction."""
    stored = read_values(path, ("uint8",), ndim=3)[..., :3].astype(np.float32) / 127.5 - 1
    length = np.linalg.norm(stored, axis=-1, keepdims=True)
    return np.where(length > 0.5, stored / np.maximum(length, 1e-6), 0).astype(np.float32) * np.array(
        [1, -1, 1], np.float32
    )


def _intrinsics(path: Path, size: Sequence[int]) -> torch.Tensor | None:
    """From the (square) picture's field of view; None where the file does not say it."""
    info = read_json(path)
    fov = info.get("field_of_view_rads") if isinstance(info, dict) else None
    if not isinstance(fov, int | float) or not 0 < fov < math.pi:
        return None
    f = size[1] / 2 / math.tan(fov / 2)
    return torch.tensor([[f, 0, size[1] / 2], [0, f, size[0] / 2], [0, 0, 1]], dtype=torch.float32)


PLUGIN = Taskonomy()
