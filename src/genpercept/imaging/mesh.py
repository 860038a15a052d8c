"""A map of distances as a mesh of triangles, cut where one thing stands in front of another.

Where to cut: along a row or a column of a pinhole camera's image the inverse depth of any plane is a straight line, however
slanted the plane is. So a line through two pixels is continued from either side over the gap between two places. Where
both miss the other side by more than `cut` of the inverse depth there, in the same direction, nothing joins the two: a
step. Lines that cross in between are a crease, where a floor meets a wall; and a floor seen at a grazing angle is no step
at all, though its depth jumps by as much from pixel to pixel. The gap is as wide as the steps of the map are: a pixel of a true
depth, and of a prediction the pixels that its network saw as one. Within it those sides of triangles are cut that take
more than half of its mean slope.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from genpercept.imaging.camera import Camera
from genpercept.imaging.encode import Result
from genpercept.imaging.points import back_projected

CUT = 0.05  # of the inverse depth, from which on a gap is a step
VERTICES = 1_000_000  # of a mesh at most
_SOFT = 1.5  # pixels of a network, over which its steps go
_SHARE = 0.5  # of a gap's mean slope, from which a side of a triangle belongs to the step


@dataclass(frozen=True)
class Mesh:
    """vertices (N, 3) float32 in the camera frame, x right, y up, z towards the viewer; normals (N, 3) of length 1.

    faces (M, 3) int32, counter-clockwise as the camera sees them. places (N, 2): column and row of the vertices' pixels.
    size: (height, width) of the map. stride: every so manieth pixel is a vertex.
    """

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    places: np.ndarray
    size: tuple[int, int]
    stride: int


def grid_mesh(
    z: np.ndarray, camera: Camera, *, cut: float | None = CUT, vertices: int = VERTICES, gap: float = 1.0
) -> Mesh:
    """Distances (H, W) along the optical axis, NaN where unknown -> a mesh with vertices at the middles of pixels.

    cut: a relative jump of the inverse depth, beyond the planes on both sides; None: nothing is cut. vertices: at most so many;
    of larger maps every 2nd, 3rd, ... pixel of a row and a column is taken. gap: width in pixels of a step in `z`.
    ValueError for a threshold that is not positive, fewer than 4 vertices, and a map without a triangle.
    """
    if cut is not None and not cut > 0:
        raise ValueError(f"cut={cut:g}: a share of the inverse depth, above 0; None cuts nowhere")
    if vertices < 4:
        raise ValueError(f"{vertices} vertices: a mesh takes at least 4")
    stride = max(1, math.ceil(math.sqrt(z.size / vertices)))
    rows, columns = (np.arange((edge % stride or stride) // 2, edge, stride) for edge in z.shape)
    points = back_projected(z, camera)[np.ix_(rows, columns)] if stride == 1 else _some(z, camera, rows, columns)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(np.isfinite(points[..., 2]), -1 / points[..., 2], np.float32(np.nan))
    across, down = _whole_sides(inverse, cut, max(1, round(gap / stride)))
    faces = _faces(inverse, across, down)
    if not len(faces):
        raise ValueError("no mesh: the distances have no triangle of pixels that are valid and not cut")
    used, faces = np.unique(faces, return_inverse=True)
    faces = faces.reshape(-1, 3).astype(np.int32)
    kept = points.reshape(-1, 3)[used]
    places = np.stack([columns[used % len(columns)], rows[used // len(columns)]], -1).astype(np.float32)
    return Mesh(kept, faces, normals_of(kept, faces), places, (z.shape[0], z.shape[1]), stride)


def step_width(result: Result) -> float:
    """Pixels over which a prediction falls where the depth has a step: those that its network saw as one, and half as many.

    1 where nobody says at which size the network looked, as of a true depth.
    """
    seen = result.meta.get("resolution")
    if not isinstance(seen, list | tuple) or len(seen) != 2:
        return 1.0
    return max(1.0, _SOFT * max(result.values.shape[:2]) / max(seen))


def normals_of(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(N, 3) float32 of length 1: of each vertex the mean of its triangles' normals, weighted by their areas."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    across = np.cross(b - a, c - a)
    total = np.empty((len(vertices), 3), np.float32)
    corners = faces.T.reshape(-1)
    for axis in range(3):
        total[:, axis] = np.bincount(corners, np.tile(across[:, axis], 3), len(vertices))
    length = np.linalg.norm(total, axis=-1, keepdims=True)
    return np.where(length > 0, total / np.maximum(length, 1e-30), np.array([0, 0, 1], np.float32)).astype(np.float32)


def _some(z: np.ndarray, camera: Camera, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The points of some rows and columns, without those of all others: (rows, columns, 3)."""
    x, y = camera.directions()
    part = z[np.ix_(rows, columns)]
    return np.stack([part * x[columns], part * y[rows, None], -part], -1).astype(np.float32, copy=False)


def _whole_sides(w: np.ndarray, cut: float | None, gap: int) -> tuple[np.ndarray, np.ndarray]:
    """Of an inverse depth (h, w): whether neighbours in a row (h, w - 1), and in a column (h - 1, w), are joined."""
    there = np.isfinite(w)
    across, down = there[:, 1:] & there[:, :-1], there[1:] & there[:-1]
    if cut is not None:
        across &= ~_steps(w, cut, gap)
        down &= ~_steps(np.ascontiguousarray(w.T), cut, gap).T
    return across, down


def _steps(w: np.ndarray, cut: float, gap: int) -> np.ndarray:
    """(h, w - 1) bool: sides between neighbours in a row that belong to a step `gap` pixels wide. See the module."""
    from scipy.ndimage import minimum_filter1d

    width = w.shape[1]
    if width <= gap:
        return np.zeros((w.shape[0], width - 1), bool)
    a, b = w[:, :-gap], w[:, gap:]
    slope = np.full(
        (w.shape[0], width + gap), np.nan, w.dtype
    )  # of what ends at a pixel; shifted, of what begins there
    slope[:, gap:width] = b - a
    before, after = slope[:, : width - gap], slope[:, 2 * gap : width + gap]
    left, right = np.where(np.isfinite(before), before, after), np.where(np.isfinite(after), after, before)
    left, right = np.nan_to_num(left), np.nan_to_num(right)  # of a thing as thin as the gap: as if it were flat
    with np.errstate(invalid="ignore"):
        at_a, at_b = a - (b - right), (a + left) - b  # how far the lines are apart at both ends
        opens = np.where(at_a * at_b > 0, np.minimum(np.abs(at_a), np.abs(at_b)), 0)
        step = opens > cut * np.minimum(a, b)
        most = np.where(step, _SHARE * np.abs(b - a) / gap, np.inf)  # of a side's slope, in this gap
    # the least over the gaps that a side lies in: those that begin at the `gap` pixels up to its own
    padded = np.full((w.shape[0], width - 1), np.inf, w.dtype)
    padded[:, : width - gap] = most
    least = minimum_filter1d(padded, gap, axis=1, origin=(gap - 1) // 2, mode="constant", cval=np.inf)
    with np.errstate(invalid="ignore"):
        return np.abs(np.diff(w, axis=1)) > least


def _faces(w: np.ndarray, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """(M, 3) indices of pixels. A square of four is divided along the diagonal whose ends are closer in depth."""
    height, width = w.shape
    index = np.arange(height * width, dtype=np.int64).reshape(height, width)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]  # a b above c d
    top, bottom, left, right = across[:-1], across[1:], down[:, :-1], down[:, 1:]
    with np.errstate(invalid="ignore"):
        falls, rises = np.abs(w[:-1, :-1] - w[1:, 1:]), np.abs(w[:-1, 1:] - w[1:, :-1])
        falling = falls <= rises  # along a - d; where an end is unknown, along the other
    falling |= ~np.isfinite(rises) & np.isfinite(falls)
    found = []
    for corners, sides in (
        ((a, c, d), falling & left & bottom),
        ((a, d, b), falling & right & top),
        ((a, c, b), ~falling & left & top),
        ((b, c, d), ~falling & bottom & right),
    ):
        found.append(np.stack([corner[sides] for corner in corners], -1))
    return np.concatenate(found)
