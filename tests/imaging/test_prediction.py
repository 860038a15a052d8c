"""Prediction: what it refuses, and that what is saved is what was there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genpercept.imaging import write
from genpercept.imaging.encode import encode16
from genpercept.imaging.prediction import KINDS, Prediction

RNG = np.random.default_rng(0)


def example(kind: str, h: int = 6, w: int = 9) -> Prediction:
    values = {
        "normals": lambda: _unit(RNG.normal(size=(h, w, 3))),
        "class_ids": lambda: RNG.integers(0, 150, (h, w)),
        "keypoints": lambda: RNG.random((2, 17, 3)) * 5,
        "anomaly": lambda: RNG.normal(size=(h, w)) * 10,
        "intrinsics": lambda: RNG.random((h, w, 6)),
    }.get(kind, lambda: RNG.random((h, w)))()
    if KINDS[kind].distance is not None:  # of which meshes are made: a slanted plane, with little noise
        values = np.linspace(0.2, 0.9, w) + 0.01 * RNG.random((h, w))
    shape = (2, 17) if kind == "keypoints" else (h, w)
    return Prediction(
        values,
        kind,
        valid=RNG.random(shape) > 0.3,
        uncertainty=RNG.random((h, w, 6) if kind == "intrinsics" else shape),
        raw=RNG.random((3, 8, 16)),
        meta={"model": "m", "model_sha256": "0" * 64, "steps": 1, "axes": np.eye(3)},
    )


def _unit(n: np.ndarray) -> np.ndarray:
    return n / np.linalg.norm(n, axis=-1, keepdims=True)


@pytest.mark.parametrize("kind", KINDS)
def test_everything_survives_saving(tmp_path: Path, kind: str) -> None:
    p = example(kind)
    paths = p.save(tmp_path / "x.npz")
    assert [q.name for q in paths] == ["x.npz", "x.json"] and sorted(tmp_path.iterdir()) == sorted(paths)
    q = Prediction.load(paths[0])
    for name in ("values", "valid", "uncertainty", "raw"):
        a, b = getattr(p, name), getattr(q, name)
        assert a.dtype == b.dtype and (a == b).all(), name
    assert q.kind == kind and q.values.dtype == KINDS[kind].dtype
    assert q.meta == {**p.meta, "axes": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]}
    assert json.loads((tmp_path / "x.json").read_text())["meta"] == q.meta


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_of_every_kind(tmp_path: Path, kind: str) -> None:
    p = example(kind)
    for name, f in write.FORMATS.items():
        if f.holds(KINDS[kind]):
            written = p.save(tmp_path / name, [name], image=np.zeros((6, 9, 3), np.uint8))
            assert written[0].name == name + f.suffix and written[0].stat().st_size > 0
        else:
            with pytest.raises(ValueError, match=f"format {name} cannot hold {kind}"):
                p.save(tmp_path / name, [name])
    assert not list(tmp_path.glob(".*"))


def test_save_by_suffix_writes_all_of_it_beside_the_pixels(tmp_path: Path) -> None:
    p = example("depth_affine")
    assert [q.name for q in p.save(tmp_path / "photo.v2_depth.png")] == [
        *("photo.v2_depth.png", "photo.v2_depth.npz", "photo.v2_depth.json")
    ]
    sidecar = json.loads((tmp_path / "photo.v2_depth.json").read_text())
    assert sidecar["files"] == {"png": "photo.v2_depth.png", "npz": "photo.v2_depth.npz"}
    assert sidecar["kind"] == "depth_affine" and sidecar["png"] == "value = pixel / 65535"
    written = p.save(tmp_path / "photo.v3", ["npy"])
    assert [q.name for q in written] == ["photo.v3.npy", "photo.v3_uncertainty.npy", "photo.v3.json"]
    np.testing.assert_array_equal(np.load(tmp_path / "photo.v3_uncertainty.npy"), p.uncertainty)
    p.uncertainty = None
    assert [q.name for q in p.save(tmp_path / "photo.v4", ["npy"])] == ["photo.v4.npy", "photo.v4.json"]
    with pytest.raises(ValueError, match="no format of that suffix"):
        p.save(tmp_path / "x.jpg")
    with pytest.raises(ValueError, match="did you mean 'png'"):
        p.save(tmp_path / "x", ["pgn"])


def test_png_holds_sixteen_bits(tmp_path: Path) -> None:
    p = example("depth_affine")
    assert p.valid is not None
    p.save(tmp_path / "x", ["png"])
    stored = np.asarray(Image.open(tmp_path / "x.png")).astype(np.float64)
    assert np.abs(stored / 65535 - p.values)[p.valid].max() <= 0.5001 / 65535
    assert (stored[~p.valid] == 0).all()


def test_png_of_normals_and_scores_and_classes() -> None:
    n = example("normals")
    pixels, words = encode16(n)
    assert words == "value = -1 + pixel / 65535 * 2"
    assert np.abs(-1 + pixels / 65535 * 2 - n.values)[n.valid].max() < 1.6e-5
    a = example("anomaly")
    pixels, words = encode16(a)
    low, span = float(words.split()[2]), float(words.split()[-1])
    assert np.abs(low + pixels / 65535 * span - a.values)[a.valid].max() < span / 65535
    c = Prediction(np.array([[3, -1, 700]]), "class_ids")
    assert encode16(c)[0].tolist() == [[3, 65535, 700]]
    with pytest.raises(ValueError, match="use npy"):
        encode16(Prediction(np.array([[70000]]), "class_ids"))


def test_npy_is_the_values(tmp_path: Path) -> None:
    p = example("normals")
    p.save(tmp_path / "x.npy")
    assert (np.load(tmp_path / "x.npy", allow_pickle=False) == p.values).all()


def test_exr_holds_floats(tmp_path: Path) -> None:
    openexr = pytest.importorskip("OpenEXR")
    for kind, channel in (("depth_affine", "Y"), ("normals", "RGB")):
        p = example(kind)
        p.save(tmp_path / "x.exr")
        with openexr.File(str(tmp_path / "x.exr")) as file:
            assert (file.channels()[channel].pixels == p.values).all()
            assert (file.channels()["valid"].pixels.astype(bool) == p.valid).all()


def test_exr_without_its_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"genpercept\[exr\]"):
        example("depth_affine").save(tmp_path / "x.exr")
    assert not list(tmp_path.iterdir())


def test_ply_projects_back_to_its_pixels(tmp_path: Path) -> None:
    p = example("depth_affine", 8, 12)
    assert p.valid is not None
    image = RNG.integers(0, 256, (8, 12, 3)).astype(np.uint8)
    p.save(tmp_path / "x.ply", image=image, fov=90)
    header, _, body = (tmp_path / "x.ply").read_bytes().partition(b"end_header\n")
    assert b"not metres" in header and b"binary_little_endian" in header
    points = np.frombuffer(body, [(n, "<f4") for n in "xyz"] + [(n, "u1") for n in "rgb"])
    assert len(points) == p.valid.sum() and f"element vertex {len(points)}\n".encode() in header
    y, x = np.nonzero(p.valid)
    depth = -points["z"]  # z points to the viewer
    np.testing.assert_allclose(depth, p.values[p.valid] + 0.25, rtol=1e-6)
    np.testing.assert_allclose(points["x"] / depth * 6 + 6, x + 0.5, rtol=1e-5)  # focal length 6 pixels at 90 degrees
    np.testing.assert_allclose(-points["y"] / depth * 6 + 4, y + 0.5, rtol=1e-5)
    assert (np.stack([points[c] for c in "rgb"], -1) == image[p.valid]).all()
    with pytest.raises(ValueError, match="give its own"):
        p.save(tmp_path / "y.ply", image=image[:4])
    with pytest.raises(ValueError, match="180 degrees"):
        p.save(tmp_path / "y.ply", fov=180)


@pytest.mark.parametrize("kind", ["disparity_affine", "root_disparity_affine"])
def test_disparity_near_is_near(kind: str, tmp_path: Path) -> None:
    Prediction(np.array([[0.0, 1.0]]), kind).save(tmp_path / "x", ["ply"])
    points = np.frombuffer((tmp_path / "x.ply").read_bytes().partition(b"end_header\n")[2], "<f4,<f4,<f4,u1,u1,u1")
    assert -points["f2"][1] < -points["f2"][0]


@pytest.mark.parametrize(
    ("values", "kind", "says"),
    [
        (np.zeros((4, 4)), "depht_affine", "did you mean 'depth_affine'"),
        (np.zeros((4, 4, 1)), "depth_affine", r"must be \(H, W\)"),
        (np.zeros((3, 4, 4)), "normals", r"must be \(H, W, 3\)"),
        (np.zeros((2, 16, 3)), "keypoints", r"must be \(N, 17, 3\)"),
        (np.zeros((0, 4)), "mask", "empty map"),
        (np.full((4, 4), 1.5), "depth_affine", r"must lie in \[0, 1\]"),
        (np.full((4, 4, 3), 2.0), "normals", "must lie in"),
        (np.full((4, 4), np.nan), "anomaly", "NaN"),
        (np.full((4, 4), np.inf), "depth_affine", "infinite"),
    ],
)
def test_wrong_values_are_refused(values: np.ndarray, kind: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Prediction(values, kind)


def test_parts_must_fit() -> None:
    with pytest.raises(ValueError, match="valid of shape"):
        Prediction(np.zeros((4, 5)), "mask", valid=np.ones((5, 4), bool))
    with pytest.raises(ValueError, match="uncertainty of shape"):
        Prediction(np.zeros((4, 5)), "mask", uncertainty=np.ones((4, 5, 1)))


def test_invalid_pixels_may_hold_anything() -> None:
    p = Prediction(np.array([[0.5, np.nan]]), "depth_affine", valid=np.array([[True, False]]))
    assert encode16(p)[0].tolist() == [[32768, 0]]
    assert np.asarray(p.colourise())[0, 1].tolist() == [128] * 3


def test_tensors_become_arrays() -> None:
    p = Prediction(torch.rand(4, 5, dtype=torch.bfloat16), "mask", valid=torch.ones(4, 5) > 0)  # type: ignore[arg-type]
    assert isinstance(p.values, np.ndarray) and p.values.dtype == np.float32 and p.size == (4, 5)
    assert p.valid is not None and p.valid.dtype == np.bool_
    with pytest.raises(ValueError, match="no height"):
        _ = example("keypoints").size


@pytest.mark.parametrize("damage", ["missing", "text", "cut", "other"])
def test_load_refuses_what_is_no_prediction(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x.npz"
    if damage == "text":
        path.write_text("hello")
    elif damage == "cut":
        example("mask", 50, 50).save(path)
        path.write_bytes(path.read_bytes()[:300])
    elif damage == "other":
        np.savez(path, a=np.zeros(3))
    with pytest.raises(ValueError, match=r"x\.npz"):
        Prediction.load(path)
