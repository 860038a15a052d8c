"""The answer in space: a mesh with the photograph on it, which turns under the pointer; in metres where distances are known."""

from __future__ import annotations

import asyncio
import html
import math
import secrets
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from genpercept.commands.app import files
from genpercept.commands.app.desk import Desk, guarded
from genpercept.commands.app.store import Answer
from genpercept.imaging import known, metric, points, write
from genpercept.imaging.camera import DEFAULT_FOV, Camera
from genpercept.imaging.kinds import KINDS, Kind
from genpercept.imaging.prediction import Prediction

_VERTICES = 150_000  # of what is shown: a phone turns them, too; downloads have more
_FOVS = (10, 120)  # degrees


def can_show(kind: Kind) -> bool:
    """Whether answers of this kind lie in space, and the package that writes them is there."""
    return kind.distance is not None and find_spec("trimesh") is not None


class Space:
    """Controls and mesh in the tab of a task."""

    def __init__(self, desk: Desk, task: str) -> None:
        self.desk, self.task = desk, task
        gr.HTML("<h2>In space</h2>", padding=False)
        with gr.Row(equal_height=True):
            self.fov = gr.Slider(
                *_FOVS, value=DEFAULT_FOV, step=1, label="Horizontal field of view, degrees", interactive=True,
                elem_id=f"fov-{task}",
            )  # fmt: skip
            self.known = gr.Textbox(
                label="Known distances", info="x, y (pixels), metres; one point a line. Lengths are metres then.",
                placeholder="320, 240, 2.5", lines=2, max_lines=6, elem_id=f"known-{task}",
            )  # fmt: skip
        self.button = gr.Button("Show in space", elem_id=f"space-{task}")
        self.wrong = gr.HTML("", elem_classes="line", padding=False)
        with gr.Column(visible=False) as self.result:
            self.model = gr.Model3D(
                label="Drag to turn, scroll to come nearer", height=420, clear_color=(0.5, 0.5, 0.5, 0.0),
                interactive=False, elem_id=f"model-{task}",
            )  # fmt: skip
            self.facts = gr.HTML("", padding=False)
            self.links = gr.HTML("", padding=False)

    def follow(self, asked: Any) -> None:
        """A new answer hides the mesh of the one before, and sets the field of view to what its EXIF says."""
        how: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        asked.then(guarded(2, self.begin), None, [self.wrong, self.result, self.fov], **how)
        outputs = [self.wrong, self.result, self.facts, self.links]
        shown = self.button.click(
            guarded(3, self.show), [self.fov, self.known], outputs, api_visibility="private", show_progress="minimal"
        )
        # Not with the rest: gradio draws no model whose place becomes visible by the same answer.
        shown.success(guarded(1, self.mesh), None, [self.wrong, self.model], **how)

    async def begin(self, request: gr.Request) -> list[Any]:
        """Of a new answer."""
        answer = self.desk.store.answer(str(request.session_hash), self.task)
        told = None if answer is None else answer.prediction.meta.get("camera")
        fov = DEFAULT_FOV if told is None else Camera.of_meta(told).fov
        return [gr.update(visible=False), gr.update(value=round(min(max(fov, _FOVS[0]), _FOVS[1])))]

    async def show(self, fov: float, distances: str, request: gr.Request) -> list[Any]:
        """What the button does. ValueError before there is an answer, and for distances that tell no scale."""
        page = str(request.session_hash)
        answer = self.desk.store.answer(page, self.task)
        if answer is None:
            raise ValueError("press Predict first: there is no answer yet")
        placed = replace(
            answer,
            prediction=await asyncio.to_thread(in_space, answer.prediction, fov, distances),
            token=secrets.token_urlsafe(24),
        )
        self.desk.store.keep(page, self._place, placed)
        await asyncio.to_thread(_write, placed, self._path(placed))
        links = files.links(placed, spatial=not KINDS[placed.prediction.kind].metric)  # the rest is below already
        return [gr.update(visible=True), _facts(placed.prediction), links]

    async def mesh(self, request: gr.Request) -> list[Any]:
        """The file that `show` has written, seen from near its camera; the one before, where that had no answer."""
        placed = self.desk.store.answer(str(request.session_hash), self._place)
        if placed is None:
            return [None]
        return [gr.update(value=str(self._path(placed)), camera_position=seen_from(placed.prediction))]

    @property
    def _place(self) -> str:
        """What the store calls the answer that is shown."""
        return f"{self.task} in space"

    def _path(self, answer: Answer) -> Path:
        return Path(self.model.GRADIO_CACHE) / f"{answer.token}.glb"


def in_space(prediction: Prediction, fov: float, distances: str) -> Prediction:
    """The answer with its camera, and in metres where there are known distances. ValueError as `Prediction.fit` has it."""
    camera = Camera.of_fov(float(fov), prediction.size)
    told = prediction.told({**prediction.meta, "camera": camera.to_meta()})
    if not distances.strip():
        return told
    return told.fit(known.of_text(distances, prediction.size, what="known distances"))


def seen_from(prediction: Prediction) -> tuple[float, float, float]:
    """A little behind the camera, as the page has it: two angles in degrees, and how far from the middle of the mesh's box.

    Left to itself the page stands so far away, and so high, that what is near is small, and beside it is its shadow, where
    nothing is.
    """
    places = prediction.points()
    places = places[np.isfinite(places).all(-1)]
    x, y, z = points.BEHIND * np.array([0, 0, -np.median(places[:, 2])]) - (places.min(0) + places.max(0)) / 2
    radius = math.hypot(x, y, z)
    return math.degrees(math.atan2(z, x)), math.degrees(math.acos(y / radius)), radius


def _write(answer: Answer, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scene = write.Scene(answer.photograph.image, vertices=_VERTICES)
    write.FORMATS["glb"].write(path, answer.prediction, scene)


def _facts(prediction: Prediction) -> str:
    """HTML: what lengths are, and how well the known distances agree."""
    fit = prediction.meta.get("fit")
    if not KINDS[prediction.kind].metric or fit is None:
        words = "The shape up to scale and shift: its lengths are no metres, and how deep it is is assumed."
    else:
        words = f"In metres: {metric.words(fit)}."
    return f'<p class="facts">{html.escape(words)}</p>'
