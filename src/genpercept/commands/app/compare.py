"""The tab in which two models of a task, or one at two resolutions, answer side by side."""

from __future__ import annotations

import asyncio
from typing import Any

import gradio as gr

from genpercept.commands.app import pictures
from genpercept.commands.app.desk import OWN, RESOLUTIONS, Desk, guarded, resolutions
from genpercept.commands.app.divider import divided
from genpercept.imaging.kinds import KINDS
from genpercept.tasks import TASKS, title_of

_LEAD = '<p class="meaning">Two models of a task, or one model at two resolutions, on one photograph.</p>'


class Compare:
    """Controls and results of the comparison, named as a Tab's are."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        tasks = [task for task in desk.tasks if KINDS.find(TASKS.find(task).kind).layout != "stack"]
        with gr.Tab("Compare", id="compare", elem_id="tab-compare"):
            gr.HTML(
                '<p class="meaning">Two models of a task, or one model at two resolutions, on one photograph.</p>',
                padding=False,
            )
            self.task = gr.Dropdown(
                [(title_of(task), task) for task in tasks], value=tasks[0], label="Task", filterable=False
            )
            with gr.Row():
                self.left = _side(desk, tasks[0], "Left")
                self.right = _side(desk, tasks[0], "Right")
            self.button = gr.Button("Compare", variant="primary", elem_id="predict-compare")
            self.wrong = gr.HTML("", elem_classes="line", padding=False)
            with gr.Column(visible=False) as self.result:
                self.picture = divided("Left and right", "compare")
                self.facts = gr.HTML("", padding=False)
        self.task.change(
            self._offered, [self.task], [*self.left, *self.right],
            show_progress="hidden", api_visibility="private",
        )  # fmt: skip
        self.button.click(
            guarded(3, self.compare),
            [self.task, *self.left, *self.right],
            [self.wrong, self.result, self.picture, self.facts],
            concurrency_limit=None,
            api_visibility="private",
            show_progress="minimal",
        )

    def _offered(self, task: str) -> list[Any]:
        """The models of another task: the first to the left, the last to the right; of a single one, two sizes."""
        names = [info.name for info in self.desk.models(task)]
        right = OWN if len(names) > 1 else str(RESOLUTIONS[0])
        return [
            gr.update(choices=names, value=names[0]),
            gr.update(value=OWN),
            gr.update(choices=names, value=names[-1]),
            gr.update(value=right),
        ]

    async def compare(
        self, task: str, left: str, left_size: str, right: str, right_size: str, request: gr.Request
    ) -> list[Any]:
        """What the button does."""
        photograph = await self.desk.photograph(str(request.session_hash))
        shown, words = [], []
        for side, name, size in (("Left", left, left_size), ("Right", right, right_size)):
            answer, seconds = await self.desk.ask(photograph, name, self.desk.call(task, name, size))
            shown.append(await asyncio.to_thread(pictures.painted, answer))
            words.append(pictures.facts(answer, seconds, f"{side}: {name}"))
        return [gr.update(visible=True), tuple(shown), "".join(words)]


def _side(desk: Desk, task: str, label: str) -> tuple[gr.Dropdown, gr.Dropdown]:
    """Model and resolution of one side."""
    names = [info.name for info in desk.models(task)]
    chosen = names[0] if label == "Left" else names[-1]
    with gr.Column(min_width=150):
        model = gr.Dropdown(names, value=chosen, label=f"{label}: model", filterable=False)
        # Of a single model two sizes are compared: one answer twice would say nothing.
        size = str(RESOLUTIONS[0]) if label == "Right" and len(names) == 1 else OWN
        sizes = gr.Dropdown(resolutions(0), value=size, label=f"{label}: resolution", filterable=False)
    return model, sizes
