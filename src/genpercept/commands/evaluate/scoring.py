"""Metrics beside the network: worker processes load label and prediction and score them; the sum is the same bits.

Samples are handed over in order and joined in order. A metric whose parts can be joined (`merges`) is spread over the
workers; any other runs whole in one of them. Neither ever keeps the network waiting: what is handed over is a path.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genpercept.commands.evaluate import baselines, cache, stored
from genpercept.commands.evaluate.sets import describe
from genpercept.core.values import Sample
from genpercept.core.workers import end_with_parent
from genpercept.data import GroupedDataset
from genpercept.imaging.prediction import Prediction
from genpercept.metrics import METRICS, Metric
from genpercept.tasks import Task

ONE_SAMPLE = (ValueError, OSError)
_PER_WORKER = 4  # samples under way for each worker: enough to keep it busy while the network has the processor


@dataclass(frozen=True)
class Rules:
    """What all samples of one table cell share: how a label is read, and how it is compared."""

    dataset: Any
    task: Task
    metric_options: dict[str, Any]

    def metric(self) -> Metric:
        """A fresh one."""
        return METRICS.find(self.task.metric)(**self.metric_options)


@dataclass(frozen=True)
class Source:
    """Where a sample's prediction comes from: its file, or a baseline and the file of what that was fitted to.

    foreign: the file is not of this evaluation's own predictions.
    """

    path: Path
    baseline: str = ""
    foreign: bool = False


@dataclass
class Scores:
    """Of a set: figures, `details` that a metric knows besides, rows by sample, those without a valid pixel, the left out.

    groups: the figures of each part of a `GroupedDataset` by themselves, where there are several.
    """

    figures: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, dict[str, float]] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    groups: dict[str, dict[str, float]] = field(default_factory=dict)
    seconds: float = 0.0  # of processor time, over all workers


@dataclass
class _Answer:
    """What a worker says of one sample: a metric that saw it alone (None: its metric keeps it), or why it cannot be used."""

    name: str
    group: str = ""
    part: Any = None
    problem: str = ""
    seconds: float = 0.0


class Scorer:
    """Scores samples in the order in which they are added. `workers` 0: in this process. Use it in a `with`."""

    def __init__(self, rules: Rules, workers: int, skip_bad: bool) -> None:
        self._rules, self._skip_bad = rules, skip_bad
        self._total = rules.metric()
        self._merges = self._total.merges
        self._groups: dict[str, Metric] = {}
        self._waiting: deque[tuple[Any, str, Source]] = deque()
        self._running: deque[Future[_Answer]] = deque()
        self._scores = Scores()
        self._pool = start_pool(rules, workers if self._merges else min(workers, 1), whole=not self._merges)
        self._most = _PER_WORKER * max(workers, 1)

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def add(self, entry: Any, name: str, source: Source) -> None:
        """Score this sample soon. ValueError for an earlier one that cannot be scored, unless those are skipped."""
        if self._pool is None:
            self._take(_score(self._rules, None if self._merges else self._total, entry, name, source))
            return
        self._waiting.append((entry, name, source))
        self._move(block=False)

    def skip(self, name: str, problem: str) -> None:
        """A sample that cannot be used is listed, or ends all with a ValueError."""
        if not self._skip_bad:
            raise ValueError(problem)
        self._scores.skipped.append({"name": name, "problem": problem})

    def finish(self) -> Scores:
        """Wait for the rest. ValueError where not one sample could be scored."""
        while self._waiting or self._running:
            self._move(block=True)
        scores = self._scores
        if self._pool is not None and not self._merges:
            scores.figures, scores.details, scores.rows, scores.empty = self._result(self._pool.submit(_whole_result))
        else:
            scores.figures, scores.details, scores.rows, scores.empty = _result_of(self._total)
        if len(self._groups) > 1:
            scores.groups = {name: _result_of(metric)[0] for name, metric in self._groups.items()}
        if not scores.rows:
            first = scores.skipped[0]["problem"] if scores.skipped else "there were none"
            raise ValueError(f"no sample could be scored: {first}")
        return scores

    def _move(self, block: bool) -> None:
        """Hand on what is waiting and take in what is done, in order."""
        assert self._pool is not None
        while True:
            while self._waiting and len(self._running) < self._most:
                job = _score_part if self._merges else _score_whole
                self._running.append(self._submit(job, *self._waiting.popleft()))
            if not self._running or not (block or self._running[0].done()):
                return
            self._take(self._result(self._running.popleft()))
            block = False

    def _submit(self, job: Any, *arguments: Any) -> Future[_Answer]:
        assert self._pool is not None
        try:
            return self._pool.submit(job, *arguments)
        except BrokenProcessPool:
            raise _died() from None

    def _result(self, future: Future[Any]) -> Any:
        try:
            return future.result()
        except BrokenProcessPool:
            raise _died() from None

    def _take(self, answer: _Answer) -> None:
        self._scores.seconds += answer.seconds
        if answer.problem:
            self.skip(answer.name, answer.problem)
        elif answer.part is not None:
            self._total.merge(answer.part)
            if answer.group:
                self._groups.setdefault(answer.group, self._rules.metric()).merge(answer.part)


def _died() -> ValueError:
    return ValueError("a metric's process ended by itself, most often for lack of memory: use fewer --workers, or 0")


# ---- in the workers --------------------------------------------------------------------------------------------------


def start_pool(rules: Rules | None, workers: int, whole: bool = False) -> ProcessPoolExecutor | None:
    """Processes that import this module once and fork from there; None for no workers."""
    if workers < 1:
        return None
    known = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in known else "spawn")
    if "forkserver" in known:
        context.set_forkserver_preload([__name__])
    return ProcessPoolExecutor(workers, context, _begin, (rules, whole))


_rules: Rules | None = None
_metric: Metric | None = None  # of all samples, in the one worker of a metric that cannot be joined


def _begin(rules: Rules | None, whole: bool) -> None:
    global _rules, _metric
    import torch

    _rules = rules
    _metric = rules.metric() if rules is not None and whole else None
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    torch.set_num_threads(1)
    _one_thread()
    end_with_parent()


def _one_thread() -> None:
    """Linear algebra on one thread, where that can be said: workers are as many as there are processors already."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return
    threadpool_limits(1)


def _score_part(entry: Any, name: str, source: Source) -> _Answer:
    assert _rules is not None
    return _score(_rules, None, entry, name, source)


def _score_whole(entry: Any, name: str, source: Source) -> _Answer:
    assert _rules is not None
    return _score(_rules, _metric, entry, name, source)


def _whole_result() -> tuple[Any, ...]:
    assert _metric is not None
    return _result_of(_metric)


def _result_of(metric: Metric) -> tuple[Any, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # means over nothing, which are NaN and said to be
        figures = metric.compute()
    return figures, metric.details(), dict(metric.rows), sorted(metric.empty)


def _score(rules: Rules, metric: Metric | None, entry: Any, name: str, source: Source) -> _Answer:
    """Update `metric` with one sample, or (None) a fresh one that is then the answer's part."""
    begin = time.thread_time()
    answer = _Answer(name, _group(rules.dataset, entry))
    one = rules.metric() if metric is None else metric
    try:
        sample = rules.dataset.load(entry)
        one.update(_predicted(rules, source, sample), **rules.task.truth(sample), name=name)
        answer.part = one if metric is None else None
    except ONE_SAMPLE as error:
        answer.problem = describe(error, name)
    answer.seconds = time.thread_time() - begin
    return answer


def _predicted(rules: Rules, source: Source, sample: Sample) -> Prediction:
    if source.baseline:
        return baselines.predict(rules.task, source.baseline, source.path, sample)
    return stored.read(rules.task, source.path) if source.foreign else cache.load(source.path, sample)


def _group(dataset: Any, entry: Any) -> str:
    return dataset.group(entry) if isinstance(dataset, GroupedDataset) else ""


def observations(rules: Rules, workers: int, jobs: list[tuple[Any, str]]) -> Iterator[tuple[str, Any]]:
    """(name, what baselines learn from the sample, or None where it cannot be read), in order."""
    pool = start_pool(rules, workers)
    if pool is None:
        for entry, name in jobs:
            yield name, _observe(rules, entry)
        return
    with pool:
        yield from zip((name for _, name in jobs), pool.map(_observe_here, [e for e, _ in jobs]), strict=True)


def _observe_here(entry: Any) -> Any:
    assert _rules is not None
    return _observe(_rules, entry)


def _observe(rules: Rules, entry: Any) -> Any:
    try:
        return baselines.observe(rules.task, rules.dataset.load(entry))
    except ONE_SAMPLE:
        return None  # scoring meets it again and says so
