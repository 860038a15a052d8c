"""Hypersim: rendered rooms with depth, normals and NYU-40 classes; the original HDF5 files, or the public training code's PNGs.

ai_VVV_NNN/images/scene_cam_XX_final_hdf5/frame.IIII.color.hdf5                          linear colour, tone-mapped here
ai_VVV_NNN/images/scene_cam_XX_geometry_hdf5/frame.IIII.{depth_meters,normal_cam,semantic,render_entity_id}.hdf5
metadata_images_split_scene_v1.csv                 the split; frames that are not in the public release are left out
metadata_camera_parameters.csv                     each scene's rays; without it, 60 degrees across and a straight lens

depth_meters is the distance from the camera; along the axis it is that times the cosine of the pixel's ray, whose
direction is M_cam_from_uv (u, v, 1) for u, v in [-1, 1] (right, up). normal_cam is in our axes (the camera's x right, y up,
z away from where it looks); normals seen from behind are turned around. Sources: the data set's README, its
contrib/mikeroberts3000 (rays) and scene_generate_images_tonemap.py (tone mapping).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from genpercept.core.names import choose
from genpercept.core.texts import read_csv
from genpercept.core.values import Sample
from genpercept.data._files import (
    About,
    FileDataset,
    as_depth,
    as_normals,
    check_first,
    pinhole,
    read_hdf5,
    read_list,
    read_rgb,
    read_values,
    same_size,
)
from genpercept.imaging.read import shown

SPLIT_CSV = "metadata_images_split_scene_v1.csv"
CAMERA_CSV = "metadata_camera_parameters.csv"
LABELS = ("depth", "normals", "class_ids")
CLASSES = 40
_FRAME = re.compile(r"(ai_\d{3}_\d{3})/rgb_(cam_\d+)_fr(\d+)\.png$")
_ORIGINAL = re.compile(r"(ai_\d{3}_\d{3})/images/scene_(cam_\d+)_final_hdf5/frame\.(\d+)\.color\.hdf5$")
_LUMA = np.array([0.3, 0.59, 0.11], np.float32)

Matrix = tuple[tuple[float, float, float], ...]  # M_cam_from_uv, row by row
# 60 degrees across, square pixels, 1024 x 768: what the scenes without a tilted or shifted lens have.
STRAIGHT: Matrix = ((3**-0.5, 0.0, 0.0), (0.0, 3**-0.5 * 0.75, 0.0), (0.0, 0.0, -1.0))


@dataclass(frozen=True)
class Entry:
    """A frame. folder: of its scene. original: HDF5, not PNG."""

    folder: Path
    camera: str
    frame: int
    original: bool
    rays: Matrix = STRAIGHT

    @property
    def name(self) -> str:
        return f"{self.folder.name}/{self.camera}_fr{self.frame:04d}"

    @property
    def image(self) -> Path:
        if self.original:
            return self.folder / f"images/scene_{self.camera}_final_hdf5/frame.{self.frame:04d}.color.hdf5"
        return self.folder / f"rgb_{self.camera}_fr{self.frame:04d}.png"

    def label(self, kind: str) -> Path:
        """Path of depth_meters, normal_cam, semantic or render_entity_id (PNGs: depth_plane, normal_cam)."""
        if self.original:
            return self.folder / f"images/scene_{self.camera}_geometry_hdf5/frame.{self.frame:04d}.{kind}.hdf5"
        suffix = ".npy" if kind == "normal_cam" else ".png"
        return self.folder / f"{kind}_{self.camera}_fr{self.frame:04d}{suffix}"

    def files(self) -> tuple[Path, ...]:
        kinds = ("depth_meters", "semantic", "render_entity_id") if self.original else ("depth_plane",)
        return (self.image, *(self.label(kind) for kind in (*kinds, "normal_cam")))


@dataclass(frozen=True)
class Hypersim(FileDataset):
    """split_list: a public list of rgb and depth PNGs, for both layouts; it takes the place of the split.

    exclude: scenes or their cameras to leave out, such as ai_038_007 or ai_004_009/cam_01 (the data set's issue 22 names
    broken ones). labels: those to read. nan_depth: a depth map with NaN, where no surface is (a sky in the window), is
    refused, as the paper leaves it out ("refuse"), or those pixels are not valid ("mask"). Refused in any case, as in the
    paper: colours with NaN or infinity, all-zero colours, depth without any positive value.
    """

    name = "hypersim"
    about = About(
        title="Hypersim",
        url="https://github.com/apple/ml-hypersim",
        obtain="Fetch it with its dataset_download_images.py (1.9 TB; contrib/99991 fetches single files), and put "
        f"{SPLIT_CSV} (evermotion_dataset/analysis) and {CAMERA_CSV} (contrib/mikeroberts3000) beside the scenes.",
        licence="CC BY-SA 3.0",
        layout=(
            "ai_VVV_NNN/images/scene_cam_XX_final_hdf5/frame.IIII.color.hdf5",
            "ai_VVV_NNN/images/scene_cam_XX_geometry_hdf5/frame.IIII.{depth_meters,normal_cam,semantic,render_entity_id}.hdf5",
            SPLIT_CSV,
            CAMERA_CSV,
            "or [SPLIT/]ai_VVV_NNN/{rgb,depth_plane}_cam_XX_frIIII.png (mm), normal_cam_cam_XX_frIIII.npy",
        ),
        provides=("depth", "normals", "class_ids", "valid", "intrinsics"),
        splits=("train", "val", "test", "all"),
        protocols={"depth": "hypersim", "disparity": "hypersim", "normals": "dsine", "segmentation": ""},
        classes="nyu40",
        reference="Roberts et al., Hypersim: A Photorealistic Synthetic Dataset for Holistic Indoor Scene Understanding, 2021",
        extra="data",
    )

    split_list: Path | str | None = None
    exclude: tuple[str, ...] = ()
    labels: tuple[str, ...] = LABELS
    nan_depth: str = "refuse"

    def __post_init__(self) -> None:
        labels = (self.labels,) if isinstance(self.labels, str) else tuple(self.labels)
        for label in labels:
            choose("label of hypersim", label, LABELS)
        choose("nan_depth of hypersim", self.nan_depth, ("refuse", "mask"))
        exclude = (self.exclude,) if isinstance(self.exclude, str) else tuple(self.exclude)
        for name in exclude:
            if not re.fullmatch(r"ai_\d{3}_\d{3}(/cam_\d+)?", name):
                raise ValueError(f"exclude {name!r} of hypersim: write ai_VVV_NNN or ai_VVV_NNN/cam_XX")
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "exclude", exclude)

    # ---- what is there -------------------------------------------------------------------------------------------------

    def index(self, root: Path | None, split: str) -> Sequence[Entry]:
        """Frames of the split, of the scenes that are there. ValueError for another layout or a split without its CSV."""
        root = self.folder(root, split)
        scenes, original = self._scenes(root, split)
        cameras = _cameras(_beside(root, CAMERA_CSV))

        if self.split_list is not None:
            frames = _listed(self.split_list)
        elif not original:
            frames = _found(scenes, original)
        else:
            frames = self._of_split(root, scenes, split)
        entries = [
            Entry(scenes / scene, camera, frame, original, cameras.get(scene, STRAIGHT))
            for scene, camera, frame in frames
            if scene not in self.exclude and f"{scene}/{camera}" not in self.exclude
        ]
        if not entries:
            self.wrong_layout(root, f"frames of split {split!r}")
        if self.split_list is not None:
            check_first(entries[0].image, self.split_list)
        return entries

    def _scenes(self, root: Path, split: str) -> tuple[Path, bool]:
        """The folder that holds ai_VVV_NNN, and whether they are the original ones."""
        places = (root, root / "scenes", root / "evermotion_dataset" / "scenes", root / split)
        folder = next((p for p in places if next(p.glob("ai_*_*/"), None) is not None), None)
        if folder is None:
            self.wrong_layout(root, f"folders ai_VVV_NNN, or {split}/ai_VVV_NNN")
        original = any((p / "images").is_dir() for p in folder.glob("ai_*_*/"))
        if not original and folder == root and self.split_list is None and split != "all":
            raise ValueError(
                f"{shown(root)}: scenes of PNGs without a folder {split}: give split_list, or the split 'all'"
            )
        return folder, original

    def _of_split(self, root: Path, scenes: Path, split: str) -> Iterator[tuple[str, str, int]]:
        """Released frames of a split by the CSV, of the scenes that are there; of "all" the files that are there."""
        path = _beside(root, SPLIT_CSV)
        if path is None:
            if split == "all":
                yield from _found(scenes, original=True)
                return
            raise ValueError(
                f"{shown(root)}: no {SPLIT_CSV}, which says what split {split!r} is: put it there (from the data set's "
                "evermotion_dataset/analysis), or give split_list, or the split 'all'"
            )
        released: dict[tuple[str, str, int], str] = {}
        for row in _rows(path, ("scene_name", "camera_name", "frame_id", "included_in_public_release")):
            if row["included_in_public_release"].strip().lower() == "true":
                frame = (row["scene_name"], row["camera_name"], int(row["frame_id"]))
                released[frame] = row.get("split_partition_name", "")
        if split == "all":
            yield from (frame for frame in _found(scenes, original=True) if frame in released)
            return
        there = {p.name for p in scenes.glob("ai_*_*/")}
        yield from (frame for frame, part in released.items() if part == split and frame[0] in there)

    # ---- reading -------------------------------------------------------------------------------------------------------

    def load(self, entry: Entry) -> Sample:
        """A frame with the labels whose files are there. ValueError for broken frames, see the class."""
        sample = _original_image(entry) if entry.original else Sample(entry.name, read_rgb(entry.image))
        size = (int(sample.image.shape[-2]), int(sample.image.shape[-1]))
        rays, cosine = _lens(entry.rays, size)
        (fx, _, cx), (_, fy, cy), (_, tilt, z) = entry.rays
        w, h = size[1] / 2, size[0] / 2
        # With a tilted lens, pixels are no pinhole's: these are those of the nearest one, the rays above are exact.
        sample.intrinsics = pinhole(w * -z / fx, h * -z / fy, w - w * cx / fx, h + h * cy / fy)
        if tilt or entry.rays[2][0]:
            sample.meta["lens"] = "tilted"
        if "depth" in self.labels:
            self._add_depth(sample, entry, cosine)
        normals = entry.label("normal_cam")
        if "normals" in self.labels and normals.is_file():
            n = (
                read_hdf5(normals)
                if entry.original
                else read_values(normals, ("float16", "float32", "float64"), ndim=3)
            )
            same_size(normals, n, sample.image)
            sample.normals = as_normals(n, rays)
        if "class_ids" in self.labels and entry.original and entry.label("semantic").is_file():
            ids = read_hdf5(entry.label("semantic")).astype(np.int64)
            same_size(entry.label("semantic"), ids, sample.image)
            if ids.max(initial=-1) > CLASSES:
                raise ValueError(f"{shown(entry.label('semantic'))}: class {ids.max()}; NYU-40 has 1 to {CLASSES}")
            sample.class_ids = torch.from_numpy(np.where(ids > 0, ids - 1, -1))
        return sample

    def _add_depth(self, sample: Sample, entry: Entry, cosine: np.ndarray) -> None:
        path = entry.label("depth_meters" if entry.original else "depth_plane")
        if entry.original:
            distance = read_hdf5(path)
            same_size(path, distance, sample.image)
            metres = distance * cosine
            broken = int((~np.isfinite(metres)).sum())
            if broken and self.nan_depth == "refuse":
                raise ValueError(
                    f"{shown(path)}: {broken} pixels are NaN or infinite; such frames are left out, or nan_depth='mask'"
                )
        else:
            metres = read_values(path, ("uint16",)) / 1000
            same_size(path, metres, sample.image)
        sample.depth, sample.valid = as_depth(metres)
        if not bool(sample.valid.any()):
            raise ValueError(f"{shown(path)}: no pixel has a depth above 0; such frames are left out")


def camera_rays(matrix: Matrix, size: tuple[int, int]) -> np.ndarray:
    """M_cam_from_uv -> directions (H, W, 3) from the camera through the pixels' centres, in our axes (z below 0)."""
    u = 2 * (np.arange(size[1]) + 0.5) / size[1] - 1
    v = 1 - 2 * (np.arange(size[0]) + 0.5) / size[0]
    m = np.array(matrix)
    return u[None, :, None] * m[:, 0] + v[:, None, None] * m[:, 1] + m[:, 2]


@lru_cache(maxsize=4)  # nearly all scenes have one lens: a tenth of a second of each frame's reading
def _lens(matrix: Matrix, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Rays (H, W, 3), and of each the cosine to the optical axis (H, W)."""
    rays = camera_rays(matrix, size)
    cosine = -rays[..., 2] / np.sqrt(np.einsum("hwc,hwc->hw", rays, rays))
    for array in (rays, cosine):
        array.setflags(write=False)
    return rays, cosine


def tone_map(colour: np.ndarray, hit: np.ndarray | None = None) -> np.ndarray:
    """Linear colour (H, W, 3) -> [0, 1]: scaled so that the 90th percentile of the brightness becomes 0.8, gamma 1 / 2.2.

    hit (H, W) bool: where a surface is (render_entity_id other than -1), the pixels that the percentile is of.
    """
    brightness = (colour @ _LUMA)[hit] if hit is not None else colour @ _LUMA
    scale = 1.0
    if brightness.size:
        bright = float(np.percentile(brightness, 90))
        scale = 0.8**2.2 / bright if bright >= 1e-4 else 0.0
    return np.clip(np.maximum(scale * colour, 0) ** (1 / 2.2), 0, 1)


def _original_image(entry: Entry) -> Sample:
    colour = read_hdf5(entry.image).astype(np.float32)
    if colour.ndim != 3 or colour.shape[-1] != 3:
        raise ValueError(f"{shown(entry.image)}: shape {list(colour.shape)}; expected height, width, 3")
    if not np.isfinite(colour).all():
        raise ValueError(f"{shown(entry.image)}: colours with NaN or infinity; such frames are left out")
    if not colour.any():
        raise ValueError(f"{shown(entry.image)}: all zero; such frames are left out")
    ids = entry.label("render_entity_id")
    hit = read_hdf5(ids) != -1 if ids.is_file() else None
    if hit is not None and hit.shape != colour.shape[:2]:
        raise ValueError(f"{shown(ids)}: shape {list(hit.shape)}, but its image has {list(colour.shape[:2])}")
    pixels = tone_map(colour, hit).transpose(2, 0, 1).astype(np.float32)
    return Sample(entry.name, torch.from_numpy(np.ascontiguousarray(pixels)))


# Files beside the scenes --------------------------------------------------------------------------------------------------


def _beside(root: Path, name: str) -> Path | None:
    places = (root, root / "evermotion_dataset" / "analysis", root / "contrib" / "mikeroberts3000", root.parent)
    return next((p / name for p in places if (p / name).is_file()), None)


def _rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    rows = read_csv(path)
    missing = [c for c in columns if rows and c not in rows[0]]
    if missing:
        raise ValueError(f"{shown(path)}: no column {missing[0]}; fetch it again")
    yield from rows


@lru_cache(maxsize=4)
def _cameras(path: Path | None) -> Mapping[str, Matrix]:
    if path is None:
        return {}
    names = [[f"M_cam_from_uv_{i}{j}" for j in range(3)] for i in range(3)]
    cameras: dict[str, Matrix] = {}
    for row in _rows(path, ("scene_name", *(n for line in names for n in line))):
        try:
            (a, b, c), (d, e, f), (g, h, i) = ([float(row[n]) for n in line] for line in names)
        except ValueError:
            raise ValueError(f"{shown(path)}: {row['scene_name']}: M_cam_from_uv is not nine numbers") from None
        cameras[row["scene_name"]] = ((a, b, c), (d, e, f), (g, h, i))
    return cameras


def _listed(path: Path | str) -> Iterator[tuple[str, str, int]]:
    for row in read_list(Path(path), 1):
        match = _FRAME.search(row[0])
        if match is None:
            raise ValueError(f"{shown(Path(path))}: {row[0]}: expected ai_VVV_NNN/rgb_cam_XX_frIIII.png")
        yield match[1], match[2], int(match[3])


def _found(scenes: Path, original: bool) -> Iterator[tuple[str, str, int]]:
    pattern = "ai_*_*/images/scene_cam_*_final_hdf5/frame.*.color.hdf5" if original else "ai_*_*/rgb_cam_*_fr*.png"
    for path in sorted(scenes.glob(pattern)):
        if match := (_ORIGINAL if original else _FRAME).search(path.as_posix()):
            yield match[1], match[2], int(match[3])


PLUGIN = Hypersim()
