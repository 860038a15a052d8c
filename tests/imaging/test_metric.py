"""Metres out of a prediction: scale and shift found among wrong points, files of known distances, what cannot be fitted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genpercept.imaging import metric
from genpercept.imaging.encode import decode16, encode16
from genpercept.imaging.kinds import KINDS
from genpercept.imaging.known import distances, find
from genpercept.imaging.prediction import Prediction
from genpercept.imaging.stored import read_stored
from genpercept.metrics import score

RNG = np.random.default_rng(3)
SIZE = (48, 64)


def scene(kind: str = "depth_affine") -> tuple[Prediction, np.ndarray]:
    """(prediction, metres (H, W)) of which one is a line of the other: 1.5 to 9 m."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    unit = (0.55 + 0.4 * np.sin(x / 9.0) * np.cos(y / 7.0)).clip(0, 1)
    if kind == "depth_affine":
        return Prediction(unit, kind), 7.5 * unit + 1.5
    return Prediction(unit, kind), 1 / (0.6 * unit + 0.08)


def points(metres: np.ndarray, count: int, rng: Any = RNG) -> np.ndarray:
    rows, columns = rng.integers(0, SIZE[0], count), rng.integers(0, SIZE[1], count)
    return np.stack([columns + 0.5, rows + 0.5, metres[rows, columns]], -1)


@pytest.mark.parametrize("kind", ["depth_affine", "disparity_affine"])
@pytest.mark.parametrize("count", [2, 5, 100, 5000])
def test_exact_points_give_exact_metres(kind: str, count: int) -> None:
    pred, metres = scene(kind)
    found = pred.fit(points(metres, count))
    assert found.kind == "depth_metric" and found.valid is None
    np.testing.assert_allclose(found.values, metres, rtol=2e-4)
    fit = found.meta["fit"]
    assert fit["points"] == fit["inliers"] == count and fit["residual_median"] < 1e-4
    scale, shift = (7.5, 1.5) if kind == "depth_affine" else (0.6, 0.08)
    assert (fit["scale"], fit["shift"]) == (pytest.approx(scale, rel=1e-5), pytest.approx(shift, rel=1e-4))
    assert fit["rule"].startswith("metres = " if kind == "depth_affine" else "1 / metres = ")


@pytest.mark.parametrize("kind", ["depth_affine", "disparity_affine"])
def test_two_in_five_points_may_be_wrong(kind: str) -> None:
    pred, metres = scene(kind)
    known = points(metres, 200)
    known[:, 2] *= np.exp(0.01 * RNG.normal(size=200))
    known[:80, 2] = RNG.uniform(0.5, 40, 80)
    found = pred.fit(known)
    assert np.abs(found.values / metres - 1).mean() < 0.02
    assert found.meta["fit"]["inliers"] >= 118 and found.meta["fit"]["residual_rms_metres"] < 0.6
    distance = KINDS[kind].distance
    assert distance is not None
    x = pred.values[known[:, 1].astype(int), known[:, 0].astype(int)]
    try:
        plain = np.nan_to_num(metric.least_squares(x, known[:, 2], distance).metres(pred.values))
    except ValueError:  # the wrong ones turn the line round
        return
    assert np.abs(plain / metres - 1).mean() > 0.2  # or the test would prove nothing


def test_the_same_points_give_the_same_answer_and_the_seed_another_draw() -> None:
    pred, metres = scene()
    known = points(metres, 300)
    known[:, 2] *= np.exp(0.3 * RNG.normal(size=300))
    one, two = pred.fit(known), pred.fit(known)
    assert (one.values == two.values).all() and one.meta == two.meta
    assert pred.fit(known, seed=5).meta["fit"]["points"] == 300


def test_residuals_are_what_they_say() -> None:
    x = np.linspace(0, 1, 11)
    z = 2 * x + 1
    z[3] *= 1.1
    z[7] = 30
    fit = metric.fit(x, z, "depth")
    error = np.abs(fit.scale * x + fit.shift - z)
    inside = error / z < fit.threshold
    assert inside.sum() == fit.inliers == 10 and fit.residual == pytest.approx(np.median((error / z)[inside]), rel=1e-5)
    assert fit.rms == pytest.approx(np.sqrt((error[inside] ** 2).mean()), rel=1e-5)
    assert "10 of 11 known points agree" in metric.words(fit.to_meta())


def test_what_lies_behind_the_camera_or_beyond_all_is_not_valid() -> None:
    pred = Prediction(np.array([[0.0, 0.2, 0.6, 1.0]]), "depth_affine")
    found = pred.fit(np.array([[2.5, 0.5, 2.0], [3.5, 0.5, 6.0]]))  # metres = 10 value - 4
    assert found.valid is not None and found.valid.tolist() == [[False, False, True, True]]
    np.testing.assert_allclose(found.values, [[0, 0, 2, 6]], rtol=1e-5)
    sky = Prediction(np.array([[0.0, 0.2, 0.6, 1.0]]), "disparity_affine")
    found = sky.fit(np.array([[2.5, 0.5, 1 / 0.6], [3.5, 0.5, 1.0]]))  # 1 / metres = value
    assert found.valid is not None and found.valid.tolist() == [[False, True, True, True]]


def test_uncertainty_becomes_metres_and_invalid_pixels_stay_so() -> None:
    values = np.linspace(0, 1, 12).reshape(3, 4).astype(np.float32)
    valid = np.ones((3, 4), bool)
    valid[0, 1] = False
    pred = Prediction(values, "depth_affine", valid, np.full((3, 4), 0.01), meta={"model": "m"})
    known = np.array([[c + 0.5, r + 0.5, 4 * values[r, c] + 1] for r in range(3) for c in range(4)])
    found = pred.fit(known)
    np.testing.assert_allclose(found.uncertainty, 0.04, rtol=1e-4)
    assert found.valid is not None and not found.valid[0, 1] and found.valid.sum() == 11
    assert found.meta["fit"]["left_out"] == 1 and found.meta["model"] == "m" and pred.kind == "depth_affine"


@pytest.mark.parametrize(
    ("known", "says"),
    [
        (np.zeros((0, 3)), "no points"),
        (np.array([[1.0, 1, 2]]), "1 known distances .* two or more"),
        (np.array([[1.0, 1, 2], [40, 20, -3], [50, 20, np.nan]]), "1 known distances .* two or more"),
        (np.array([[1.0, 1, 2], [40, 20, 2]]), "all 2 known points are at 2 m"),
        (np.array([[1.0, 1, 2], [1.2, 1.3, 5]]), "one value at all 2 known points"),
        (np.array([[64.0, 1, 2], [1, 1, 5]]), r"row 0: x = 64, y = 1 lies outside the image of 64 x 48"),
        (np.array([[1.0, -0.1, 2], [1, 1, 5]]), "outside the image"),
        (np.array([[np.inf, 1, 2], [1, 1, 5]]), "must be finite"),
        (np.zeros((4, 4, 3)), "points .* or a map"),
        (np.zeros(SIZE), "none is above 0"),
        (np.ones((64, 48)), "upright as the image is: turn it"),
        (np.ones((48, 30)), "not a part of it"),
    ],
)
def test_what_cannot_be_fitted_is_said_in_one_line(known: np.ndarray, says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        scene()[0].fit(known)
    assert "\n" not in str(error.value)


def test_a_prediction_that_runs_the_other_way_is_refused() -> None:
    pred, metres = scene()
    with pytest.raises(ValueError, match="shrinks where the known distances grow"):
        pred.fit(points(11 - metres, 50))
    with pytest.raises(ValueError, match="tell no distance"):
        Prediction(np.zeros((4, 4, 3)), "normals").fit(np.ones((3, 3)))
    with pytest.raises(ValueError, match="inlier threshold 2"):
        pred.fit(points(metres, 9), threshold=2)
    with pytest.raises(ValueError, match="scale 0 of known distances"):
        pred.fit(points(metres, 9), scale=0)


# ---- maps and files


@pytest.mark.parametrize("size", [(48, 64), (24, 32), (96, 128), (17, 23)])
def test_a_map_of_another_size_shows_the_same_view(size: tuple[int, int]) -> None:
    """Pixel middles meet pixel middles: of a map of half the size the corner is 1 pixel in."""
    y, x = (np.arange(n) + 0.5 for n in size)
    pred, _ = scene()
    known = distances(np.ones(size) * (x / size[1] + 1), SIZE)
    assert len(known.x) == size[0] * size[1] and known.x.min() == pytest.approx(32 / size[1])
    np.testing.assert_allclose(known.metres, known.x / 64 + 1)
    np.testing.assert_allclose(np.unique(known.y), y * 48 / size[0])
    assert pred.size == SIZE


def test_a_map_of_many_points_is_thinned_out_the_same_way() -> None:
    known = distances(np.ones((800, 600)), (800, 600))
    assert len(known.x) == 2**18 and (known.x == distances(np.ones((800, 600)), (800, 600)).x).all()


def write_known(path: Path, metres: np.ndarray) -> Path:
    if path.suffix == ".npy":
        np.save(path, metres)
    elif path.suffix == ".npz":
        np.savez(path, depth=metres, other=metres * 0)
    elif path.suffix == ".exr":
        openexr = pytest.importorskip("OpenEXR")
        openexr.File({"type": openexr.scanlineimage}, {"Z": np.ascontiguousarray(metres, np.float32)}).write(str(path))
    elif path.suffix == ".tiff":
        Image.fromarray(metres.astype(np.float32)).save(path)
    else:
        Image.fromarray(np.rint(metres * 1000).astype(np.uint16)).save(path)
    return path


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".exr", ".tiff", ".png"])
def test_files_of_maps(tmp_path: Path, suffix: str) -> None:
    pred, metres = scene()
    sparse = np.where(RNG.random(SIZE) < 0.05, metres, 0)
    found = pred.fit(write_known(tmp_path / f"k{suffix}", sparse))
    np.testing.assert_allclose(found.values, metres, rtol=1e-3)
    assert found.meta["fit"]["points"] == (sparse > 0).sum() and found.meta["fit"]["known"] == f"k{suffix}"


def test_units_of_files(tmp_path: Path) -> None:
    metres = scene()[1]
    Image.fromarray(np.rint(metres * 256).astype(np.uint16)).save(tmp_path / "kitti.png")
    known = distances(tmp_path / "kitti.png", SIZE, 1 / 256)
    np.testing.assert_allclose(known.metres, metres.ravel(), atol=1 / 256)
    np.save(tmp_path / "feet.npy", metres / 0.3048)
    np.testing.assert_allclose(distances(tmp_path / "feet.npy", SIZE, 0.3048).metres, metres.ravel())
    Prediction(metres, "depth_metric").save(tmp_path / "ours", ["png", "npz", "npy"])
    for name, tolerance in (("ours.png", 5.1e-4), ("ours.npz", 1e-6), ("ours.npy", 1e-6)):
        np.testing.assert_allclose(distances(tmp_path / name, SIZE).metres, metres.ravel(), atol=tolerance)


def test_65535_and_what_a_file_calls_invalid_are_unknown(tmp_path: Path) -> None:
    stored = np.full(SIZE, 2000, np.uint16)
    stored[0], stored[1] = 0, 65535
    Image.fromarray(stored).save(tmp_path / "k.png")
    assert len(distances(tmp_path / "k.png", SIZE).x) == 46 * 64
    valid = np.zeros(SIZE, bool)
    valid[5] = True
    Prediction(np.ones(SIZE), "depth_metric", valid).save(tmp_path / "k", ["npz"])
    assert len(distances(tmp_path / "k.npz", SIZE).x) == 64


@pytest.mark.parametrize(
    "text",
    [
        "x,y,metres\n1.5,2.5,3\n60.2,40,7\n",
        "1.5,2.5,3\n60.2,40,7\n",
        "\ufeffdepth;u;v\n3;1.5;2.5\n7;60.2;40\n",
        "# measured by laser\ncolumn\trow\tz [m]\n1.5\t2.5\t3\n\n60.2\t40\t7",
        "1.5 2.5 3 Tom\n60.2   40 7 Ann\n10 10 0 unknown\n11 11 nan -\n12 12 -5 -",
        "id,x,y,Distance (m)\nA,1.5,2.5,3\nB,60.2,40,7\n",
    ],
)
def test_csv_as_people_write_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "k.csv").write_text(text, encoding="utf-8")
    known = distances(tmp_path / "k.csv", SIZE)
    assert (known.x.tolist(), known.y.tolist(), known.metres.tolist()) == ([1.5, 60.2], [2.5, 40], [3, 7])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x,y,metres\n1,2,3\n4,5,six\n", "line 3: '4,5,six': must be x, y and metres"),
        ("1,2,3\n\n# a\n4,5\n", "line 4: '4,5': must be"),
        ("a,b,c\n1,2,3\n", "line 1: no column x among a, b, c: name them x, y, metres"),
        ("1,2,3\n70,5,4\n", "line 2: x = 70, y = 5 lies outside the image of 64 x 48"),
        ("1,2,3\n4,nan,4\n", "line 2: x and y must be finite"),
        ("x,y,metres\n", "no points"),
        ("", "no points"),
        ("one,1,2,3\n", "line 1: 'one,1,2,3': must be"),
    ],
)
def test_mistakes_in_csv_name_the_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "k.csv").write_text(text)
    with pytest.raises(ValueError, match=says) as error:
        distances(tmp_path / "k.csv", SIZE)
    assert "k.csv" in str(error.value) and "\n" not in str(error.value)


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    Image.new("L", (64, 48), 9).save(tmp_path / "eight.png")
    Image.new("RGB", (64, 48)).save(tmp_path / "a.jpg")
    scene()[0].save(tmp_path / "affine", ["npz", "png"])
    (tmp_path / "k.csv").write_bytes(b"\xff\xfe\0\0")
    for name, says in {
        "eight.png": "8 bits are too few",
        "a.jpg": "no file of known distances; these are read: csv",
        "affine.npz": "kind depth_affine, which knows no metres",
        "affine.png": "kind depth_affine, which knows no metres",
        "k.csv": "cannot be read as text",
        "none.npy": "no such file",
        "none.csv": "no such file",
    }.items():
        with pytest.raises(ValueError, match=says) as error:
            distances(tmp_path / name, SIZE)
        assert name in str(error.value) and str(error.value).count(name) == 1


def test_a_folder_has_a_file_for_each_image(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,2,3")
    (tmp_path / "b_depth.png").write_bytes(b"")
    assert find(tmp_path, "a").name == "a.csv" and find(tmp_path, "b").name == "b_depth.png"
    assert find(tmp_path / "a.csv", "whatever").name == "a.csv"
    with pytest.raises(ValueError, match=r"no known distances of 'c': c\.csv"):
        find(tmp_path, "c")
    (tmp_path / "a.npy").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.csv and a\.npy: both"):
        find(tmp_path, "a")


# ---- the kind


@pytest.mark.parametrize(("farthest", "steps"), [(65.0, 1000), (65.6, 256), (255.0, 256), (300, 100), (900, 10)])
def test_16_bits_hold_metres_in_the_finest_steps_that_reach(tmp_path: Path, farthest: float, steps: int) -> None:
    values = np.linspace(0.5, farthest, 96).reshape(8, 12).astype(np.float32)
    valid = np.ones((8, 12), bool)
    valid[3, 4] = False
    pred = Prediction(values, "depth_metric", valid)
    pixels, words = encode16(pred)
    assert words == f"metres = pixel / {steps}, 0 where unknown" and pixels[3, 4] == 0 and pixels.max() < 65535
    np.testing.assert_allclose(decode16(pixels, words)[valid], values[valid], atol=0.501 / steps)
    pred.save(tmp_path / "x", ["png"])
    assert json.loads((tmp_path / "x.json").read_text())["png"] == words
    assert (np.asarray(Image.open(tmp_path / "x.png")) == pixels).all()
    assert read_stored(tmp_path / "x.png").kind == "depth_metric"


def test_metres_are_scored_as_they_are(tmp_path: Path) -> None:
    metres = scene()[1]
    right, wrong = Prediction(metres, "depth_metric"), Prediction(metres * 1.2, "depth_metric")
    assert score("depth", right, metres)["abs_rel"] == pytest.approx(0, abs=1e-6)
    assert score("depth", wrong, metres)["abs_rel"] == pytest.approx(0.2, rel=1e-5)
    assert score("depth", wrong, metres, protocol="scannet")["abs_rel"] > 0.1  # clipped at 10 m
    assert score("depth", wrong, metres, align="least_squares")["abs_rel"] == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="different kinds"):
        score("depth", [right, scene()[0]], [metres, metres])


@pytest.mark.parametrize("suffix", ["png", "npz", "npy"])
def test_the_score_command_reads_metres(tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    from genpercept.commands.score.run import main

    metres = scene()[1]
    for folder in ("pred", "gt"):
        (tmp_path / folder).mkdir()
    Prediction(metres * 1.25, "depth_metric").save(tmp_path / "pred" / "a_depth", [suffix, "points"])
    np.save(tmp_path / "gt" / "a.npy", metres)
    assert main("depth", tmp_path / "pred", tmp_path / "gt") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["abs_rel"] == pytest.approx(0.25, abs=1e-3) and told["options"] == {"align": "none"}


def test_near_is_red_and_far_is_blue_whatever_the_metres() -> None:
    values = np.linspace(3, 80, 100).reshape(10, 10)
    picture = np.asarray(Prediction(values, "depth_metric").colourise()).astype(int)
    assert picture[0, 0, 0] > 120 > picture[0, 0, 2] and picture[-1, -1, 2] > 120 > picture[-1, -1, 0]


def test_the_root_of_an_inverse_depth() -> None:
    """1 / sqrt(metres) = scale * value + shift, found again with wrong points among the known ones."""
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 1, 200)
    metres = 1 / (0.3 * values + 0.2) ** 2
    wrong = metres.copy()
    wrong[:60] *= rng.uniform(2, 3, 60)
    found = metric.fit(values, wrong, "root of inverse depth")
    assert found.scale == pytest.approx(0.3, rel=1e-6) and found.shift == pytest.approx(0.2, rel=1e-6)
    np.testing.assert_allclose(found.metres(values), metres, rtol=1e-5)
    slope = (found.metres(np.array([0.5 + 1e-3])) - found.metres(np.array([0.5 - 1e-3]))) / 2e-3
    spread = found.spread(np.array([1.0], np.float32), found.metres(np.array([0.5])))
    np.testing.assert_allclose(spread, abs(slope), rtol=1e-3)
