"""Trivial answers that a task's metric declares, scored like a model's: what a model must beat.

Those that need to know something (a mean, a majority) are fitted to the very labels they are scored on, which flatters them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from genpercept.core import files
from genpercept.core.values import Sample
from genpercept.imaging.prediction import Prediction
from genpercept.metrics import METRICS
from genpercept.tasks import Task

Known = Mapping[str, np.ndarray]


def titles(metric: str) -> tuple[str, ...]:
    """The baselines of a metric; none where it declares none."""
    return tuple(one.title for one in METRICS.find(metric).baselines)


def fitted(metric: str) -> bool:
    """Whether one of the metric's baselines must see the labels first."""
    return any(one.fitted for one in METRICS.find(metric).baselines)


def observe(task: Task, sample: Sample) -> Known:
    """What one sample adds to what baselines know: arrays that are summed over the set."""
    return METRICS.find(task.metric).observe(task, sample)


def fit(path: Path, observed: Iterable[Known]) -> None:
    """Sum up and write, atomically, as .npz."""
    known: dict[str, np.ndarray] = {}
    for one in observed:
        for name, value in one.items():
            known[name] = known[name] + value if name in known else value
    files.write_arrays(path, known)


def predict(task: Task, title: str, path: Path, sample: Sample) -> Prediction:
    """The answer of the baseline `title` for a sample; `path`: what `fit` wrote."""
    (one,) = (b for b in METRICS.find(task.metric).baselines if b.title == title)
    return Prediction(one.answer(task, _known(path) if one.fitted else {}, sample), task.kind)


@lru_cache(maxsize=2)
def _known(path: Path) -> Known:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
