"""Where the tabs have their answers from: the server's engine, and what is kept of each visitor."""

from __future__ import annotations

import asyncio
import functools
import html
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
import numpy as np

from genpercept.commands.app.same import Call
from genpercept.commands.app.store import Answer, Photograph, Store
from genpercept.commands.serve.engine import Engine
from genpercept.commands.serve.limits import Asked
from genpercept.core.texts import one_line

_log = logging.getLogger("genpercept.app")
OWN = "own"
RESOLUTIONS = (256, 384, 512, 768, 1024)


@dataclass(frozen=True)
class Offer:
    """A model that the page offers. own: the longest edge it was made for. draws: its runs start from noise and may differ."""

    name: str
    task: str
    kind: str
    own: int
    draws: bool


@dataclass
class Desk:
    """Engine and store, with the models by task, and the options of the command line that the app was started with."""

    engine: Engine
    store: Store
    offers: Mapping[str, Sequence[Offer]]
    options: Mapping[str, str] = field(default_factory=dict)
    load: Mapping[str, str] = field(default_factory=dict)

    def offer(self, task: str, name: str) -> Offer:
        """ValueError for a model that is not among those of the task."""
        for offer in self.offers[task]:
            if offer.name == name:
                return offer
        raise ValueError(f"{name}: not a model of this page")

    def call(self, offer: Offer, resolution: str, runs: int) -> Call:
        """A question as the page's controls say it."""
        size = None if resolution == OWN else int(resolution)
        runs = int(runs) if offer.draws else 1
        return Call(offer.name, offer.task, offer.kind, size, runs, self.options, self.load)

    async def ask(self, photograph: Photograph, call: Call) -> tuple[Answer, float]:
        """The answer, and seconds. Refusal, a ValueError, where the engine has none."""
        start = time.perf_counter()
        asked = Asked(processing_resolution=call.resolution, ensemble_size=call.runs)
        prediction = await self.engine.predict(photograph.data, call.model, asked)
        return Answer(photograph, prediction, call.task), time.perf_counter() - start

    async def decode(self, data: bytes) -> np.ndarray:
        """The file of a visitor as (H, W, 3). Refusal where it is no image, or too large."""
        return await self.engine.decode(data)


def guarded(outputs: int, handler: Callable[..., Awaitable[Sequence[Any]]]) -> Callable[..., Awaitable[list[Any]]]:
    """A handler whose first output is a line that says what went wrong, "" where nothing did; `outputs` more follow."""

    @functools.wraps(handler)
    async def safely(*inputs: Any) -> list[Any]:
        try:
            return ["", *await handler(*inputs)]
        except ValueError as error:
            return [wrong(one_line(error)), *[gr.skip()] * outputs]
        except asyncio.CancelledError:
            raise
        except Exception:
            _log.exception("an answer failed")
            return [wrong("This failed inside the program; its log says more."), *[gr.skip()] * outputs]

    return safely


def wrong(line: str) -> str:
    """HTML: a line that screen readers say at once."""
    return f'<p class="wrong" role="alert">{html.escape(line[:1].upper() + line[1:])}</p>'


def resolutions(own: int) -> list[tuple[str, str]]:
    """Choices of the longest edge that the network sees; `own`: the model's."""
    sizes = [(f"{size} pixels", str(size)) for size in RESOLUTIONS]
    return [(f"The model's own ({own})" if own else "The model's own", OWN), *sizes, ("The photograph's own", "0")]
