"""Sets that a model is scored on by its task's metric, each image at its own size, as `genpercept evaluate` scores it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from zlib import crc32

import torch

from genpercept.core.values import Sample
from genpercept.data import DATASETS
from genpercept.metrics import METRICS
from genpercept.pipeline.pipeline import GenPerceptPipeline
from genpercept.tasks import RegionTask, Task, given_boxes
from genpercept.training.recipe_samples import HeldOut, Loader
from genpercept.training.samples.records import cut_off, to_sample
from genpercept.training.samples.sources import Source, check_declared, open_source

_READERS = 2  # threads that read images


def check(sets: Sequence[HeldOut], task: Task, where: str) -> None:
    """ValueError for a set that can never be scored: of an unknown name, option, split or protocol, or without the labels.

    No file is looked for. where: what the sets are called, in the line.
    """
    for data in sets:
        METRICS.find(task.metric)(protocol=protocol_of(data, task), **task.metric_options())
        check_declared(data, [data.split], task, f"{where} {data.label!r}: ")


def protocol_of(data: HeldOut, task: Task) -> str | None:
    """The protocol that a set is scored under, as `genpercept evaluate` has it; None: the metric's own rule."""
    about = DATASETS.find(data.name).about
    return data.protocol or (about.protocols.get(task.name) if about else None) or None


def directions(task: Task) -> dict[str, bool]:
    """The figures that validation reports of the task's metric and that models can be ranked by -> whether more is better."""
    plugin = METRICS.find(task.metric)
    columns = (*plugin.columns, *plugin.others)
    return {column.key: column.higher for column in columns if column.higher is not None and plugin.watches(column.key)}


class OpenSet:
    """A set with its entries found. ValueError where they are not there, or where the first one lacks the task's label."""

    def __init__(self, data: HeldOut, task: Task, loader: Loader, report: Callable[[str], None]) -> None:
        self.data = data
        try:
            self._source: Source = open_source(data.data(), loader, report)
            task.truth(self._sample(0))
        except ValueError as error:
            raise ValueError(f"validation.sets {data.label!r}: {error}") from None

    def _sample(self, index: int) -> Sample:
        return to_sample(cut_off(self._source[index], self.data.far))

    def score(self, pipe: GenPerceptPipeline, steps: int, at_once: int) -> dict[str, float]:
        """The metric's figures that validation reports. steps of inference: 0 for the model's own."""
        task = pipe.task_plugin
        plugin = METRICS.find(task.metric)
        metric = plugin(protocol=protocol_of(self.data, task), **task.metric_options())
        for first, samples in self._chunks(at_once):
            found = pipe(
                [sample.image for sample in samples],
                num_inference_steps=steps or None,
                batch_size=at_once,
                **_given(task, samples),
            )
            for i, (sample, prediction) in enumerate(zip(samples, found, strict=True), first):
                metric.update(prediction, **task.truth(sample), name=f"{i:06d} {sample.name}")
        return {key: float(value) for key, value in metric.compute().items() if plugin.watches(key)}

    def _chunks(self, size: int) -> Iterator[tuple[int, list[Sample]]]:
        """All samples, with the number of the first; the next ones are read while the network has these."""
        starts = range(0, len(self._source), size)
        with ThreadPoolExecutor(_READERS) as readers:

            def read(start: int) -> list[Any]:
                return [readers.submit(self._sample, i) for i in range(start, min(start + size, len(self._source)))]

            waiting = read(0)
            for start in starts:
                samples = [item.result() for item in waiting]
                waiting = read(start + size)
                yield start, samples


def _given(task: Task, samples: Sequence[Sample]) -> dict[str, Any]:
    """Each image's own noise, keyed by its name as `genpercept evaluate` keys it, and where a task on regions looks."""
    draws = [torch.Generator().manual_seed(crc32(f"0 {sample.name}".encode())) for sample in samples]
    boxes = {"boxes": [given_boxes(sample) for sample in samples]} if isinstance(task, RegionTask) else {}
    return {"generator": draws} | boxes
