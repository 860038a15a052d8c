"""What the embedded models say where the answer is known: figures over rendered scenes, and the samples to look at."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genpercept.checkpoints import hub
from genpercept.commands.evaluate import baselines, pictures
from genpercept.commands.evaluate.columns import ranked
from genpercept.core.values import Sample
from genpercept.imaging.prediction import Prediction
from genpercept.metrics import METRICS, Column, Metric, Scale
from genpercept.tasks import RegionTask, Task, given_boxes, listed

SCENES = 24  # scored, of each task: as many as a demo has time for
SCENE_SIZE = (192, 256)
HEADER = ("task", "figure", "model", "best trivial answer", "", "per image")
_BATCH = 8


@dataclass
class Example:
    """A sample to look at: its rank in words, its own figure, its pictures, and what their colours mean."""

    rank: str
    name: str
    value: float
    panels: pictures.Panels
    scale: Scale | None
    prediction: Prediction


@dataclass
class Shown:
    """A task's figure over the scenes, that of its best baseline beside it, and the best, median and worst sample."""

    task: str
    figure: Column
    model: float
    baseline: tuple[str, float]
    examples: list[Example]
    seconds: float  # per scene

    def line(self) -> tuple[str, ...]:
        """As the table shows it."""
        title, value = self.baseline
        shown, name = self.figure.shown, f"{self.figure.title} {self.figure.arrow}"
        return (self.task, name, shown(self.model), shown(value), title, f"{1000 * self.seconds:.0f} ms")

    def document(self) -> dict[str, Any]:
        """As --json gives it."""
        title, value = self.baseline
        figures = {"figure": self.figure.key, "model": self.model, "baseline": value, "baseline_of": title}
        return {"task": self.task, **figures, "seconds_per_image": self.seconds}


def embedded() -> list[str]:
    """The tasks that have an embedded model, as pages list them."""
    return [task for task in listed() if f"{hub.EMBEDDED}/{task}" in hub.embedded_names()]


def scenes() -> list[Sample]:
    """The first of the synthetic world's test split, which no training sees."""
    from genpercept.data import synthetic

    made = synthetic.render(range(SCENES), split="test", size=SCENE_SIZE, workers=os.cpu_count() or 1)
    return synthetic.samples(made)


def judge(pipe: Any, samples: Sequence[Sample], protocol: str | None = None) -> Shown:
    """Predict and score, and paint samples that have something to see. protocol: default: the synthetic world's.

    What a pipeline's first call pays for counts as well: give one that was called before.
    """
    task: Task = pipe.task_plugin
    protocol = protocol or _protocol(task)
    images = [sample.image for sample in samples]
    options = {"boxes": [given_boxes(s) for s in samples]} if isinstance(task, RegionTask) else {}
    start = time.perf_counter()
    found = pipe(images, batch_size=_BATCH, **options)
    seconds = (time.perf_counter() - start) / len(images)
    metric = _metric(task, protocol)
    figure = METRICS.find(task.metric).ranking()
    value = _score(metric, task, samples, found)[figure.key]
    examples = [
        _example(rank, task, samples[i], found[i], metric.rows[samples[i].name][figure.key], _metric(task, protocol))
        for rank, i in _picks(task, samples, metric).items()
    ]
    return Shown(task.name, figure, value, _best_baseline(task, samples, figure, protocol), examples, seconds)


def _picks(task: Task, samples: Sequence[Sample], metric: Metric) -> dict[str, int]:
    """Which of the samples that have something to see is best, median and worst by its own figure; each once."""
    plugin, place = METRICS.find(task.metric), {sample.name: i for i, sample in enumerate(samples)}
    order = [place[n] for n in ranked(task.metric, metric.rows) if plugin.showable(task.truth(samples[place[n]]))]
    if len(order) < 3:
        return dict(zip(("best", "worst") if len(order) > 1 else ("",), order, strict=False))
    return {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}


def _example(rank: str, task: Task, sample: Sample, answer: Prediction, value: float, metric: Metric) -> Example:
    plugin = METRICS.find(task.metric)
    panels = pictures.panels(task, sample, answer, metric)
    return Example(rank, sample.name, value, panels, plugin.scale(task.truth(sample), metric, sample.name), answer)


def _metric(task: Any, protocol: str | None) -> Metric:
    return METRICS.find(task.metric)(protocol=protocol, **task.metric_options())


def _protocol(task: Any) -> str | None:
    from genpercept.data.synthetic import PLUGIN

    return PLUGIN.about.protocols.get(task.name) or None


def _score(metric: Metric, task: Any, samples: Sequence[Sample], answers: Sequence[Prediction]) -> dict[str, float]:
    for sample, answer in zip(samples, answers, strict=True):
        metric.update(answer, **task.truth(sample), name=sample.name)
    return metric.compute()


def _best_baseline(task: Any, samples: Sequence[Sample], figure: Column, protocol: str | None) -> tuple[str, float]:
    """Its title and figure; no title and NaN where the metric declares no baseline."""
    with tempfile.TemporaryDirectory() as folder:
        known = Path(folder) / "known.npz"
        baselines.fit(known, [baselines.observe(task, sample) for sample in samples])
        values = []
        for title in baselines.titles(task.metric):
            answers = [baselines.predict(task, title, known, s) for s in samples]
            values.append((title, _score(_metric(task, protocol), task, samples, answers)[figure.key]))
    return (max if figure.higher else min)(values, key=lambda item: item[1], default=("", math.nan))
