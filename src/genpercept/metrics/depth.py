"""Depth up to scale and shift (or metric, with align="none") against depth in metres."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from genpercept.metrics import _baselines
from genpercept.metrics._depth import DepthPlugin
from genpercept.metrics._metric import Baseline


class Depth(DepthPlugin):
    """pred (H, W): depth in any unit that the alignment takes out; gt (H, W): depth in metres.

    Figures: abs_rel sq_rel rmse rmse_log log10 delta1 delta2 delta3 (fractions) i_rmse (1/m) silog (x 100). See
    `DepthProtocol` for the options. protocol: nyu, kitti, kitti_garg, scannet, eth3d, diode, hypersim, ... A Prediction
    that is a disparity is aligned as one.
    """

    name = "depth"
    space = "depth"
    kinds = ("depth_affine", "disparity_affine")
    baselines = (
        Baseline("constant", lambda task, known, sample: _baselines.constant(_baselines.size_of(sample))),
        Baseline("vertical ramp", lambda task, known, sample: _baselines.vertical_ramp(_baselines.size_of(sample))),
    )

    def options_for(self, kinds: Collection[str], options: Mapping[str, Any]) -> dict[str, Any]:
        if "disparity_affine" not in kinds:
            return dict(options)
        if len(kinds) > 1:
            raise ValueError(f"predictions of different kinds in one set: {', '.join(sorted(kinds))}")
        return {"space": "disparity", **options}


PLUGIN = Depth()
