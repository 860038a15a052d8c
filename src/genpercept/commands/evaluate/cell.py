"""One cell of the table: a model, or a baseline, on a data set."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from genpercept.commands.evaluate import baselines, cache, pictures, predictions
from genpercept.commands.evaluate.cache import Cache
from genpercept.commands.evaluate.columns import breakdowns, ranked
from genpercept.commands.evaluate.predictions import Predictor, Way
from genpercept.commands.evaluate.scoring import ONE_SAMPLE, Rules, Scorer, Scores, Source, observations
from genpercept.commands.evaluate.sets import EvalSet
from genpercept.core import files
from genpercept.imaging.prediction import Prediction
from genpercept.metrics import Breakdown, Metric
from genpercept.tasks import PostProcessedTask, Task


@dataclass(frozen=True)
class Machinery:
    """How it is computed; no figure depends on it."""

    out: Path
    workers: int = 2
    batch_size: int = 1
    skip_bad: bool = False
    keep: bool = True  # predictions, once a set is scored
    pictures: bool = True


@dataclass(frozen=True)
class Example:
    """A sample to look at: its rank in words, its figures, and pictures with their captions."""

    rank: str
    name: str
    figures: Mapping[str, float]
    pictures: Sequence[tuple[Image.Image, str]]


@dataclass
class Cell:
    """What one model or baseline scores on one set."""

    model: str
    data: EvalSet
    task: str
    metric: str
    protocol: str | None
    scores: Scores
    baseline: bool = False
    key: str = ""  # of its predictions
    timing: dict[str, float] = field(default_factory=dict)
    about_model: dict[str, Any] = field(default_factory=dict)
    examples: list[Example] = field(default_factory=list)
    breakdowns: list[Breakdown] = field(default_factory=list)
    post_processing: str = ""  # in words; "": there is no such choice

    def record(self) -> dict[str, Any]:
        """As results.json holds it."""
        scores, spec = self.scores, self.data.spec
        return {
            "model": self.model,
            "baseline": self.baseline,
            "set": self.data.title,
            **self.data.record(),
            "task": self.task,
            "metric": self.metric,
            "protocol": self.protocol,
            "post_processing": self.post_processing,
            "count": len(scores.rows),
            "figures": scores.figures,
            "details": scores.details,
            "breakdowns": [{"what": b.what, "rows": b.rows} for b in self.breakdowns],
            "empty": scores.empty,
            "skipped": scores.skipped,
            "reported": [asdict(r) for r in spec.reported],
            "predictions": self.key,
            "about_model": self.about_model,
            "timing": self.timing,
            "examples": [{"rank": e.rank, "name": e.name} for e in self.examples],
            "samples": [{"name": name, "figures": row} for name, row in scores.rows.items()],
        }


Said = Callable[[int], None]  # told the number of samples that went to the metrics


def rules_of(task: Task, data: EvalSet) -> Rules:
    """How samples of this set are scored for this task."""
    return Rules(data.dataset, task, {"protocol": data.protocol(task), **task.metric_options()})


def of_model(
    name: str,
    pipe: Any,
    way: Way,
    data: EvalSet,
    how: Machinery,
    fresh: bool,
    said: Said | None = None,
    beside: Mapping[str, Cache] | None = None,
) -> Cell:
    """Predict what is not on disk, score all of it. ValueError for the first bad sample unless those are skipped.

    beside: caches of further tasks, which are predicted in the same run, and scored later.
    """
    facts, task = predictions.facts(pipe, way, data), pipe.task_plugin
    store = Cache.open(how.out, facts, fresh)
    predictor = Predictor(pipe, way, data, store, how.batch_size, beside)
    begin = time.perf_counter()
    known = _Finished.of(store, task, data, how)
    scores = None if fresh else known.read()
    if scores is None:
        with Scorer(rules_of(task, data), how.workers, how.skip_bad) as scorer:
            for number, path in predictor.run(scorer.skip):
                scorer.add(data.entries[number], data.names[number], Source(path))
                if said is not None:
                    said(number + 1)
            scores = scorer.finish()
    cell = started(name, data, task, store.folder.name)
    cell.about_model = dict(pipe.meta)
    clocked(cell, predictor)
    cell.timing |= {"seconds": time.perf_counter() - begin, "metric_seconds": scores.seconds}
    finished(cell, task, scores, how, predictor.one)
    if not how.keep:
        known.write(scores)
        store.drop({e.name for e in cell.examples})
    return cell


def started(name: str, data: EvalSet, task: Task, key: str = "", done: str | None = None) -> Cell:
    """A cell that has no scores yet. done: the post-processing of its predictions, where that is not the task's."""
    cell = Cell(name, data, task.name, task.metric, data.protocol(task), Scores(), key=key)
    words = task.post_processing if isinstance(task, PostProcessedTask) else ""
    cell.post_processing = _post_processing(words if done is None else done, rules_of(task, data).metric())
    return cell


def _post_processing(model: str, metric: Metric) -> str:
    """What was done to predictions before they were compared, in words: by the model and by the metric.

    A metric that begins with what the model has done (min-max of what is stretched changes nothing) speaks for both.
    """
    said = {"model": model, "metric": metric.post_processing}
    if said["metric"].startswith(f"{model}, then "):
        return said["metric"]
    done = {who: words for who, words in said.items() if words not in ("", "none")}
    if len(set(done.values())) > 1:
        return "; ".join(f"{who}: {words}" for who, words in done.items())
    return next(iter(done.values()), "none" if "none" in said.values() else "")


def clocked(cell: Cell, predictor: Predictor) -> None:
    """Add what a model took for its predictions."""
    for key, value in {"predicted": predictor.clock.images, "predict_seconds": predictor.clock.seconds}.items():
        cell.timing[key] = cell.timing.get(key, 0) + value


def finished(cell: Cell, task: Task, scores: Scores, how: Machinery, predicted: Callable[[Any], Prediction]) -> None:
    """Put in the scores, what they are broken down into, and pictures. predicted: a sample's prediction."""
    cell.scores = _in_order(scores, cell.data)
    cell.breakdowns = breakdowns(task, cell.data.dataset, scores.details, scores.groups)
    if how.pictures:
        cell.examples = examples(task, cell.data, scores, predicted)


@dataclass(frozen=True)
class _Finished:
    """The scores of a set whose predictions were not kept: what `--resume` has in their place."""

    path: Path

    @classmethod
    def of(cls, store: Cache, task: Task, data: EvalSet, how: Machinery) -> _Finished:
        facts = {**data.record(), "names": data.names, **rules_of(task, data).metric_options, "skip_bad": how.skip_bad}
        return cls(store.folder / f"scores-{cache.key(facts)}.json")

    def read(self) -> Scores | None:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        rows, groups = ({n: _numbers(row) for n, row in found.pop(key).items()} for key in ("rows", "groups"))
        return Scores(_numbers(found.pop("figures")), rows=rows, groups=groups, **found)

    def write(self, scores: Scores) -> None:
        files.write_json(self.path, asdict(scores))


def _numbers(row: Mapping[str, float | None]) -> dict[str, float]:
    """Out of JSON, which has no NaN."""
    return {key: math.nan if value is None else value for key, value in row.items()}


def of_baselines(task: Task, data: EvalSet, how: Machinery) -> list[Cell]:
    """The task's trivial answers, through the same metric and the same workers."""
    rules, cells = rules_of(task, data), []
    known = (
        how.out
        / "predictions"
        / f"baselines-{cache.key({'task': task.name, 'options': task.options, **data.record()})}.npz"
    )
    known.parent.mkdir(parents=True, exist_ok=True)
    if baselines.fitted(task.metric):
        jobs = list(zip(data.entries, data.names, strict=True))
        baselines.fit(known, (seen for _, seen in observations(rules, how.workers, jobs) if seen is not None))
    for title in baselines.titles(task.metric):
        begin = time.perf_counter()
        with Scorer(rules, how.workers, how.skip_bad) as scorer:
            for entry, name in zip(data.entries, data.names, strict=True):
                scorer.add(entry, name, Source(known, title))
            scores = _in_order(scorer.finish(), data)
        cell = started(f"baseline: {title}", data, task, done="")
        cell.scores, cell.baseline = scores, True
        cell.timing = {"seconds": time.perf_counter() - begin, "metric_seconds": scores.seconds}
        cell.breakdowns = breakdowns(task, data.dataset, scores.details, scores.groups)
        cells.append(cell)
    return cells


def _in_order(scores: Scores, data: EvalSet) -> Scores:
    place = {name: i for i, name in enumerate(data.names)}
    scores.skipped.sort(key=lambda one: place.get(one["name"], -1))
    return scores


def examples(task: Task, data: EvalSet, scores: Scores, predicted: Callable[[Any], Prediction]) -> list[Example]:
    """The best, the median and the worst sample, each once, with their pictures."""
    order = ranked(task.metric, scores.rows)
    if not order:
        return []
    picks = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    place, found, seen = {name: i for i, name in enumerate(data.names)}, [], set()
    for rank, name in picks.items():
        if name in seen or name not in place:
            continue
        seen.add(name)
        try:
            sample = data.dataset.load(data.entries[place[name]])
            sample.name = name
            shown = pictures.panels(task, sample, predicted(sample), rules_of(task, data).metric())
        except ONE_SAMPLE:  # read a moment ago; a picture is not worth the run
            continue
        found.append(Example(rank, name, scores.rows[name], shown))
    return found
