"""Points and meshes as PLY files, binary, that MeshLab, Blender, CloudCompare and Open3D read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from genpercept.imaging import points
from genpercept.imaging.camera import Camera
from genpercept.imaging.mesh import Mesh

_XYZ, _NORMAL, _RGB = ("x", "y", "z"), ("nx", "ny", "nz"), ("red", "green", "blue")
AXES = "axes: x right, y up, z towards the viewer"


def of_points(distances: points.Distances, camera: Camera, rgb: np.ndarray) -> bytes:
    """A coloured point for each pixel whose distance is known. rgb: (H, W, 3) uint8."""
    there = np.isfinite(distances.z)
    vertices = np.empty(int(there.sum()), [(n, "<f4") for n in _XYZ] + [(n, "u1") for n in _RGB])
    _fill(vertices, _XYZ, points.back_projected(distances.z, camera)[there])
    _fill(vertices, _RGB, rgb[there])
    return _header(distances.words, camera, vertices, 0) + vertices.tobytes()


def of_mesh(mesh: Mesh, words: str, camera: Camera, rgb: np.ndarray) -> bytes:
    """A mesh with colours and normals at its vertices. rgb: (H, W, 3) uint8."""
    names = [(n, "<f4") for n in (*_XYZ, *_NORMAL)] + [(n, "u1") for n in _RGB]
    vertices = np.empty(len(mesh.vertices), names)
    columns, rows = mesh.places.astype(np.intp).T
    for parts, array in ((_XYZ, mesh.vertices), (_NORMAL, mesh.normals), (_RGB, rgb[rows, columns])):
        _fill(vertices, parts, array)
    faces = np.empty(len(mesh.faces), [("count", "u1"), ("corners", "<i4", (3,))])
    faces["count"], faces["corners"] = 3, mesh.faces
    return _header(words, camera, vertices, len(faces)) + vertices.tobytes() + faces.tobytes()


def _fill(vertices: np.ndarray, names: Sequence[str], array: np.ndarray) -> None:
    for i, name in enumerate(names):
        vertices[name] = array[:, i]


def _header(words: str, camera: Camera, vertices: np.ndarray, faces: int) -> bytes:
    lines = ["ply", "format binary_little_endian 1.0", f"comment {words}", f"comment {camera.words}", f"comment {AXES}"]
    lines.append(f"element vertex {len(vertices)}")
    for name in vertices.dtype.names or ():
        lines.append(f"property {'uchar' if name in _RGB else 'float'} {name}")
    if faces:
        lines += [f"element face {faces}", "property list uchar int vertex_indices"]
    return "\n".join([*lines, "end_header\n"]).encode("ascii", "replace")
