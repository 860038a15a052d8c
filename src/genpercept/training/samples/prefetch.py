"""Batches made ahead, beside the step, and handed out in order: by threads of this process, or by worker processes.

Workers are PyTorch's DataLoader's, which moves tensors through shared memory. They know the stage without its networks. What a
batch holds depends on its number alone, so it is the same bits from either.
"""

from __future__ import annotations

import io
import itertools
import multiprocessing
import os
import pickle
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from genpercept.core.workers import end_with_parent
from genpercept.training.recipe import Loader
from genpercept.training.samples.sources import Source

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Maker(Protocol[T_co]):
    """Makes batches by their numbers, out of sources. For workers it is pickled without the networks that it can reach."""

    @property
    def sources(self) -> list[Source]: ...

    def __call__(self, number: int) -> T_co: ...


class Batches(Protocol[T_co]):
    """make(start), make(start + 1), ... without end."""

    @property
    def waited(self) -> float:  # seconds that the step stood idle for data
        ...

    @waited.setter
    def waited(self, seconds: float) -> None: ...

    def __iter__(self) -> Iterator[T_co]: ...

    def close(self) -> None: ...


def ahead(make: Maker[T], start: int, loader: Loader) -> Batches[T]:
    """Batches from number `start` on, by loader.workers processes or, without any, loader.threads threads."""
    if loader.workers:
        return Workers(make, start, loader.workers, loader.prefetch)
    return Prefetch(make, start, loader.threads, loader.prefetch)


class Movable(Protocol):
    """A batch that can be brought onto a GPU beside its work."""

    def to(self, device: torch.device, channels_last: bool, non_blocking: bool = False) -> Self: ...

    def pinned(self, channels_last: bool) -> Self: ...

    def tensors(self) -> list[torch.Tensor]: ...


M = TypeVar("M", bound=Movable)


class OnDevice(Generic[M]):
    """Batches on the device, each copied from pinned memory on a stream of its own, during the step before its own."""

    def __init__(self, batches: Batches[M], device: torch.device, channels_last: bool) -> None:
        self._batches, self._device, self._channels_last = batches, device, channels_last
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @property
    def waited(self) -> float:
        return self._batches.waited

    @waited.setter
    def waited(self, seconds: float) -> None:
        self._batches.waited = seconds

    def __iter__(self) -> Iterator[M]:
        stream = iter(self._batches)
        coming = self._copied(next(stream))
        while True:
            here, coming = coming, self._copied(next(stream))
            yield self._arrived(*here)

    def _copied(self, batch: M) -> tuple[M, Any]:
        """The batch there, and what is past when its copy is whole."""
        if self._stream is None:
            return batch.to(self._device, self._channels_last), None
        with torch.cuda.stream(self._stream):
            # what is copied from is not reused before: PyTorch's pinned memory knows the streams that read it
            moved = batch.pinned(self._channels_last).to(self._device, self._channels_last, non_blocking=True)
            return moved, self._stream.record_event()

    def _arrived(self, batch: M, copied: Any) -> M:
        """The step's stream waits for this copy alone, and its memory is not given away before that stream is done with it."""
        if copied is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_event(copied)
            for tensor in batch.tensors():
                tensor.record_stream(current)
        return batch

    def close(self) -> None:
        self._batches.close()


class Prefetch(Generic[T]):
    """By threads of this process."""

    def __init__(self, make: Callable[[int], T], start: int, threads: int, ahead: int) -> None:
        self._make, self._next, self._ahead = make, start, ahead
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="batch")
        self._queue: deque[Future[T]] = deque()
        self.waited = 0.0

    def __iter__(self) -> Iterator[T]:
        while True:
            while len(self._queue) < self._ahead:
                self._queue.append(self._pool.submit(self._make, self._next))
                self._next += 1
            begin = time.perf_counter()
            item = self._queue.popleft().result()
            self.waited += time.perf_counter() - begin
            yield item

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class Workers(Generic[T]):
    """By processes. An error of one is raised here, as a thread's would be; so is a ValueError where one is killed."""

    def __init__(self, make: Maker[T], start: int, workers: int, ahead: int) -> None:
        self._make = make
        known = multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("forkserver" if "forkserver" in known else "spawn")
        if "forkserver" in known:
            context.set_forkserver_preload([__name__, type(make).__module__])
        self._loader: DataLoader[Any] | None = DataLoader(
            _Numbered(make),
            batch_size=None,
            sampler=itertools.count(start),
            num_workers=workers,
            prefetch_factor=max(1, -(-ahead // workers)),
            collate_fn=_as_it_is,
            worker_init_fn=_begin,
            multiprocessing_context=context,
            generator=torch.Generator(),  # or it would draw from the one that networks are initialised with
        )
        self.waited = 0.0

    def __iter__(self) -> Iterator[T]:
        assert self._loader is not None
        stream = iter(self._loader)
        while True:
            begin = time.perf_counter()
            try:
                item, left_out = next(stream)
            except RuntimeError as error:
                if "worker" not in str(error):
                    raise
                raise ValueError(
                    "a process that makes batches ended by itself, most often for lack of memory, or of shared memory "
                    "(/dev/shm): use fewer loader.workers, a smaller loader.prefetch, or workers = 0"
                ) from None
            self.waited += time.perf_counter() - begin
            for which, number, problem in left_out:
                self._make.sources[which].leave_out(number, problem)
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        self._loader = None  # the last reference: its workers end


# ---- in the workers --------------------------------------------------------------------------------------------------


class _Numbered(Dataset[Any]):
    """The batch of a number, or the exception in its place; and what was left out meanwhile: source, entry, problem."""

    def __init__(self, make: Maker[Any]) -> None:
        self._make = make
        self._told: set[tuple[int, int]] = set()

    def __getitem__(self, number: int) -> tuple[Any, list[tuple[int, int, str]]]:
        try:
            item = self._make(number)
        except (ValueError, OSError, ImportError, MemoryError) as error:  # DataLoader would make many lines of it
            item = error
        news = []
        for which, source in enumerate(self._make.sources):
            for entry, problem in source.left_out().items():
                if (which, entry) not in self._told:
                    self._told.add((which, entry))
                    news.append((which, entry, problem))
        return item, news

    def __reduce__(self) -> Any:
        return _numbered, (light(self._make),)


def _numbered(pickled: bytes) -> _Numbered:
    return _Numbered(heavy(pickled))


def _as_it_is(item: T) -> T:
    return item


def _begin(_: int) -> None:
    end_with_parent()
    # Who stops the run with all its processes means the parent: it finishes its step, for which it may need batches, and ends
    # its workers itself, by SIGTERM where it must.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setsid"):
        os.setsid()


def light(value: Any) -> bytes:
    """`value` pickled without networks (None in their place) and without what reports to people."""
    buffer = io.BytesIO()
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue()


def heavy(pickled: bytes) -> Any:
    """What `light` pickled."""
    return _Unpickler(io.BytesIO(pickled)).load()


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> str | None:
        return "network" if isinstance(obj, nn.Module) else None


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, pid: str) -> None:
        return None
