"""Depth up to scale and shift (or metric, with align="none") against depth in metres."""

from __future__ import annotations

from typing import Any

from genpercept.metrics._depth import DepthMetric, make
from genpercept.metrics._protocols import DepthProtocol


def PLUGIN(*, protocol: str | None = None, **options: Any) -> DepthMetric:
    """See `DepthProtocol` for the options. protocol: nyu, kitti, kitti_garg, scannet, eth3d, diode, hypersim, ..."""
    return make(DepthProtocol(space="depth"), protocol, options)
