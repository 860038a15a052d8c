"""Predictions of distance as points in space, in the camera frame: x right, y up, z towards the viewer.

In metres where the kind has a unit. Else the shape alone: an affine depth does not say where the camera is, so a distance
is assumed for what is nearest, without which it would fall into the camera's centre.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from genpercept.imaging.camera import DEFAULT_FOV, Camera
from genpercept.imaging.encode import Result, kept
from genpercept.imaging.kinds import KINDS, Distance

BEHIND = 0.15  # of the median distance: how far behind the camera one stands who looks at points or a mesh at first
_NEAR = 0.25
_NEAR_ROOT = 0.5  # of roots: as near a farthest point
_ASSUMED: dict[Distance, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "depth": (lambda value: value + _NEAR, f"{_NEAR} + value"),
    "inverse depth": (lambda value: 1 / (value.clip(0) + _NEAR), f"1 / ({_NEAR} + value)"),
    "root of inverse depth": (
        lambda value: 1 / (value.clip(0) + _NEAR_ROOT) ** 2,
        f"1 / ({_NEAR_ROOT} + value)^2",
    ),
}


@dataclass(frozen=True)
class Distances:
    """z (H, W) float32: along the optical axis, NaN where unknown. words: what the numbers are, on one line."""

    z: np.ndarray
    metric: bool
    words: str


def of(result: Result) -> Distances:
    """How far each pixel is. ValueError for a kind that tells no distance; what is not in front of the camera is unknown."""
    row = KINDS[result.kind]
    if row.distance is None:
        raise ValueError(f"{result.kind} tell no distance: points and meshes need depth or disparity")
    if row.metric:
        z, words = np.asarray(result.values, np.float32), f"in metres, of {result.kind}"
    else:
        distance_of, rule = _ASSUMED[row.distance]
        z = distance_of(result.values).astype(np.float32, copy=False)
        words = f"shape up to scale and shift, not metres: distance = {rule} of {result.kind}"
    there = kept(result) & (z > 0)
    return Distances(z if there.all() else np.where(there, z, np.float32(np.nan)), row.metric, words)


def camera_of(result: Result, fov: float | None = None, camera: Camera | None = None) -> Camera:
    """What is known of the camera: `fov` (horizontal, degrees), else `camera`, else meta["camera"], else 60 degrees.

    ValueError for a field of view that no camera has.
    """
    size = (result.values.shape[0], result.values.shape[1])
    if fov is not None:
        return Camera.of_fov(fov, size)
    if camera is None and (told := result.meta.get("camera")) is not None:
        camera = Camera.of_meta(told)
    return Camera.of_fov(DEFAULT_FOV, size, "assumed") if camera is None else camera.at(size)


def back_projected(z: np.ndarray, camera: Camera) -> np.ndarray:
    """Distances (H, W) -> (H, W, 3) float32, x right, y up, z towards the viewer; NaN where there is none."""
    x, y = camera.directions()
    points = np.empty((*z.shape, 3), np.float32)
    np.multiply(z, x, out=points[..., 0])
    np.multiply(z, y[:, None], out=points[..., 1])
    np.negative(z, out=points[..., 2])
    return points
