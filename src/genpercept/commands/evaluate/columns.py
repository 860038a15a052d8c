"""Which figures of a metric tables show, how its samples are ranked, and what it breaks down, as the metric declares it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from genpercept.data import Dataset, GroupedDataset
from genpercept.metrics import METRICS, Breakdown, Column
from genpercept.tasks import Task

__all__ = ["Breakdown", "Column", "breakdowns", "columns", "ranked"]


def columns(metric: str, figures: Mapping[str, float]) -> tuple[Column, ...]:
    """Those that the metric declares; of one that declares none, all its figures."""
    return METRICS.find(metric).shown(figures)


def ranked(metric: str, rows: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Names from best to worst by the metric's first column; samples without that figure are left out.

    ValueError where the metric does not declare which way is better.
    """
    first = METRICS.find(metric).ranking()
    found = {name: row[first.key] for name, row in rows.items() if math.isfinite(row.get(first.key, math.nan))}
    sign = -1 if first.higher else 1
    return sorted(found, key=lambda name: (sign * found[name], name))


def breakdowns(
    task: Task, dataset: Dataset, details: Mapping[str, Any], groups: Mapping[str, Mapping[str, float]]
) -> list[Breakdown]:
    """Tables beside a set's figures: by class or category (`details`), and by the data set's own parts (`groups`)."""
    metric = METRICS.find(task.metric)
    found = [metric.breakdown(details, task)]
    if groups and isinstance(dataset, GroupedDataset):
        rows = {name: dict(row) for name, row in groups.items()}
        found.append(Breakdown(dataset.grouped, metric.shown(next(iter(groups.values()))), rows))
    return [one for one in found if one is not None]
