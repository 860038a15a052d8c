"""A model's predictions for a set, in order: images read ahead, predicted in batches, written behind."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import torch

from genpercept.commands.evaluate import cache
from genpercept.commands.evaluate.cache import Cache
from genpercept.commands.evaluate.sets import EvalSet, describe
from genpercept.core import dtypes
from genpercept.core.devices import allow_tf32, pick_device
from genpercept.core.texts import words
from genpercept.core.values import Sample
from genpercept.imaging.prediction import Prediction
from genpercept.pipeline import loading
from genpercept.tasks import RegionTask, given_boxes

_READERS, _WRITERS = 2, 2
_ONE_IMAGE = (ValueError, OSError, MemoryError, RuntimeError)  # RuntimeError is how torch says that memory was short


@dataclass(frozen=True)
class Way:
    """What decides a prediction beside the model and the image."""

    processing_resolution: int | None = None
    steps: int | None = None
    ensemble_size: int = 1
    flip_test: bool = False
    seed: int = 0
    dtype: str = "fp32"
    tf32: bool = False  # of float32 on NVIDIA's GPUs
    resize_mode: str | None = None  # as the pipeline's call has it


@dataclass(frozen=True)
class ModelSpec:
    """A model as the command names it. task: or several, with commas, of a model that answers them at once."""

    name: str
    base: str | None = None
    family: str | None = None
    subfolder: str | None = None
    task: str | None = None
    allow_pickle: bool = False
    revision: str | None = None
    variant: str | None = None
    files: bool = False  # a folder of predictions, not a model

    @property
    def tasks(self) -> tuple[str, ...]:
        """Those that are named, each once."""
        return words(self.task or "")


def load(spec: ModelSpec, way: Way, device: str) -> Any:
    """The pipeline, asked for the first of the tasks. ValueError for a model that cannot be had, or not predict this way."""
    dtypes.check(way.dtype)
    options = {k: v for k, v in asdict(spec).items() if v is not None and k not in ("name", "files", "task")}
    options |= {"task": spec.tasks[0]} if spec.tasks else {}
    device = pick_device(device)
    if device.startswith("cuda"):
        allow_tf32(way.tf32)
    pipe = loading.load(spec.name, torch_dtype=dtypes.to_torch(way.dtype), device=device, **options)
    pipe.check_request(way.steps, way.ensemble_size)
    return pipe


def facts(pipe: Any, way: Way, data: EvalSet) -> dict[str, Any]:
    """All that decides the predictions: of the model, of the way, of the images. The split does not: samples have names."""
    info = {k: v for k, v in pipe.info.items() if k not in ("model", "recipe", "licence")}
    chosen = data.record()
    del chosen["split"]
    resolution = pipe.resolution if way.processing_resolution is None else way.processing_resolution
    steps = pipe.default_steps(pipe.paradigm()) if way.steps is None else way.steps
    return {
        "model": info,
        **{k: v for k, v in asdict(way).items() if k not in ("tf32", "resize_mode") or v},  # unknown to older caches
        "processing_resolution": resolution,
        "steps": steps,
        "data": chosen,
        "software": pipe.meta["software"],
    }


@dataclass
class Clock:
    """Images the network saw, and the seconds it took."""

    images: int = 0
    seconds: float = 0.0


class Predictor:
    """One model, one way, one set; `cache` holds what is done.

    beside: caches of further tasks that the model answers in the same run.
    """

    def __init__(
        self,
        pipe: Any,
        way: Way,
        data: EvalSet,
        store: Cache,
        batch_size: int,
        beside: Mapping[str, Cache] | None = None,
    ) -> None:
        self.pipe, self.way, self.data, self.cache, self.batch_size = pipe, way, data, store, batch_size
        self.beside = beside or {}
        self.clock = Clock()

    def predict(self, samples: list[Sample]) -> list[Prediction]:
        """One for each sample."""
        return [found[self.pipe.task] for found in self.answers(samples)]

    def answers(self, samples: list[Sample]) -> list[dict[str, Prediction]]:
        """Of each sample by task: the pipeline's own, and those beside it.

        The noise is keyed by the sample's name: a resumed run gives the same, and no error of one noise runs through a table.
        """
        begin = time.perf_counter()
        images = [s.image for s in samples]
        options: dict[str, Any] = {
            "processing_resolution": self.way.processing_resolution,
            "num_inference_steps": self.way.steps,
            "ensemble_size": self.way.ensemble_size,
            "flip_test": self.way.flip_test,
            "generator": [torch.Generator().manual_seed(crc32(f"{self.way.seed} {s.name}".encode())) for s in samples],
            "batch_size": self.batch_size,
        }
        if self.way.resize_mode is not None:
            options["resize_mode"] = self.way.resize_mode
        if isinstance(self.pipe.task_plugin, RegionTask):
            options["boxes"] = [given_boxes(s) for s in samples]
        own: str = self.pipe.task
        if self.beside:
            found = self.pipe.joint(images, (own, *self.beside), **options)
        else:
            found = [{own: one} for one in self.pipe(images, **options)]
        self.clock.images += len(samples)
        self.clock.seconds += time.perf_counter() - begin
        return found

    def one(self, sample: Sample) -> Prediction:
        """Of the sample of this name: from its file, or, where that is gone, made again."""
        path = self.cache.path(sample.name)
        return cache.load(path, sample) if path.is_file() else self.predict([sample])[0]

    def run(self, bad: Callable[[str, str], None]) -> Iterator[tuple[int, Path]]:
        """(number in the set, prediction's file) in order, each as soon as its file is there. `bad` gets name and problem."""
        with _Threads() as threads:
            line = deque(self._read_ahead(threads, 0))
            yield from self._flow(threads, line, bad)

    def _read_ahead(self, threads: _Threads, start: int) -> Iterator[_Item]:
        """The next items, those without a prediction with their sample on its way."""
        for i in range(start, min(start + self.batch_size + _READERS, len(self.data.entries))):
            yield self._item(threads, i)

    def _item(self, threads: _Threads, i: int) -> _Item:
        path = self.cache.path(self.data.names[i])
        item = _Item(i, path)
        if not path.is_file():
            item.reading = threads.readers.submit(self.data.dataset.load, self.data.entries[i])
        return item

    def _flow(
        self, threads: _Threads, line: deque[_Item], bad: Callable[[str, str], None]
    ) -> Iterator[tuple[int, Path]]:
        batch: list[_Item] = []
        written: deque[_Item] = deque()  # in order: done before, being written, or in the batch
        following = len(line)
        while line:
            item = line.popleft()
            if following < len(self.data.entries):
                line.append(self._item(threads, following))
                following += 1
            written.append(item)
            if item.reading is not None and self._read(item, bad):
                batch.append(item)
            if len(batch) == self.batch_size or not line:
                self._predict(batch, threads, bad)
                batch = []
            yield from self._done(written, 2 * _WRITERS + len(batch), bad)
        yield from self._done(written, 0, bad)

    def _read(self, item: _Item, bad: Callable[[str, str], None]) -> bool:
        assert item.reading is not None
        try:
            item.sample = item.reading.result()
        except _ONE_IMAGE as error:
            self._bad(item, error, bad)
            return False
        finally:
            item.reading = None
        return True

    def _predict(self, batch: list[_Item], threads: _Threads, bad: Callable[[str, str], None]) -> None:
        """Predict and hand to the writers; a batch that fails is tried one by one, so that only the guilty are left out."""
        if not batch:
            return
        samples = [item.sample for item in batch if item.sample is not None]
        try:
            answers = self.answers(samples)
        except _ONE_IMAGE as error:
            if len(batch) > 1:
                for item in batch:
                    self._predict([item], threads, bad)
            else:
                self._bad(batch[0], error, bad)
            return
        for item, sample, found in zip(batch, samples, answers, strict=True):
            item.writing = threads.writers.submit(self._keep, self.data.names[item.number], sample, found)
            item.sample = None

    def _keep(self, name: str, sample: Sample, found: Mapping[str, Prediction]) -> None:
        """Each in its cache; the pipeline's own last, since its file says that the sample is done."""
        for task, store in self.beside.items():
            cache.save(store.path(name), found[task], sample)
        cache.save(self.cache.path(name), found[self.pipe.task], sample)

    def _done(self, written: deque[_Item], leave: int, bad: Callable[[str, str], None]) -> Iterator[tuple[int, Path]]:
        """What is on disk, in order, waiting until at most `leave` are not."""
        while written and (len(written) > leave or written[0].ready):
            item = written[0]
            if item.sample is not None:  # still in the batch that is being gathered
                return
            written.popleft()
            if item.writing is not None:
                item.writing.result()
            if not item.failed:
                yield item.number, item.path

    def _bad(self, item: _Item, error: Exception, bad: Callable[[str, str], None]) -> None:
        item.failed, item.sample = True, None
        bad(self.data.names[item.number], describe(error, self.data.names[item.number]))


@dataclass
class _Item:
    """A sample on its way: being read, in a batch (`sample`), being written, or failed; none of these: on disk already."""

    number: int
    path: Path
    reading: Future[Sample] | None = None
    sample: Sample | None = None
    writing: Future[None] | None = None
    failed: bool = False

    @property
    def ready(self) -> bool:
        return self.reading is None and self.sample is None and (self.writing is None or self.writing.done())


class _Threads:
    """Readers and writers; files that have begun to be written are finished whatever happens."""

    def __enter__(self) -> _Threads:
        self.readers = ThreadPoolExecutor(_READERS, "read")
        self.writers = ThreadPoolExecutor(_WRITERS, "write")
        return self

    def __exit__(self, *_: object) -> None:
        self.readers.shutdown(wait=False, cancel_futures=True)
        self.writers.shutdown(wait=True, cancel_futures=True)
