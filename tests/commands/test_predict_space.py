"""`predict` in space: cameras by EXIF, metres by known distances, meshes, and --show in a real server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from genpercept.commands.predict.options import predict
from genpercept.commands.predict.request import Request
from genpercept.commands.predict.run import run
from genpercept.core import said
from genpercept.imaging.prediction import Prediction
from tests.support.ramps import load_of, metres_of, never, ramp, save
from tests.support.red import Red


@pytest.fixture
def red() -> Red:
    return Red()


def write_points(path: Path, image: np.ndarray) -> Path:
    metres = metres_of(image)
    rows = [(3, 4), (20, 11), (29, 23), (10, 2)]
    path.write_text("x,y,metres\n" + "".join(f"{x + 0.5},{y + 0.5},{metres[y, x]}\n" for x, y in rows))
    return path


def sidecar(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / f"{name}_depth.json").read_text())


# ---- the camera


def test_the_camera_is_exifs_and_the_option_counts_more(tmp_path: Path, red: Red) -> None:
    save(tmp_path / "in", "with.png", exif=True)
    save(tmp_path / "in", "without.png")
    out = tmp_path / "out"
    assert run([tmp_path / "in"], out, Request(), formats=["ply", "points"], load=load_of(red)) == 0
    told = sidecar(out, "with")
    assert told["meta"]["camera"]["source"] == told["space"]["camera"]["source"] == "EXIF"
    assert told["space"]["camera"]["fov"] == pytest.approx(67.4, abs=0.5) and told["space"]["camera"]["size"] == [
        24,
        32,
    ]
    assert b"degrees, by EXIF" in (out / "with_depth.ply").read_bytes()
    told = sidecar(out, "without")
    assert (
        "camera" not in told["meta"]
        and told["space"]["camera"] | {"source": "assumed", "fov": 60.0} == told["space"]["camera"]
    )
    assert "not metres" in told["space"]["lengths"]
    assert run([tmp_path / "in"], tmp_path / "o", Request(fov=35), formats=["ply"], load=load_of(red)) == 0
    for name in ("with", "without"):
        assert sidecar(tmp_path / "o", name)["space"]["camera"]["source"] == "option"
        assert b"35 degrees, as given" in (tmp_path / "o" / f"{name}_depth.ply").read_bytes()


def test_a_turned_photograph_has_a_turned_camera(tmp_path: Path, red: Red) -> None:
    path = save(tmp_path / "in", "p.png", exif=True, orientation=6)
    assert run([path], tmp_path / "out", Request(), formats=["points"], load=load_of(red)) == 0
    told = sidecar(tmp_path / "out", "p")["space"]["camera"]
    assert told["size"] == [32, 24] and told["fov"] < 60
    assert np.load(tmp_path / "out" / "p_depth_points.npy").shape == (32, 24, 3)


def test_the_pipeline_tells_the_camera_too(tmp_path: Path) -> None:
    import genpercept

    path = save(tmp_path, "p.png", exif=True)
    pipe = genpercept.load("mini/depth", device="cpu")
    pred = pipe(path)
    assert pred.meta["camera"]["source"] == "EXIF" and pred.meta["camera"]["size"] == [24, 32]
    assert "camera" not in pipe(ramp()).meta
    near, far = (np.unravel_index(i, pred.size) for i in (pred.values.argmin(), pred.values.argmax()))
    fitted = pred.fit(np.array([[near[1], near[0], 2.0], [far[1], far[0], 9.0]]))
    assert fitted.kind == "depth_metric" and fitted.meta["camera"] == pred.meta["camera"]


# ---- metres


@pytest.mark.parametrize("form", ["csv", "png", "npy"])
def test_known_distances_give_metres(tmp_path: Path, red: Red, form: str) -> None:
    photo, known = save(tmp_path / "in", "p.png"), tmp_path / f"k.{form}"
    sparse = np.where(np.random.default_rng(0).random((24, 32)) < 0.1, metres_of(ramp()), 0)
    if form == "csv":
        write_points(known, ramp())
    elif form == "png":
        Image.fromarray(np.rint(sparse * 1000).astype(np.uint16)).save(known)
    else:
        np.save(known, sparse)
    out = tmp_path / "out"
    assert run([photo], out, Request(fit=str(known)), formats=["png", "npz", "mesh"], load=load_of(red)) == 0
    found = Prediction.load(out / "p_depth.npz")
    assert found.kind == "depth_metric"
    np.testing.assert_allclose(found.values, metres_of(ramp()), rtol=1e-3)
    told = sidecar(out, "p")
    assert told["kind"] == "depth_metric" and told["png"] == "metres = pixel / 1000, 0 where unknown"
    assert told["space"]["lengths"] == "in metres, of depth_metric"
    fit = told["meta"]["fit"]
    assert fit["known"] == known.name and fit["inliers"] == fit["points"] and fit["residual_median"] < 1e-3
    pixels = np.asarray(Image.open(out / "p_depth.png"))
    np.testing.assert_allclose(pixels / 1000, metres_of(ramp()), atol=6e-3)


def two_reds(path: Path, right: int = 255) -> Path:
    """A photograph that is 0 in its left half and `right` in the other."""
    image = np.zeros((6, 8, 3), np.uint8)
    image[:, 4:, 0] = right
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def test_the_residual_is_told(tmp_path: Path, red: Red, capsys: pytest.CaptureFixture[str]) -> None:
    """By hand: on each side the metres m of the least ((m - a) / a)^2 + ((m - b) / b)^2 are a b (a + b) / (a^2 + b^2).

    9 and 10 m, value 0: m = 9 + 81/181. 18 and 20 m, value 1: twice that. So 9/181 or 10/181 are left of each point, and of
    metres 81/181, 100/181, 162/181, 200/181. The point of 90 m is wrong by more than a quarter, and does not count.
    """
    photo, known = two_reds(tmp_path / "p.png"), tmp_path / "k.csv"
    known.write_text("1,1,9\n1,2,10\n6,1,18\n6,2,20\n1,3,90\n")
    assert run([photo], tmp_path / "o", Request(fit=str(known)), formats=["npy"], load=load_of(red)) == 0
    told = sidecar(tmp_path / "o", "p")["meta"]["fit"]
    assert (told["points"], told["inliers"]) == (5, 4)
    assert told["scale"] == pytest.approx(1710 / 181) and told["shift"] == pytest.approx(1710 / 181)
    assert told["residual_median"] == pytest.approx(9.5 / 181, abs=1e-6)
    assert told["residual_rms_metres"] == pytest.approx(np.sqrt((81**2 + 100**2 + 162**2 + 200**2) / 4) / 181, abs=1e-6)
    line = "genpercept: --fit: 4 of 5 known points agree; their residual: median 5.2 %, rms 0.795 m"
    assert line in capsys.readouterr().err.splitlines()
    assert said.told.result()["images"][0]["fit"] == told
    file = tmp_path / "one.npy"  # has no folder, and a run that finds all done tells it, too
    for resume in (False, True):
        asked = Request(fit=str(known))
        assert run([photo], file, asked, load=load_of(red), resume=resume) == 0
        assert line in capsys.readouterr().err.splitlines() and said.told.result()["images"][0]["fit"] == told
    assert run([photo], tmp_path / "q", Request(), formats=["npy"], load=load_of(red)) == 0
    assert "--fit" not in capsys.readouterr().err and "fit" not in said.told.result()["images"][0]


def test_of_several_images_the_worst_residual_is_told(
    tmp_path: Path, red: Red, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each in the result and with --verbose; one that failed has none."""
    (tmp_path / "k").mkdir()
    for name, points in {"a": "1,1,3\n6,1,6\n", "b": "1,1,9\n1,2,10\n6,1,18\n6,2,20\n", "c": "1,1,3\n"}.items():
        two_reds(tmp_path / "in" / f"{name}.png")
        (tmp_path / "k" / f"{name}.csv").write_text(points)
    monkeypatch.setenv(said.VARIABLE, said.VERBOSE)
    request = Request(fit=str(tmp_path / "k"))
    assert run([tmp_path / "in"], tmp_path / "o", request, formats=["npy"], load=load_of(red)) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("genpercept: --fit")]
    worst = "4 of 4 known points agree; their residual: median 5.2 %, rms 0.795 m"
    b = tmp_path / "in" / "b.png"
    assert lines[0] == f"genpercept: --fit of 2 images, the worst of them {b}: {worst}"
    assert "a.png: 2 of 2 known points agree; their residual: median 0.0 %, rms 0 m" in lines[1]
    assert lines[2] == f"genpercept: --fit of {b}: {worst}" and len(lines) == 3
    assert [image.get("fit", {}).get("inliers") for image in said.told.result()["images"]] == [2, 4, None]


def test_points_are_those_of_the_upright_image(tmp_path: Path, red: Red) -> None:
    photo = save(tmp_path / "in", "p.png", orientation=6)  # red goes from top to bottom
    a, b, c = metres_of(ramp())[0, [3, 20, 29]]
    (tmp_path / "k.csv").write_text(f"12,3.5,{a}\n5,20.5,{b}\n20,29.5,{c}\n")
    assert run([photo], tmp_path / "o", Request(fit=str(tmp_path / "k.csv")), formats=["npy"], load=load_of(red)) == 0
    np.testing.assert_allclose(np.load(tmp_path / "o" / "p_depth.npy"), metres_of(np.rot90(ramp(), -1)), rtol=1e-3)


def test_a_folder_of_known_distances(tmp_path: Path, red: Red, capsys: pytest.CaptureFixture[str]) -> None:
    """Each image has its own; one that has none, or a wrong one, is an error of that image, before the network."""
    (tmp_path / "k").mkdir()
    for i, name in enumerate("abcd"):
        save(tmp_path / "in", f"{name}.png", seed=10 * i)
    write_points(tmp_path / "k" / "a.csv", ramp(0))
    np.save(tmp_path / "k" / "b_depth.npy", metres_of(ramp(10)))
    (tmp_path / "k" / "d.csv").write_text("1,2,3\n4,5,six\n")
    assert run([tmp_path / "in"], tmp_path / "out", Request(fit=str(tmp_path / "k")), load=load_of(red)) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(errors) == 2
    assert "c.png" in errors[0] and "no known distances of 'c'" in errors[0]
    assert "d.png" in errors[1] and "line 2: '4,5,six'" in errors[1]
    assert sorted(p.name for p in (tmp_path / "out").glob("*.json")) == ["a_depth.json", "b_depth.json"]
    assert {sidecar(tmp_path / "out", n)["meta"]["fit"]["known"] for n in "ab"} == {"a.csv", "b_depth.npy"}


def test_resume_looks_at_the_known_distances_too(tmp_path: Path, red: Red) -> None:
    photo, known = save(tmp_path / "in", "p.png"), write_points(tmp_path / "k.csv", ramp())
    out, request = tmp_path / "out", Request(fit=str(known))

    def again(request: Request) -> float:
        assert run([photo], out, request, formats=["npy"], load=load_of(red), resume=True) == 0
        return (out / "p_depth.npy").stat().st_mtime_ns

    first = again(request)
    assert again(request) == first
    known.write_text(known.read_text() + "0.5,0.5,1000\n")
    second = again(request)
    assert second != first and again(request) == second
    assert again(Request(fit=str(known), fit_scale=2.0)) != second


def test_results_of_before_exif_was_read_count_as_done() -> None:
    record = Request().record()
    assert record["fov"] == 60.0 and not {"fit", "fit_scale", "mesh_vertices", "fov_given"} & set(record)
    assert Request(fov=35).record()["fov"] == 35 and Request(fov=60.0).record() != record


@pytest.mark.parametrize(
    ("request_of", "says"),
    [
        (lambda known: Request(task="normals", fit=str(known)), "--fit: normals tell no distance"),
        (lambda known: Request(fit=str(known / "none.csv")), "no such file or folder"),
        (lambda known: Request(fit=str(known / "k.csv")), "one file for 2 images: name a folder"),
        (lambda known: Request(fit_scale=0.001), "says nothing without --fit"),
        (lambda known: Request(fit=str(known), fit_scale=-1), "must be above 0"),
        (lambda known: Request(mesh_vertices=3), "must be at least 4"),
        (lambda known: Request(fov=180), "between 0 and 180"),
    ],
)
def test_mistakes_are_found_before_the_model_is_loaded(
    tmp_path: Path, request_of: Callable[[Path], Request], says: str
) -> None:
    for name in ("a.png", "b.png"):
        save(tmp_path / "in", name)
    write_points(tmp_path / "k.csv", ramp())
    with pytest.raises(ValueError, match=says) as error:
        run([tmp_path / "in"], tmp_path / "out", request_of(tmp_path), load=never)
    assert "\n" not in str(error.value)


def test_a_model_whose_task_shows_late_is_refused_as_well(tmp_path: Path, red: Red) -> None:
    red.task = "normals"
    photo = save(tmp_path / "in", "p.png")
    write_points(tmp_path / "k.csv", ramp())
    request = Request(model=str(tmp_path / "m"), fit=str(tmp_path / "k.csv"))
    with pytest.raises(ValueError, match="--fit: normals tell no distance"):
        run([photo], tmp_path / "out", request, load=load_of(red))


# ---- the command line


def test_a_mesh_by_its_files_name(tmp_path: Path, red: Red, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = save(tmp_path / "in", "p.png")
    for name, magic in (
        ("room.glb", b"glTF"),
        ("room_mesh.ply", b"ply"),
        ("room_points.npy", b"\x93NUM"),
        ("r.ply", b"ply"),
    ):
        if name.endswith("glb"):
            pytest.importorskip("trimesh")
        assert run([photo], tmp_path / name, Request(mesh_vertices=100), load=load_of(red)) == 0
        assert (tmp_path / name).read_bytes().startswith(magic), name


def test_without_out_and_show_out_is_missing(tmp_path: Path) -> None:
    result = CliRunner().invoke(predict, [str(tmp_path)])
    assert result.exit_code == 2 and "Missing option '--out'" in result.output


def test_help_tells_of_space() -> None:
    text = CliRunner().invoke(predict, ["--help"]).output
    assert all(option in text for option in ("--fit", "--fit-scale", "--mesh-vertices", "--show", "EXIF"))
