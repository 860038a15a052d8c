"""Virtual KITTI 2: rendered streets with depth and 14 classes; the original archives, merged or one folder each.

[vkitti_2.0.3_rgb/ | rgb/]SceneXX/CONDITION/frames/rgb/Camera_N/rgb_NNNNN.jpg
[vkitti_2.0.3_depth/ | depth/]SceneXX/CONDITION/frames/depth/Camera_N/depth_NNNNN.png          uint16 centimetres, 65535 sky
[vkitti_2.0.3_classSegmentation/ | ...]SceneXX/CONDITION/frames/classSegmentation/Camera_N/classgt_NNNNN.png      optional
[vkitti_2.0.3_textgt/ | ...]SceneXX/CONDITION/intrinsic.txt                                                       optional

Sources: the data set's page (formats), the public training lists (splits, benchmark crop).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genpercept.core.names import choose
from genpercept.core.texts import one_line, read_lines
from genpercept.core.values import Sample
from genpercept.data._files import About, FileDataset, check_first, pinhole, read_list, read_rgb, read_values, same_size
from genpercept.imaging.read import shown

BENCHMARK = (352, 1216)  # height, width: KITTI's benchmark crop, bottom and centred
SKY = 65535
_TRAIN, _VAL = ("Scene02", "Scene06", "Scene18", "Scene20"), ("Scene01",)
_PATH = re.compile(r"(Scene\d\d)/([^/]+)/frames/rgb/(Camera_\d)/rgb_(\d+)\.jpg$")

# Class ids are positions here; what has another colour (0, 0, 0: undefined) has no class.
CLASSES: Mapping[str, tuple[int, int, int]] = {
    "terrain": (210, 0, 200),
    "sky": (90, 200, 255),
    "tree": (0, 199, 0),
    "vegetation": (90, 240, 0),
    "building": (140, 140, 140),
    "road": (100, 60, 100),
    "guard rail": (250, 100, 255),
    "traffic sign": (255, 255, 0),
    "traffic light": (200, 200, 0),
    "pole": (255, 130, 0),
    "misc": (80, 80, 80),
    "truck": (160, 60, 60),
    "car": (255, 127, 80),
    "van": (0, 139, 139),
}


@dataclass(frozen=True)
class Entry:
    """A frame: SCENE/CONDITION/Camera_N/NNNNN. classes and intrinsics: paths where there may be such files."""

    name: str
    image: Path
    depth: Path
    classes: Path
    intrinsics: Path


@dataclass(frozen=True)
class VirtualKitti2(FileDataset):
    """max_depth: farther is not valid (500 m in the paper); the sky is infinite and not valid.

    crop: "benchmark" for KITTI's 352 x 1216 (the bottom, centred), which the public training takes. conditions: only these,
    such as clone or fog. split_list: a public list of rgb and depth files; it takes the place of the split.
    """

    name = "vkitti2"
    about = About(
        title="Virtual KITTI 2",
        url="https://europe.naverlabs.com/research/computer-vision/proxy-virtual-worlds-vkitti-2/",
        obtain="Fetch vkitti_2.0.3_rgb.tar and vkitti_2.0.3_depth.tar (and _textgt, _classSegmentation), and extract them "
        "into one folder, or each into a folder of its name.",
        licence="CC BY-NC-SA 3.0",
        layout=(
            "[vkitti_2.0.3_rgb/]SceneXX/CONDITION/frames/rgb/Camera_N/rgb_NNNNN.jpg",
            "[vkitti_2.0.3_depth/]SceneXX/CONDITION/frames/depth/Camera_N/depth_NNNNN.png",
            "[vkitti_2.0.3_classSegmentation/]SceneXX/CONDITION/frames/classSegmentation/Camera_N/classgt_NNNNN.png",
            "[vkitti_2.0.3_textgt/]SceneXX/CONDITION/intrinsic.txt",
        ),
        provides=("depth", "class_ids", "valid", "intrinsics"),
        splits=("train", "val", "all"),
        protocols={"depth": "vkitti", "disparity": "vkitti"},
        reference="Cabon, Murray, Humenberger, Virtual KITTI 2, 2020",
    )

    split_list: Path | str | None = None
    crop: str = "none"
    max_depth: float = 500.0
    conditions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        choose("crop of vkitti2", self.crop, ("none", "benchmark"))
        if isinstance(self.max_depth, bool) or not isinstance(self.max_depth, int | float) or not self.max_depth > 0:
            raise ValueError(f"max_depth {self.max_depth!r} of vkitti2: must be metres above 0")
        given = (self.conditions,) if isinstance(self.conditions, str) else tuple(self.conditions)
        object.__setattr__(self, "conditions", given)

    def index(self, root: Path | None, split: str) -> Sequence[Entry]:
        """Frames, both cameras. Splits as in the public lists: val is Scene01, train the other four."""
        root = self.folder(root, split)
        bases = {part: _base(root, part) for part in ("rgb", "depth", "classSegmentation", "textgt")}
        if self.split_list is not None:
            rows = [row[0] for row in read_list(Path(self.split_list), 2)]
            entries = [_entry(bases, path, self.split_list) for path in rows]
            if entries:
                check_first(entries[0].image, self.split_list)
            return entries
        paths = list(bases["rgb"].glob("Scene*/*/frames/rgb/Camera_*/rgb_*.jpg"))
        if not paths:
            self.wrong_layout(root, self.about.layout[0])
        scenes = {"train": _TRAIN, "val": _VAL}.get(split)
        entries = [_entry(bases, p.relative_to(bases["rgb"]).as_posix(), root) for p in sorted(paths)]
        entries = [e for e in entries if scenes is None or e.name.split("/")[0] in scenes]
        if self.conditions:
            for condition in self.conditions:
                choose("condition of vkitti2", condition, sorted({e.name.split("/")[1] for e in entries}))
            entries = [e for e in entries if e.name.split("/")[1] in self.conditions]
        if not entries:
            raise ValueError(
                f"{shown(root)}: no scenes of split {split!r} ({', '.join(scenes or ())}); it is incomplete"
            )
        return entries

    def load(self, entry: Entry) -> Sample:
        """Depth in metres, the sky infinite; class ids and intrinsics where their files are. ValueError with the file."""
        sample = Sample(entry.name, read_rgb(entry.image))
        stored = read_values(entry.depth, ("uint16",))
        same_size(entry.depth, stored, sample.image)
        metres = np.where(stored == SKY, np.inf, stored / 100).astype(np.float32)
        sample.depth = torch.from_numpy(metres)
        sample.valid = torch.from_numpy((metres > 0) & (metres <= self.max_depth) & (stored != SKY))
        if entry.classes.is_file():
            sample.class_ids = _class_ids(entry.classes)
            same_size(entry.classes, sample.class_ids, sample.image)
        if entry.intrinsics.is_file():
            _, _, camera, number = entry.name.split("/")
            k = _intrinsics(entry.intrinsics).get((int(number), int(camera.removeprefix("Camera_"))))
            if k is None:
                raise ValueError(f"{shown(entry.intrinsics)}: no line for frame {int(number)} of {camera}")
            sample.intrinsics = pinhole(*k)
        return _cropped(sample) if self.crop == "benchmark" else sample


def _base(root: Path, part: str) -> Path:
    """The folder that holds the scenes of one archive."""
    places = (root / f"vkitti_2.0.3_{part}", root / part)
    return next((p for p in places if next(p.glob("Scene*/"), None) is not None), root)


def _entry(bases: Mapping[str, Path], path: str, source: Path | str) -> Entry:
    match = _PATH.search(path)
    if match is None:
        raise ValueError(f"{shown(Path(source))}: {path}: expected SceneXX/CONDITION/frames/rgb/Camera_N/rgb_NNNNN.jpg")
    scene, condition, camera, number = match.groups()
    frames = f"{scene}/{condition}/frames"
    return Entry(
        f"{scene}/{condition}/{camera}/{number}",
        bases["rgb"] / f"{frames}/rgb/{camera}/rgb_{number}.jpg",
        bases["depth"] / f"{frames}/depth/{camera}/depth_{number}.png",
        bases["classSegmentation"] / f"{frames}/classSegmentation/{camera}/classgt_{number}.png",
        bases["textgt"] / f"{scene}/{condition}/intrinsic.txt",
    )


def _class_ids(path: Path) -> Tensor:
    """Colours -> ids (H, W), -1 where undefined. ValueError for a colour that no class has."""
    colours = read_values(path, ("uint8",), ndim=3)[..., :3].astype(np.int64)
    code = (colours * np.array([65536, 256, 1])).sum(-1)
    ids = np.full(code.shape, -2, np.int64)
    for i, (r, g, b) in enumerate(((0, 0, 0), *CLASSES.values())):
        ids[code == r * 65536 + g * 256 + b] = i - 1
    if (ids == -2).any():
        raise ValueError(f"{shown(path)}: colour {tuple(colours[ids == -2][0].tolist())} is no class's; fetch it again")
    return torch.from_numpy(ids)


@lru_cache(maxsize=128)
def _intrinsics(path: Path) -> Mapping[tuple[int, int], tuple[float, float, float, float]]:
    """(frame, camera) -> fx, fy, cx, cy of an intrinsic.txt: a heading, then frame cameraID fx fy cx cy."""
    rows = [line.split() for line in read_lines(path)[1:]]
    try:
        return {(int(f), int(c)): (float(fx), float(fy), float(cx), float(cy)) for f, c, fx, fy, cx, cy in rows}
    except ValueError as error:
        raise ValueError(f"{shown(path)}: cannot be read: {one_line(error)}") from None


def _cropped(sample: Sample) -> Sample:
    h, w = sample.image.shape[-2:]
    if h < BENCHMARK[0] or w < BENCHMARK[1]:
        raise ValueError(f"sample {sample.name!r}: {h} x {w} pixels are less than the crop of 352 x 1216")
    top, left = h - BENCHMARK[0], (w - BENCHMARK[1]) // 2
    for field in ("image", "depth", "valid", "class_ids"):
        value = getattr(sample, field)
        if value is not None:
            setattr(sample, field, value[..., top:, left : left + BENCHMARK[1]].contiguous())
    if sample.intrinsics is not None:
        sample.intrinsics[0, 2] -= left
        sample.intrinsics[1, 2] -= top
    return sample


PLUGIN = VirtualKitti2()
