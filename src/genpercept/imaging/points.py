"""Predictions of distance as coloured points in space (.ply), in the camera frame: x right, y up, z towards the viewer."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from genpercept.imaging.colour import colourise
from genpercept.imaging.encode import Result, kept
from genpercept.imaging.kinds import KINDS, Distance

# An affine depth does not say where the camera is; without a distance the nearest points would fall into its centre.
_NEAR = 0.25
_NEAR_ROOT = 0.5  # of roots: as near a farthest point
_DISTANCE: dict[Distance | None, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "depth": (lambda value: value + _NEAR, f"{_NEAR} + value"),
    "inverse depth": (lambda value: 1 / (value.clip(0) + _NEAR), f"1 / ({_NEAR} + value)"),
    "root of inverse depth": (
        lambda value: 1 / (value.clip(0) + _NEAR_ROOT) ** 2,
        f"1 / ({_NEAR_ROOT} + value)^2",
    ),
}


def ply_bytes(result: Result, image: np.ndarray | None, fov: float) -> bytes:
    """Back-projected points. Relative: scale and shift of an affine depth are unknown, and so is the field of view.

    image: (H, W, 3), colours the points; None: the prediction's own colours. fov: horizontal, degrees. ValueError for
    a field of view that no camera has, and for an image of another size.
    """
    if not 0 < fov < 180:
        raise ValueError(f"field of view {fov:g}: must lie between 0 and 180 degrees")
    keep = kept(result)
    h, w = keep.shape
    distance_of, rule = _DISTANCE[KINDS[result.kind].distance]
    focal = w / 2 / math.tan(math.radians(fov) / 2)
    y, x = np.nonzero(keep)
    z = distance_of(result.values)[y, x]
    points = np.empty(len(z), dtype=[(n, "<f4") for n in "xyz"] + [(n, "u1") for n in ("red", "green", "blue")])
    points["x"] = (x + 0.5 - w / 2) / focal * z
    points["y"] = -(y + 0.5 - h / 2) / focal * z
    points["z"] = -z
    rgb = image if image is not None else np.asarray(colourise(result.values, result.kind, result.valid))
    if rgb.dtype != np.uint8:
        rgb = np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)
    if rgb.shape[:2] != (h, w):
        raise ValueError(
            f"an image of {rgb.shape[0]} x {rgb.shape[1]} pixels for a prediction of {h} x {w}: give its own"
        )
    for c, name in enumerate(("red", "green", "blue")):
        points[name] = rgb[y, x, c]
    header = [
        *("ply", "format binary_little_endian 1.0", f"comment relative geometry, not metres: distance = {rule} of"),
        f"comment {result.kind}, whose scale and shift are unknown; horizontal field of view: {fov:g} degrees",
        *("comment axes: x right, y up, z towards the viewer", f"element vertex {len(z)}"),
        *(f"property float {n}" for n in "xyz"),
        *(f"property uchar {n}" for n in ("red", "green", "blue")),
        "end_header\n",
    ]
    return "\n".join(header).encode("ascii") + points.tobytes()
