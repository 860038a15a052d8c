"""What can be known of an image: one row per label of a Sample, with all that the rest of the code has to know of it.

A label is a map, with a value or several for each pixel, or no map (joints, boxes, a camera). A map is (H, W), and of
several channels (C, H, W) in a Sample and (H, W, C) everywhere else: in records, on disk, in pictures, and in the rules of a
row. Other packages add rows by entry points of `genpercept.labels`; their labels live in `Sample.extra`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from genpercept.core import label_rules as rules
from genpercept.core.label_rules import Crop, Packing, gone, one_per_pixel
from genpercept.core.names import choose
from genpercept.core.registry import Table

VALID = "valid"  # the label that says where others hold
BESIDE = ("name", "image", "caption", "domain", "meta", "extra")  # of a Sample or record: no labels
_LEAST_JOINTS, _MASK_SHARE = 8, (0.02, 0.9)
_TOLERANCE = 1e-3  # of a range: rounding is no mistake, a forgotten scale is
_RESAMPLING, _SUMMARIES = ("nearest", "bilinear"), ("range", "share", "classes", "people", "")


@dataclass(frozen=True)
class Label:
    """A label. A map of floats needs no more than `name`, `meaning`, and what differs from the defaults.

    name        also of its folder, and of its key in a manifest, in data set `folder`
    meaning     in words; for what is no map, with its shape
    channels    of a map; 0: no map
    dtype       in a Sample
    limits      lowest and highest value there can be; None: any
    unit, axes  of the values, and the names of the channels, a letter each, as `data check` writes them
    resampling  of a map; "bilinear" where the mean of two values is a value, too
    kind        of the Prediction as which it is drawn; "": not at all. What is no map is drawn on the image: x, y in
                pixels lead its last axis
    tint        a map in [0, 1] is laid over the image in this colour, instead
    endings     that its files may have behind the name of their image, such as that of `predict`; beside _NAME, _gt, _label
    summary     what `data check` says of it: the range of the values, their mean as a share of the pixels, the classes,
                the people, or nothing
    crop        what becomes of a label that is no map, see `unchanged` and `gone`; maps are resampled
    mirror      what becomes of the values, given the image's width; a map's pixels are exchanged before
    turn        what becomes of the values where EXIF orientation 2 to 8 turns the image; a map's pixels are turned before
    arrange     other forms that a record has it in -> that of a Sample
    packing     on disk; None: as it is
    read        what a file of it holds, and the options of data set `folder` -> (H, W[, C]); ValueError for what is
                wrong, `notes.note` for what is unusual. None: a map by its dtype and limits; what is no map has no files
    known       values, valid (H, W) -> where there is a value, (H, W) bool; None: where it is finite
    enough      whether an image has so much of it that it may be chosen for it (recipe `data.having`); None: it cannot
    advice      medians of the values, by axis -> what is suspicious about them, or ""
    """

    name: str
    meaning: str
    channels: int = 1
    dtype: type[np.generic] = np.float32
    limits: tuple[float, float] | None = None
    unit: str = ""
    axes: str = ""
    resampling: Literal["nearest", "bilinear"] = "nearest"
    kind: str = ""
    tint: tuple[int, int, int] | None = None
    endings: tuple[str, ...] = ()
    summary: Literal["range", "share", "classes", "people", ""] = "range"
    crop: Callable[[np.ndarray, Crop], np.ndarray | None] | None = None
    mirror: Callable[[np.ndarray, int], np.ndarray] | None = None
    turn: Callable[[np.ndarray, int], np.ndarray] | None = None
    arrange: Callable[[np.ndarray], np.ndarray] | None = None
    packing: Packing | None = None
    read: Callable[[np.ndarray, Mapping[str, Any]], np.ndarray] | None = None
    known: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    enough: Callable[[np.ndarray], bool] | None = None
    advice: Callable[[Sequence[float]], str] | None = None

    def __post_init__(self) -> None:
        where = f"label {self.name!r}: "
        if not self.name.isidentifier() or self.name in BESIDE:
            raise ValueError(f"{where}choose a name of letters, digits and _, and none of {', '.join(BESIDE)}")
        choose("resampling", self.resampling, _RESAMPLING, where)
        choose("summary", self.summary, _SUMMARIES, where)
        if self.resampling == "bilinear" and not issubclass(self.dtype, np.floating):
            raise ValueError(f"{where}{self.dtype.__name__} values cannot be resampled bilinearly; use nearest")
        if not self.channels and self.crop is None:
            raise ValueError(
                f"{where}it is no map, so its row must say what a crop does to it: give crop, such as unchanged"
            )
        if self.axes and len(self.axes) != self.channels:
            raise ValueError(f"{where}{len(self.axes)} axes ({self.axes}) of {self.channels} channels; name each")

    @property
    def classes(self) -> bool:
        """Whether its values are ids of a class table."""
        return self.summary == "classes"

    @property
    def has_files(self) -> bool:
        return bool(self.channels) or self.read is not None

    def titles(self) -> list[str]:
        """What a report calls its values: one name, or one for each axis."""
        title = f"{self.name} [{self.unit}]" if self.unit else self.name
        return [f"{title} {axis}" for axis in self.axes] or [title]

    def shape(self, size: tuple[int, int]) -> tuple[int, ...]:
        """Of a map in a Sample whose image has `size` (height, width)."""
        return size if self.channels == 1 else (self.channels, *size)

    def last(self, array: np.ndarray) -> np.ndarray:
        """The array of a Sample with its channels last."""
        return array.transpose(1, 2, 0) if self.channels > 1 else array

    def first(self, array: np.ndarray) -> np.ndarray:
        """The other way round, in the order of a Sample."""
        return array.transpose(2, 0, 1) if self.channels > 1 else array

    def packed(self, array: np.ndarray) -> np.ndarray:
        return array if self.packing is None else self.packing.pack(array)

    def unpacked(self, array: np.ndarray) -> np.ndarray:
        """What `packed` was given, up to its error; an array that was not packed stays as it is."""
        return array if self.packing is None or array.dtype != self.packing.dtype else self.packing.unpack(array)

    def from_file(self, stored: np.ndarray, options: Mapping[str, Any]) -> np.ndarray:
        """The values that a file has -> the label (H, W[, C]) of its dtype. ValueError for what is wrong with them."""
        return self.read(stored, options) if self.read else _by_dtype(self, stored)

    def where(self, values: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Pixels of a map (H, W[, C]) that have a value, (H, W) bool; valid (H, W): where the sample says so."""
        return finite(values) if self.known is None else self.known(values, valid)


def finite(values: np.ndarray) -> np.ndarray:
    """Pixels of a map (H, W[, C]) whose every value is finite, (H, W) bool."""
    return np.isfinite(values if values.ndim == 2 else values.sum(-1))


def _by_dtype(row: Label, stored: np.ndarray) -> np.ndarray:
    """Masks by `read_mask`; numbers as they are, but floats in files of whole numbers by the limits.

    A fourth channel beside three is opacity, and left out.
    """
    if row.dtype is np.bool_:
        return rules.read_mask(stored, {})
    values = one_per_pixel(stored) if row.channels == 1 else _channels(row, stored)
    if row.limits and issubclass(row.dtype, np.floating) and not np.issubdtype(values.dtype, np.floating):
        low, high = row.limits
        top = np.iinfo(values.dtype).max if np.issubdtype(values.dtype, np.integer) else 1
        return (values.astype(np.float32) / top * (high - low) + low).astype(row.dtype)
    if said := beyond(row, values):
        raise ValueError(f"{said}; scale them")
    return values.astype(row.dtype)


def beyond(row: Label, values: np.ndarray) -> str:
    """What is to be said of values outside the row's limits; "": nothing."""
    inside = values[np.isfinite(values)]
    if row.limits is None or not inside.size:
        return ""
    (low, high), (least, most) = row.limits, (float(inside.min()), float(inside.max()))
    slack = _TOLERANCE * (high - low)
    if low - slack <= least and most <= high + slack:
        return ""
    return f"values from {least:.4g} to {most:.4g}, but {row.name} goes from {low:g} to {high:g}"


def _channels(row: Label, stored: np.ndarray) -> np.ndarray:
    wanted = (row.channels, 4) if row.channels == 3 else (row.channels,)
    if stored.ndim != 3 or stored.size == 0 or stored.shape[-1] not in wanted:
        raise ValueError(
            f"shape {list(stored.shape)}; {row.name} has {row.channels} values per pixel (height, width, {row.channels})"
        )
    return stored[..., : row.channels]


# In the order in which they are drawn.
LABELS: Table[Label] = Table(
    "label",
    "genpercept.labels",
    Label(
        "depth",
        "metres along the optical axis; 0 where unknown, infinite at the sky",
        unit="m",
        kind="depth_affine",
        packing=rules.HALF,
        read=rules.read_depth,
        known=lambda depth, valid: valid,
        advice=rules.odd_depth,
    ),
    Label(
        "normals",
        "unit vectors in the camera frame, x right, y up, z towards the viewer; zero where unknown",
        channels=3,
        limits=(-1, 1),
        axes="xyz",
        kind="normals",
        endings=("_normal",),
        mirror=rules.mirrored_normals,
        turn=rules.turned_normals,
        packing=rules.DIRECTIONS,
        read=rules.read_normals,
        known=lambda normals, valid: np.abs(normals).sum(-1) > 0,
        advice=rules.odd_normals,
    ),
    Label(
        "mask",
        "True on the foreground",
        dtype=np.bool_,
        limits=(0, 1),
        kind="mask",
        endings=("_dis",),
        summary="share",
        enough=lambda mask: bool(_MASK_SHARE[0] <= mask.mean() <= _MASK_SHARE[1]),
    ),
    Label(
        "alpha",
        "opacity of the foreground, in [0, 1]",
        limits=(0, 1),
        kind="alpha",
        endings=("_matting", "_matte"),
        summary="share",
        packing=rules.SHARES,
        read=rules.read_alpha,
    ),
    Label(
        "class_ids",
        "ids of a class table (genpercept.core.classes), -1: no class",
        dtype=np.int64,
        kind="class_ids",
        endings=("_segmentation", "_classes", "_seg", "_gtFine_labelTrainIds"),
        summary="classes",
        packing=rules.SMALL_IDS,
        read=rules.read_ids,
        known=lambda ids, valid: ids >= 0,
    ),
    Label(
        "trimap",
        "where alpha is known: 0 and 255, its value there; 128: unknown",
        dtype=np.uint8,
        limits=(0, 255),
        kind="alpha",
        summary="",
        read=rules.read_trimap,
    ),
    Label(
        "keypoints",
        "(N, 17, 3), of N people the COCO joints: x, y in pixels, visibility 0, 1 or 2",
        channels=0,
        kind="keypoints",
        summary="people",
        crop=rules.cropped_joints,
        mirror=rules.mirrored_joints,
        arrange=rules.as_people,
        enough=lambda joints: int((joints[..., 2] > 0).sum()) >= _LEAST_JOINTS,
    ),
    Label(
        "boxes",
        "(N, 4), of the same people: x, y, width, height in pixels",
        channels=0,
        summary="",
        crop=gone,
        mirror=rules.mirrored_boxes,
    ),
    Label(
        "defect",
        "True where a product is not as it should be",
        dtype=np.bool_,
        limits=(0, 1),
        kind="mask",
        tint=(230, 30, 30),
        endings=("_mask",),
        summary="share",
        enough=lambda defect: bool(defect.any()),
    ),
    Label(
        VALID, "True where depth and normals mean something: not at the sky", dtype=np.bool_, limits=(0, 1), summary=""
    ),
    Label(
        "intrinsics",
        "(3, 3) pinhole camera, in pixels; pixel centres lie at half-integers",
        channels=0,
        summary="",
        crop=rules.cropped_camera,
        mirror=rules.mirrored_camera,
    ),
)
