"""The cut-out of a foreground, on a background that the visitor chooses."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import gradio as gr
from PIL import Image

from genpercept.commands.app import pictures
from genpercept.commands.app.desk import Desk, guarded
from genpercept.commands.app.uploads import content, upload

_TRANSPARENT, _COLOUR, _PHOTOGRAPH = "Transparent", "A colour", "Another photograph"


class Cutouts:
    """Controls and picture of the cut-out in the tab of a task."""

    def __init__(self, desk: Desk, task: str) -> None:
        self.desk, self.task = desk, task
        self._lock = asyncio.Lock()
        gr.HTML("<h2>Cut-out</h2>", padding=False)
        with gr.Row():
            self.background = gr.Radio(
                [_TRANSPARENT, _COLOUR, _PHOTOGRAPH], value=_TRANSPARENT, label="Background", elem_id=f"behind-{task}"
            )
            self.colour = gr.ColorPicker("#2458c5", label="Colour", visible=False)
        self.other = upload(label="Photograph behind it", visible=False, height=200, elem_id=f"other-{task}")
        self.wrong = gr.HTML("", elem_classes="line", padding=False)
        self.picture = gr.Image(
            label="Cut-out", format="png", interactive=False, image_mode=None, elem_classes="checked",
            elem_id=f"cutout-{task}", buttons=["download", "fullscreen"],
        )  # fmt: skip

    def follow(self, asked: Any) -> None:
        """Cut out after each answer, and whenever another background is chosen."""
        inputs, outputs = [self.background, self.colour, self.other], [self.wrong, self.picture]
        how: dict[str, Any] = {"preprocess": False, "api_visibility": "private", "show_progress_on": self.picture}
        show = guarded(1, self.show)
        asked.then(show, inputs, outputs, **how)
        for control in (self.background.input, self.colour.change, self.other.upload):
            control(show, inputs, outputs, trigger_mode="always_last", **how)
        self.background.input(
            lambda chosen: [gr.update(visible=chosen == _COLOUR), gr.update(visible=chosen == _PHOTOGRAPH)],
            [self.background],
            [self.colour, self.other],
            show_progress="hidden",
            api_visibility="private",
        )

    async def show(self, chosen: str, colour: str, other: Any, request: gr.Request) -> list[Any]:
        """The cut-out on what is chosen; nothing before there is an answer."""
        foreground = await self._foreground(str(request.session_hash))
        if foreground is None:
            return [None]
        background: Image.Image | str | None = None
        if chosen == _COLOUR:
            background = colour
        elif chosen == _PHOTOGRAPH and other is not None:
            pixels = await self.desk.decode(content(other))
            background = pictures.preview(pixels) if max(pixels.shape) > 2 * pictures.EDGE else Image.fromarray(pixels)
        return [await asyncio.to_thread(pictures.behind, foreground, background)]

    async def _foreground(self, page: str) -> Image.Image | None:
        """Of the newest answer, estimated once."""
        async with self._lock:
            answer = self.desk.store.answer(page, self.task)
            if answer is None:
                return None
            if answer.cut is None:
                answer = replace(answer, cut=await asyncio.to_thread(pictures.cut, answer))
                self.desk.store.keep(page, self.task, answer)
            return answer.cut
