"""ETH3D, high-resolution multi-view: photographs with depth rendered from laser scans; the original or the list layout.

SCENE/images/dslr_images/DSC_NNNN.JPG, SCENE/ground_truth_depth/dslr_images/DSC_NNNN.JPG               the original archives
SCENE/dslr_calibration_jpg/{cameras,images}.txt                                                         optional
rgb/SCENE/images/..., depth/SCENE_dslr_depth/SCENE/ground_truth_depth/...                               the public list's

Depth files have the image's name, but hold raw float32 in rows of the image's size (4032 x 6048): metres, infinity where
there is none. Images are read as they are stored, whatever their EXIF orientation says, since the depth is like that.
Sources: eth3d.net/documentation; the public list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from genpercept.core.texts import one_line, read_lines
from genpercept.core.values import Sample
from genpercept.data._files import About, FileDataset, as_depth, check_first, need, pinhole_at, read_list, read_rgb
from genpercept.imaging.read import shown

_IMAGES, _DEPTH = "images/dslr_images", "ground_truth_depth/dslr_images"
_CALIBRATION = "dslr_calibration_jpg"


@dataclass(frozen=True)
class Entry:
    """A photograph: SCENE/DSC_NNNN. scenes: folders that may hold the scene's calibration."""

    name: str
    image: Path
    depth: Path
    scenes: tuple[Path, ...]

    def files(self) -> tuple[Path, ...]:
        return tuple(p / _CALIBRATION / name for p in self.scenes for name in ("cameras.txt", "images.txt"))


@dataclass(frozen=True)
class Eth3d(FileDataset):
    """split_list: a public list of rgb and depth files; it takes the place of the split."""

    name = "eth3d"
    about = About(
        title="ETH3D high-resolution multi-view",
        url="https://www.eth3d.net/datasets",
        obtain="Fetch the training scenes' SCENE_dslr_jpg.7z and SCENE_dslr_depth.7z and extract them into one folder.",
        licence="CC BY-NC-SA 4.0",
        layout=(
            "SCENE/images/dslr_images/DSC_NNNN.JPG",
            "SCENE/ground_truth_depth/dslr_images/DSC_NNNN.JPG (raw float32)",
            "SCENE/dslr_calibration_jpg/cameras.txt, images.txt",
            "or rgb/SCENE/images/dslr_images/DSC_NNNN.JPG, "
            "depth/SCENE_dslr_depth/SCENE/ground_truth_depth/dslr_images/DSC_NNNN.JPG",
        ),
        provides=("depth", "valid", "intrinsics"),
        splits=("train", "all"),
        protocols={"depth": "eth3d", "disparity": "eth3d"},
        reference="Schöps et al., A Multi-View Stereo Benchmark with High-Resolution Images and Multi-Camera Videos, 2017",
    )

    split_list: Path | str | None = None

    def index(self, root: Path | None, split: str) -> Sequence[Entry]:
        """Photographs that have depth: those of the 13 training scenes (454), on which the field evaluates."""
        root = self.folder(root, split)
        if self.split_list is not None:
            rows = read_list(Path(self.split_list), 2)
            entries = [_entry(root, root / image, root / depth) for image, depth, *_ in rows]
            if entries:
                check_first(entries[0].image, self.split_list)
            return entries
        base = root / "rgb" if (root / "rgb").is_dir() else root
        entries = []
        for image in sorted(base.glob(f"*/{_IMAGES}/*.JPG")):
            scene = image.parents[2].name
            depth = root / scene / _DEPTH / image.name
            if base != root:
                depth = root / "depth" / f"{scene}_dslr_depth" / scene / _DEPTH / image.name
            if depth.is_file():  # a few photographs of a scene may have none
                entries.append(_entry(root, image, depth))
        if not entries:
            self.wrong_layout(root, "SCENE/images/dslr_images/*.JPG with depth in SCENE/ground_truth_depth")
        return entries

    def load(self, entry: Entry) -> Sample:
        """Depth in metres, 0 where there is none. Intrinsics where the calibration is: a pinhole's part of its camera.

        The lens bends rays (THIN_PRISM_FISHEYE), which a pinhole leaves out: meta["camera"] has model and parameters.
        """
        sample = Sample(entry.name, read_rgb(entry.image, upright=False))
        h, w = sample.image.shape[-2:]
        raw = need(entry.depth).read_bytes()
        if len(raw) != h * w * 4:
            raise ValueError(
                f"{shown(entry.depth)}: {len(raw)} bytes; raw float32 for its image of {h} x {w} pixels has {h * w * 4}"
            )
        sample.depth, sample.valid = as_depth(np.frombuffer(raw, "<f4").reshape(h, w))
        folder = next((p / _CALIBRATION for p in entry.scenes if (p / _CALIBRATION / "cameras.txt").is_file()), None)
        if folder is not None:
            model, size, values = _camera(folder, entry.image.name)
            sample.intrinsics = pinhole_at(values[:4], (size[1], size[0]), (h, w))
            sample.meta["camera"] = {"model": model, "parameters": list(values)}
        return sample


def _entry(root: Path, image: Path, depth: Path) -> Entry:
    scene = image.parents[2]
    return Entry(f"{scene.name}/{image.stem}", image, depth, (scene, root / scene.name))


def _camera(folder: Path, image: str) -> tuple[str, tuple[float, float], tuple[float, ...]]:
    """COLMAP's model, width and height, parameters (fx, fy, cx, cy, ...) of the camera that took an image."""
    cameras, takers = _calibration(folder)
    if takers.get(image) not in cameras:
        raise ValueError(f"{shown(folder / 'images.txt')}: does not say which camera took {image}")
    return cameras[takers[image]]


@lru_cache(maxsize=32)
def _calibration(folder: Path) -> tuple[dict[str, tuple[str, tuple[float, float], tuple[float, ...]]], dict[str, str]]:
    cameras: dict[str, tuple[str, tuple[float, float], tuple[float, ...]]] = {}
    takers: dict[str, str] = {}
    try:
        for key, model, width, height, *values in _lines(folder / "cameras.txt"):
            cameras[key] = (model, (float(width), float(height)), tuple(float(v) for v in values))
            if len(values) < 4:
                raise ValueError(f"camera {key} has {len(values)} parameters")
        # two lines an image: pose, camera and name; then its points
        takers |= {
            Path(row[9]).name: row[8] for row in _lines(folder / "images.txt") if len(row) == 10 and "." in row[9]
        }
    except ValueError as error:
        raise ValueError(f"{shown(folder)}: the calibration cannot be read: {one_line(error)}") from None
    return cameras, takers


def _lines(path: Path) -> list[list[str]]:
    return [line.split() for line in read_lines(path, comment="#")]


PLUGIN = Eth3d()
