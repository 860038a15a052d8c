"""KITTI: streets with LiDAR depth; the raw recordings and the annotated depth maps, or the public evaluation's archive of both.

2011_MM_DD/2011_MM_DD_drive_NNNN_sync/image_0{2,3}/data/FFFFFFFFFF.png               raw, synchronised and rectified
[data_depth_annotated/]{train,val}/2011_..._sync/proj_depth/groundtruth/image_0{2,3}/FFFFFFFFFF.png      uint16 metres x 256
2011_..._sync/proj_depth/groundtruth/image_02/FFFFFFFFFF.png                         the evaluation archive's depth
2011_MM_DD/calib_cam_to_cam.txt                                                      optional: P_rect_02, P_rect_03

Frames stay whole: the protocols of `genpercept.metrics` take the 352 x 1216 benchmark crop themselves.
Sources: the development kit of the depth benchmark (encoding), the raw data's readme (calibration).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from torch import Tensor

from genpercept.core.texts import one_line, read_lines
from genpercept.core.values import Sample
from genpercept.data._files import (
    About,
    FileDataset,
    as_depth,
    check_first,
    pinhole,
    read_list,
    read_rgb,
    read_values,
    same_size,
)
from genpercept.imaging.read import shown

_DRIVE = re.compile(r"(2011_\d\d_\d\d)_drive_\d{4}_sync")
_DEPTH = "proj_depth/groundtruth"


@dataclass(frozen=True)
class Entry:
    """A frame: DRIVE/CAMERA/FRAME. calibration: its day's calib_cam_to_cam.txt, where there may be one."""

    name: str
    image: Path
    depth: Path
    camera: str
    calibration: Path
    focal: float | None = None


@dataclass(frozen=True)
class Kitti(FileDataset):
    """split_list: a public list, such as Eigen's test frames: image, depth, focal length; it takes the place of the split.

    Its rows without ground truth ("None") are dropped (45 of Eigen's 697). depth_root: the annotated depth, where it is
    not under the same root as the recordings.
    """

    name = "kitti"
    about = About(
        title="KITTI depth",
        url="https://www.cvlibs.net/datasets/kitti/eval_depth.php?benchmark=depth_prediction",
        obtain="Fetch the raw recordings (synced+rectified, with calibration) and data_depth_annotated.zip into one folder. "
        "For Eigen's 652 test frames give split_list; the field's eigen_test_files_with_gt.txt is one.",
        licence="CC BY-NC-SA 3.0",
        layout=(
            "2011_MM_DD/2011_MM_DD_drive_NNNN_sync/image_0{2,3}/data/FFFFFFFFFF.png",
            "[data_depth_annotated/]{train,val}/2011_MM_DD_drive_NNNN_sync/proj_depth/groundtruth/image_0{2,3}/FFFFFFFFFF.png",
            "2011_MM_DD/calib_cam_to_cam.txt",
            "or, for test, 2011_MM_DD_drive_NNNN_sync/proj_depth/groundtruth/image_02/FFFFFFFFFF.png",
        ),
        provides=("depth", "valid", "intrinsics"),
        splits=("train", "val", "test", "all"),
        protocols={"depth": "kitti", "disparity": "kitti"},
        reference="Uhrig et al., Sparsity Invariant CNNs, 2017; Eigen et al., Depth Map Prediction from a Single Image, 2014",
    )

    split_list: Path | str | None = None
    depth_root: Path | str | None = None

    def index(self, root: Path | None, split: str) -> Sequence[Entry]:
        """Frames with ground truth. test: the list's, or all of an evaluation archive; train, val: as annotated."""
        root = self.folder(root, split)
        depth_root = root if self.depth_root is None else Path(self.depth_root).expanduser()
        if self.split_list is not None:
            entries = list(self._listed(root, depth_root))
            if entries:
                check_first(entries[0].image, self.split_list)
            return entries
        bases = _bases(depth_root, split)
        paths = [p for base in bases for p in sorted(base.glob(f"2011_*_sync/{_DEPTH}/image_0[23]/*.png"))]
        if not paths and split == "test" and _bases(depth_root, "all"):
            raise ValueError(f"{shown(root)}: which frames are for test is not in the data: give split_list")
        entries = [_entry(root, path) for path in paths]
        # the annotated set has drives that one may not have fetched
        entries = [e for e in entries if e.image.is_file()]
        if not entries:
            self.wrong_layout(root, f"depth maps of split {split!r} and their images")
        return entries

    def _listed(self, root: Path, depth_root: Path) -> Iterator[Entry]:
        bases: dict[str, Path] = {}
        source = Path(self.split_list or "")
        for image, depth, *rest in read_list(source, 2):
            if depth == "None":
                continue
            drive = _DRIVE.search(depth)
            if drive is None:
                raise ValueError(f"{shown(source)}: {depth}: expected a drive such as 2011_09_26_drive_0002_sync in it")
            tail = depth[drive.start() :]
            if drive[0] not in bases:
                places = (depth_root, *_bases(depth_root, "all"))
                bases[drive[0]] = next((p for p in places if (p / drive[0] / _DEPTH).is_dir()), depth_root)
            try:
                focal = float(rest[0]) if rest else None
            except ValueError:
                raise ValueError(f"{shown(source)}: {rest[0]!r} is no focal length") from None
            yield _entry(root, bases[drive[0]] / tail, root / image, focal)

    def load(self, entry: Entry) -> Sample:
        """Depth in metres where the LiDAR gives it (0 elsewhere). ValueError that names the file."""
        sample = Sample(entry.name, read_rgb(entry.image))
        stored = read_values(entry.depth, ("uint16",))
        same_size(entry.depth, stored, sample.image)
        sample.depth, sample.valid = as_depth(stored / 256)
        if entry.calibration.is_file():
            sample.intrinsics = _calibrated(entry.calibration, entry.camera)
        if entry.focal is not None:
            sample.meta["focal"] = entry.focal
        return sample


def _bases(root: Path, split: str) -> list[Path]:
    """Folders whose children are drives with annotated depth, for a split. Of "all" those that exist."""
    annotated = root / "data_depth_annotated" if (root / "data_depth_annotated").is_dir() else root
    if split in ("train", "val"):
        return [annotated / split]
    archive = [root] if next(root.glob(f"2011_*_sync/{_DEPTH}"), None) is not None else []
    if split == "test":
        return archive
    return archive + [annotated / part for part in ("train", "val") if (annotated / part).is_dir()]


def _entry(root: Path, depth: Path, image: Path | None = None, focal: float | None = None) -> Entry:
    """A frame by its depth map .../DRIVE/proj_depth/groundtruth/CAMERA/FRAME.png."""
    camera, drive = depth.parent.name, depth.parents[3].name
    day = root / drive[:10]
    image = image or day / drive / camera / "data" / depth.name
    return Entry(f"{drive}/{camera}/{depth.stem}", image, depth, camera, day / "calib_cam_to_cam.txt", focal)


def _calibrated(path: Path, camera: str) -> Tensor:
    """Intrinsics of the rectified camera image_02 or image_03."""
    key = f"P_rect_{camera.removeprefix('image_')}"
    values = _calibration(path).get(key)
    if values is None or len(values) != 12:
        raise ValueError(f"{shown(path)}: no {key} of twelve numbers; fetch it again")
    return pinhole(values[0], values[5], values[2], values[6])


@lru_cache(maxsize=16)
def _calibration(path: Path) -> Mapping[str, tuple[float, ...]]:
    found: dict[str, tuple[float, ...]] = {}
    lines = read_lines(path)
    try:
        for line in lines:
            key, _, numbers = line.partition(":")
            if key.startswith("P_rect"):
                found[key] = tuple(float(n) for n in numbers.split())
    except ValueError as error:
        raise ValueError(f"{shown(path)}: cannot be read: {one_line(error)}") from None
    return found


PLUGIN = Kitti()
