"""Models kept warm, and a bounded queue of images before them. Knows nothing of HTTP: the server and the app use it alike."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar

import numpy as np

from genpercept.commands.files.results import Job
from genpercept.commands.predict.model import Model
from genpercept.commands.predict.request import Machine, Request, check
from genpercept.commands.serve import answers
from genpercept.commands.serve.answers import Answer, Encoder
from genpercept.commands.serve.decoding import Decoders
from genpercept.commands.serve.film_jobs import Films
from genpercept.commands.serve.limits import (
    Asked,
    Busy,
    Ending,
    Failed,
    Limits,
    Refusal,
    Unacceptable,
    Unknown,
)
from genpercept.commands.serve.scheduling import Lane, Scheduler, Waiting
from genpercept.commands.serve.sizes import seen_size
from genpercept.commands.serve.space import placed
from genpercept.core.devices import out_of_memory
from genpercept.core.names import hint
from genpercept.core.texts import one_line
from genpercept.imaging.kinds import KINDS
from genpercept.imaging.prediction import Prediction
from genpercept.tasks import TASKS

T = TypeVar("T")

_ENCODERS = 4  # answers that are made at once
_NOWHERE = Job(Path("image"), Path("image"))  # what stands for an upload where `predict` has a file
_LOADING = 5.0  # seconds after which a client may ask again while models are being loaded


@dataclass(frozen=True)
class ModelSpec:
    """A model to serve: the name that requests have for it, and where it comes from, as `genpercept predict` takes it."""

    name: str
    model: str
    options: Mapping[str, Any] = field(
        default_factory=dict
    )  # further fields of predict's Request: base, family, task, ...


@dataclass(frozen=True)
class ModelInfo:
    """What can be said of a loaded model. resolution: the longest edge the network sees, 0: the image's own."""

    name: str
    task: str
    kind: str
    resolution: int
    formats: tuple[str, ...]
    stochastic: bool
    sha256: str | None


class Ticket:
    """A place in the queue, and the bytes that its request holds now."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self.bytes = engine, 0

    def hold(self, size: int, *, more: bool = False) -> None:
        """It holds `size` bytes from now on. more: Busy where the queue has no room for them; else they are there already."""
        engine = self._engine
        with engine._counting:
            total = engine.bytes + size - self.bytes
            if more and total > engine.limits.queue_bytes and size > self.bytes:
                raise engine._busy()
            engine.bytes, self.bytes = total, size


@dataclass
class Counts:
    """What an engine has done, and what it has not."""

    predicted: int = 0
    departed: int = 0  # requests whose clients went away before they were answered
    failed: int = 0  # in the network, for a reason that is no client's fault


class Engine:
    """Models kept warm, and a bounded queue of images before them.

    `load` first, in any thread; then `predict` and `answer` from any event loop. What is wrong with one request is its own
    `Refusal` (a ValueError in one line, with a status of HTTP): Broken, TooLarge, Unacceptable, Unknown, Failed, Busy, Ending.
    Cancelling the task that awaits an answer takes the image out of the queue.

    models: what to serve, the first of a task being its default. device, dtype, tf32: of all of them; batch_size: images of one
    size at once, "auto": as many as memory holds.
    """

    def __init__(
        self,
        models: Sequence[ModelSpec],
        limits: Limits | None = None,
        device: str = "auto",
        dtype: str = "fp32",
        batch_size: int | Literal["auto"] = "auto",
        specialised: bool | None = None,
        tf32: bool = False,
    ) -> None:
        """ValueError for no model, two of a name, and what no model could do. Nothing is loaded yet."""
        if not models:
            raise ValueError("no model to serve: name one (--model)")
        self.limits, self.counts = limits or Limits(), Counts()
        self.bytes, self.in_hand = 0, 0  # what requests hold, and how many there are
        self.on_batch: Callable[[int, float], None] = lambda images, seconds: None
        if "," in device:
            raise ValueError(f"--device {device}: one server runs on one device: start another server for another one")
        machine = Machine(device, batch_size)
        self._specs: dict[str, Model] = {}
        for spec in models:
            if spec.name in self._specs:
                raise ValueError(f"--model {spec.name}: named twice; write OTHERNAME={spec.model}")
            request = Request(model=spec.model, dtype=dtype, specialised=specialised, tf32=tf32, **spec.options)
            check(request, machine, None)
            self._specs[spec.name] = Model(request, machine)
        self._infos: dict[str, ModelInfo] = {}
        self._lanes: dict[str, Lane] = {}
        self._counting = threading.Lock()
        self._seconds = 0.5  # that an image takes, by what was seen lately
        self._draining, self._over = False, False
        self._tasks: dict[asyncio.Task[Any], asyncio.AbstractEventLoop] = {}
        self._scheduler: Scheduler | None = None
        self.decoders = Decoders(self.limits)
        self._encoder = Encoder()
        self.films = Films(self.limits)
        self._decoding = ThreadPoolExecutor(self.limits.decoders, "decode")
        self._encoding = ThreadPoolExecutor(_ENCODERS, "encode")

    # ---- models ------------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Load all models, and run each once, so that the first request is as quick as others. ValueError as predict's."""
        import torch

        threads, lanes = torch.get_num_threads(), list[Lane]()
        for name, model in self._specs.items():
            pipe: Any = model.load()
            lane = Lane.of(name, model, threads)
            lanes.append(lane)
            chosen = pipe.paradigm() if hasattr(pipe, "paradigm") else None
            stochastic = bool(getattr(chosen, "stochastic", False))
            sha256 = getattr(pipe, "meta", {}).get("model_sha256")
            kind = TASKS.find(pipe.task).kind
            resolution = int(getattr(pipe, "resolution", 0))
            info = ModelInfo(name, pipe.task, kind, resolution, answers.formats(kind), stochastic, sha256)
            model.predict(0, [np.zeros((64, 64, 3), np.uint8)], [_NOWHERE.path], 1)
            self._lanes[name], self._infos[name] = lane, info
        self._scheduler = Scheduler(lanes, self._after_batch)

    @property
    def ready(self) -> bool:
        """Whether requests are taken: all models are loaded, and the engine does not end."""
        return self._scheduler is not None and not self._draining

    @property
    def draining(self) -> bool:
        return self._draining

    @property
    def models(self) -> Mapping[str, ModelInfo]:
        """Of those that are loaded, by name."""
        return MappingProxyType(self._infos)

    def model_for(self, task: str, name: str | None = None) -> ModelInfo:
        """The model `name` of a task, or the task's first. Unknown says what there is; Ending while nothing is loaded."""
        if self._scheduler is None:
            raise Ending("the models are being loaded", _LOADING)
        able = {info.name: info for info in self._infos.values() if info.task == task}
        if not able:
            tasks = list(dict.fromkeys(info.task for info in self._infos.values()))
            raise Unknown(f"no model for the task {task[:60]!r} here: {hint(task, tasks)}")
        if name is None:
            return next(iter(able.values()))
        if name not in able:
            raise Unknown(f"no model {name[:60]!r} for {task} here: {hint(name, able)}")
        return able[name]

    # ---- the queue ---------------------------------------------------------------------------------------------------

    @contextmanager
    def admitted(self, size: int = 0) -> Iterator[Ticket]:
        """A place in the queue for the block, and `size` bytes. Busy where there is none, Ending where nothing is taken."""
        ticket = Ticket(self)
        with self._counting:
            if self._draining:
                raise Ending("the server is ending", 5)
            if self.in_hand >= self.limits.queue or self.bytes + size > self.limits.queue_bytes:
                raise self._busy()
            self.in_hand += 1
            self.bytes += size
            ticket.bytes = size
        try:
            yield ticket
        finally:
            with self._counting:
                self.in_hand -= 1
                self.bytes -= ticket.bytes

    async def predict(
        self, data: bytes, model: str, asked: Asked | None = None, ticket: Ticket | None = None
    ) -> Prediction:
        """The prediction of an encoded image (JPEG, PNG, ...). model: one of `models`. Raises a Refusal.

        ticket: of `admitted`, where the caller has a place already.
        """
        asked = asked or Asked()
        with self._placed(ticket, len(data)) as place:
            return (await self._ended_with_engine(self._predict(data, model, asked, place)))[0]

    async def answer(
        self, data: bytes, model: str, asked: Asked, accept: str = "", ticket: Ticket | None = None
    ) -> Answer:
        """The same as bytes: of `asked.format`, or of what `accept`, an Accept header, takes."""
        info = self._info(model)
        name = answers.choose(info.kind, asked.format, accept)
        with self._placed(ticket, len(data)) as place:
            return await self._ended_with_engine(self._answer(data, info, asked, name, place))

    def check(self, model: str, asked: Asked) -> None:
        """Refusals that need no image."""
        asked.check(self.limits)
        info = self._info(model)
        pipe = self._lanes[info.name].model.load()
        if asked.known is not None and KINDS[info.kind].distance is None:
            raise Unacceptable(f"known: {info.kind} tell no distance, only depth and disparity do")
        try:
            pipe.check_request(asked.steps, asked.ensemble_size)
            pipe.check_sharpness(asked.tiles, asked.overlap, asked.refine)
        except ValueError as error:
            raise Unacceptable(one_line(error)) from None

    def asking(self, model: str, asked: Asked) -> Model:
        """A loaded model as a request wants it."""
        return self._lanes[self._info(model).name].model.asking(**asked.computed)

    def drain(self) -> None:
        """Nothing new is taken from now on."""
        self._draining = True

    def close(self, deadline: float = 0.0) -> bool:
        """End: what is in hand has `deadline` seconds, then it is refused with Ending. Whether all threads have ended.

        Films end at once. Blocks; not in the event loop of those who wait for answers.
        """
        self.drain()
        self.films.stop()
        until = time.monotonic() + deadline
        while self.in_hand and time.monotonic() < until:
            time.sleep(0.02)
        self._over = True
        for task, loop in list(self._tasks.items()):
            if not loop.is_closed():
                loop.call_soon_threadsafe(task.cancel)
        self.decoders.close()
        ended = self._scheduler is None or self._scheduler.close(0.5)
        self._decoding.shutdown(wait=False, cancel_futures=True)
        self._encoding.shutdown(wait=False, cancel_futures=True)
        self._encoder.close()
        self.films.close()
        return ended

    # ---- one request -------------------------------------------------------------------------------------------------

    async def _answer(self, data: bytes, info: ModelInfo, asked: Asked, name: str, ticket: Ticket) -> Answer:
        prediction, image, seconds = await self._predict(data, info.name, asked, ticket)
        about = {"task": info.task, "model": info.name}
        started = time.monotonic()
        make = partial(self._encoder.encode, prediction, image, name, replace(asked, format=name), about)
        try:
            answer = await self._in(self._encoding, make)
        except Refusal:
            raise
        except ValueError as error:  # values that the format does not hold
            raise Unacceptable(one_line(error)) from None
        ticket.hold(len(answer.body))
        return replace(answer, seconds=seconds | {"encode": time.monotonic() - started})

    async def _predict(
        self, data: bytes, name: str, asked: Asked, ticket: Ticket
    ) -> tuple[Prediction, np.ndarray, dict[str, float]]:
        """The prediction, the image, and the seconds of each stage."""
        self.check(name, asked)
        lane, started = self._lanes[name], time.monotonic()
        image, camera = await self._in(self._decoding, partial(self.decoders.decode, data))
        ticket.hold(len(data) + image.nbytes)
        seconds = {"decode": time.monotonic() - started}
        computing = self.asking(name, asked)
        seen = seen_size(computing, image.shape[:2], asked, self.limits, self._infos[lane.name].resolution)
        item = Waiting(_NOWHERE, image, seen, lane=lane, computed=asked.computed)
        assert self._scheduler is not None  # `_info` has seen to it
        try:
            prediction = await asyncio.wrap_future(self._scheduler.add(item))
        except (Refusal, asyncio.CancelledError):
            raise
        except Exception as error:
            raise self._fault(lane, error) from error
        self.counts.predicted += 1
        seconds |= {"wait": item.started - item.since, "network": time.monotonic() - item.started}
        ticket.hold(len(data) + image.nbytes + prediction.values.nbytes)
        traced = {"request": computing.request.record() | {"model": name}}
        prediction.meta |= traced | {"weights": lane.model.weights()}
        return placed(prediction, (image.shape[0], image.shape[1]), camera, asked), image, seconds

    def _fault(self, lane: Lane, error: Exception) -> Refusal:
        """What is said of an image that has spoilt its prediction, or of a prediction that is our mistake."""
        if out_of_memory(error):
            return Unacceptable("not enough memory for this image; set a smaller processing_resolution")
        if isinstance(error, ValueError):
            return Unacceptable(one_line(error).replace(str(lane.model.request.model_name), lane.name))
        self.counts.failed += 1
        traceback.print_exception(error, file=sys.stderr)
        return Failed("the model failed; the server's log says more")

    def _info(self, name: str) -> ModelInfo:
        if self._scheduler is None:
            raise Ending("the models are being loaded", _LOADING)
        if name not in self._infos:
            raise Unknown(f"no model {name[:60]!r} here: {hint(name, self._infos)}")
        return self._infos[name]

    # ---- plumbing ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _placed(self, ticket: Ticket | None, size: int) -> Iterator[Ticket]:
        if ticket is not None:
            yield ticket
            return
        with self.admitted(size) as own:
            yield own

    async def _ended_with_engine(self, work: Any) -> Any:
        """The result of `work`, which is cancelled with its caller's task, or by `close`: that is Ending."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks[task] = asyncio.get_running_loop()
        try:
            if self._over:
                work.close()
                raise Ending("the server is ending", 5)
            return await work
        except asyncio.CancelledError:
            if self._over:
                task.uncancel()
                raise Ending("the server is ending", 5) from None
            self.counts.departed += 1
            raise
        finally:
            del self._tasks[task]

    async def _in(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        """In a thread of `pool`; what has not begun when the caller is cancelled never does."""
        try:
            future = pool.submit(work)
        except RuntimeError:  # the pool has been shut down
            raise Ending("the server is ending", 5) from None
        return await asyncio.wrap_future(future)

    def _after_batch(self, images: int, seconds: float) -> None:
        self._seconds = 0.9 * self._seconds + 0.1 * seconds / images
        self.on_batch(images, seconds)

    def _busy(self) -> Busy:
        held = f"{self.in_hand} requests of {self.bytes // 2**20} MiB are in hand"
        return Busy(f"{held}: try again later", self.in_hand * self._seconds / 2)
