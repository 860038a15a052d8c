"""Which figures of a metric tables show, and how its samples are ranked, as the metric declares it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from genpercept.metrics import METRICS, Column

__all__ = ["Column", "columns", "ranked"]


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
