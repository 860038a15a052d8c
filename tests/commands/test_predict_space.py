"""`predict` in space: cameras by EXIF, metres by known distances, meshes, and --show in a real server."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from genpercept.commands.predict.options import predict
from genpercept.commands.predict.request import Request
from genpercept.commands.predict.run import run, run_and_show
from genpercept.imaging.prediction import Prediction
from tests.support.red import Red

FOCAL_35 = 0xA405
METRES = {"scale": 6.0, "shift": 2.0}  # of the red channel in [0, 1]


@pytest.fixture
def red() -> Red:
    return Red()


def load_of(fake: Any) -> Callable[..., Any]:
    return lambda model, **options: fake


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("the model was loaded")


def ramp(seed: int = 0) -> np.ndarray:
    """(24, 32, 3) uint8 whose red goes from left to right."""
    image = np.zeros((24, 32, 3), np.uint8)
    image[..., 0] = np.linspace(10 + seed, 240, 32).astype(np.uint8)
    return image


def metres_of(image: np.ndarray) -> np.ndarray:
    return METRES["scale"] * image[..., 0] / 255.0 + METRES["shift"]


def save(folder: Path, name: str, exif: bool = False, orientation: int = 1, seed: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    tags = Image.Exif()
    tags[0x0112] = orientation
    if exif:
        tags.get_ifd(0x8769)[FOCAL_35] = 26
    Image.fromarray(ramp(seed)).save(folder / name, exif=tags)
    return folder / name


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


# ---- --show


@pytest.mark.parametrize(
    ("asked", "out", "how", "says"),
    [
        (Request(task="normals"), "o", {}, "--show: normals tell no distance"),
        (Request(), "o", {"resume": True}, "leave out --resume"),
        (Request(), "o", {"engine": "ray"}, "leave out --engine ray"),
        (Request(), "-", {}, "--out - with its result"),
    ],
)
def test_what_cannot_be_shown(tmp_path: Path, asked: Request, out: str, how: dict[str, Any], says: str) -> None:
    pytest.importorskip("viser")
    photo = save(tmp_path / "in", "p.png")
    with pytest.raises(ValueError, match=says):
        run_and_show([photo], Path("-") if out == "-" else tmp_path / out, asked, load=never, **how)


def test_without_viser_the_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from genpercept.core import extras

    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError) as error:
        run_and_show([save(tmp_path / "in", "p.png")], None, Request(), load=never)
    assert extras.explain(error.value) == "this needs the package viser: pip install 'genpercept[show]'"


def test_a_gallery_has_all_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of one name in two folders both, one without a surface none, which is said."""
    pytest.importorskip("viser")
    from genpercept.commands.predict.show import Gallery

    gallery, image = Gallery(), ramp()
    for name in ("a", "a", "b"):
        gallery.add(name, Prediction(metres_of(image), "depth_metric"), image)
    gallery.add("c", Prediction(np.ones((1, 9)), "depth_metric"), image[:1, :9])
    assert list(gallery.shown) == ["a", "a, 2", "b"] and "c is not shown: no mesh" in capsys.readouterr().err
    one = gallery.shown["b"]
    assert one.words == "in metres, of depth_metric" and one.colours.shape == one.mesh.vertices.shape
    assert one.middle == pytest.approx(np.median(metres_of(image)), rel=0.01)


def test_nothing_is_shown_of_a_run_that_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("viser")
    from genpercept.commands.predict import run as program
    from genpercept.commands.predict import show

    shown: list[Any] = []
    monkeypatch.setattr(show, "serve", shown.append)
    for code, wanted in ((130, 0), (0, 1)):
        monkeypatch.setattr(program, "run", lambda *_, code=code, **__: code)
        assert program.run_and_show([tmp_path], tmp_path / "o", Request()) == code and len(shown) == wanted


CHILD = """
import sys
from pathlib import Path
import genpercept.commands.predict.run as program
from genpercept.commands.predict.request import Request
from tests.support.red import Red

out = Path(sys.argv[2]) if len(sys.argv) > 2 else None
sys.exit(program.run_and_show([sys.argv[1]], out, Request(), load=lambda model, **options: Red()))
"""


class Child:
    """A `predict --show` in a process of its own."""

    def __init__(self, *words: str) -> None:
        self.lines: list[str] = []
        command = [sys.executable, "-c", CHILD, *words]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())

    def address(self, patience: float = 120) -> str:
        end = time.monotonic() + patience
        while time.monotonic() < end:
            for line in self.lines:
                if " in space at " in line:
                    return line.partition(" in space at ")[2].partition(";")[0]
            assert self.process.poll() is None, self.lines
            time.sleep(0.05)
        raise AssertionError(self.lines)


def handshake(address: str) -> str:
    """The first line with which the server answers a browser that wants a WebSocket."""
    host, port = address.removeprefix("http://").split(":")
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [
        *("GET / HTTP/1.1", f"Host: {host}:{port}", "Upgrade: websocket", "Connection: Upgrade"),
        *(f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Protocol: viser-v1", "", ""),
    ]
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall("\r\n".join(lines).encode())
        return connection.recv(200).decode("latin-1").partition("\r\n")[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_show_serves_until_it_is_stopped(tmp_path: Path, number: int) -> None:
    pytest.importorskip("viser")
    pytest.importorskip("trimesh")
    for name in ("a.png", "b.png"):
        save(tmp_path / "in", name)
    words = [str(tmp_path / "in")] if number == signal.SIGTERM else [str(tmp_path / "in"), str(tmp_path / "out")]
    child = Child(*words)
    try:
        address = child.address()
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(address, timeout=20) as page:
            assert page.status == 200 and b"<html" in page.read().lower()
        assert "101" in handshake(address)
        child.process.send_signal(number)
        assert child.process.wait(30) == 0
        assert child.process.stdout is not None and child.process.stdout.read() == ""
    finally:
        child.process.kill()
    assert any("2 images in space" in line for line in child.lines)
    if len(words) == 2:
        assert (tmp_path / "out" / "a_depth.png").exists()
    else:
        assert not any(line.startswith("wrote") for line in child.lines)
    with pytest.raises(OSError):
        urllib.request.urlopen(address, timeout=2)
