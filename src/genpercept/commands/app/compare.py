"""The tab in which two models of a task, or one at two resolutions, answer side by side."""

from __future__ import annotations

import asyncio
from typing import Any

import gradio as gr

from genpercept.commands.app import pictures
from genpercept.commands.app.desk import OWN, Desk, guarded, resolutions
from genpercept.commands.app.divider import divided
from genpercept.imaging.kinds import KINDS
from genpercept.tasks import TASKS, title_of


class Compare:
    """Controls and results of the comparison, named as a Tab's are."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        tasks = [task for task in desk.offers if KINDS.find(TASKS.find(task).kind).layout != "stack"]
        with gr.Tab("Compare", id="compare", elem_id="tab-compare"):
            gr.HTML('<p class="meaning">Two models of a task, or one model at two resolutions, on one photograph.</p>')
            self.task = gr.Dropdown(
                [(title_of(task), task) for task in tasks], value=tasks[0], label="Task", filterable=False
            )
            with gr.Row():
                self.left = _side(desk, tasks[0], "Left")
                self.right = _side(desk, tasks[0], "Right")
            self.button = gr.Button("Compare", variant="primary", elem_id="predict-compare")
            self.wrong = gr.HTML("", elem_classes="line")
            with gr.Column(visible=False) as self.result:
                self.picture = divided("Left and right", "compare")
                self.facts = gr.HTML("")
        self.task.change(
            self._offered, [self.task], [*self.left, *self.right],
            queue=False, show_progress="hidden", api_visibility="private",
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
        """The models of another task: the first to the left, the last to the right."""
        names = [offer.name for offer in self.desk.offers[task]]
        sides = [names[0], names[-1]]
        return [u for name in sides for u in (gr.update(choices=names, value=name), gr.update())]

    async def compare(
        self, task: str, left: str, left_size: str, right: str, right_size: str, request: gr.Request
    ) -> list[Any]:
        """What the button does."""
        photograph = self.desk.store.photograph(str(request.session_hash))
        if photograph is None:
            raise ValueError("Choose a photograph first: drop one, take one, or pick an example.")
        shown, words = [], []
        for side, name, size in (("Left", left, left_size), ("Right", right, right_size)):
            call = self.desk.call(self.desk.offer(task, name), size, 1)
            answer, seconds = await self.desk.ask(photograph, call)
            shown.append(await asyncio.to_thread(pictures.painted, answer))
            words.append(pictures.facts(answer, seconds, f"{side}: {name}"))
        return [gr.update(visible=True), tuple(shown), "".join(words)]


def _side(desk: Desk, task: str, label: str) -> tuple[gr.Dropdown, gr.Dropdown]:
    """Model and resolution of one side."""
    offers = desk.offers[task]
    offer = offers[0] if label == "Left" else offers[-1]
    with gr.Column(min_width=150):
        model = gr.Dropdown([o.name for o in offers], value=offer.name, label=f"{label}: model", filterable=False)
        choices = resolutions(0)
        size = gr.Dropdown(choices, value=OWN, label=f"{label}: resolution", filterable=False)
    return model, size
