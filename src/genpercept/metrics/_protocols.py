"""Named evaluation protocols and the crops they use.

Ranges and crops as in the public evaluations of Marigold, GenPercept and Lotus, which agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np

from genpercept.core.names import choose
from genpercept.metrics._affine import ALIGNMENTS
from genpercept.metrics._arrays import BoolArray, label

P = TypeVar("P")

SPACES = ("depth", "disparity", "root_disparity")
CROPS = ("eigen", "garg", "nyu_eigen", "kitti_eigen", "kitti_garg", "kitti_eigen_native", "kitti_garg_native", "none")

_KITTI_BENCHMARK = (352, 1216)  # height, width
# Fractions of height and width: rows from, to, columns from, to.
_KITTI_EIGEN = (0.3324324, 0.91351351, 0.0359477, 0.96405229)
_KITTI_GARG = (0.40810811, 0.99189189, 0.03594771, 0.96405229)


@dataclass(frozen=True)
class DepthProtocol:
    """How depth is compared. Lengths in metres.

    align: least_squares, ransac, median, none. space: what the prediction is and where it is aligned; an aligned
    disparity is floored at 1e-3 and inverted, an aligned root of one squared before (DepthMaster's evaluation). min_depth, max_depth: predictions are clipped to them, and ground truth
    counts strictly between them unless `mask_only`, where the given mask alone decides (DIODE). crop: see `crop_mask`.
    max_res: longest edge for the fit alone (ETH3D: 1024), as the public code subsamples it.
    """

    align: str = "least_squares"
    space: str = "depth"
    min_depth: float = 1e-3
    max_depth: float = float("inf")
    crop: str | None = None
    max_res: int | None = None
    mask_only: bool = False

    def __post_init__(self) -> None:
        choose("alignment", self.align, ALIGNMENTS)
        choose("alignment space", self.space, SPACES)
        if self.crop is not None:
            choose("crop", self.crop, CROPS)
        if not 0 <= self.min_depth < self.max_depth:
            raise ValueError(f"depth range {self.min_depth} to {self.max_depth}: must be 0 <= min_depth < max_depth")
        if self.max_res is not None and self.max_res < 1:
            raise ValueError(f"max_res {self.max_res}: must be at least 1, or None")


@dataclass(frozen=True)
class NormalsProtocol:
    """How normals are compared: over all "pixels" of the set (DSINE), or as the mean of its "images"."""

    aggregate: str = "pixels"

    def __post_init__(self) -> None:
        choose("aggregate", self.aggregate, ("pixels", "images"))


_NYU = DepthProtocol(min_depth=1e-3, max_depth=10, crop="nyu_eigen")
_KITTI = DepthProtocol(min_depth=1e-5, max_depth=80, crop="kitti_eigen")
DEPTH_PROTOCOLS = {
    "nyu": _NYU,
    "kitti": _KITTI,
    "kitti_garg": replace(_KITTI, crop="kitti_garg"),
    "vkitti": _KITTI,
    "scannet": DepthProtocol(min_depth=1e-3, max_depth=10),
    "eth3d": DepthProtocol(min_depth=1e-5, max_res=1024),
    "diode": DepthProtocol(min_depth=0.6, max_depth=350, mask_only=True),
    "hypersim": DepthProtocol(min_depth=1e-5, max_depth=65),
    "middlebury": DepthProtocol(min_depth=1e-3),
    "synthetic": DepthProtocol(min_depth=1e-3, max_depth=25),
}
NORMALS_PROTOCOLS = {"dsine": NormalsProtocol("pixels"), "marigold": NormalsProtocol("images")}


def resolve(named: Mapping[str, P], default: P, protocol: str | None, options: Mapping[str, Any]) -> P:
    """The protocol called `protocol` (or the default) with single options replaced. ValueError for unknown names."""
    if protocol is not None:
        choose("protocol", protocol, tuple(named))
        default = named[protocol]
    known = tuple(f.name for f in fields(default))  # type: ignore[arg-type]
    for key in options:
        choose("option", key, known)
    given = {k: "none" if k == "align" and v is None else v for k, v in options.items()}
    return replace(default, **given)  # type: ignore[type-var]


def crop_mask(crop: str | None, shape: tuple[int, int], name: str = "") -> BoolArray:
    """(H, W) bool, True inside the crop.

    nyu_eigen: rows 45:471, columns 41:601 of 480 x 640. kitti_eigen, kitti_garg: fractions of the 352 x 1216 benchmark
    crop (bottom, centred), which is taken first when the frame is larger; with _native, of the whole frame. eigen,
    garg: whichever of these fits the frame's size. Raises ValueError when the frame is not of the data set's size.
    """
    mask = np.zeros(shape, dtype=bool)
    if crop in (None, "none"):
        return ~mask
    h, w = shape
    is_nyu = shape == (480, 640)
    is_kitti = shape == _KITTI_BENCHMARK or (370 <= h <= 376 and 1216 <= w <= 1242)
    if crop in ("eigen", "garg"):
        crop = "nyu_eigen" if crop == "eigen" and is_nyu else f"kitti_{crop}"
    if not (is_nyu if crop == "nyu_eigen" else is_kitti):
        wanted = "480 x 640" if crop == "nyu_eigen" else "a KITTI frame (370-376 x 1216-1242, or 352 x 1216)"
        raise ValueError(f"{label(name)}crop {crop!r} is defined for {wanted}, not for {h} x {w}")
    if crop == "nyu_eigen":
        mask[45:471, 41:601] = True
        return mask
    bh, bw = shape if str(crop).endswith("_native") else _KITTI_BENCHMARK
    top, left = h - bh, (w - bw) // 2
    r0, r1, c0, c1 = _KITTI_EIGEN if "eigen" in str(crop) else _KITTI_GARG
    mask[top + int(r0 * bh) : top + int(r1 * bh), left + int(c0 * bw) : left + int(c1 * bw)] = True
    return mask
