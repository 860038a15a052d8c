"""Jobs through the network into files: reading, networks and writing at once, each with a bounded queue.

One thread decides; readers, networks and writers are pools beside it. Which images share a batch depends on the images alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

import numpy as np

from genpercept.commands.files.results import Job, failure_line, protect_inputs, source
from genpercept.commands.predict import batching
from genpercept.commands.predict.batching import Buckets, Item, Limits
from genpercept.commands.predict.model import Model
from genpercept.commands.predict.progress import Progress
from genpercept.commands.predict.request import Outcome
from genpercept.core.devices import out_of_memory
from genpercept.imaging import write
from genpercept.imaging.prediction import Prediction
from genpercept.imaging.read import read

# What one image can suffer without the next one having to; RuntimeError is how torch says that memory was short.
_ONE_IMAGE = (ValueError, OSError, MemoryError, RuntimeError)
_READERS = 2
_WRITERS = 6  # they mostly wait for the disk: each file is synced before it gets its name
_BYTES = 2**29  # of images read ahead, and again of results not yet written; one is always allowed
_READY = 2  # batches that wait for a network

_Done = tuple[Job, np.ndarray, Prediction]


class Stream:
    """One run over `jobs`. inputs: all images that a result might overwrite (those of `jobs`, unless given).

    formats None: those of the model's kind. on_end(job, line) is called for each image: line "" when it is written, else why
    it is not. Fills `outcome`.
    """

    def __init__(
        self,
        jobs: list[Job],
        model: Model,
        formats: tuple[str, ...] | None,
        outcome: Outcome,
        progress: Progress,
        *,
        inputs: Iterable[Job] = (),
        on_end: Callable[[Job, str], None] = lambda job, line: None,
    ) -> None:
        self._jobs, self._model, self._outcome, self._progress = jobs, model, outcome, progress
        self._formats, self._inputs, self._on_end = formats, (*jobs, *inputs), on_end
        self._left = iter(jobs)
        self._more = bool(jobs)
        self._reading: deque[tuple[Job, Future[np.ndarray]]] = deque()
        self._ready: deque[list[Item]] = deque()
        self._running: dict[Future[tuple[list[_Done], list[tuple[Job, Exception]]]], int] = {}  # on which copy
        self._writing: deque[tuple[Job, int, Future[None]]] = deque()
        self._largest = 1  # bytes of the largest image yet
        self._alone = False  # a batch runs that needs the memory of all streams
        # batches at once on a copy, torch's threads for each, and in all
        self._copy_streams = self._threads = self._total = 1
        self._fit: int | None = None  # pixels that the memory of one stream holds
        self._limits = Limits(1)
        self._buckets = Buckets(lambda padded: self._limits.capacity(padded))

    def run(self) -> None:
        """Until all are done. An interrupt waits for the batches that run and the files being written only."""
        readers = ThreadPoolExecutor(_READERS, "read")
        writers = ThreadPoolExecutor(_WRITERS, "write")
        networks: list[ThreadPoolExecutor] = []
        try:
            while self._step(readers, writers, networks):
                self._progress.update()
        finally:
            readers.shutdown(wait=False, cancel_futures=True)
            for network in networks:
                network.shutdown(wait=True, cancel_futures=True)
            if networks:  # what they set is what torch's next threads would start with
                _set_threads(self._total)
            # What has begun to be written is finished, so that nothing stays half-written.
            writers.shutdown(wait=True, cancel_futures=True)
        self._progress.update()

    def _step(
        self,
        readers: ThreadPoolExecutor,
        writers: ThreadPoolExecutor,
        networks: list[ThreadPoolExecutor],
    ) -> bool:
        """Move all on that can move, then wait for something to end. False when all is done."""
        self._read_ahead(readers)
        if not networks and self._reading and self._reading[0][1].done() and not self._reading[0][1].exception():
            networks += self._prepare()
        self._sort_out()
        self._predict(networks)
        self._collect(writers)
        waiting: list[Future[Any]] = [*self._running, *(f for _, _, f in self._writing)]
        if self._reading and len(self._ready) < _READY:
            waiting.append(self._reading[0][1])
        if waiting:
            wait(waiting, return_when=FIRST_COMPLETED)
        return bool(waiting or self._more or self._reading or self._ready)

    def _prepare(self) -> list[ThreadPoolExecutor]:
        """Load the model, as soon as there is an image for it: a pool for each copy."""
        import torch

        model = self._model
        model.load()
        self._total = torch.get_num_threads()
        self._formats = self._formats or write.default_formats(model.kind)
        protect_inputs(self._inputs, model.task, self._formats)
        each = max(1, self._total // model.copies) if model.on_cpu else self._total
        self._copy_streams = min(model.streams(each), len(self._jobs))
        self._threads = max(1, each // self._copy_streams)
        self._limits = batching.limits(model, self._copy_streams)
        self._fit = batching.pixels_that_fit(model, self._copy_streams) if self._copy_streams > 1 else None
        self._progress.restart()
        return [
            ThreadPoolExecutor(self._copy_streams, "network", _set_threads, (self._threads,))
            for _ in range(model.copies)
        ]

    def _read_ahead(self, readers: ThreadPoolExecutor) -> None:
        ahead = max(1, min(_READERS + 2 * self._limits.most * self._copy_streams, _BYTES // self._largest))
        while self._more and len(self._reading) < ahead:
            job = next(self._left, None)
            self._more = job is not None
            if job is not None:
                self._reading.append((job, readers.submit(read, job.path)))

    def _sort_out(self) -> None:
        """Images that have been read, in their order, into batches."""
        while self._reading and self._reading[0][1].done() and len(self._ready) < _READY:
            job, future = self._reading.popleft()
            try:
                image = future.result()
            except (ValueError, MemoryError) as error:
                self._fail(job, error)
                continue
            self._largest = max(self._largest, image.nbytes)
            padded = self._model.padded((image.shape[0], image.shape[1]))
            self._ready.extend(self._buckets.add(Item(job, image, padded)))
        if not self._more and not self._reading:
            self._ready.extend(self._buckets.flush())

    def _predict(self, networks: list[ThreadPoolExecutor]) -> None:
        """Start what is ready where there is a free network. Until one image has come through, one batch at a time."""
        while self._ready and not self._alone and self._room_for_results():
            batch = self._ready[0]
            pixels = sum(item.padded[0] * item.padded[1] for item in batch if item.padded)
            large = self._fit is not None and pixels > self._fit
            if self._running and (large or not self._outcome.predicted):
                return
            busy = list(self._running.values())
            copy = min(range(len(networks)), key=busy.count)
            if busy.count(copy) >= self._copy_streams:
                return
            self._ready.popleft()
            self._alone = large
            threads = self._threads * (self._copy_streams if large else 1)
            future = networks[copy].submit(_predicted, batch, self._model, copy, self._limits, threads)
            self._running[future] = copy

    def _room_for_results(self) -> bool:
        waiting = sum(size for _, size, future in self._writing if not future.done())
        return not self._writing or (len(self._writing) < 2 * _WRITERS + self._limits.most and waiting < _BYTES)

    def _collect(self, writers: ThreadPoolExecutor) -> None:
        for future in [f for f in self._running if f.done()]:
            del self._running[future]
            self._alone = False
            done, failed = future.result()
            if done:
                assert self._formats is not None  # `_prepare` has chosen them
                write.check_formats(self._formats, done[0][2].kind)  # as soon as the kind is known, and for all of them
            self._outcome.predicted += len(done)
            for job, image, prediction in done:
                size = (
                    image.nbytes + prediction.values.nbytes + (0 if prediction.raw is None else prediction.raw.nbytes)
                )
                self._writing.append((job, size, writers.submit(self._save, job, image, prediction)))
            for job, error in failed:
                self._refuse(job, error)
        left = deque[tuple[Job, int, Future[None]]]()
        for job, size, future in self._writing:
            if not future.done():
                left.append((job, size, future))
                continue
            try:
                future.result()
            except _ONE_IMAGE as error:
                self._fail(job, error)
            else:
                self._outcome.done += 1
                self._on_end(job, "")
        self._writing = left

    def _refuse(self, job: Job, error: Exception) -> None:
        outcome = self._outcome
        if outcome.predicted + outcome.skipped == 0 and any(str(error) in line for line in outcome.failed.values()):
            # The same complaint about two images while none went through: it is about the call, not about them.
            raise ValueError(str(error)) from error
        self._fail(job, error)

    def _fail(self, job: Job, error: BaseException) -> None:
        line = failure_line(job, error)
        self._outcome.failed[job] = line
        self._on_end(job, line)

    def _save(self, job: Job, image: np.ndarray, prediction: Prediction) -> None:
        model, formats = self._model, self._formats
        traced = {**prediction.meta, "input": source(job.path), "request": model.request.record()}
        path = job.stem.with_name(f"{job.stem.name}_{model.task}.json")  # with a suffix of ours, dots in names stay
        replace(prediction, meta=traced).save(path, formats, image=image, fov=model.request.fov, name=job.path.stem)


def _predicted(
    batch: list[Item], model: Model, copy: int, limits: Limits, threads: int
) -> tuple[list[_Done], list[tuple[Job, Exception]]]:
    """The batch's predictions, and what was wrong with those that have none.

    When memory is short, in halves, which later batches remember; when it fails otherwise, one by one, so that only the guilty
    are left out.
    """
    _set_threads(threads)
    done: list[_Done] = []
    failed: list[tuple[Job, Exception]] = []
    todo = deque([batch])
    while todo:
        part = todo.popleft()
        padded = part[0].padded
        at_once = min(limits.capacity(padded), limits.most)
        if len(part) > at_once:
            todo.extendleft([part[at_once:], part[:at_once]])
            continue
        try:
            found = model.predict(copy, [item.image for item in part], [item.job.path for item in part], at_once)
        except _ONE_IMAGE as error:
            rows = at_once if model.in_parts else min(at_once, len(part) * model.request.ensemble_size)
            if out_of_memory(error) and rows > 1:
                limits.shrink(rows, padded)
                _free(error)
                todo.appendleft(part)
            elif len(part) > 1:
                todo.extendleft([item] for item in reversed(part))
            else:
                failed.append((part[0].job, error))
            continue
        done += [(item.job, item.image, p) for item, p in zip(part, found, strict=True)]
    return done, failed


def _free(error: BaseException) -> None:
    """Let go of what the failed call still holds, by way of its traceback and in the allocator's cache."""
    import torch

    error.__traceback__ = None
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _set_threads(threads: int) -> None:
    import torch

    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
