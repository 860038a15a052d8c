"""The demo's second half: what the other embedded models say about scenes with known answers, and about photographs."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genpercept.checkpoints import hub
from genpercept.commands.evaluate import baselines, pictures
from genpercept.core.values import Sample
from genpercept.imaging import html
from genpercept.imaging.prediction import Prediction
from genpercept.metrics import METRICS, Column
from genpercept.tasks import RegionTask, Task, given_boxes, listed, title_of

SCENES = 32  # scored, of each task
SHOWN = 3
SCENE_SIZE = (192, 256)
HEADER = ("task", "figure", "model", "trivial answer", "", "takes")
_BATCH = 8
_OPENING = 2  # tasks that the demo's first half is about


@dataclass
class Shown:
    """A task's figures over the scenes, those of its best baseline beside them, and rows of pictures."""

    task: str
    figure: Column
    model: float
    baseline: tuple[str, float]
    rows: list[tuple[str, pictures.Panels]]
    predictions: dict[str, Prediction]
    seconds: float  # per scene

    def line(self) -> tuple[str, ...]:
        """As the table shows it."""
        title, value = self.baseline
        shown, name = self.figure.shown, f"{self.figure.title} {self.figure.arrow}"
        return (self.task, name, shown(self.model), shown(value), title, f"{1000 * self.seconds:.0f} ms")


def embedded() -> list[str]:
    """The tasks of this half that have an embedded model."""
    return [task for task in listed()[_OPENING:] if f"{hub.EMBEDDED}/{task}" in hub.embedded_names()]


def scenes() -> list[Sample]:
    """The first of the synthetic world's test split, which no training sees."""
    from genpercept.data import synthetic

    made = synthetic.render(range(SCENES), split="test", size=SCENE_SIZE, workers=os.cpu_count() or 1)
    return synthetic.samples(made)


def judge(pipe: Any, samples: Sequence[Sample]) -> Shown:
    """Predict, score, and paint the first samples that have something to see."""
    task: Task = pipe.task_plugin
    images = [sample.image for sample in samples]
    options = {"boxes": [given_boxes(s) for s in samples]} if isinstance(task, RegionTask) else {}
    pipe(images[0], **{key: value[0] for key, value in options.items()})  # pays for what the first call pays for
    start = time.perf_counter()
    found = pipe(images, batch_size=_BATCH, **options)
    seconds = (time.perf_counter() - start) / len(images)
    plugin = METRICS.find(task.metric)
    figure = plugin.ranking()
    shown = [i for i, sample in enumerate(samples) if plugin.showable(task.truth(sample))][:SHOWN]
    return Shown(
        task.name,
        figure,
        _score(task, samples, found)[figure.key],
        _best_baseline(task, samples, figure),
        [(samples[i].name, pictures.panels(task, samples[i], found[i], _metric(task))) for i in shown],
        {samples[i].name: found[i] for i in shown},
        seconds,
    )


def _metric(task: Any) -> Any:
    return METRICS.find(task.metric)(protocol=_protocol(task), **task.metric_options())


def _protocol(task: Any) -> str | None:
    from genpercept.data.synthetic import PLUGIN

    return PLUGIN.about.protocols.get(task.name) or None


def _score(task: Any, samples: Sequence[Sample], answers: Sequence[Prediction]) -> dict[str, float]:
    metric = _metric(task)
    for sample, answer in zip(samples, answers, strict=True):
        metric.update(answer, **task.truth(sample), name=sample.name)
    return metric.compute()


def _best_baseline(task: Any, samples: Sequence[Sample], figure: Column) -> tuple[str, float]:
    """Its title and figure; no title and NaN where the metric declares no baseline."""
    with tempfile.TemporaryDirectory() as folder:
        known = Path(folder) / "known.npz"
        baselines.fit(known, [baselines.observe(task, sample) for sample in samples])
        values = [
            (title, _score(task, samples, [baselines.predict(task, title, known, s) for s in samples])[figure.key])
            for title in baselines.titles(task.metric)
        ]
    return (max if figure.higher else min)(values, key=lambda item: item[1], default=("", math.nan))


# ---- the page --------------------------------------------------------------------------------------------------------


def sections(
    shown: Sequence[Shown], photographs: dict[str, dict[str, Prediction]], images: dict[str, Any]
) -> list[str]:
    """HTML: figures, scenes by task, photographs."""
    if not shown:
        return []
    lead = (
        f"The first figure that tables of each task show, over {SCENES} held-out scenes, beside the best of the answers that "
        "look at no image (fitted to these very scenes)."
    )
    parts = [html.section("The other tasks", lead, html.table(HEADER, [one.line() for one in shown]))]
    for one in shown:
        rows = [html.row(name, "", [html.Cell(*panel) for panel in panels], 200) for name, panels in one.rows]
        parts.append(html.section(title_of(one.task), "", *rows))
    rows = [
        html.row(name, "", [html.Cell(images[name], "image"), *_cells(images[name], found)], 180)
        for name, found in photographs.items()
    ]
    words = "None of these models has seen a labelled photograph; what fails here shows the gap between the worlds."
    return [*parts, html.section("The same models on photographs", words, *rows)]


def _cells(image: NDArray[np.uint8], found: dict[str, Prediction]) -> Iterator[html.Cell]:
    for task, prediction in found.items():
        yield html.Cell(prediction.colourise(image), task)


def predictions(
    shown: Sequence[Shown], photographs: dict[str, dict[str, Prediction]]
) -> Iterator[tuple[str, str, Prediction]]:
    """(task, image, prediction) of all that the page shows."""
    for one in shown:
        for name, prediction in one.predictions.items():
            yield one.task, name, prediction
    for name, found in photographs.items():
        for task, prediction in found.items():
            yield task, name, prediction


def on_photographs(pipes: dict[str, Any], images: dict[str, Any]) -> dict[str, dict[str, Prediction]]:
    """By image and task, for the tasks that have an answer to any photograph."""
    chosen = {task: pipe for task, pipe in pipes.items() if METRICS.find(pipe.task_plugin.metric).photographs}
    return {name: {task: pipe(image) for task, pipe in chosen.items()} for name, image in images.items()}
