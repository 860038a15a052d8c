"""`genpercept evaluate`: models on data sets under the field's protocols, in one command; tables, files and a report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from genpercept.checkpoints import hub
from genpercept.commands.evaluate import cache, cell, contenders, output, page, suites
from genpercept.commands.evaluate import sets as plan
from genpercept.commands.evaluate.cell import Cell, Machinery
from genpercept.commands.evaluate.contenders import Run
from genpercept.commands.evaluate.predictions import ModelSpec, Way
from genpercept.commands.evaluate.sets import EvalSet, SetSpec
from genpercept.core.devices import pick_device
from genpercept.core.files import read_json
from genpercept.core.names import choose
from genpercept.core.said import result, say
from genpercept.core.texts import time_left, words
from genpercept.metrics import METRICS
from genpercept.pipeline.manifest import read_manifest
from genpercept.tasks import DEFAULT, TASKS

__all__ = ["Machinery", "ModelSpec", "SetSpec", "Way", "main", "run"]

_EVERY = 5.0  # seconds between lines of progress


def main(
    models: Sequence[str],
    datasets: Sequence[str],
    out: Path,
    *,
    roots: Sequence[str] = (),
    suite: str | None = None,
    split: str | None = None,
    protocol: str | None = None,
    options: Sequence[str] = (),
    count: int | None = None,
    baselines: bool = False,
    base: str | None = None,
    family: str | None = None,
    subfolder: str | None = None,
    task: str | None = None,
    allow_pickle: bool = False,
    revision: str | None = None,
    variant: str | None = None,
    device: str = "auto",
    resume: bool = False,
    way: Way | None = None,
    files: Sequence[str] = (),
    **machinery: Any,
) -> int:
    """Evaluate as the command line says. Exit code 0, or 1 when samples were skipped. See `run`; ValueError as there."""
    tasks: tuple[str, ...] = ()
    if suite is not None:
        chosen = suites.load(suite)
        tasks = chosen.tasks
        if split is not None:
            raise ValueError(f"--split {split}: suite {suite!r} says its splits; leave it out")
        specs = suites.specs(chosen, datasets, roots, options, protocol)
        for part in chosen.set:
            if part.note and part.title in [s.title for s in specs]:
                say(f"genpercept: {part.title}: {part.note}")
    elif datasets:
        specs = plan.specs(datasets, roots, options, split, protocol)
    else:
        raise ValueError(f"nothing to evaluate on: give --dataset NAME, or --suite: {', '.join(suites.names())}")
    if not models and not files:
        if len(words(task or "")) > 1:
            raise ValueError(f"--task {task}: no embedded model answers several tasks at once: name one by --model")
        models = [_embedded(task or (tasks[0] if tasks else DEFAULT), specs, suite)]
        say(f"genpercept: no --model given: using {models[0]}, small and embedded")
        task = None
    named = [ModelSpec(m, base, family, subfolder, task, allow_pickle, revision, variant) for m in models]
    named += [ModelSpec(folder, task=task, files=True) for folder in files]
    return run(
        named, specs, Machinery(Path(out), **machinery), way, count, baselines, device, resume, tasks, suite=suite
    )


def _embedded(name: str, specs: Sequence[SetSpec], suite: str | None) -> str:
    """The embedded model of a task. ValueError where there is none, or where a suite has sets that it cannot answer."""
    model = hub.embedded_for(TASKS.find(name).name)
    info = read_manifest(hub.resolve(model))
    task = TASKS.find(info["task"]).with_options(**(info.get("task_options") or {}))
    lacking = [f"{s.title} ({why})" for s in specs if suite is not None and (why := plan.unfit(s, task))]
    if lacking:
        raise ValueError(
            f"suite {suite}: no embedded model can answer {', '.join(lacking)}: pass --model with one that was trained for it"
        )
    return model


def run(
    models: Sequence[ModelSpec],
    specs: Sequence[SetSpec],
    how: Machinery,
    way: Way | None = None,
    count: int | None = None,
    baselines: bool = False,
    device: str = "auto",
    resume: bool = False,
    tasks: Sequence[str] = (),
    suite: str | None = None,
) -> int:
    """Every model on every set: a table on stdout; results.json, results.csv, results.tex, report.html in `how.out`.

    Predictions lie in out/predictions under a key of all that decides them; with `resume` those that are there are not
    made again. What cannot work (an unknown split, a set without the labels, other classes) is refused before a network
    runs. tasks: the only ones allowed. Returns 0, or 1 when samples were skipped. ValueError for a bad sample, unless
    `how.skip_bad`, and for all else that stops it.
    """
    way = way or Way()
    _check(models, how, count)
    sets = [plan.open_set(spec, count) for spec in specs]
    settings = _settings(models, sets, way, count, baselines, suite)
    where = pick_device(device)
    cache.claim(how.out, settings, resume)
    run, cells = Run(way, where, how, resume), list[Cell]()
    based: set[tuple[str, str]] | None = set() if baselines else None
    for spec in models:
        cells += _of(spec, sets, run, tasks, based)
    return _report(how, cells, settings, output.versions(where))


def _of(
    spec: ModelSpec, sets: Sequence[EvalSet], run: Run, tasks: Sequence[str], based: set[tuple[str, str]] | None
) -> Iterator[Cell]:
    """A model's cells, each behind its baselines, where `based` has not seen them; None: there are none.

    The model's memory is free behind the last of them.
    """
    how, rows = run.how, contenders.opened(spec, run)
    for data, contender in product(sets, rows):
        task = contender.task_on(data)
        if tasks:
            choose(f"task of this suite for {spec.name}", task.name, tasks)
        plan.check(data, task, spec.name)
        if how.pictures:
            METRICS.find(task.metric).ranking()  # without it there is no best sample to show
    for data, contender in product(sets, rows):
        task = contender.task_on(data)
        if based is not None and (task.name, data.title) not in based:
            based.add((task.name, data.title))
            yield from cell.of_baselines(task, data, how)
        progress = _Progress(spec.name, data)
        made = contender.on(data, progress)
        progress.end(made)
        yield made


def _check(models: Sequence[ModelSpec], how: Machinery, count: int | None) -> None:
    for name, value, least in (("count", count, 1), ("workers", how.workers, 0), ("batch size", how.batch_size, 1)):
        if value is not None and value < least:
            raise ValueError(f"{name} {value}: must be at least {least}")
    names = [m.name for m in models]
    if len(set(names)) != len(names):
        raise ValueError("a model is named twice: give each once")


def _settings(
    models: Sequence[ModelSpec],
    sets: Sequence[EvalSet],
    way: Way,
    count: int | None,
    baselines: bool,
    suite: str | None,
) -> dict[str, Any]:
    """What decides the figures, as settings.json keeps it."""
    return {
        "models": [{k: v for k, v in asdict(m).items() if v not in (None, False)} for m in models],
        "sets": [{"title": d.title, **d.record(), "protocol": d.spec.protocol} for d in sets],
        **asdict(way),
        "count": count,
        "baselines": baselines,
        "suite": suite,
    }


def _report(how: Machinery, cells: list[Cell], settings: dict[str, Any], about: dict[str, str]) -> int:
    output.save(how.out, cells, settings, about)
    page.save(how.out / "report.html", cells, settings, about)
    output.show(cells)
    for one in cells:
        for problem in () if one.baseline else one.scores.skipped:
            say(f"genpercept: skipped: {one.data.title}: {problem['problem']}")
    code = 1 if any(one.scores.skipped for one in cells) else 0
    more = {"report": str(how.out / "report.html"), "exit_code": code}
    result(lambda: read_json(how.out / "results.json") | more)
    print(f"{how.out / 'report.html'}: open it in a browser; figures in results.json, .csv, .md and .tex beside it")
    return code


class _Progress:
    """A line now and then, and one at the end, on stderr."""

    def __init__(self, model: str, data: EvalSet) -> None:
        self._name, self._total = f"{model} on {data.title}", len(data.entries)
        self._begin = self._last = time.monotonic()

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if now - self._last < _EVERY or done >= self._total:
            return
        self._last = now
        say(f"{self._name}: {done}/{self._total}, {time_left(done, self._total, now - self._begin)}")

    def end(self, one: Cell) -> None:
        """The last line: how many samples in what time, how many of them were predicted before or left out."""
        took, kept = one.timing, len(one.scores.rows)
        before = kept - int(took.get("predicted", kept))
        parts = [f"{kept} samples in {took['seconds']:.1f} s"]
        if took.get("predicted"):
            parts.append(f"{took['predicted'] / max(took['predict_seconds'], 1e-9):.2f} images/s of the network")
        parts += [f"{before} predicted before"] if before > 0 else []
        parts += [f"{len(one.scores.skipped)} skipped"] if one.scores.skipped else []
        say(f"{self._name}: {', '.join(parts)}")
