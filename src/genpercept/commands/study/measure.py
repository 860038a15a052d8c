"""What a trained arm scores: figures of every image of the held-out sets, for every way of predicting."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from genpercept.core.names import choose
from genpercept.core.values import Sample
from genpercept.metrics import METRICS
from genpercept.pipeline import loading
from genpercept.tasks import TASKS, RegionTask, Task, given_boxes
from genpercept.training.recipe import Loader, Section
from genpercept.training.recipe_samples import HeldOut
from genpercept.training.run import held_out
from genpercept.training.samples.records import Record, to_sample
from genpercept.training.samples.sources import Source, open_source

_CHUNK, _PIXELS = 32, 1 << 25  # images handed to the pipeline at once, or fewer where they have so many pixels together
Figures = dict[str, list[Any]]  # "name" -> of each image; metric -> its figure of each image (NaN: no valid pixel)


class Test(HeldOut):
    """A set that the arms are scored on."""

    # "folder": images of a folder of the set are of one scene, and no more independent than its walls are; "": each is its own
    scenes: Literal["", "folder"] = ""

    def content(self) -> dict[str, Any]:
        """What figures depend on; how they are averaged they do not."""
        return self.model_dump(mode="json", exclude={"scenes"})


class Inference(Section):
    """One way in which a trained model predicts."""

    name: str = ""  # default: told by the steps and the ensemble
    steps: int = Field(default=0, ge=0)  # 0: the paradigm's own
    ensemble_size: int = Field(default=1, ge=1)
    ensembling: dict[str, Any] = Field(default_factory=dict)  # the pipeline's ensembling_kwargs, such as solver
    options: dict[str, Any] = Field(default_factory=dict)  # of the paradigm, such as spacing

    @property
    def title(self) -> str:
        if self.name:
            return self.name
        steps = f"{self.steps} step{'s' if self.steps > 1 else ''}" if self.steps else "its own steps"
        return steps + (f", ensemble of {self.ensemble_size}" if self.ensemble_size > 1 else "")


def check_tests(sets: Sequence[HeldOut], tasks: Iterable[str], metrics: Sequence[str]) -> None:
    """ValueError for a test set that can never be scored, and for metrics that the tasks' have no column for."""
    for task in map(TASKS.find, tasks):
        plugin = METRICS.find(task.metric)
        declared = [column.key for column in (*plugin.columns, *plugin.others)]
        for key in metrics if declared else ():
            choose(f"figure of metric {plugin.name!r}", key, declared)
        held_out.check(sets, task, "test")


def measure(
    model: Path,
    sets: Sequence[HeldOut],
    ways: Sequence[Inference],
    metrics: Sequence[str],
    seed: int = 0,
    batch_size: int = 16,
    loader: Loader | None = None,
) -> dict[str, dict[str, Figures]]:
    """Title of the inference -> label of the set -> figures. `seed` keys the noise of paradigms that draw some.

    metrics: keys of the figures of the task's metric. ValueError for one that it does not have.
    """
    pipe = loading.load(str(model))
    found: dict[str, dict[str, Figures]] = {way.title: {} for way in ways}
    for data in sets:
        source = open_source(data.data(), loader or Loader())
        for way in ways:
            found[way.title][data.label] = _score(pipe, source, data, way, metrics, seed, batch_size)
    return found


def _score(
    pipe: Any,
    source: Source,
    data: HeldOut,
    way: Inference,
    metrics: Sequence[str],
    seed: int,
    batch_size: int,
) -> Figures:
    task: Task = pipe.task_plugin
    metric = METRICS.find(task.metric)(protocol=held_out.protocol_of(data, task), **task.metric_options())
    figures: Figures = {"name": [], **{key: [] for key in metrics}}
    for start, records in _chunks(source):
        images = [np.asarray(record["image"]) for record in records]
        samples = [to_sample(record) for record in records]
        boxes = [_boxes(sample) for sample in samples] if isinstance(task, RegionTask) else None
        predictions = _predict(pipe, images, range(start, start + len(images)), way, seed, batch_size, boxes)
        for i, (sample, prediction) in enumerate(zip(samples, predictions, strict=True), start):
            name = f"{i:06d} {sample.name}"
            row = metric.update(prediction, **task.truth(sample), name=name)
            if unknown := [key for key in metrics if key not in row]:
                raise ValueError(f"metrics: {task.metric} has no {', '.join(unknown)}; it has {', '.join(row)}")
            figures["name"].append(name)
            for key in metrics:
                figures[key].append(float(row[key]))
    return figures


def _chunks(source: Source) -> Iterator[tuple[int, list[Record]]]:
    """All records, with the number of the first, so many at a time as memory holds."""
    begin, found, pixels = 0, [], 0
    for i in range(len(source)):
        found.append(source[i])
        pixels += math.prod(found[-1]["image"].shape[:2])
        if len(found) == _CHUNK or pixels >= _PIXELS or i + 1 == len(source):
            yield begin, found
            begin, found, pixels = i + 1, [], 0


def _predict(
    pipe: Any,
    images: Sequence[np.ndarray],
    indices: Sequence[int],
    way: Inference,
    seed: int,
    batch_size: int,
    boxes: Sequence[np.ndarray | None] | None = None,
) -> list[Any]:
    """Each image from its own noise: one noise for all would be an error that they share, and no standard error shows.

    boxes: of each image, for a task on regions.
    """
    options: dict[str, Any] = {
        "num_inference_steps": way.steps or None,
        "ensemble_size": way.ensemble_size,
        "ensembling_kwargs": way.ensembling,
        "batch_size": batch_size,
    } | way.options
    options |= {} if boxes is None else {"boxes": list(boxes)}
    draws = [torch.Generator().manual_seed((seed << 32) + i) for i in indices]
    return pipe(list(images), generator=draws, **options)


def _boxes(sample: Sample) -> np.ndarray | None:
    """Where a task on regions looks; None, which is the whole image, where the set has no boxes."""
    return None if sample.boxes is None and "detections" not in sample.meta else given_boxes(sample)
