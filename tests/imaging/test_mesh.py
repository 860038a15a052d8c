"""Meshes of distances: planes whole however slanted, steps cut, the right place, normals and texture, files for others."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genpercept.imaging import mesh as meshes
from genpercept.imaging import write
from genpercept.imaging.camera import Camera
from genpercept.imaging.mesh import Mesh, grid_mesh
from genpercept.imaging.prediction import Prediction

SIZE = (60, 80)
CAMERA = Camera.of_fov(60, SIZE)
ALL = 2 * (SIZE[0] - 1) * (SIZE[1] - 1)  # triangles of a grid that is not cut


def plane(normal: tuple[float, float, float], offset: float, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Distances of the plane normal . p = offset, seen by a camera of 60 degrees; infinite where it is not seen."""
    x, y = Camera.of_fov(60, size).directions()
    slope = normal[0] * x + normal[1] * y[:, None].astype(np.float64) - normal[2]
    with np.errstate(divide="ignore"):
        z = offset / slope
    return np.where(z > 0, z, np.inf).astype(np.float32)


FLOOR = plane((0, -1, 0), 1.4)  # 1.4 m below the camera
WALL = np.full(SIZE, 6.0, np.float32)


@pytest.mark.parametrize(
    "z",
    [
        WALL,
        plane((0.5, 0.2, -1), 2.0),
        plane((-0.9, 0, -0.55), 0.5),  # seen at a grazing angle
        np.minimum(FLOOR, WALL),  # a crease
        np.minimum(np.minimum(FLOOR, WALL), plane((1, 0, -0.05), 1.1)),  # a corner
        plane((0.5, 0.2, -1), 2.0) * (1 + 0.002 * np.random.default_rng(0).normal(size=SIZE)),
    ],
    ids=["wall", "slanted", "grazing", "floor and wall", "corner", "noise of 0.2 %"],
)
def test_surfaces_are_not_cut(z: np.ndarray) -> None:
    found = grid_mesh(z.astype(np.float32), CAMERA)
    assert len(found.faces) == ALL and len(found.vertices) == SIZE[0] * SIZE[1]


@pytest.mark.parametrize("gap", [1, 4])
def test_a_floor_down_to_the_horizon_is_not_cut(gap: int) -> None:
    """Its depth doubles from row to row up there."""
    z = np.where(np.isfinite(FLOOR), FLOOR, np.nan)
    rows = int(np.isfinite(z[:, 0]).sum())
    assert np.nanmax(z[:-1] / z[1:]) > 2
    assert len(grid_mesh(z, CAMERA, gap=gap).faces) == 2 * (rows - 1) * (SIZE[1] - 1)


def test_a_box_before_a_wall_is_cut_along_its_border() -> None:
    z = WALL.copy()
    z[20:40, 30:50] = 5.0
    found = grid_mesh(z, CAMERA)
    spans = np.ptp(-found.vertices[found.faces][..., 2], axis=1)
    assert spans.max() == 0  # no triangle joins both
    joined = grid_mesh(z, CAMERA, cut=None)
    assert (
        len(joined.faces) == ALL
        and len(found.faces) == ALL - (np.ptp(joined.vertices[joined.faces][..., 2], 1) > 0).sum()
    )


def test_how_large_a_step_is_cut() -> None:
    for ratio, cut in ((1.04, False), (1.06, True)):
        z = WALL.copy()
        z[:, 40:] *= ratio
        lost = ALL - len(grid_mesh(z, CAMERA).faces)
        assert lost == (2 * (SIZE[0] - 1) if cut else 0), ratio
        assert len(grid_mesh(z, CAMERA, cut=0.5).faces) == ALL


def test_a_step_before_a_floor_is_cut_and_where_it_stands_it_is_not() -> None:
    z = np.minimum(FLOOR, 30)
    row = 48
    near = z[row, 0]
    z[10 : row + 1, 30:50] = near  # a board that stands on the floor
    found = grid_mesh(z.astype(np.float32), CAMERA)
    corner = {tuple(place): i for i, place in enumerate(found.places.astype(int).tolist())}
    sides = {frozenset(pair) for face in found.faces.tolist() for pair in zip(face, face[1:] + face[:1], strict=True)}
    assert frozenset((corner[40, row], corner[40, row + 1])) in sides
    assert frozenset((corner[40, 9], corner[40, 10])) not in sides
    assert frozenset((corner[29, 20], corner[30, 20])) not in sides


@pytest.mark.parametrize("width", [2, 3, 5])
def test_a_step_that_a_network_smeared_is_cut(width: int) -> None:
    z = WALL.copy()
    z[:, :40] = 3.0
    z[:, 40 : 40 + width - 1] = np.linspace(3, 6, width + 1)[1:-1]
    assert len(grid_mesh(z, CAMERA, gap=1).faces) > ALL - 2 * width * (SIZE[0] - 1) - 1
    found = grid_mesh(z, CAMERA, gap=width)
    columns = found.places[found.faces][..., 0]
    whole = (columns.max(1) <= 39) | (columns.min(1) >= 40 + width - 1)
    assert whole.mean() > 0.95  # what is left of the ramp is a stripe of it, joined to one side
    reach = np.array([[columns[whole].min(), columns[whole].max()]])
    assert reach.tolist() == [[0, 79]]
    inverse = -1 / found.vertices[:, 2]
    assert np.ptp(inverse[found.faces], axis=1).max() < 1 / 3 - 1 / 6


def test_how_wide_a_predictions_steps_are() -> None:
    values = np.ones((60, 80), np.float32)
    assert meshes.step_width(Prediction(values, "depth_metric")) == 1
    assert meshes.step_width(Prediction(values, "depth_metric", meta={"resolution": [768, 1024]})) == 1
    assert meshes.step_width(Prediction(values, "depth_metric", meta={"resolution": [12, 16]})) == pytest.approx(7.5)


# ---- geometry


def test_vertices_lie_on_the_plane_and_normals_stand_on_it() -> None:
    normal = np.array([0.5, 0.2, -1.0])
    found = grid_mesh(plane((0.5, 0.2, -1), 2.0), CAMERA)
    np.testing.assert_allclose(found.vertices @ normal, 2.0, rtol=1e-5)
    np.testing.assert_allclose(
        found.normals, np.tile(-normal / np.linalg.norm(normal), (len(found.normals), 1)), atol=1e-3
    )
    assert (np.einsum("ij,ij->i", found.normals, -found.vertices) > 0).all()  # towards the camera


def test_normals_of_a_corner_are_of_length_one_and_flat_beside_it() -> None:
    found = grid_mesh(np.minimum(FLOOR, WALL), CAMERA)
    np.testing.assert_allclose(np.linalg.norm(found.normals, axis=1), 1, atol=1e-5)
    at = {tuple(p): n for p, n in zip(found.places.astype(int).tolist(), found.normals, strict=True)}
    np.testing.assert_allclose(at[40, 59], (0, 1, 0), atol=1e-3)
    np.testing.assert_allclose(at[40, 2], (0, 0, 1), atol=1e-3)


def test_a_large_map_has_few_vertices_on_the_same_surface() -> None:
    z = plane((0.3, 0.4, -1), 3.0, (300, 401))
    camera = Camera.of_fov(60, (300, 401))
    found = grid_mesh(z, camera, vertices=5000)
    assert found.stride == 5 and 4000 < len(found.vertices) <= 5000
    assert (found.places[:, 0] % 5 == found.places[0, 0] % 5).all() and found.places.max(0).tolist() >= [395, 295]
    np.testing.assert_allclose(found.vertices @ (0.3, 0.4, -1), 3.0, rtol=1e-5)
    assert len(grid_mesh(z, camera, vertices=10**6).vertices) == z.size


def test_what_is_unknown_is_a_hole() -> None:
    z = WALL.copy()
    z[20:30, 20:30] = np.nan
    found = grid_mesh(z, CAMERA)
    assert (
        len(found.vertices) == z.size - 100 and len(found.faces) == ALL - 2 * 121 + 4
    )  # of its corners a triangle each is left
    z[:] = np.nan
    for wrong, says in ((z, "no mesh"), (WALL[:1], "no mesh"), (np.where(np.eye(60, 80) > 0, 1, np.nan), "no mesh")):
        with pytest.raises(ValueError, match=says):
            grid_mesh(wrong.astype(np.float32), Camera.of_fov(60, (wrong.shape[0], wrong.shape[1])))
    with pytest.raises(ValueError, match="above 0"):
        grid_mesh(WALL, CAMERA, cut=0)
    with pytest.raises(ValueError, match="at least 4"):
        grid_mesh(WALL, CAMERA, vertices=3)


# ---- files

PHOTO = np.random.default_rng(1).integers(0, 256, (3, 4, 3)).astype(np.uint8).repeat(20, 0).repeat(20, 1)


def glb_parts(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    length = struct.unpack_from("<I", data, 12)[0]
    return json.loads(data[20 : 20 + length]), data[28 + length :]


def test_a_glb_as_trimesh_reads_it(tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    z = np.minimum(FLOOR, WALL)
    z[20:40, 30:50] = 2.0
    pred = Prediction(z, "depth_metric")
    pred.save(tmp_path / "x", ["glb"], image=PHOTO, fov=60)
    (back,) = trimesh.load(tmp_path / "x.glb", process=False).geometry.values()
    own = grid_mesh(z, CAMERA)
    np.testing.assert_allclose(back.vertices, own.vertices, rtol=1e-6)
    assert (back.faces == own.faces).all()
    np.testing.assert_allclose(back.vertex_normals, own.normals, atol=1e-5)
    texture = np.asarray(back.visual.material.baseColorTexture.convert("RGB")).astype(int)
    assert texture.shape == PHOTO.shape and np.abs(texture - PHOTO).mean() < 5
    u, v = back.visual.uv.T  # v from the bottom
    np.testing.assert_allclose(u * 80, own.places[:, 0] + 0.5, atol=1e-3)
    np.testing.assert_allclose((1 - v) * 60, own.places[:, 1] + 0.5, atol=1e-3)


def test_a_glb_says_what_it_is(tmp_path: Path) -> None:
    pytest.importorskip("trimesh")
    Prediction(np.linspace(0, 1, 4800).reshape(SIZE), "depth_affine").save(tmp_path / "x", ["glb"], image=PHOTO)
    tree, binary = glb_parts(tmp_path / "x.glb")
    told = tree["asset"]["extras"]
    assert (
        told["lengths"].startswith("shape up to scale and shift, not metres") and told["camera"]["source"] == "assumed"
    )
    assert told["axes"] == "axes: x right, y up, z towards the viewer"
    view = tree["bufferViews"][tree["images"][0]["bufferView"]]
    with Image.open(io.BytesIO(binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]])) as image:
        assert image.format == "JPEG" and image.size == (80, 60)
    assert tree["materials"][0]["doubleSided"] and "KHR_materials_unlit" in tree["extensionsUsed"]
    sidecar = json.loads((tmp_path / "x.json").read_text())
    assert sidecar["space"]["lengths"] == told["lengths"] and sidecar["space"]["camera"]["fov"] == 60


def test_a_large_photograph_is_a_texture_that_cards_take(tmp_path: Path) -> None:
    pytest.importorskip("trimesh")
    wide = np.zeros((40, 4500, 3), np.uint8)
    pred = Prediction(np.ones((40, 4500), np.float32), "depth_metric")
    pred.save(tmp_path / "x", ["glb"], image=wide, vertices=900)
    tree, binary = glb_parts(tmp_path / "x.glb")
    view = tree["bufferViews"][tree["images"][0]["bufferView"]]
    assert Image.open(io.BytesIO(binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]])).size == (
        4096,
        36,
    )


@pytest.mark.slow
def test_khronos_has_nothing_against_it(tmp_path: Path) -> None:
    """By npm's gltf-validator, where node finds it: `npm install gltf-validator`, NODE_PATH=its node_modules."""
    pytest.importorskip("trimesh")
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on this machine: apt-get install nodejs npm")
    if subprocess.run([node, "-e", "require('gltf-validator')"], env=os.environ, capture_output=True).returncode:
        pytest.skip("node has no gltf-validator: npm install gltf-validator, and set NODE_PATH")
    z = np.minimum(FLOOR, WALL)
    z[20:40, 30:50] = 2.0
    z[5:9, 5:9] = np.nan
    valid = np.isfinite(z)
    Prediction(np.nan_to_num(z), "depth_metric", valid).save(tmp_path / "x", ["glb"], image=PHOTO)
    script = (
        "require('gltf-validator').validateBytes(new Uint8Array(require('fs').readFileSync(process.argv[1])))"
        ".then(r => console.log(JSON.stringify(r.issues)))"
    )
    told = subprocess.run([node, "-e", script, str(tmp_path / "x.glb")], capture_output=True, text=True, check=True)
    issues = json.loads(told.stdout)
    assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues["messages"]


def ply_parts(path: Path) -> tuple[list[str], bytes]:
    header, _, body = path.read_bytes().partition(b"end_header\n")
    return header.decode().splitlines(), body


def test_a_mesh_as_ply(tmp_path: Path) -> None:
    z = np.minimum(FLOOR, WALL)
    Prediction(z, "depth_metric").save(tmp_path / "x", ["mesh"], image=PHOTO, fov=60)
    lines, body = ply_parts(tmp_path / "x_mesh.ply")
    own = grid_mesh(z, CAMERA)
    assert (
        "comment in metres, of depth_metric" in lines
        and "comment horizontal field of view: 60 degrees, as given" in lines
    )
    assert f"element vertex {len(own.vertices)}" in lines and f"element face {len(own.faces)}" in lines
    vertices = np.frombuffer(body, "<f4,<f4,<f4,<f4,<f4,<f4,u1,u1,u1", len(own.vertices))
    np.testing.assert_array_equal(np.stack([vertices[f"f{i}"] for i in range(3)], -1), own.vertices)
    np.testing.assert_array_equal(np.stack([vertices[f"f{i}"] for i in range(3, 6)], -1), own.normals)
    columns, rows = own.places.astype(int).T
    np.testing.assert_array_equal(np.stack([vertices[f"f{i}"] for i in range(6, 9)], -1), PHOTO[rows, columns])
    faces = np.frombuffer(body[vertices.nbytes :], [("n", "u1"), ("i", "<i4", (3,))])
    assert (faces["n"] == 3).all() and (faces["i"] == own.faces).all()
    trimesh = pytest.importorskip("trimesh")
    assert len(trimesh.load(tmp_path / "x_mesh.ply", process=False).faces) == len(own.faces)


def test_points_as_an_array(tmp_path: Path) -> None:
    pred = Prediction(np.minimum(FLOOR, WALL), "depth_metric")
    paths = pred.save(tmp_path / "x", ["points", "ply"], image=PHOTO, fov=50)
    assert [path.name for path in paths] == ["x_points.npy", "x.ply", "x.json"]
    stored = np.load(tmp_path / "x_points.npy")
    assert stored.dtype == np.float32 and (stored == pred.points(fov=50)).all()
    lines, body = ply_parts(tmp_path / "x.ply")
    assert "comment in metres, of depth_metric" in lines
    assert (np.frombuffer(body, "<f4,<f4,<f4,u1,u1,u1")["f2"] == stored[..., 2].ravel()).all()


def test_python_gives_a_mesh(tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    pred = Prediction(np.minimum(FLOOR, WALL), "depth_metric")
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    found = pred.mesh(tmp_path / "photo.png", fov=60, vertices=1000)
    assert isinstance(found, trimesh.Trimesh) and len(found.vertices) <= 1000 and found.metadata["camera"]["fov"] == 60
    assert found.metadata["lengths"] == "in metres, of depth_metric"
    assert found.visual.material.baseColorTexture.size == (80, 60)
    own = pred.mesh()  # in the prediction's own colours, by a camera that is assumed
    assert own.metadata["camera"]["source"] == "assumed" and len(own.faces) == ALL
    with pytest.raises(ValueError, match="give its own"):
        pred.mesh(PHOTO[:20])
    with pytest.raises(ValueError, match="tell no distance"):
        Prediction(np.zeros((4, 4, 3)), "normals").mesh()


def test_without_trimesh_the_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from genpercept.imaging import glb

    monkeypatch.setattr(write, "find_spec", lambda name: None)
    monkeypatch.setattr(glb, "find_spec", lambda name: None)
    pred = Prediction(WALL, "depth_metric")
    with pytest.raises(ValueError, match=r"format glb needs trimesh: pip install 'genpercept\[mesh\]'"):
        pred.save("x", ["glb"])
    with pytest.raises(ValueError, match=r"pip install 'genpercept\[mesh\]'"):
        pred.mesh()
    write.check_formats(["mesh", "points", "ply"], "depth_metric")


def test_every_triangle_faces_the_camera() -> None:
    found: Mesh = grid_mesh(plane((0.5, 0.2, -1), 2.0), CAMERA)
    a, b, c = (found.vertices[found.faces[:, k]] for k in range(3))
    across = np.cross(b - a, c - a)
    assert (np.einsum("ij,ij->i", across, -a) > 0).all() and math.isclose(
        np.abs(found.normals).max(), 0.88, abs_tol=0.02
    )
