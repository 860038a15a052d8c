"""Disparity up to scale and shift against depth in metres: aligned in disparity, inverted, then compared as depth."""

from __future__ import annotations

from typing import Any

from genpercept.metrics._depth import DepthMetric, make
from genpercept.metrics._protocols import DepthProtocol


def PLUGIN(*, protocol: str | None = None, **options: Any) -> DepthMetric:
    """As the depth metric; the ground truth is depth, the prediction disparity (near is large)."""
    return make(DepthProtocol(space="disparity"), protocol, options)
