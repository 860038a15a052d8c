"""`predict --show`: what it refuses, what it has, and its server until it is stopped."""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genpercept.commands.predict.request import Request
from genpercept.commands.predict.run import run_and_show
from genpercept.imaging.prediction import Prediction
from tests.support.ramps import metres_of, never, ramp, save


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
