"""`genpercept predict --show`: predictions of distance in space, in a browser on this machine (viser), until Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from genpercept.core.extras import require
from genpercept.core.said import say
from genpercept.imaging import glb, mesh, points, write
from genpercept.imaging.camera import Camera
from genpercept.imaging.mesh import Mesh
from genpercept.imaging.prediction import Prediction

HOST, PORT = "127.0.0.1", 8080  # the port, or the next one that is free
_VERTICES = 150_000  # of each image: quick to send, smooth to turn
_WAYS = ("mesh", "points")


@dataclass(frozen=True)
class Shown:
    """An image in space. rgb (H, W, 3) uint8."""

    mesh: Mesh
    rgb: np.ndarray
    words: str
    camera: Camera

    @property
    def colours(self) -> np.ndarray:
        """(N, 3) uint8, of the mesh's vertices."""
        columns, rows = self.mesh.places.astype(np.intp).T
        return self.rgb[rows, columns]

    @property
    def middle(self) -> float:
        """Median distance of the vertices."""
        return float(np.median(-self.mesh.vertices[:, 2]))

    @property
    def farthest(self) -> float:
        """Distance of the farthest vertex."""
        return float(-self.mesh.vertices[:, 2].min())


@dataclass
class Gallery:
    """What was predicted, in order of its names; several threads may add."""

    shown: dict[str, Shown] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """ModuleNotFoundError where a package is missing, before any work is done for nothing."""
        require("show")
        require("mesh")

    def add(self, name: str, prediction: Prediction, image: np.ndarray) -> None:
        distances, camera = points.of(prediction), points.camera_of(prediction)
        try:
            grid = mesh.grid_mesh(distances.z, camera, vertices=_VERTICES, gap=mesh.step_width(prediction))
        except ValueError as error:  # its files are as they should be
            say(f"genpercept: {name} is not shown: {error}")
            return
        one = Shown(grid, write.rgb_of(prediction, image), distances.words, camera)
        with self._lock:
            more = sum(other.partition(", ")[0] == name for other in self.shown)  # of other folders
            self.shown[f"{name}, {more + 1}" if more else name] = one


def serve(gallery: Gallery, stop: threading.Event | None = None) -> None:
    """Show them until Ctrl-C, SIGTERM, or `stop` is set. Nothing to show, nothing is done."""
    if not gallery.shown:
        return
    ended = stop or threading.Event()
    # viser greets there, and tells of its visitors, where results alone belong
    with _Signals(ended), Path(os.devnull).open("w") as nothing, redirect_stdout(nothing):
        server = _Viewer(gallery).server
        try:
            count = f"{len(gallery.shown)} images" if len(gallery.shown) > 1 else "1 image"
            say(f"genpercept: {count} in space at http://{HOST}:{server.get_port()}; Ctrl-C ends it")
            while not ended.wait(0.2):
                pass
        finally:
            server.stop()


class _Signals:
    """While it is entered, in the main thread, Ctrl-C and SIGTERM set an event."""

    def __init__(self, event: threading.Event) -> None:
        self._event, self._before = event, dict[int, Any]()

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before = {n: signal.signal(n, self._end) for n in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._event.set()


class _Viewer:
    """A page with one image in space: which one, and how it is drawn, says a list each."""

    def __init__(self, gallery: Gallery) -> None:
        import viser

        self._shown = dict(sorted(gallery.shown.items()))
        self._shape: Any = None
        self._drawn: tuple[str, str] | None = None
        self._drawing = threading.Lock()  # viser answers each visitor's choice in a thread of its own
        self.server = viser.ViserServer(host=HOST, port=PORT, label="GenPercept", verbose=False)
        self.server.scene.set_up_direction("+y")
        names = list(self._shown)
        self._which = self.server.gui.add_dropdown("image", names, initial_value=names[0], visible=len(names) > 1)
        self._way = self.server.gui.add_dropdown("as", _WAYS, initial_value=_WAYS[0])
        self._words = self.server.gui.add_markdown("")
        self._which.on_update(lambda _: self._draw(move=True))
        self._way.on_update(lambda _: self._draw())
        self._draw(move=True)

    def _draw(self, move: bool = False) -> None:
        """The chosen image in the chosen way; move: with the viewer near its camera, too."""
        with self._drawing:  # what was chosen last is read, and drawn, last
            chosen = (self._which.value, self._way.value)
            one = self._shown[chosen[0]]
            if chosen != self._drawn:
                if self._shape is not None:
                    self._shape.remove()
                self._words.content = f"{one.words}; {one.camera.words}"
                self._shape = self._mesh(one) if chosen[1] == _WAYS[0] else self._points(one)
                self._drawn = chosen
            if move:
                clients = [client.camera for client in self.server.get_clients().values()]
                for camera in (self.server.initial_camera, *clients):
                    camera.position, camera.look_at = (0.0, 0.0, points.BEHIND * one.middle), (0.0, 0.0, -one.middle)
                    camera.fov = 2 * np.arctan(one.camera.size[0] / 2 / one.camera.focal[1])  # the vertical one
                    camera.near, camera.far = one.middle / 100, 10 * one.farthest

    def _mesh(self, one: Shown) -> Any:
        return self.server.scene.add_glb("/shape", glb.glb_bytes(one.mesh, one.rgb, one.words, one.camera))

    def _points(self, one: Shown) -> Any:
        """A cloud for each octave of distance, with points as large as a pixel is at its end: viser has one size a cloud."""
        octaves = np.floor(np.log2(-one.mesh.vertices[:, 2])).astype(int)
        shape = self.server.scene.add_frame("/shape", show_axes=False)  # with which all of them go
        for octave in np.unique(octaves):
            there = octaves == octave
            half = (
                2.0**octave * one.mesh.stride / one.camera.focal[0]
            )  # viser draws points twice as large as it is told
            self.server.scene.add_point_cloud(
                f"/shape/{octave}",
                one.mesh.vertices[there],
                one.colours[there],
                point_size=half,
                precision="float32",  # 16 bits are 3 cm at 50 m
            )
        return shape
