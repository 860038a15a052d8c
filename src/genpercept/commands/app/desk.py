"""Where the tabs have their answers from: the server's engine, and what is kept of each visitor."""

from __future__ import annotations

import asyncio
import functools
import html
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
import numpy as np

from genpercept.commands.app.same import Call
from genpercept.commands.app.store import Answer, Photograph, Store
from genpercept.commands.serve.engine import Engine, ModelInfo, ModelSpec
from genpercept.commands.serve.limits import Asked
from genpercept.core.texts import one_line
from genpercept.pipeline.tiles.plan import AUTO
from genpercept.tasks import listed

_log = logging.getLogger("genpercept.app")
OWN = "own"
RESOLUTIONS = (256, 384, 512, 768, 1024)


@dataclass
class Desk:
    """Engine and store. specs: what the engine was made of; options: of the command line, where they are not its defaults."""

    engine: Engine
    store: Store
    specs: Mapping[str, ModelSpec]
    options: Mapping[str, Any] = field(default_factory=dict)
    _arriving: dict[str, asyncio.Event] = field(default_factory=dict)

    @property
    def tasks(self) -> list[str]:
        """Those that the engine has a model for, in the order of pages."""
        there = {info.task for info in self.engine.models.values()}
        return [task for task in listed() if task in there]

    def models(self, task: str) -> list[ModelInfo]:
        return [info for info in self.engine.models.values() if info.task == task]

    def call(
        self, task: str, model: str, resolution: str, runs: int = 1, tiles: bool = False, refine: bool = False
    ) -> Call:
        """A question as the page's controls say it. ValueError for a model that is not here."""
        info = self.engine.model_for(task, model)
        size = None if resolution == OWN else int(resolution)
        spec = self.specs[info.name]
        options = {**spec.options, **self.options}
        return Call(spec.model, task, info.kind, size, int(runs) if info.stochastic else 1, tiles, refine, options)

    @contextmanager
    def arrival(self, page: str) -> Iterator[None]:
        """While the block runs, a photograph is on its way, and whoever asks for it waits."""
        there = self._arriving[page] = asyncio.Event()
        try:
            yield
        finally:
            there.set()
            if self._arriving.get(page) is there:
                del self._arriving[page]

    async def photograph(self, page: str) -> Photograph:
        """What the visitor has chosen. ValueError where there is nothing."""
        if there := self._arriving.get(page):  # the browser shows a file before it has been read
            await there.wait()
        found = self.store.photograph(page)
        if found is None:
            raise ValueError("choose a photograph first: drop one, take one, or pick an example")
        return found

    async def ask(self, photograph: Photograph, model: str, call: Call) -> tuple[Answer, float]:
        """The answer, and seconds. Refusal, a ValueError, where the engine has none."""
        start = time.perf_counter()
        tiles = AUTO if call.tiles else None
        asked = Asked(processing_resolution=call.resolution, ensemble_size=call.runs, tiles=tiles, refine=call.refine)
        prediction = await self.engine.predict(photograph.data, model, asked)
        return Answer(photograph, prediction, call.task), time.perf_counter() - start

    async def decode(self, data: bytes) -> np.ndarray:
        """A visitor's file as (H, W, 3) uint8. Refusal where it is no image, or too large."""
        with self.engine.admitted(len(data)):
            return (await asyncio.to_thread(self.engine.decoders.decode, data)).image


def guarded(
    outputs: int, handler: Callable[..., Awaitable[Sequence[Any]]], otherwise: Sequence[Any] = ()
) -> Callable[..., Awaitable[list[Any]]]:
    """A handler whose first output is a line that says what went wrong, "" where nothing did; `outputs` more follow.

    otherwise: what they are when something did, where they should not stay as they are.
    """
    stay = list(otherwise) or [gr.skip()] * outputs

    @functools.wraps(handler)
    async def safely(*inputs: Any) -> list[Any]:
        try:
            return ["", *await handler(*inputs)]
        except ValueError as error:
            return [wrong(one_line(error)), *stay]
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001  told in the log; the visitor can do nothing about it
            _log.exception("an answer failed")
            return [wrong("This failed inside the program; its log says more."), *stay]

    return safely


def wrong(line: str) -> str:
    """HTML: a line that screen readers say at once."""
    return f'<p class="wrong" role="alert">{html.escape(line[:1].upper() + line[1:])}</p>'


def resolutions(own: int) -> list[tuple[str, str]]:
    """Choices of the longest edge that the network sees; `own`: the model's."""
    sizes = [(f"{size} pixels", str(size)) for size in RESOLUTIONS if size != own]
    return [(f"{own} pixels (own)" if own else "The model's own", OWN), *sizes, ("The photograph's own", "0")]
