"""One row for each kind of prediction: what its values are, how they are painted, stored and merged.

Colours, files and ensembles ask the row; nothing else knows a kind by its name. Another package adds one by an entry point of
the group `genpercept.kinds`:

    ALBEDO = Kind("albedo", "share of the light that a surface reflects, by colour", axes=(None, None, 3), limits=(0, 1))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from genpercept.core.registry import Table
from genpercept.imaging import painters
from genpercept.imaging.painters import Painter

Layout = Literal["map", "stack", "points"]
MergeRule = Literal["affine", "mean", "unit vectors", "channels"]
Distance = Literal["depth", "inverse depth", "root of inverse depth"]


@dataclass(frozen=True)
class Kind:
    """What `values` of a Prediction are. Raises ValueError for a row that contradicts itself.

    meaning: in words. axes: sizes, None where any. limits: the range of valid values, None: any. dtype: of the values;
    integers are ids from 0 on, -1 where there is none.
    layout: "map" (H, W) or (H, W, C); "stack" (H, W, 3 n), n images of three channels each; "points" (N, joints, 3) x, y
    in pixels and a score.
    paint: None: greys or colours as they are, ids by a palette, images of a stack side by side, points as dots.
    legend: the key of `meta` that says what a picture shows: colours of ids (C, 3), or an entry with a name for each image
    of a stack. item: what an id is called. formats: what is written when nobody says; (): png and color, or npy where
    pictures cannot hold it.
    merge: how ensembles merge runs (see genpercept.pipeline.ensemble); None: they are decoded from the mean of the raw maps.
    directions: unit vectors in the camera frame, which a model's own axes turn. distance: how values tell the distance,
    for points in space. foreground: values are the share of the foreground, for masks and cut-outs.
    scores: values say how strange a pixel is, so that their picture is laid over the image, too; `meta["pixel_threshold"]`
    says from where on a pixel is called a defect.
    """

    name: str
    meaning: str
    axes: tuple[int | None, ...] = (None, None)
    limits: tuple[float, float] | None = None
    dtype: type[np.generic] = np.float32
    layout: Layout = "map"
    paint: Painter | None = None
    legend: str = "colours"
    item: str = "id"
    formats: tuple[str, ...] = ()
    merge: MergeRule | None = "mean"
    directions: bool = False
    distance: Distance | None = None
    foreground: bool = False
    scores: bool = False

    def __post_init__(self) -> None:
        for what, value, known in (
            ("layout", self.layout, get_args(Layout)),
            ("merge", self.merge, (*get_args(MergeRule), None)),
            ("distance", self.distance, (*get_args(Distance), None)),
        ):
            if value not in known:
                raise ValueError(f"kind {self.name!r}: {what}={value!r}: choose one of {', '.join(map(repr, known))}")
        if self.merge is not None and (self.ids or self.layout == "points"):
            raise ValueError(f"kind {self.name!r}: {'ids' if self.ids else 'points'} have no mean: set merge=None")
        if len(self.axes) not in ((2, 3) if self.layout == "map" else (3,)):
            raise ValueError(f"kind {self.name!r}: axes={self.axes}: a map has 2 or 3 axes, a stack or points 3")

    @property
    def shape(self) -> str:
        """In words, such as (H, W, 3)."""
        letters = {"map": ("H", "W", "C"), "stack": ("H", "W", "3 n"), "points": ("N", "J", "3")}[self.layout]
        names = (str(size or letter) for size, letter in zip(self.axes, letters, strict=False))
        return f"({', '.join(names)})"

    @property
    def ids(self) -> bool:
        """Whether values are names of things, not quantities."""
        return np.issubdtype(self.dtype, np.integer)

    @property
    def is_image(self) -> bool:
        """Whether files of pictures hold it: one value, or a red, a green and a blue one, per pixel and image."""
        return self.layout == "stack" or (self.layout == "map" and self.axes[2:] in ((), (3,)))

    @property
    def gray(self) -> bool:
        """Whether it is one quantity per pixel, which tasks paint on three channels alike."""
        return self.layout == "map" and len(self.axes) == 2 and not self.ids

    @property
    def painter(self) -> Painter | None:
        """Its own, or that of its layout; None for maps of two or more than three channels without one."""
        if self.paint is not None:
            return self.paint
        if self.layout == "points":
            return painters.skeletons()
        if self.layout == "stack":
            return painters.side_by_side
        if self.ids and len(self.axes) == 2:
            return painters.classes
        return painters.plain(self.limits) if self.is_image else None

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether values may be of this shape."""
        same = len(shape) == len(self.axes) and all(a in (None, s) for a, s in zip(self.axes, shape, strict=True))
        return same and (self.layout != "stack" or shape[-1] % 3 == 0)

    def uncertainty_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of the uncertainty beside values of this shape: by channel where those are merged one by one, else by pixel."""
        return shape if self.merge == "channels" else shape[:2]


KINDS: Table[Kind] = Table(
    "kind",
    "genpercept.kinds",
    Kind(
        "depth_affine",
        "depth up to scale and shift, 0 near, 1 far",
        limits=(0, 1),
        paint=painters.depth,
        merge="affine",
        distance="depth",
    ),
    Kind(
        "disparity_affine",
        "inverse depth up to scale and shift, 1 near, 0 far",
        limits=(0, 1),
        paint=painters.disparity,
        merge="affine",
        distance="inverse depth",
    ),
    Kind(
        "root_disparity_affine",
        "square root of inverse depth up to scale and shift, 1 near, 0 far",
        limits=(0, 1),
        paint=painters.disparity,
        merge="affine",
        distance="root of inverse depth",
    ),
    Kind(
        "normals",
        "unit normals, camera frame: x right, y up, z towards the viewer",
        axes=(None, None, 3),
        limits=(-1, 1),
        paint=painters.directions,
        merge="unit vectors",
        directions=True,
    ),
    Kind("class_ids", "class ids, names in meta['classes']", dtype=np.int32, item="class id", merge=None),
    Kind("mask", "probability of the foreground", limits=(0, 1), foreground=True),
    Kind("alpha", "opacity of the foreground", limits=(0, 1), foreground=True),
    Kind(
        "keypoints",
        "COCO keypoints: x, y in pixels, score",
        axes=(None, 17, 3),
        layout="points",
        paint=painters.skeletons(painters.COCO_BONES),
        formats=("coco", "color"),
        merge=None,
    ),
    Kind(
        "anomaly",
        "anomaly score, higher is stranger",
        paint=painters.heat,
        formats=("png", "color", "overlay"),
        scores=True,
    ),
    Kind(
        "intrinsics",
        "n intrinsic images of 3 channels, named in meta['targets']",
        axes=(None, None, None),
        limits=(0, 1),
        layout="stack",
        legend="targets",
        merge="channels",
    ),
)
