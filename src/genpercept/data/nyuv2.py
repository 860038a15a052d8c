"""NYU Depth v2, the labelled set: its .mat file, the PNG folders of public evaluations, or normals as DSINE ships them.

nyu_depth_v2_labeled.mat, splits.mat, classMapping40.mat    the original (MATLAB 7.3, which is HDF5): 1449 frames
{train,test}/SCENE/{rgb,depth,filled}_NNNN.png              Marigold's archive: uint16 mm, numbered from 1 as in MATLAB
{train,test}/SCENE/{rgb,sync_depth}_NNNNN.{jpg,png}         BTS's: uint16 mm, numbered from 0
[test/]NNNNNN_img.png, NNNNNN_normal.{png,npy}              DSINE's (.png) or Marigold's (.npy), numbered from 0; no depth

Normals are those of Ladicky et al. in the version of GeoNet, see `read_eval_normals` for the axes. The labels' 894 names
become NYU-40 classes by classMapping40.mat (Gupta et al.); without that file there are no class ids.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genpercept.core.names import choose
from genpercept.core.texts import one_line
from genpercept.core.values import Sample
from genpercept.data._files import (
    About,
    FileDataset,
    as_depth,
    as_normals,
    check_first,
    need,
    pinhole_at,
    read_eval_normals,
    read_hdf5,
    read_list,
    read_rgb,
    read_values,
    same_size,
)
from genpercept.imaging.read import shown

MAT, SPLITS, MAPPING = "nyu_depth_v2_labeled.mat", "splits.mat", "classMapping40.mat"
FRAMES = 1449
# Of the colour camera at 640 x 480, from the toolbox's camera_params.m.
_CAMERA = 518.85790117, 519.46961112, 325.58244941, 253.73616633
_RGB = re.compile(r"rgb_(\d{4,5})\.(png|jpg)$")


@dataclass(frozen=True)
class Entry:
    """A frame. number: its row in the .mat file, from 0. image: a picture, or the .mat file itself."""

    name: str
    number: int
    image: Path
    depth: Path | None = None
    normals: Path | None = None

    def files(self) -> tuple[Path, ...]:
        return (self.image.with_name(MAPPING),) if self.image.name == MAT else ()


@dataclass(frozen=True)
class NyuV2(FileDataset):
    """split_list: a public list (rgb, depth, filled), for every layout; it takes the place of the split.

    depth: "raw" (what the sensor saw, which evaluations use) or "filled" (the holes painted in). normals: a folder of
    NNNNNN_normal.png or .npy, to go with the depth of the other layouts; frames then have no `valid`, since the two are
    known at different pixels: depth where it is above 0, normals where they are not 0.
    """

    name = "nyuv2"
    about = About(
        title="NYU Depth v2",
        url="https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html",
        obtain=f"Fetch {MAT} and {SPLITS} into one folder ({MAPPING}, for classes, is in the rcnn-depth repository); or use "
        "the archive of a public evaluation: Marigold's nyu_labeled_extracted.tar, DSINE's dsine_eval.zip (normals).",
        licence="research; the authors state none",
        layout=(
            f"{MAT}, {SPLITS}, {MAPPING}",
            "or {train,test}/SCENE/{rgb,depth,filled}_NNNN.png",
            "or {train,test}/SCENE/rgb_NNNNN.jpg, sync_depth_NNNNN.png",
            "or [test/]NNNNNN_img.png, NNNNNN_normal.png or .npy",
        ),
        provides=("depth", "normals", "class_ids", "valid", "intrinsics"),
        splits=("train", "test", "all"),
        protocols={"depth": "nyu", "disparity": "nyu", "normals": "dsine", "segmentation": ""},
        classes="nyu40",
        reference="Silberman et al., Indoor Segmentation and Support Inference from RGBD Images, 2012; Ladicky et al., 2014",
        extra="data",
    )

    split_list: Path | str | None = None
    depth: str = "raw"
    normals: Path | str | None = None

    def __post_init__(self) -> None:
        choose("depth of nyuv2", self.depth, ("raw", "filled"))

    def index(self, root: Path | None, split: str) -> Sequence[Entry]:
        """Frames of the split: 795 for train, 654 for test. ValueError for another layout."""
        root = self.folder(root, split)
        mat = root / MAT
        if self.split_list is not None:
            rows = [row[0] for row in read_list(Path(self.split_list), 2)]
            entries = [self._of_mat(mat, _number(p)) if mat.is_file() else self._of_files(root / p) for p in rows]
            if entries:
                check_first(entries[0].image, self.split_list)
            return entries
        if mat.is_file():
            numbers = range(FRAMES) if split == "all" else _numbers(root / SPLITS, f"{split}Ndxs")
            return [self._of_mat(mat, int(n)) for n in numbers]
        paths = list(_pictures(root, split))
        if not paths:
            self.wrong_layout(
                root, f"{MAT}, or pictures such as {'test' if split == 'all' else split}/SCENE/rgb_0001.png"
            )
        return [self._of_files(p) for p in paths]

    def _of_mat(self, mat: Path, number: int) -> Entry:
        return Entry(f"{number:06d}", number, mat, normals=self._normals(number))

    def _of_files(self, image: Path) -> Entry:
        if image.name.endswith("_img.png"):
            stem = image.name.removesuffix("_img.png")
            found = next((p for s in ("png", "npy") if (p := image.with_name(f"{stem}_normal.{s}")).is_file()), None)
            return Entry(stem, int(stem), image, normals=found or image.with_name(f"{stem}_normal.png"))
        number, digits = _number(image.name), image.stem.removeprefix("rgb_")
        kind = ("sync_depth" if len(digits) == 5 else "depth") if self.depth == "raw" else "filled"
        depth = image.with_name(f"{kind}_{digits}.png")
        return Entry(f"{image.parent.name}/{digits}", number, image, depth, self._normals(number))

    def _normals(self, number: int) -> Path | None:
        if self.normals is None:
            return None
        folder = Path(self.normals).expanduser()
        path = folder / f"{number:06d}_normal.png"
        return path if path.is_file() else path.with_suffix(".npy")

    def load(self, entry: Entry) -> Sample:
        """A frame with the labels that its layout has, metres. ValueError that names the file."""
        if entry.image.name == MAT:
            sample = self._from_mat(entry)
        else:
            sample = Sample(entry.name, read_rgb(entry.image))
            if entry.depth is not None:
                stored = read_values(entry.depth, ("uint16",))
                same_size(entry.depth, stored, sample.image)
                sample.depth, sample.valid = as_depth(stored / 1000)
        if entry.normals is not None:
            normals = read_eval_normals(entry.normals)
            same_size(entry.normals, normals, sample.image)
            sample.normals, sample.valid = as_normals(normals), None
        size = (int(sample.image.shape[-2]), int(sample.image.shape[-1]))
        sample.intrinsics = pinhole_at(_CAMERA, (480, 640), size)
        return sample

    def _from_mat(self, entry: Entry) -> Sample:
        """MATLAB's columns come first: images (1449, 3, 640, 480), the maps (1449, 640, 480)."""
        mat, n = entry.image, entry.number
        image = read_hdf5(mat, "images", n).transpose(0, 2, 1)
        pixels = torch.from_numpy(np.ascontiguousarray(image)).float() / 255
        sample = Sample(entry.name, pixels)
        metres = read_hdf5(mat, "rawDepths" if self.depth == "raw" else "depths", n).T
        same_size(mat, metres, pixels)
        sample.depth, sample.valid = as_depth(metres)
        mapping = mat.with_name(MAPPING)
        if mapping.is_file():
            to40 = np.concatenate([[-1], _matlab(mapping, "mapClass") - 1])  # label 0: none
            labels = read_hdf5(mat, "labels", n).T.astype(np.int64)
            if labels.max(initial=0) >= len(to40):
                raise ValueError(f"{shown(mat)}: label {labels.max()}, but {MAPPING} maps {len(to40) - 1}")
            sample.class_ids = torch.from_numpy(to40[labels])
        return sample


def _number(path: str) -> int:
    """Row in the .mat file, from 0, of rgb_NNNN (Marigold's, from 1) or rgb_NNNNN (BTS's, from 0)."""
    match = _RGB.search(path)
    if match is None:
        raise ValueError(f"{path}: expected a picture named rgb_NNNN.png or rgb_NNNNN.jpg")
    return int(match[1]) - (1 if len(match[1]) == 4 else 0)


def _pictures(root: Path, split: str) -> Iterator[Path]:
    """Pictures of the three layouts of files, sorted. DSINE's and Marigold's files of normals are for test."""
    if split in ("test", "all") and next(root.glob("*_img.png"), None) is not None:
        yield from sorted(root.glob("*_img.png"))
        return
    for part in ("train", "test") if split == "all" else (split,):
        for base in (root, root / "official_splits"):
            yield from sorted((base / part).glob("*_img.png"))
            yield from sorted(p for p in (base / part).glob("*/rgb_*") if _RGB.search(p.name))


def _numbers(path: Path, key: str) -> np.ndarray:
    """Row numbers from 0 of trainNdxs or testNdxs in splits.mat."""
    if not path.is_file():
        raise ValueError(
            f"{shown(path)}: no such file, which says what the splits are: fetch it, or use the split 'all'"
        )
    return _matlab(path, key) - 1


@lru_cache(maxsize=8)
def _matlab(path: Path, key: str) -> np.ndarray:
    """A vector of integers in a MATLAB file older than 7.3."""
    from scipy.io import loadmat

    try:
        values: Any = loadmat(need(path), variable_names=[key])
    except Exception as error:  # noqa: BLE001  SciPy raises whatever the damaged bytes lead to
        raise ValueError(f"{shown(path)}: not a MATLAB file ({one_line(error)}); fetch it again") from None
    if key not in values:
        raise ValueError(f"{shown(path)}: no {key} in it; fetch it again")
    return np.asarray(values[key]).ravel().astype(np.int64)


PLUGIN = NyuV2()
