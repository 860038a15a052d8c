"""Times of a function: warm-up, then medians and quartiles."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from genpercept.commands.bench.setting import Effort
from genpercept.core.devices import synchronise


def timed(function: Callable[[], Any], device: str, effort: Effort) -> dict[str, Any]:
    """Seconds of a call, its work on the device included: `summary` of them."""
    for _ in range(effort.warmup):
        function()
    synchronise(device)
    times: list[float] = []
    while not enough(times, effort):
        start = time.perf_counter()
        function()
        synchronise(device)
        times.append(time.perf_counter() - start)
    return summary(times)


def enough(times: Sequence[float], effort: Effort) -> bool:
    return len(times) >= effort.repeats or (len(times) >= 2 and sum(times) >= effort.seconds)


def summary(times: Sequence[float]) -> dict[str, Any]:
    """Median, quartiles and number of times in seconds."""
    low, median, high = np.quantile(times, (0.25, 0.5, 0.75))
    return {"median": float(median), "low": float(low), "high": float(high), "runs": len(times)}
