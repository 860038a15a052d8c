"""The page: one photograph, and beside it a tab for each task."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from genpercept.commands.app import films
from genpercept.commands.app.compare import Compare
from genpercept.commands.app.desk import Desk, guarded
from genpercept.commands.app.examples import examples
from genpercept.commands.app.pictures import preview
from genpercept.commands.app.store import KEPT_SECONDS, Photograph
from genpercept.commands.app.tab import Tab
from genpercept.commands.app.uploads import content, name_of, upload

_TITLE = """<h1>GenPercept</h1>
<p>Depth, normals, cut-outs and more from one photograph. It stays on the machine that runs this page.</p>"""

_FILE_SECONDS = 10  # in which a browser shows the file that it has sent


class Page:
    """Builds `blocks`, gradio's description of the page."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.examples = desk, examples()
        with gr.Blocks(title="GenPercept", analytics_enabled=False, delete_cache=(60, KEPT_SECONDS)) as self.blocks:
            gr.HTML(_TITLE, elem_id="title", padding=False)
            with gr.Row():
                with gr.Column(scale=2, min_width=320):
                    self._photograph()
                with gr.Column(scale=3, min_width=320), gr.Tabs(elem_id="tasks", overflow_behavior="wrap"):
                    self.tabs: list[Tab | Compare] = [Tab(desk, task) for task in desk.tasks]
                    self.tabs.append(Compare(desk))
                    if films.can_show():
                        films.Films(desk)
            self._credits()
            self._events()

    def _photograph(self) -> None:
        self.photograph = upload(label="Photograph", elem_id="photograph", height=360)
        self.wrong = gr.HTML("", elem_classes="line", padding=False)
        if self.examples:
            self.gallery = gr.Gallery(
                [(example.photograph.preview, example.photograph.stem) for example in self.examples],
                label="Examples", columns=4, height="auto", allow_preview=False, interactive=False, buttons=[],
                format="webp", object_fit="cover", elem_id="examples",
            )  # fmt: skip

    def _credits(self) -> None:
        """Whose the examples are."""
        if self.examples:
            whose = "; ".join(f"{example.photograph.stem}: {example.credit}" for example in self.examples)
            gr.HTML(f'<p class="credits">Examples: {whose}.</p>', padding=False)

    def _events(self) -> None:
        results = [self.photograph, *(part for tab in self.tabs for part in (tab.result, tab.wrong))]
        outputs = [self.wrong, *results]
        how: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal"}
        given = guarded(len(results), self.given, [None, *self._hidden()])
        # Not `input`: gradio fires it with the old picture when one is taken away.
        self.photograph.upload(given, [self.photograph], outputs, preprocess=False, **how)
        self.photograph.clear(guarded(len(results), self.none), None, outputs, **how)
        if self.examples:
            self.gallery.select(guarded(len(results), self.example), None, outputs, **how)
            self.blocks.load(guarded(len(results), self.first), None, outputs, **how)
        self.blocks.unload(self.left)

    async def given(self, value: Any, request: gr.Request) -> list[Any]:
        """A photograph of the visitor's. Its file goes when the browser, too, has read it."""
        with self.desk.arrival(str(request.session_hash)):
            self.desk.store.choose(str(request.session_hash), None)
            data = content(value)
            asyncio.get_running_loop().call_later(_FILE_SECONDS, partial(Path(value["path"]).unlink, missing_ok=True))
            image = await self.desk.decode(data)
            shown = await asyncio.to_thread(preview, image)
            return self._chosen(Photograph(name_of(value), data, image, shown), request)

    async def none(self, request: gr.Request) -> list[Any]:
        """No photograph any more."""
        return self._chosen(None, request)

    async def example(self, event: gr.SelectData, request: gr.Request) -> list[Any]:
        """One of the package's own."""
        return self._chosen(self.examples[int(event.index)].photograph, request)

    async def first(self, request: gr.Request) -> list[Any]:
        """A page that opens has a photograph already."""
        return self._chosen(self.examples[0].photograph, request)

    def left(self, request: gr.Request) -> None:
        """The visitor has closed the page."""
        self.desk.store.forget(str(request.session_hash))

    def _chosen(self, photograph: Photograph | None, request: gr.Request) -> list[Any]:
        """Keeps it, shows it, and hides the answers to the one before."""
        self.desk.store.choose(str(request.session_hash), photograph)
        return [None if photograph is None else photograph.preview, *self._hidden()]

    def _hidden(self) -> list[Any]:
        """No answers, and nothing wrong with them."""
        return [part for _ in self.tabs for part in (gr.update(visible=False), "")]
