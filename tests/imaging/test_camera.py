"""The camera of a photograph: what EXIF says, also of turned, cropped and damaged ones; points that go back to their pixels."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from genpercept.imaging import camera as cameras
from genpercept.imaging.camera import Camera
from genpercept.imaging.prediction import Prediction
from genpercept.imaging.read import read, read_photograph

FOCAL_35, FOCAL, PLANE_X, PLANE_UNIT, ZOOM, WIDTH, HEIGHT = 0xA405, 0x920A, 0xA20E, 0xA210, 0xA404, 0xA002, 0xA003
DIAGONAL = math.hypot(36, 24)


def photograph(path: Path, size: tuple[int, int] = (60, 40), orientation: int = 0, **tags: Any) -> Path:
    """A file of `size` (width, height) as it is stored, with tags by their numbers as keywords t41989=28."""
    image, exif = Image.new("RGB", size, (90, 120, 40)), Image.Exif()
    exif[0x010F] = "a maker"  # without a tag of its own Pillow writes no EXIF into some formats
    if orientation:
        exif[0x0112] = orientation
    exif.get_ifd(0x8769).update({int(name[1:]): value for name, value in tags.items()})
    if path.suffix == ".tif":
        exif[0x8769] = 8  # any place: without one Pillow leaves this directory out
    image.save(path, exif=exif)
    return path


def tag(number: int) -> str:
    return f"t{number}"


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_the_35_mm_focal_length_counts_along_the_diagonal(tmp_path: Path, name: str) -> None:
    image, camera = read_photograph(photograph(tmp_path / name, **{tag(FOCAL_35): 28}))
    assert image.shape == (40, 60, 3) and camera is not None and camera.source == "EXIF" and camera.note == ""
    assert camera.focal[0] == camera.focal[1] == pytest.approx(28 * math.hypot(60, 40) / DIAGONAL)
    # of a frame of 3 : 2, as the film's, it is the film's own angle
    assert camera.fov == pytest.approx(2 * math.degrees(math.atan(18 / 28)))
    assert (camera.center, camera.size) == ((30, 20), (40, 60))


@pytest.mark.parametrize(
    ("orientation", "sideways"), [(o, o > 4) for o in range(1, 9)], ids=[f"orientation {o}" for o in range(1, 9)]
)
def test_a_turned_photograph_has_its_edges_exchanged(tmp_path: Path, orientation: int, sideways: bool) -> None:
    image, camera = read_photograph(photograph(tmp_path / "a.jpg", (60, 40), orientation, **{tag(FOCAL_35): 28}))
    assert camera is not None and camera.size == image.shape[:2] == ((60, 40) if sideways else (40, 60))
    assert camera.fov == pytest.approx(2 * math.degrees(math.atan((12 if sideways else 18) / 28)))
    x, y = camera.directions()
    assert (len(y), len(x)) == image.shape[:2]


@pytest.mark.parametrize(("unit", "millimetres"), [(2, 25.4), (3, 10), (4, 1), (5, 1e-3), (None, 25.4)])
def test_the_focal_length_in_millimetres_with_the_sensors_pixels(
    tmp_path: Path, unit: int | None, millimetres: float
) -> None:
    density = 250.0 * millimetres  # 250 pixels for each mm
    given: dict[int, Any] = {FOCAL: IFDRational(5, 1), PLANE_X: IFDRational(int(density * 1000), 1000), WIDTH: 600}
    given |= {HEIGHT: 400} | ({} if unit is None else {PLANE_UNIT: unit})
    path = photograph(tmp_path / "a.jpg", (60, 40), **{tag(k): v for k, v in given.items()})
    camera = read_photograph(path)[1]
    assert camera is not None  # a tenth of the width it was taken with
    assert camera.focal[0] == pytest.approx(5 * 250 / 10, rel=1e-3)


def test_crop_and_zoom_are_noted(tmp_path: Path) -> None:
    given = {FOCAL_35: 28, WIDTH: 600, HEIGHT: 600, ZOOM: IFDRational(2, 1)}
    camera = read_photograph(photograph(tmp_path / "a.jpg", **{tag(k): v for k, v in given.items()}))[1]
    assert camera is not None and "600 x 600" in camera.note and "digital zoom 2" in camera.note
    upright = {FOCAL_35: 28, WIDTH: 40, HEIGHT: 60}  # some programs turn the tags with the image
    camera = read_photograph(photograph(tmp_path / "b.jpg", **{tag(k): v for k, v in upright.items()}))[1]
    assert camera is not None and camera.note == ""


@pytest.mark.parametrize(
    "given",
    [
        {},
        {FOCAL_35: 0},
        {FOCAL: IFDRational(5, 1)},
        {FOCAL: IFDRational(5, 0), PLANE_X: IFDRational(100, 1)},
        {FOCAL: IFDRational(5, 1), PLANE_X: IFDRational(0, 1)},
        {FOCAL: IFDRational(5, 1), PLANE_X: IFDRational(100, 1), PLANE_UNIT: 1},
        {FOCAL_35: 65535},  # half a degree
    ],
)
def test_what_does_not_tell_is_no_camera(tmp_path: Path, given: dict[int, Any]) -> None:
    image, camera = read_photograph(photograph(tmp_path / "a.jpg", **{tag(k): v for k, v in given.items()}))
    assert camera is None and image.shape == (40, 60, 3)


def test_damaged_exif_costs_the_camera_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.new("RGB", (60, 40)).save(path, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x12\x34")
    image, camera = read_photograph(path)
    assert camera is None and image.shape == (40, 60, 3)


def test_arrays_have_none_and_read_is_the_same(tmp_path: Path) -> None:
    path = photograph(tmp_path / "a.jpg", orientation=6, **{tag(FOCAL_35): 28})
    assert (read(path) == read_photograph(path)[0]).all()
    assert read_photograph(np.zeros((4, 5, 3), np.uint8))[1] is None
    with Image.open(path) as image:
        assert read_photograph(image)[1] == read_photograph(path)[1]


def test_a_file_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened = photograph(tmp_path / "a.jpg", **{tag(FOCAL_35): 28}), []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda *a, **k: opened.append(a) or real(*a, **k))
    assert read_photograph(path)[1] is not None and len(opened) == 1


# ---- cameras and points


def test_points_go_back_to_their_pixels() -> None:
    rng = np.random.default_rng(0)
    matrix = np.array([[50, 0, 21.5], [0, 40, 11], [0, 0, 1]])
    camera = Camera.of_matrix(matrix, (24, 40))
    values = rng.random((24, 40)).astype(np.float32) * 5 + 1
    points = Prediction(values, "depth_metric").points(camera=camera)
    assert points.dtype == np.float32 and points.shape == (24, 40, 3)
    opencv = points * (1, -1, -1)
    seen = opencv @ matrix.T
    column, row = np.meshgrid(np.arange(40) + 0.5, np.arange(24) + 0.5)
    np.testing.assert_allclose(seen[..., :2] / seen[..., 2:], np.stack([column, row], -1), rtol=1e-4)
    np.testing.assert_allclose(opencv[..., 2], values)


def test_which_camera_counts() -> None:
    meta = {"camera": Camera.of_fov(40, (20, 30), "EXIF").to_meta()}
    pred = Prediction(np.ones((20, 30)), "depth_metric", meta=meta)
    other = Camera.of_fov(90, (40, 60), "data set")
    width = {
        fov: pred.points(fov=fov, camera=camera)[0, -1, 0] * 30 / 29
        for fov, camera in ((20.0, other), (None, other), (None, None))
        if fov
    }
    assert width[20.0] == pytest.approx(math.tan(math.radians(10)), rel=1e-5)
    assert pred.points(camera=other)[0, -1, 0] * 30 / 29 == pytest.approx(1, rel=1e-5)
    assert pred.points()[0, -1, 0] * 30 / 29 == pytest.approx(math.tan(math.radians(20)), rel=1e-4)
    plain = Prediction(np.ones((20, 30)), "depth_metric").points()
    assert plain[0, -1, 0] * 30 / 29 == pytest.approx(math.tan(math.radians(30)), rel=1e-5)


def test_what_is_not_known_is_no_point() -> None:
    valid = np.ones((4, 5), bool)
    valid[1, 2] = False
    values = np.ones((4, 5), np.float32)
    values[0, 0] = -1  # behind the camera
    points = Prediction(values, "depth_metric", valid).points()
    lost = np.isnan(points).all(-1)
    assert lost[1, 2] and lost[0, 0] and lost.sum() == 2 and np.isfinite(points[~lost]).all()


def test_meta_and_sizes() -> None:
    camera = Camera.of_fov(50, (30, 40))
    assert Camera.of_meta(camera.to_meta()).fov == pytest.approx(50, abs=1e-2)
    assert camera.at((60, 80)).fov == pytest.approx(50) and camera.at((60, 80)).focal[0] == 2 * camera.focal[0]
    assert "50 degrees, as given" in camera.words
    assert Camera.of_fov(cameras.DEFAULT_FOV, (30, 40), "assumed").words.endswith("60 degrees, assumed")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Camera.of_fov(180, (4, 4)), "between 0 and 180"),
        (lambda: Camera.of_fov(float("nan"), (4, 4)), "between 0 and 180"),
        (lambda: Camera((0, 1), (2, 2), (4, 4), "option"), "positive and finite"),
        (lambda: Camera((1, 1), (2, 2), (4, 4), "hearsay"), "choose one of option"),  # type: ignore[arg-type]
        (lambda: Camera.of_matrix(np.eye(4), (4, 4)), r"must be \(3, 3\)"),
        (lambda: Camera.of_matrix(np.array([[9, 5, 2], [0, 9, 2], [0, 0, 1.0]]), (4, 4)), "without skew"),
        (lambda: Camera.of_meta({"fov": 60}), "not a camera"),
        (lambda: Prediction(np.zeros((4, 4, 3)), "normals").points(), "tell no distance"),
    ],
)
def test_refused(make: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        make()
    assert "\n" not in str(error.value)
