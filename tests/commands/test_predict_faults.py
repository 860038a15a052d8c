"""Faults stay where they arise: one image's is its own, a lost disk stops the run at once, Ctrl-C does as it is told."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genpercept.commands.predict import stream
from genpercept.commands.predict.run import Machine, run
from genpercept.imaging import write
from tests.support.paths import ROOT
from tests.support.red import Red, picture, tree


def errors(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("genpercept: error:")]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for i in range(12):
        picture(tmp_path / f"in/{i:02d}.png", 10 * i)
    return tmp_path / "in"


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize(
    "error", [RuntimeError("a decoder's"), AssertionError(), KeyError("x"), RecursionError("deep")]
)
def test_whatever_one_image_raises_the_others_are_done(
    photos: Path,
    tmp_path: Path,
    error: Exception,
    batch_size: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In the reader, the network and the writer: the first two images, and one in the middle of each."""
    real = stream.read_photograph

    def read(path: Path) -> np.ndarray:
        if path.stem in ("00", "06"):
            raise error
        return real(path)

    def network(image: np.ndarray) -> None:
        if image[0, 0, 0] in (10, 70):
            raise error

    monkeypatch.setattr(stream, "read_photograph", read)
    kind = write.FORMATS["npy"]

    def save(path: Path, result: Any, scene: Any) -> write.Digest:
        if path.name == "08_depth.npy":
            raise error
        return kind.write(path, result, scene)

    monkeypatch.setitem(write.FORMATS, "npy", write.Format(kind.suffix, save))
    model, machine = Red(network), Machine("cpu", batch_size)
    assert run([photos], tmp_path / "o", formats=["npy"], machine=machine, load=model.load, debug=True) == 1
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if line.startswith("genpercept: error:")]
    bad = ("00", "01", "06", "07", "08")
    assert [any(f"{stem}.png: {type(error).__name__}" in line for line in lines) for stem in bad] == [True] * 5
    assert len(lines) == 5 and said.count("Traceback (most recent call last)") >= 5
    done = [f"{i:02d}_depth" for i in range(12) if f"{i:02d}" not in bad]
    assert tree(tmp_path / "o") == [f"{stem}.{s}" for stem in done for s in ("json", "npy")]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_lost_disk_stops_the_run_at_once_in_one_line(
    photos: Path, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, model, out = os.fsync, Red(lambda image: time.sleep(0.02)), tmp_path / "o"

    def sync(descriptor: int) -> None:
        if len(list(out.glob("*.npy"))) >= 3:
            raise OSError(number, os.strerror(number), str(out / ".genpercept-x.tmp"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    assert run([photos], out, formats=["npy"], machine=Machine("cpu"), load=model.load) == 1
    (line,) = errors(capsys)
    whole = len(list(out.glob("*.json")))
    assert line.startswith(f"genpercept: error: --out {out}: ") and ".tmp" not in line
    assert f"; {whole} images are done and whole: " in line and "then --resume goes on with the rest" in line
    assert model.seen < 12 and not list(out.glob(".*"))
    monkeypatch.undo()
    assert run([photos], out, formats=["npy"], machine=Machine("cpu"), load=model.load, resume=True) == 0
    assert len(tree(out)) == 24


def test_a_folder_that_is_gone_stops_the_run(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "o"

    def remove(image: np.ndarray) -> None:
        if image[0, 0, 0] == 50:
            out.rename(tmp_path / "elsewhere")

    model = Red(remove)
    assert run([photos], out, formats=["npy"], machine=Machine("cpu"), load=model.load) == 1
    (line,) = errors(capsys)
    assert f"--out {out}: is no longer there; " in line and model.seen < 12 and not out.exists()


@pytest.mark.parametrize("formats", [["png", "color"], ["npy"], ["npz"], ["exr"], ["ply"]])
def test_a_disk_that_is_really_full(tmp_path: Path, formats: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A tmpfs of 300 kB, where this may be mounted."""
    out = tmp_path / "small"
    out.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", out], check=False, stderr=-3).returncode:
        pytest.skip("may not mount")
    try:
        rng = np.random.default_rng(0)
        from PIL import Image

        for i in range(8):
            (tmp_path / "in").mkdir(exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (160, 160, 3), np.uint8)).save(tmp_path / f"in/{i}.png")
        code = run([tmp_path / "in"], out, formats=formats, machine=Machine("cpu"), load=Red().load)
        (line,) = errors(capsys)
        assert code in (1, 2) and "no space is left on its disk; " in line and not list(out.glob(".genpercept*"))
    finally:
        subprocess.run(["umount", "-l", out], check=True)


# ---- signals, in a process of its own

_DRIVER = """
import os, sys, threading, time
from pathlib import Path
from genpercept.commands.predict import stream
from genpercept.commands.predict.run import Machine, run
from tests.support.red import Red

where, photos, out = sys.argv[1:4]
real = stream.read_photograph
def read(path):
    if where == "reader" and path.stem == "02":
        print("hangs", flush=True); threading.Event().wait()
    return real(path)
stream.read_photograph = read
def before(image):
    if where == "network" and image[0, 0, 0] == 20:
        print("hangs", flush=True); threading.Event().wait()
    if where == "slow":
        print("computes", flush=True); time.sleep(0.3)
def load(model, **options):
    if where == "load":
        import ctypes; lock, mutex = ctypes.CDLL(None).pthread_mutex_lock, ctypes.create_string_buffer(64)
        lock(mutex); print("hangs", flush=True); lock(mutex)  # the main thread, deep in a library
    return Red(before)
sys.exit(run([photos], Path(out), formats=["npy"], machine=Machine("cpu"), load=load, resume=True))
"""


def start(where: str, photos: Path, out: Path) -> subprocess.Popen[str]:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    child = subprocess.Popen(
        [sys.executable, "-c", _DRIVER, where, str(photos), str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
    )
    assert child.stdout is not None and child.stdout.readline().strip() in ("hangs", "computes")
    return child


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_once_what_is_in_hand_is_finished(photos: Path, tmp_path: Path, sent: signal.Signals, code: int) -> None:
    out = tmp_path / "o"
    child = start("slow", photos, out)
    child.send_signal(sent)
    _, err = child.communicate(timeout=100)
    assert child.returncode == code and "Traceback" not in err
    assert "what is in hand is finished" in err and "interrupted; 1 images are done and whole" in err
    assert tree(out) == ["00_depth.json", "00_depth.npy"]


def test_a_reader_that_hangs_is_not_waited_for(photos: Path, tmp_path: Path) -> None:
    child = start("reader", photos, tmp_path / "o")
    time.sleep(1)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130 and re.search(r"interrupted; [0-2] images are done and whole", err)
    assert not [name for name in tree(tmp_path / "o") if name.startswith(".")]


@pytest.mark.parametrize("where", ["network", "load"])
def test_twice_leaves_whatever_hangs(where: str, photos: Path, tmp_path: Path) -> None:
    child = start(where, photos, tmp_path / "o")
    time.sleep(0.5)
    child.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert child.poll() is None
    begin = time.monotonic()
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=60)
    assert child.returncode == 130 and time.monotonic() - begin < 10  # two seconds where the machine has time
    assert not [name for name in tree(tmp_path / "o") if name.startswith(".")]


def test_a_process_ends_with_its_launcher(tmp_path: Path) -> None:
    code = (
        "import os, subprocess, sys\n"
        "inner = 'from genpercept.core.workers import end_with_launcher as e; import time; e();"
        ' print("up", flush=True); time.sleep(600)\'\n'
        "child = subprocess.Popen([sys.executable, '-c', inner], env={**os.environ, 'TORCHELASTIC_RUN_ID': 'x'})\n"
        "print(child.pid, flush=True); child.wait()"
    )
    launcher = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert launcher.stdout is not None
    said = {launcher.stdout.readline().strip() for _ in range(2)}
    launcher.kill()
    launcher.communicate(timeout=60)  # its end of the pipe closes with the child
    (pid,) = (int(word) for word in said if word != "up")
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1][:3]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
