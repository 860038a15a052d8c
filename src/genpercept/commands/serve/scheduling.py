"""Decoded images before the networks: those that one network sees at one size run together, the oldest first.

Nobody waits for a batch to fill. While networks are busy, images gather; the next free thread takes all that go with the
oldest one, as many as memory holds. What runs is `predict`'s own: its models, limits, and a batch that is halved when memory
is short and taken apart when an image spoils it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

from genpercept.commands.predict import batching
from genpercept.commands.predict.batching import ALONE, Item, run_batch
from genpercept.commands.predict.model import Model
from genpercept.imaging.prediction import Prediction


@dataclass(eq=False)
class Lane:
    """A loaded model: how many batches may run at once, on how many threads each, and how large they may be."""

    name: str
    model: Model
    limits: batching.Limits
    streams: int
    threads: int
    fit: int | None  # pixels at the network's input that the memory of one stream holds
    running: int = 0

    @classmethod
    def of(cls, name: str, model: Model, threads: int) -> Lane:
        streams = model.streams(threads)
        fit = batching.pixels_that_fit(model, streams) if streams > 1 else None
        return cls(name, model, batching.limits(model, streams), streams, max(1, threads // streams), fit)


@dataclass(eq=False, kw_only=True)
class Waiting(Item):
    """An image that waits for its lane. computed: what the request asks of the network, see `Asked.computed`."""

    lane: Lane
    computed: dict[str, Any]
    future: Future[Prediction] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)
    started: float = 0.0  # when its batch began

    @property
    def key(self) -> tuple[object, ...]:
        alone = id(self) if self.image.shape[0] * self.image.shape[1] >= ALONE else 0
        return (self.lane.name, *self.computed.values(), self.padded, alone)


class Scheduler:
    """Threads that take batches. on_batch(images, seconds) is called after each."""

    def __init__(self, lanes: list[Lane], on_batch: Callable[[int, float], None]) -> None:
        self._waiting: dict[tuple[object, ...], list[Waiting]] = {}
        self._changed = threading.Condition()
        self._closed, self._large, self._running = False, False, 0
        self._on_batch = on_batch
        self._threads = [
            threading.Thread(target=self._work, name=f"network-{i}", daemon=True)
            for i in range(max(lane.streams for lane in lanes))
        ]
        for thread in self._threads:
            thread.start()

    def add(self, item: Waiting) -> Future[Prediction]:
        """Cancelling the future takes the image out of the queue, where it still is there."""
        with self._changed:
            self._waiting.setdefault(item.key, []).append(item)
            self._changed.notify()
        return item.future

    def close(self, seconds: float) -> bool:
        """No thread begins another batch. Whether all have ended within `seconds`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while batch := self._take():
            lane, large = batch[0].lane, self._large
            started = time.monotonic()
            for item in batch:
                item.started = started
            try:
                model = lane.model.asking(**batch[0].computed)
                done, failed = run_batch(batch, model, 0, lane.limits, lane.threads)
                for item, prediction in done:  # a server's model answers one task
                    self._tell(item, cast(Prediction, prediction))
                for item, error in failed:
                    self._tell(item, error)
            except BaseException as error:  # noqa: BLE001  those who wait must be told, whatever it is
                for item in batch:
                    self._tell(item, error)
            self._on_batch(len(batch), time.monotonic() - started)
            with self._changed:
                lane.running -= 1
                self._running -= 1
                self._large = self._large and not large
                self._changed.notify_all()
            del batch  # its images, while nothing else comes

    def _tell(self, item: Item, what: Prediction | BaseException) -> None:
        assert isinstance(item, Waiting)
        with suppress(InvalidStateError):  # the server has told it something else meanwhile
            if isinstance(what, Prediction):
                item.future.set_result(what)
            else:
                item.future.set_exception(what)

    def _take(self) -> list[Waiting]:
        """What runs next, as soon as there is something; nothing: the scheduler is closed."""
        with self._changed:
            while not self._closed:
                for bucket in self._by_age():
                    if batch := self._of(bucket):
                        return batch
                self._changed.wait()
        return []

    def _by_age(self) -> Iterator[list[Waiting]]:
        """Those whose requests are still wanted, the bucket with the oldest first."""
        for key, bucket in list(self._waiting.items()):
            bucket[:] = [item for item in bucket if not item.future.cancelled()]
            if not bucket:
                del self._waiting[key]
        return iter(sorted(self._waiting.values(), key=lambda bucket: bucket[0].since))

    def _of(self, bucket: list[Waiting]) -> list[Waiting]:
        """As many of a bucket as may run now."""
        first = bucket[0]
        lane = first.lane
        if self._large or lane.running >= lane.streams:
            return []
        part = bucket[: lane.limits.capacity(first.padded)]
        pixels = sum(item.padded[0] * item.padded[1] for item in part if item.padded)
        large = lane.fit is not None and pixels > lane.fit
        if large and self._running:
            return []
        del bucket[: len(part)]
        batch = [item for item in part if item.future.set_running_or_notify_cancel()]
        if batch:
            lane.running += 1
            self._running += 1
            self._large = large
        return batch
