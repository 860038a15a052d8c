"""A picture of a mesh from another place than its camera's, by NumPy alone: for pages, where no viewer runs."""

from __future__ import annotations

import math

import numpy as np
import trimesh

GROUND = (238, 240, 243)
_DENSITY = 4.0  # samples for each pixel that a triangle covers
_MOST = 400  # samples of a triangle


def picture(
    mesh: trimesh.Trimesh, yaw: float, pitch: float, size: tuple[int, int] = (480, 640), closer: float = 1.0
) -> np.ndarray:
    """(height, width, 3) uint8: the textured mesh, seen by a camera that went round its middle by yaw and pitch, in degrees.

    The middle lies on the optical axis, with a quarter of the vertices before it. Samples are drawn from far to near.
    """
    texture = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB"))
    pivot = np.array([0, 0, np.quantile(mesh.vertices[:, 2], 0.75)])
    a, b = math.radians(yaw), math.radians(pitch)
    turn_y = np.array([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
    turn_x = np.array([[1, 0, 0], [0, math.cos(b), -math.sin(b)], [0, math.sin(b), math.cos(b)]])
    seen = (np.asarray(mesh.vertices) - pivot) @ turn_y.T @ turn_x.T + pivot / closer
    height, width = size
    focal = width / 2 / math.tan(math.radians(mesh.metadata["camera"]["fov"]) / 2)
    z = np.maximum(-seen[:, 2], 1e-6)
    pixels = np.stack([seen[:, 0] / z * focal + width / 2, -seen[:, 1] / z * focal + height / 2], -1)
    points, colours = _samples(pixels, z, np.asarray(mesh.visual.uv), mesh.faces, -seen[:, 2] > 0, texture)
    out = np.empty((height, width, 3), np.uint8)
    out[:] = GROUND
    column, row = np.floor(points[:, 0]).astype(int), np.floor(points[:, 1]).astype(int)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    order = np.flatnonzero(inside)[np.argsort(-points[inside, 2], kind="stable")]
    out[row[order], column[order]] = colours[order]
    return out


def _samples(
    pixels: np.ndarray, z: np.ndarray, uv: np.ndarray, faces: np.ndarray, front: np.ndarray, texture: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """((N, 3) column, row, distance and (N, 3) colour) of points spread over the triangles, by the area that they cover."""
    faces = faces[front[faces].all(1)]
    a, b, c = (pixels[faces[:, k]] for k in range(3))
    area = np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2
    count = np.minimum(np.ceil(area * _DENSITY), _MOST).astype(int) + 1
    of = np.repeat(np.arange(len(faces)), count)
    n = np.arange(len(of)) - np.repeat(np.cumsum(count) - count, count)
    s, t = (n + 0.5) * 0.7548776662 % 1, (n + 0.5) * 0.5698402910 % 1  # an evenly spread sequence (Roberts 2018)
    flip = s + t > 1
    s, t = np.where(flip, 1 - s, s), np.where(flip, 1 - t, t)
    weights = np.stack([1 - s - t, s, t], -1)
    corners = faces[of]
    at = np.einsum("nk,nkd->nd", weights, np.concatenate([pixels, z[:, None], uv], 1)[corners])
    x = (at[:, 3] * texture.shape[1]).astype(int).clip(0, texture.shape[1] - 1)
    y = ((1 - at[:, 4]) * texture.shape[0]).astype(int).clip(0, texture.shape[0] - 1)
    return at[:, :3], texture[y, x]
