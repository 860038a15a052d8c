"""The tab of films: a clip in, its answers as a film out. A process of its own works on it, as the command would."""

from __future__ import annotations

import asyncio
import html
import logging
import re
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gradio as gr

from genpercept.commands.app import same
from genpercept.commands.app.desk import OWN, Desk, wrong
from genpercept.core.texts import one_line
from genpercept.imaging.kinds import KINDS
from genpercept.tasks import TASKS, title_of

_log = logging.getLogger("genpercept.app")
_LEAD = (
    '<p class="meaning">Every frame of a film, brought to one range and smoothed along the motion. Up to 32 MiB.</p>'
)
_SECONDS = 3600  # after which a film is given up
_DONE = re.compile(r"(\d+)/(\d+|\?) frames")
_ERROR = "genpercept: error: "


def can_show() -> bool:
    """Whether the packages that read, write and follow films are there."""
    return find_spec("av") is not None and find_spec("cv2") is not None


class Films:
    """Controls and result of the tab."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self._one = desk, asyncio.Lock()
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
        """What the button does: lines of progress, and in the end the film."""
        hidden, nothing = gr.update(visible=False), gr.skip()
        try:
            source = _file(film)
            yield ["", _line("Waiting for another film." if self._one.locked() else "Begun."), hidden, ""]
            target = Path(self.answer.GRADIO_CACHE) / f"{secrets.token_urlsafe(24)}.mp4"
            async with self._one:
                async for line in self._run(source, target, task, smooth, beside):
                    yield ["", _line(line), nothing, nothing]
            yield ["", "", gr.update(visible=True), str(target)]
        except ValueError as error:
            yield [wrong(one_line(error)), "", hidden, ""]
        except Exception:  # noqa: BLE001  told in the log; the visitor can do nothing about it
            _log.exception("a film failed")
            yield [wrong("This failed inside the program; its log says more."), "", hidden, ""]

    async def _run(self, source: Path, target: Path, task: str, smooth: bool, beside: bool) -> AsyncIterator[str]:
        """Lines of progress of the command. ValueError with its own error; it ends with whoever asked for it."""
        info = self.desk.engine.model_for(task)
        words = self.words(source, target, task, info.name, smooth, beside)
        process = await asyncio.create_subprocess_exec(
            *words, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        assert process.stderr is not None
        last = ""
        try:
            async with asyncio.timeout(_SECONDS):
                while piece := await process.stderr.read(4096):
                    for line in re.split(r"[\r\n]+", piece.decode("utf-8", "replace")):
                        last = line if line.startswith(_ERROR) else last
                        if found := _DONE.search(line):
                            yield f"{found[1]} of {found[2]} frames"
                code = await process.wait()
        except TimeoutError:
            raise ValueError(f"the film takes more than {_SECONDS // 60} minutes: give a shorter one") from None
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            target.with_suffix(".json").unlink(missing_ok=True)
        if code or not target.is_file():
            why = last.removeprefix(_ERROR).replace(str(source), "the film")
            raise ValueError(why or "the film could not be predicted; the program's log says more")

    def words(self, source: Path, target: Path, task: str, model: str, smooth: bool, beside: bool) -> list[str]:
        """The command that does it."""
        call = self.desk.call(task, model, OWN)
        words = [
            sys.executable,
            "-m",
            "genpercept",
            "predict",
            str(source),
            "--model",
            call.model,
            "--out",
            str(target),
        ]
        for name, value in call.options.items():
            words += same.flag(name, value)
        return [*words, *(["--smooth=0.8"] if smooth else []), *(["--side-by-side"] if beside else [])]


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
