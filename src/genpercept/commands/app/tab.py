"""The tab of a task: what it offers follows from the row of its kind, and from its models."""

from __future__ import annotations

import asyncio
from typing import Any

import gradio as gr

from genpercept.commands.app import files, pictures, same, space
from genpercept.commands.app.cutouts import Cutouts
from genpercept.commands.app.desk import OWN, Desk, guarded, resolutions
from genpercept.commands.app.divider import divided
from genpercept.imaging.kinds import KINDS
from genpercept.tasks import TASKS, title_of

_MOST_RUNS = 10


class Tab:
    """Controls and results of one task. result: the part that is hidden until there is an answer."""

    def __init__(self, desk: Desk, task: str) -> None:
        self.desk, self.task, self.models = desk, task, desk.models(task)
        self.kind = KINDS.find(TASKS.find(task).kind)
        self.draws = any(info.stochastic for info in self.models)
        with gr.Tab(title_of(task), id=task, elem_id=f"tab-{task}"):
            gr.HTML(f'<p class="meaning">{pictures.lead(self.kind)}</p>', padding=False)
            self._controls()
            self.wrong = gr.HTML("", elem_classes="line", padding=False)
            with gr.Column(visible=False) as self.result:
                self._result()
        self._events()

    def _controls(self) -> None:
        first = self.models[0]
        with gr.Row(equal_height=True):
            self.model = gr.Dropdown(
                [info.name for info in self.models], value=first.name, label="Model", filterable=False, min_width=150
            )
            self.resolution = gr.Dropdown(
                resolutions(first.resolution), value=OWN, label="Resolution", filterable=False, min_width=150
            )
            self.runs = gr.Slider(
                1, _MOST_RUNS, value=1, step=1, label="Runs", visible=self.draws, interactive=True, min_width=150
            )
        sharp = self.kind.refine is not None
        with gr.Row(visible=sharp):
            self.tiles = gr.Checkbox(
                label="In tiles", info="Finer, for large photographs; takes longer.", elem_id=f"tiles-{self.task}"
            )
            self.refine = gr.Checkbox(
                label="Refine", info="Brings edges to those of the photograph.", elem_id=f"refine-{self.task}"
            )
        self.button = gr.Button("Predict", variant="primary", elem_id=f"predict-{self.task}")

    def _result(self) -> None:
        if self.kind.layout == "stack":  # several pictures side by side, which no photograph lies under
            self.picture: Any = gr.Image(
                label=title_of(self.task), format="png", interactive=False, buttons=["fullscreen"]
            )
        else:
            self.picture = divided(f"Photograph and {title_of(self.task).lower()}", self.task)
        self.facts = gr.HTML("", padding=False)
        self.cutouts = Cutouts(self.desk, self.task) if self.kind.foreground else None
        self.space = space.Space(self.desk, self.task) if space.can_show(self.kind) else None
        self.doubt = gr.Image(
            label="Where the runs disagree, dark to bright", format="png", interactive=False, visible=False
        )
        gr.HTML("<h2>Downloads</h2>", padding=False)
        self.links = gr.HTML("", padding=False)
        with gr.Accordion("The same by command, and in Python", open=False):
            self.command = gr.Code(label="The same by command", language="shell", **_CODE)
            self.python = gr.Code(label="The same in Python", language="python", **_CODE)

    def _events(self) -> None:
        self.model.change(self._offered, [self.model], [self.resolution, self.runs], **_QUIET)
        outputs = [self.result, self.picture, self.facts, self.doubt, self.links, self.command, self.python]
        asked = self.button.click(
            guarded(len(outputs), self.predict),
            [self.model, self.resolution, self.runs, self.tiles, self.refine],
            [self.wrong, *outputs],
            concurrency_limit=None,
            api_visibility="private",
            show_progress="minimal",
        )
        for part in (self.cutouts, self.space):
            if part is not None:
                part.follow(asked)

    def _offered(self, name: str) -> list[Any]:
        """What another model changes of the controls."""
        info = self.desk.engine.model_for(self.task, name)
        return [gr.update(choices=resolutions(info.resolution)), gr.update(visible=info.stochastic)]

    async def predict(
        self, model: str, resolution: str, runs: int, tiles: bool, refine: bool, request: gr.Request
    ) -> list[Any]:
        """What the button does."""
        page = str(request.session_hash)
        photograph = await self.desk.photograph(page)
        call = self.desk.call(self.task, model, resolution, runs, tiles, refine)
        answer, seconds = await self.desk.ask(photograph, model, call)
        self.desk.store.keep(page, self.task, answer)
        picture = await asyncio.to_thread(pictures.painted, answer)
        doubt = await asyncio.to_thread(pictures.doubt, answer)
        both = picture if self.kind.layout == "stack" else (photograph.preview, picture)
        return [
            gr.update(visible=True),
            both,
            pictures.facts(answer, seconds) + pictures.legend(answer.prediction),
            gr.update(value=doubt, visible=doubt is not None),
            files.links(answer),
            same.command(call, photograph),
            same.python(call, photograph),
        ]


_CODE: dict[str, Any] = {"interactive": False, "wrap_lines": True, "show_line_numbers": False, "lines": 1}
_QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
