"""The tab of films: a clip in, its answers as a film out. A process of its own works on it, in the server's queue of films."""

from __future__ import annotations

import asyncio
import html
import logging
import shutil
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gradio as gr

from genpercept.commands.app.desk import Desk, wrong
from genpercept.commands.serve import film_orders
from genpercept.commands.serve.film_jobs import QUEUED, Job
from genpercept.commands.serve.limits import FilmAsked
from genpercept.core.texts import one_line
from genpercept.imaging.kinds import KINDS
from genpercept.tasks import TASKS, title_of

_log = logging.getLogger("genpercept.app")
_LEAD = (
    '<p class="meaning">Every frame of a film, brought to one range and smoothed along the motion. Up to 32 MiB.</p>'
)
_SMOOTH = 0.8  # as `--smooth` without a number
_LOOK_SECONDS = 0.3  # between two lines of progress: a page that was closed is noticed at the next one


def can_show() -> bool:
    """Whether the packages that read, write and follow films are there."""
    return find_spec("av") is not None and find_spec("cv2") is not None


class Films:
    """Controls and result of the tab."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        tasks = [task for task in desk.tasks if KINDS.find(TASKS.find(task).kind).layout == "map"]
        with gr.Tab("Film", id="film", elem_id="tab-film"):
            gr.HTML(_LEAD, padding=False)
            self.film = gr.Video(label="Film", sources=["upload"], height=300, elem_id="film")
            with gr.Row(equal_height=True):
                self.task = gr.Dropdown(
                    [(title_of(task), task) for task in tasks], value=tasks[0], label="Task", filterable=False
                )
                self.smooth = gr.Checkbox(True, label="Smooth", info="Less flicker.")
                self.beside = gr.Checkbox(False, label="Side by side", info="The film beside its answer.")
            self.button = gr.Button("Predict", variant="primary", elem_id="predict-film")
            self.wrong = gr.HTML("", elem_classes="line", padding=False)
            self.progress = gr.HTML("", padding=False, elem_id="film-progress")
            with gr.Column(visible=False) as self.result:
                self.answer = gr.Video(label="Answer", interactive=False, height=420, elem_id="film-answer")
        self._path = gr.State("")
        asked = self.button.click(
            self.predict,
            [self.film, self.task, self.smooth, self.beside],
            [self.wrong, self.progress, self.result, self._path],
            preprocess=False,
            concurrency_limit=None,
            api_visibility="private",
            show_progress="hidden",
        )
        # Not with the rest: gradio draws nothing whose place becomes visible by the same answer.
        asked.then(
            lambda path: path or None, [self._path], [self.answer], api_visibility="private", show_progress="hidden"
        )

    async def predict(self, film: Any, task: str, smooth: bool, beside: bool) -> AsyncIterator[list[Any]]:
        """What the button does: lines of progress, and in the end the film. Closed before that, it ends the film's process."""
        hidden, nothing = gr.update(visible=False), gr.skip()
        try:
            source = _file(film)
            yield ["", _line("Begun."), hidden, ""]
            films = self.desk.engine.films
            job = await asyncio.to_thread(self._begun, source, task, smooth, beside)
            try:
                while not job.over:
                    await asyncio.sleep(_LOOK_SECONDS)
                    yield ["", _line(_said(job)), nothing, nothing]
                target = self._kept(job)
            finally:
                await asyncio.to_thread(films.remove, job)
            yield [wrong(job.damage) if job.damage else "", "", gr.update(visible=True), str(target)]
        except ValueError as error:
            yield [wrong(one_line(error)), "", hidden, ""]
        except Exception:  # noqa: BLE001  told in the log; the visitor can do nothing about it
            _log.exception("a film failed")
            yield [wrong("This failed inside the program; its log says more."), "", hidden, ""]

    def _begun(self, source: Path, task: str, smooth: bool, beside: bool) -> Job:
        """In the queue. ValueError for what is no film, or too much of one."""
        engine = self.desk.engine
        asked = FilmAsked(smooth=_SMOOTH if smooth else 0.0, side_by_side=beside)
        with engine.films.arriving(source=source) as job:
            film_orders.order(engine, job, engine.model_for(task).name, asked)
            return job

    def _kept(self, job: Job) -> Path:
        """The film, moved to where the page may have it. ValueError where there is none."""
        found = next(iter(job.results.values()), None)
        if found is None:
            raise ValueError(job.error or "the film was cancelled: the program is ending")
        target = Path(self.answer.GRADIO_CACHE) / f"{job.id}.mp4"
        shutil.move(found, target)
        return target


def _said(job: Job) -> str:
    if job.state == QUEUED:
        return "Waiting for another film."
    return f"{job.done} of {'?' if job.total is None else job.total} frames"


def _file(value: Any) -> Path:
    """The file that a browser has sent (as gradio describes it without preprocessing). ValueError where there is none."""
    found = value.get("video", value) if isinstance(value, dict) else None
    path = found.get("path") if isinstance(found, dict) else None
    if path is None:
        raise ValueError("choose a film first")
    if not Path(path).is_file():
        raise ValueError("the film is no longer there: choose it again")
    return Path(path)


def _line(text: str) -> str:
    return f'<p class="facts" role="status">{html.escape(text)}</p>'
