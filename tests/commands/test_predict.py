"""Many images into files: what fails is told at the end, nothing is half-written, a stopped run goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genpercept.commands.predict.run import Machine, Progress, Request, run
from genpercept.imaging import prediction
from genpercept.imaging.prediction import Prediction


class Fake:
    """Depth that is the image's red channel; it answers as GenPerceptPipeline does."""

    task = "depth"

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.options: dict[str, Any] = {}
        self.refuse_request: Exception | None = None
        self.refuse: Callable[[np.ndarray], Exception | None] = lambda image: None

    def check_request(self, *request: Any) -> None:
        if error := self.refuse_request:
            raise error

    def __call__(self, image: Any, **options: Any) -> list[Prediction]:
        self.calls.append(len(image))
        self.options = options
        for one in image:
            if error := self.refuse(one):
                raise error
        return [Prediction(one[..., 0] / 255, "depth_affine", meta={"model": "fake"}) for one in image]


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(5):
        Image.new("RGB", (8 + i, 6), (10 * i, 0, 0)).save(folder / f"p{i}.png")
    return folder


def load_of(fake: Fake) -> Callable[..., Fake]:
    def load(model: str, **options: Any) -> Fake:
        fake.options = {"model": model, **options}
        return fake

    return load


def never(*_: Any, **__: Any) -> Fake:
    raise AssertionError("the model was loaded")


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_files_folder_and_patterns(photos: Path, fake: Fake, tmp_path: Path) -> None:
    out = tmp_path / "a" / "out"
    assert run([photos, photos / "p0.png", f"{photos}/*.png"], out, formats=["png", "npy"], load=load_of(fake)) == 0
    assert names(out) == sorted(f"p{i}_depth.{s}" for i in range(5) for s in ("png", "npy", "json"))
    assert np.load(out / "p3_depth.npy").shape == (6, 11)
    assert np.load(out / "p3_depth.npy")[0, 0] == pytest.approx(30 / 255)
    sidecar = json.loads((out / "p3_depth.json").read_text())
    assert sidecar["meta"]["input"]["path"] == str(photos / "p3.png") and sidecar["meta"]["model"] == "fake"


def test_options_reach_the_pipeline(photos: Path, fake: Fake, tmp_path: Path) -> None:
    request = Request(
        "m", base="b", task="depth", processing_resolution=64, steps=3, ensemble_size=2, seed=7, dtype="bf16"
    )
    seen: dict[str, Any] = {}

    def load(model: str, **options: Any) -> Fake:
        seen.update(options, model=model)
        return fake

    assert run([photos], tmp_path / "o", request, machine=Machine("cpu", batch_size=2), load=load) == 0
    assert (seen["model"], seen["base"], seen["task"], seen["device"]) == ("m", "b", "depth", "cpu")
    assert str(seen["torch_dtype"]) == "torch.bfloat16" and "family" not in seen
    assert fake.calls == [2, 2, 1]
    assert fake.options.pop("generator").initial_seed() == 7
    expected = {"processing_resolution": 64, "num_inference_steps": 3, "ensemble_size": 2, "batch_size": 2}
    assert fake.options == expected


def test_a_broken_file_among_others(
    photos: Path, fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "p2.png").write_text("not an image")
    (photos / "p3.png").write_bytes((photos / "p3.png").read_bytes()[:50])
    code = run([photos, tmp_path / "none.jpg"], tmp_path / "o", formats=["npy"], load=load_of(fake))
    assert code == 1
    assert [n for n in names(tmp_path / "o") if n.endswith("npy")] == ["p0_depth.npy", "p1_depth.npy", "p4_depth.npy"]
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("genpercept: error:")]
    assert len(errors) == 3
    assert all(name in line for name, line in zip(("p2.png", "p3.png", "none.jpg"), errors, strict=True))


def test_all_broken(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for p in photos.iterdir():
        p.write_bytes(b"")
    assert run([photos], tmp_path / "o", load=never) == 2
    assert len(capsys.readouterr().err.splitlines()) == 5


def test_nothing_to_do(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert run([tmp_path / "empty"], tmp_path / "o", load=never) == 2
    assert run([f"{tmp_path}/*.jpg"], tmp_path / "o", load=never) == 2
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_an_image_the_network_refuses_does_not_take_its_batch_along(
    photos: Path, fake: Fake, tmp_path: Path, batch_size: int
) -> None:
    fake.refuse = lambda image: ValueError("no answer") if image[0, 0, 0] == 20 else None
    code = run([photos], tmp_path / "o", formats=["npy"], machine=Machine(batch_size=batch_size), load=load_of(fake))
    assert code == 1
    assert len(list((tmp_path / "o").glob("*.npy"))) == 4


def test_bad_images_at_the_start_do_not_end_the_run(
    photos: Path, fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same complaint about the first three is about them all the same; what concerns the call is checked before any."""
    fake.refuse = lambda image: KeyError("no answer") if image[0, 0, 0] < 30 else None
    assert run([photos], tmp_path / "o", formats=["npy"], load=load_of(fake)) == 1
    assert [n for n in names(tmp_path / "o") if n.endswith("npy")] == ["p3_depth.npy", "p4_depth.npy"]
    errors = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert [f"p{i}.png: KeyError: 'no answer'; --debug shows where" in line for i, line in enumerate(errors)] == [
        True
    ] * 3


def test_a_request_the_model_cannot_do_is_told_before_any_image(photos: Path, fake: Fake, tmp_path: Path) -> None:
    fake.refuse_request = ValueError("num_inference_steps=4: one_step takes exactly 1 step")
    with pytest.raises(ValueError, match="exactly 1 step"):
        run([photos], tmp_path / "o", load=load_of(fake))
    assert not fake.calls and not list((tmp_path / "o").iterdir())


def test_out_of_memory_says_what_helps(
    photos: Path, fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.refuse = lambda image: RuntimeError("CUDA out of memory. Tried\nto allocate") if image.shape[1] == 12 else None
    assert run([photos], tmp_path / "o", load=load_of(fake)) == 1
    assert "p4.png: not enough memory; use a smaller --processing-resolution" in capsys.readouterr().err


def test_a_file_that_cannot_be_written(
    photos: Path, fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "o" / "p1_depth.npy").mkdir(parents=True)
    assert run([photos], tmp_path / "o", formats=["npy"], load=load_of(fake)) == 1
    assert "p1.png" in capsys.readouterr().err
    assert not list((tmp_path / "o").glob(".*")) and (tmp_path / "o" / "p4_depth.npy").is_file()


def test_same_stems(tmp_path: Path, fake: Fake) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / folder / "x.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "b" / "x.jpg")
    assert run([tmp_path / "a", tmp_path / "b"], tmp_path / "o", formats=["npy"], load=load_of(fake)) == 0
    names = sorted(p.relative_to(tmp_path / "o").as_posix() for p in (tmp_path / "o").rglob("*.npy"))
    assert names == ["a/x_depth.npy", "b/x_jpg_depth.npy", "b/x_png_depth.npy"]


def test_results_never_replace_inputs(tmp_path: Path, fake: Fake) -> None:
    for name in ("x.png", "x_depth.png"):
        Image.new("RGB", (4, 4), "red").save(tmp_path / name)
    with pytest.raises(ValueError, match="would overwrite"):
        run([tmp_path / "x.png", tmp_path / "x_depth.png"], tmp_path, load=load_of(fake))
    assert np.asarray(Image.open(tmp_path / "x_depth.png")).shape == (4, 4, 3)
    with pytest.raises(ValueError, match="is an input folder"):
        run([tmp_path], tmp_path, load=never)
    assert run([tmp_path / "x.png"], tmp_path, formats=["npy"], load=load_of(fake)) == 0


@pytest.mark.parametrize("out", ["file", "file/below", "/proc/genpercept"])
def test_unusable_output_folders_are_refused_before_loading(photos: Path, tmp_path: Path, out: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="choose another"):
        run([photos], tmp_path / out, load=never)


def test_folder_without_permission(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(ValueError, match=r"cannot be written to \(Permission denied\)"):
        run([photos], tmp_path / "o", load=never)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"formats": ["png", "jpeg"]}, "unknown output format 'jpeg'"),
        ({"formats": []}, "no output format"),
        ({"request": Request(task="dept")}, "did you mean 'depth'"),
        ({"request": Request(dtype="fp8")}, "dtype='fp8'"),
        ({"request": Request(processing_resolution=-1)}, "at least 0"),
        ({"request": Request(fov=0)}, "180 degrees"),
        ({"machine": Machine(batch_size=0)}, "batch size 0"),
    ],
)
def test_mistakes_are_found_before_anything_is_done(
    photos: Path, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        run([photos], tmp_path / "o", load=never, **change)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("machine", "says"),
    [
        (Machine("gpu"), "unknown device 'gpu'"),
        (Machine("cuda:99"), "not available"),
        (Machine("cpu", offload=True), "leave it out"),
        (Machine("cpu", vae_tiling=True), "no such mode"),
    ],
)
def test_devices_and_memory_savers(photos: Path, fake: Fake, tmp_path: Path, machine: Machine, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        run([photos], tmp_path / "o", machine=machine, load=load_of(fake))


def test_resume_skips_only_what_is_the_same(photos: Path, fake: Fake, tmp_path: Path) -> None:
    out = tmp_path / "o"

    def again(request: Request | None = None, formats: tuple[str, ...] = ("npy",)) -> int:
        fake.calls.clear()
        assert run([photos], out, request, formats=formats, resume=True, load=load_of(fake)) == 0
        return len(fake.calls)

    assert again() == 5
    assert run([photos], out, formats=["npy"], resume=True, load=never) == 0  # all is done: no model needed
    assert again(Request("mini/depth")) == 0  # the default, spelt out
    (out / "p1_depth.npy").unlink()
    (out / "p2_depth.npy").write_bytes(b"")
    assert again() == 2
    time.sleep(0.01)
    Image.new("RGB", (3, 3)).save(photos / "p0.png")
    assert again() == 1 and np.load(out / "p0_depth.npy").shape == (3, 3)
    assert again(formats=("npy", "color")) == 5
    assert again(Request(processing_resolution=4)) == 5
    assert again(Request("another")) == 5


def test_a_sidecar_never_vouches_for_another_runs_files(
    photos: Path, fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "o"
    assert run([photos / "p1.png"], out, formats=["npy"], load=load_of(fake)) == 0

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(prediction, "write_json", full)
        assert run([photos / "p1.png"], out, Request(seed=1), formats=["npy"], load=load_of(fake)) == 2
    fake.calls.clear()
    assert run([photos / "p1.png"], out, formats=["npy"], resume=True, load=load_of(fake)) == 0
    assert fake.calls == [1]


def test_progress_lines_where_there_is_no_terminal(
    photos: Path, fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Progress, "_EVERY", 0.0)
    assert run([photos], tmp_path / "o", load=load_of(fake)) == 0
    err = capsys.readouterr().err
    assert "/5 images" in err and "left" in err and "5 images predicted in" in err
    assert "no --model given: using mini/depth" in err and "--model M" in err


# ---- stopped runs

_DRIVER = """
import os, sys, time
from pathlib import Path
import numpy as np
from genpercept.commands.predict.run import run
from genpercept.imaging.prediction import Prediction

class Slow:
    task = "depth"
    def check_request(self, *request): pass
    def __call__(self, image, **options):
        time.sleep(0.02)
        return [Prediction(np.ones(one.shape[:2]) / 2, "depth_affine") for one in image]

sync = os.fsync
def slow_sync(number):  # long enough that a kill meets files that are half on their way
    time.sleep(float(sys.argv[3]))
    sync(number)
os.fsync = slow_sync
load = lambda model, **options: Slow()
sys.exit(run([sys.argv[1]], Path(sys.argv[2]), formats=["png", "npz"], resume=True, load=load))
"""


def start(photos: Path, out: Path, delay: float = 0.05) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _DRIVER, str(photos), str(out), str(delay)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def wait_for_some(out: Path, process: subprocess.Popen[str], wanted: int = 3) -> None:
    """Until some results are there and another one is being written."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        if len(list(out.glob("*.json"))) >= wanted and list(out.glob(".genpercept-*.tmp")):
            return
        time.sleep(0.001)
    raise AssertionError(f"no results to interrupt: {process.poll()}")


def check_whole(out: Path) -> list[str]:
    """Every file under its own name decodes; the names."""
    found = [p for p in out.iterdir() if not p.name.startswith(".")]
    for path in found:
        if path.suffix == ".npz":
            assert Prediction.load(path).values.shape == (40, 40)
        elif path.suffix == ".png":
            assert np.asarray(Image.open(path)).shape == (40, 40)
        else:
            json.loads(path.read_text())
    return [p.name for p in found]


@pytest.fixture
def many(tmp_path: Path) -> Path:
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(20):
        Image.new("RGB", (40, 40), (i, i, i)).save(folder / f"{i:02d}.png")
    return folder


def test_kill_leaves_no_half_written_file_and_resume_goes_on(many: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(many, out)
    wait_for_some(out, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    done = [n for n in check_whole(out) if n.endswith(".json")]
    assert 3 <= len(done) < 20
    before = {n: (out / n).stat().st_mtime_ns for n in done}
    process = start(many, out, 0)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0 and f"{len(done)} done before" in err
    assert len(check_whole(out)) == 60 and len(list(out.iterdir())) == 60  # nothing temporary is left either
    assert all((out / n).stat().st_mtime_ns == t for n, t in before.items())


def test_ctrl_c_is_clean(many: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(many, out)
    wait_for_some(out, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in err and "--resume" in err and "Traceback" not in err
    names_left = check_whole(out)
    assert len(list(out.iterdir())) == len(names_left) and len(names_left) < 60
