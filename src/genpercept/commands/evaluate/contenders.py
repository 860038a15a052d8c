"""What is evaluated, a row of a table each: a model, a model per category, or predictions that lie in files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from genpercept.commands.evaluate import cache, cell, predictions, stored
from genpercept.commands.evaluate.cache import Cache
from genpercept.commands.evaluate.cell import Cell, Machinery, Said
from genpercept.commands.evaluate.predictions import ModelSpec, Predictor, Way
from genpercept.commands.evaluate.scoring import Scorer, Source
from genpercept.commands.evaluate.sets import EvalSet
from genpercept.commands.files import fitted
from genpercept.core.names import hint
from genpercept.core.values import Sample
from genpercept.imaging.prediction import Prediction
from genpercept.metrics import METRICS, options_for
from genpercept.tasks import JudgingTask, Task

_PLACE = "{category}"


class Contender(Protocol):
    """One row of each set's table."""

    @property
    def name(self) -> str: ...

    def task_on(self, data: EvalSet) -> Task:
        """What it answers there."""
        ...

    def on(self, data: EvalSet, said: Said) -> Cell:
        """What it scores on this set. ValueError for a bad sample, unless those are skipped."""
        ...


@dataclass
class Run:
    """What all of a run share. seen: keys of the predictions of this very run, which another split may share."""

    way: Way
    device: str
    how: Machinery
    resume: bool
    seen: set[str] = field(default_factory=set)

    def fresh(self, key: str) -> bool:
        """Whether predictions of an earlier run under this key must be made again."""
        old = not (self.resume or key in self.seen)
        self.seen.add(key)
        return old


def opened(spec: ModelSpec, run: Run) -> Sequence[Contender]:
    """One for each task that is named. ValueError for a model that cannot be had, or that cannot predict this way."""
    if spec.files:
        return [Files.of(replace(spec, task=task), run) for task in spec.tasks or (None,)]
    per_category = categories_of(spec)
    if per_category is None:
        return OneModel.of(spec, run)
    if len(spec.tasks) > 1:
        raise ValueError(
            f"{spec.name}: has a model per category, each of one task: name one of {', '.join(spec.tasks)}"
        )
    return [PerCategory(spec.name, per_category, run)]


@dataclass
class OneModel:
    """later: the same model, asked for the tasks that come after this one; they are predicted in the same run."""

    name: str
    pipe: Any
    run: Run
    later: Sequence[Any] = ()

    @classmethod
    def of(cls, spec: ModelSpec, run: Run) -> list[OneModel]:
        pipe = predictions.load(spec, run.way, run.device)
        views = [pipe.answering(task) for task in spec.tasks] if len(spec.tasks) > 1 else [pipe]
        return [cls(spec.name, view, run, views[i + 1 :]) for i, view in enumerate(views)]

    def task_on(self, data: EvalSet) -> Task:
        return self.pipe.task_plugin

    def on(self, data: EvalSet, said: Said) -> Cell:
        run = self.run
        fresh = run.fresh(cache.key(predictions.facts(self.pipe, run.way, data)))
        beside: dict[str, Cache] = {}
        for view in self.later:
            facts = predictions.facts(view, run.way, data)
            beside[view.task] = Cache.open(run.how.out, facts, run.fresh(cache.key(facts)))
        return cell.of_model(self.name, self.pipe, run.way, data, run.how, fresh, said, beside)


# ---- a model per category --------------------------------------------------------------------------------------------


@runtime_checkable
class _Categorised(Protocol):
    """An entry of a data set with a model per category, such as MVTec AD."""

    category: str


def categories_of(spec: ModelSpec) -> dict[str, ModelSpec] | None:
    """The model of each category, by a folder with fit.json or a path with {category} in it; None: one model for all.

    ValueError for a fit.json that names none, or a path that fits no folder.
    """
    if _PLACE in spec.name:
        found = {name: str(path) for name, path in _matching(spec.name)}
        if not found:
            raise ValueError(f"{spec.name}: no folder fits it; put {_PLACE} where the category's name stands")
        return {name: replace(spec, name=path) for name, path in sorted(found.items())}
    fit = fitted.read(Path(spec.name))
    return None if fit is None else {name: replace(spec, name=str(path)) for name, path in fit.items()}


def _matching(pattern: str) -> Iterator[tuple[str, Path]]:
    """(category, folder) of what is there; the part of the path with {category} in it may have more in it."""
    parts = Path(pattern).expanduser().parts
    at = next(i for i, part in enumerate(parts) if _PLACE in part)
    before, _, after = parts[at].partition(_PLACE)
    base = Path(*parts[:at])
    for path in sorted(base.iterdir()) if base.is_dir() else ():
        name = path.name
        if name.startswith(before) and name.endswith(after) and len(name) > len(before) + len(after):
            folder = path.joinpath(*parts[at + 1 :])
            if folder.is_dir():
                yield name[len(before) : len(name) - len(after)], folder


class PerCategory:
    """One model for each category of a set, one after the other in memory; the set's figures are those of all of them."""

    def __init__(self, name: str, specs: Mapping[str, ModelSpec], run: Run) -> None:
        self.name, self.specs, self.run = name, specs, run
        self._loaded: tuple[str, Any] = "", None
        self.task: Task = self._pipe(next(iter(specs))).task_plugin

    def _pipe(self, category: str) -> Any:
        if self._loaded[0] != category:
            self._loaded = "", None  # the last one's memory is free before the next one takes its own
            self._loaded = category, predictions.load(self.specs[category], self.run.way, self.run.device)
        return self._loaded[1]

    def task_on(self, data: EvalSet) -> Task:
        return self.task

    def on(self, data: EvalSet, said: Said) -> Cell:
        how, begin = self.run.how, time.perf_counter()
        parts = self._parts(data)
        made = cell.started(self.name, data, self.task)
        stores: dict[str, Cache] = {}
        with Scorer(cell.rules_of(self.task, data), how.workers, how.skip_bad) as scorer:
            done = 0
            for category, part in parts.items():
                predictor = self._predictor(category, part)
                stores[category] = predictor.cache
                for number, path in predictor.run(scorer.skip):
                    scorer.add(part.entries[number], part.names[number], Source(path))
                    said(done := done + 1)
                cell.clocked(made, predictor)
                made.about_model[category] = dict(predictor.pipe.meta)
            scores = scorer.finish()
        made.timing |= {"seconds": time.perf_counter() - begin, "metric_seconds": scores.seconds}
        home = {name: category for category, part in parts.items() for name in part.names}

        def predicted(sample: Sample) -> Prediction:
            path = stores[home[sample.name]].path(sample.name)
            return cache.load(path, sample) if path.is_file() else self._again(home[sample.name], data, sample)

        cell.finished(made, self.task, scores, how, predicted)
        if not how.keep:
            for store in stores.values():
                store.drop({e.name for e in made.examples})
        return made

    def _parts(self, data: EvalSet) -> dict[str, EvalSet]:
        """The set's samples by category, in order. ValueError for a set without categories, or one that has no model."""
        found: dict[str, list[int]] = {}
        for i, entry in enumerate(data.entries):
            if not isinstance(entry, _Categorised):
                raise ValueError(
                    f"{self.name}: has a model per category, but data set {data.spec.dataset!r} has no categories; "
                    "name one of its models"
                )
            found.setdefault(entry.category, []).append(i)
        for category in found:
            if category not in self.specs:
                raise ValueError(f"{self.name}: no model for category {category!r}: {hint(category, self.specs)}")
        picked = {c: ([data.entries[i] for i in at], [data.names[i] for i in at]) for c, at in found.items()}
        return {c: replace(data, entries=tuple(e), names=tuple(n)) for c, (e, n) in picked.items()}

    def _predictor(self, category: str, part: EvalSet) -> Predictor:
        pipe = self._pipe(category)
        if (pipe.task, _unjudged(pipe.task_plugin)) != (self.task.name, _unjudged(self.task)):
            raise ValueError(
                f"{self.specs[category].name}: another task, or other options of it, than the first model has"
            )
        facts = predictions.facts(pipe, self.run.way, part)
        store = Cache.open(self.run.how.out, facts, self.run.fresh(cache.key(facts)))
        return Predictor(pipe, self.run.way, part, store, self.run.how.batch_size)

    def _again(self, category: str, data: EvalSet, sample: Sample) -> Prediction:
        pipe, how = self._pipe(category), self.run.how
        nowhere = Cache(how.out / "predictions")
        return Predictor(pipe, self.run.way, data, nowhere, how.batch_size).predict([sample])[0]


def _unjudged(task: Task) -> dict[str, Any]:
    """The options without those of the verdict, which each category's model has of its own and no figure reads."""
    verdict = task.verdict if isinstance(task, JudgingTask) else ()
    return {key: value for key, value in task.options.items() if key not in verdict}


# ---- predictions in files --------------------------------------------------------------------------------------------


@dataclass
class Files:
    """Predictions that somebody made: `genpercept predict`, or any program that writes what metrics read."""

    name: str
    folder: Path
    task: Task
    found: dict[str, Path]
    run: Run

    @classmethod
    def of(cls, spec: ModelSpec, run: Run) -> Files:
        task, found = stored.opened(Path(spec.name), spec.task)
        return cls(spec.name, Path(spec.name), task, found, run)

    def task_on(self, data: EvalSet) -> Task:
        return stored.with_classes(self.task, data)

    def on(self, data: EvalSet, said: Said) -> Cell:
        how, begin, task = self.run.how, time.perf_counter(), self.task_on(data)
        paths = stored.joined(self.found, self.folder, data)
        first = next(path for path in paths if path is not None)
        made = cell.started(self.name, data, task, done=stored.post_processing(first))
        rules = cell.rules_of(task, data)
        options = options_for(METRICS.find(task.metric), {stored.kind_of(first) or task.kind}, rules.metric_options)
        with Scorer(replace(rules, metric_options=options), how.workers, how.skip_bad) as scorer:
            for i, (entry, name, path) in enumerate(zip(data.entries, data.names, paths, strict=True)):
                if path is None:
                    scorer.skip(name, stored.missing(self.folder, name))
                else:
                    scorer.add(entry, name, Source(path, foreign=True))
                said(i + 1)
            scores = scorer.finish()
        made.timing = {"seconds": time.perf_counter() - begin, "metric_seconds": scores.seconds}
        by_name = dict(zip(data.names, paths, strict=True))
        answer: Callable[[Sample], Prediction] = lambda s: stored.read(task, by_name[s.name])  # noqa: E731
        cell.finished(made, task, scores, how, answer)
        return made
