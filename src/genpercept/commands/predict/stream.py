"""Jobs through the network into files: reading, networks and writing at once, each with a bounded queue.

One thread decides; readers, networks and writers are pools beside it. Which images share a batch depends on the images alone.
"""

from __future__ import annotations

import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

import numpy as np

from genpercept.commands.files.results import Job, Output, failure_line, lost, protect_inputs, refusal, source
from genpercept.commands.predict import batching, space
from genpercept.commands.predict.batching import Buckets, Done, Failed, Item, Limits, run_batch
from genpercept.commands.predict.model import Model
from genpercept.commands.predict.progress import Progress
from genpercept.commands.predict.request import Outcome
from genpercept.commands.predict.space import Beside
from genpercept.commands.predict.stopping import Stop
from genpercept.core.devices import cores, set_threads, threads
from genpercept.imaging import write
from genpercept.imaging.kinds import KINDS
from genpercept.imaging.prediction import Prediction
from genpercept.imaging.read import read_photograph
from genpercept.tasks import TASKS

_READERS = min(8, max(2, cores() // 2))
# those of small images mostly wait for the disk: files are synced before they are named
_WRITERS = min(16, max(6, cores()))
_BYTES = 2**29  # of images read ahead, and again of results not yet written; one is always allowed
_READY = 2  # batches that wait for a network
_NOTICE = 0.2  # seconds after which a stop is noticed
_HANGS = 1.0  # seconds after which a reader is not waited for when the run has been stopped

_Read = tuple[np.ndarray, dict[str, Any], Beside]


class Stream:
    """One run over `jobs`. inputs: all images that a result might overwrite (those of `jobs`, unless given).

    on_end(job, line) is called for each image: line "" when it is written, else why it is not. Fills `outcome`.

    What goes wrong with one image, in a decoder, the network or its files, is that image's failure. What concerns all of them
    ends the run: the model that does not load or cannot do what is asked, and an OSError where the results' disk is lost.
    When `stop` is asked what is being computed and written is finished, and then KeyboardInterrupt is raised.
    """

    def __init__(
        self,
        jobs: list[Job],
        model: Model,
        output: Output,
        outcome: Outcome,
        progress: Progress,
        *,
        inputs: Iterable[Job] = (),
        on_end: Callable[[Job, str], None] = lambda job, line: None,
        stop: Stop | None = None,
    ) -> None:
        self._jobs, self._model, self._outcome, self._progress = jobs, model, outcome, progress
        self._output, self._inputs, self._on_end = output, (*jobs, *inputs), on_end
        self._stop = stop or Stop()
        self._formats = self._formats_of(model.tasks_named)  # by task: what is refused needs no model
        self._check_space([TASKS.find(task).kind for task in model.tasks_named])
        self._left = iter(jobs)
        self._more = bool(jobs)
        self._reading: deque[tuple[Job, Future[_Read]]] = deque()
        self._ready: deque[list[Item]] = deque()
        self._running: dict[Future[tuple[list[Done], list[Failed]]], int] = {}  # on which copy
        self._writing: deque[tuple[Job, int, Future[None]]] = deque()
        self._largest = 1  # bytes of the largest image yet
        self._alone = False  # a batch runs that needs the memory of all streams
        # batches at once on a copy, torch's threads for each, and in all
        self._copy_streams = self._threads = self._total = 1
        self._fit: int | None = None  # pixels that the memory of one stream holds
        self._limits = Limits(1)
        self._buckets = Buckets(lambda padded: self._limits.capacity(padded))

    def run(self) -> None:
        """Until all are done. However it ends, the batches that run and the files being written are waited for; readers not."""
        readers = ThreadPoolExecutor(_READERS, "read")
        writers = ThreadPoolExecutor(_WRITERS, "write")
        networks: list[ThreadPoolExecutor] = []
        with self._stop.patience():
            try:
                while self._step(readers, writers, networks):
                    self._progress.update()
            finally:
                readers.shutdown(wait=False, cancel_futures=True)
                for network in networks:
                    network.shutdown(wait=True, cancel_futures=True)
                if networks:
                    self._restore_threads()
                # What has begun to be written is finished, so that nothing stays half-written.
                writers.shutdown(wait=True, cancel_futures=True)
                self._count_written()
                hanging = [future for _, future in self._reading if future.running()]
                self._stop.hung = bool(hanging and wait(hanging, _HANGS).not_done)
        self._progress.update()
        if self._stop.asked:
            raise KeyboardInterrupt

    def _step(
        self,
        readers: ThreadPoolExecutor,
        writers: ThreadPoolExecutor,
        networks: list[ThreadPoolExecutor],
    ) -> bool:
        """Move all on that can move, then wait for something to end. False when all is done."""
        if self._stop.asked:
            self._collect(writers)
            return self._waited([*self._running, *(f for _, _, f in self._writing)])
        self._read_ahead(readers)
        self._sort_out(networks)
        self._predict(networks)
        self._collect(writers)
        waiting: list[Future[Any]] = [*self._running, *(f for _, _, f in self._writing)]
        if self._reading and len(self._ready) < _READY:
            waiting.append(self._reading[0][1])
        return self._waited(waiting) or bool(self._more or self._reading or self._ready)

    def _waited(self, waiting: list[Future[Any]]) -> bool:
        """For one of them to end, or a moment, in which a stop may have been asked. False: there are none."""
        if waiting:
            wait(waiting, _NOTICE, FIRST_COMPLETED)
        return bool(waiting)

    def _restore_threads(self) -> None:
        # even where this thread has that number still: what the last of all threads set is what torch's next ones begin with
        if (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(self._total)

    def _prepare(self) -> list[ThreadPoolExecutor]:
        """Load the model, as soon as there is an image for it: a pool for each copy."""
        model = self._model
        with self._stop.patience(False):  # a download may take long
            model.load()
        self._total = threads()
        self._formats = self._formats_of(model.tasks)
        kinds = {task: model.kind if task == model.task else TASKS.find(task).kind for task in self._formats}
        self._check_space(list(kinds.values()))
        for task, formats in self._formats.items():
            write.check_formats(formats, kinds[task])
            protect_inputs(self._inputs, task, formats)
        each = max(1, self._total // model.copies) if model.on_cpu else self._total
        self._copy_streams = min(model.streams(each), len(self._jobs))
        self._threads = max(1, each // self._copy_streams)
        self._limits = batching.limits(model, self._copy_streams)
        self._fit = batching.pixels_that_fit(model, self._copy_streams) if self._copy_streams > 1 else None
        self._progress.restart()
        return [
            ThreadPoolExecutor(self._copy_streams, "network", set_threads, (self._threads,))
            for _ in range(model.copies)
        ]

    def _read_ahead(self, readers: ThreadPoolExecutor) -> None:
        ahead = max(1, min(_READERS + 2 * self._limits.most * self._copy_streams, _BYTES // self._largest))
        while self._more and len(self._reading) < ahead:
            job = next(self._left, None)
            self._more = job is not None
            if job is not None:
                self._reading.append((job, readers.submit(self._read, job)))

    def _sort_out(self, networks: list[ThreadPoolExecutor]) -> None:
        """Images that have been read, in their order, into batches. The first one has the networks loaded."""
        while self._reading and self._reading[0][1].done() and len(self._ready) < _READY:
            if not networks and not self._reading[0][1].exception():
                networks += self._prepare()
            job, future = self._reading.popleft()
            try:
                image, version, beside = future.result()
                self._check_free(job)
                padded = self._model.padded((image.shape[0], image.shape[1]))
            except Exception as error:  # noqa: BLE001  whatever a decoder raises, the other images are not to blame
                self._fail(job, error)
                continue
            self._largest = max(self._largest, image.nbytes)
            self._ready.extend(self._buckets.add(Item(job, image, padded, version, beside)))
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
            future = networks[copy].submit(run_batch, batch, self._model, copy, self._limits, threads)
            self._running[future] = copy

    def _room_for_results(self) -> bool:
        waiting = sum(size for _, size, future in self._writing if not future.done())
        return not self._writing or (len(self._writing) < 2 * _WRITERS + self._limits.most and waiting < _BYTES)

    def _collect(self, writers: ThreadPoolExecutor) -> None:
        for future in [f for f in self._running if f.done()]:
            del self._running[future]
            self._alone = False
            done, failed = future.result()
            self._outcome.predicted += len(done)
            for item, found in done:
                by_task = found if isinstance(found, dict) else {self._model.task: found}
                size = item.image.nbytes + sum(map(_bytes, by_task.values())) + self._scratch(item)
                self._writing.append((item.job, size, writers.submit(self._save, item, by_task)))
            for item, error in failed:
                self._fail(item.job, error)
        for error in self._count_written():
            raise error

    def _scratch(self, item: Item) -> int:
        """Bytes that writing the image's points and meshes takes."""
        pixels = item.image.shape[0] * item.image.shape[1]
        each = max((write.FORMATS[name].scratch for names in self._formats.values() for name in names), default=0)
        return each * min(pixels, self._model.request.mesh_vertices)

    def _count_written(self) -> list[OSError]:
        """What has been written counts as done, or failed. Returns why nothing more can be written, if so."""
        ended = [each for each in self._writing if each[2].done()]
        self._writing = deque(each for each in self._writing if not each[2].done())
        fatal = []
        for job, _, future in ended:
            error = None if future.cancelled() else future.exception()
            if isinstance(error, OSError) and lost(error, job.stem.parent):
                fatal.append(error)
            elif error is not None:
                self._fail(job, error)
            elif not future.cancelled():
                self._outcome.done += 1
                self._on_end(job, "")
        return fatal

    def _fail(self, job: Job, error: BaseException) -> None:
        line = failure_line(job, error)
        self._outcome.failed[job] = line
        if self._output.debug:
            traceback.print_exception(error)
        self._on_end(job, line)

    def _check_free(self, job: Job) -> None:
        """ValueError where the image's results would take the place of files that are not its own."""
        for task, formats in self._formats.items() if not self._output.overwrite else ():
            uncertain = self._model.request.ensemble_size > 1 and "npz" not in formats
            if line := refusal(job, task, formats, uncertain=uncertain):
                raise ValueError(line)

    def _formats_of(self, tasks: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """The formats of each task's results: as asked for, or those of its kind."""
        return {task: self._output.formats or write.default_formats(TASKS.find(task).kind) for task in tasks}

    def _read(self, job: Job) -> _Read:
        """The image, which version of its file this is, and what is known beside it."""
        self._check_free(job)
        version: dict[str, Any] = {}
        with suppress(OSError):  # reading says it better
            version = source(job)
        image, camera = read_photograph(job.path)
        return image, version, space.beside(self._model.request, job, (image.shape[0], image.shape[1]), camera)

    def _save(self, item: Item, predictions: dict[str, Prediction]) -> None:
        self._check_free(item.job)  # once more: it has taken a while
        for task, prediction in predictions.items():
            self._save_one(item, task, prediction)

    def _save_one(self, item: Item, task: str, prediction: Prediction) -> None:
        model, job = self._model, item.job
        traced = {"input": item.version, "request": model.request.record(), "weights": model.weights()}
        names = {name: job.file for name in self._formats[task] if job.file}
        told = space.placed(prediction, item.beside)
        told = told.told({**told.meta, **traced})
        told.save(
            job.sidecar(task),  # with a suffix of ours, dots in names stay
            self._formats[task],
            image=item.image,
            name=job.name,
            names=names,
            vertices=model.request.mesh_vertices,
        )
        if self._output.seen is not None and KINDS[told.kind].distance is not None:
            self._output.seen(job.stem.name, told, item.image)

    def _check_space(self, kinds: Sequence[str]) -> None:
        """ValueError where distances are asked of kinds of which none tells them."""
        if kinds:
            told = next((kind for kind in kinds if KINDS[kind].distance is not None), kinds[0])
            space.check(self._model.request, told, self._output.seen is not None)


def _bytes(prediction: Prediction) -> int:
    return prediction.values.nbytes + (0 if prediction.raw is None else prediction.raw.nbytes)
