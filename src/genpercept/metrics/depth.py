"""Depth up to scale and shift (or metric, with align="none") against depth in metres."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from genpercept.imaging.kinds import KINDS
from genpercept.metrics import _baselines
from genpercept.metrics._depth import DepthPlugin
from genpercept.metrics._metric import Baseline


class Depth(DepthPlugin):
    """pred (H, W): depth in any unit that the alignment takes out; gt (H, W): depth in metres.

    Figures: abs_rel sq_rel rmse rmse_log log10 delta1 delta2 delta3 (fractions) i_rmse (1/m) silog (x 100). See
    `DepthProtocol` for the options. protocol: nyu, kitti, kitti_garg, scannet, eth3d, diode, hypersim, ... A Prediction
    that is a disparity is aligned as one, and one in metres is not aligned, unless `align` says how.
    """

    name = "depth"
    space = "depth"
    kinds = ("depth_affine", "disparity_affine", "depth_metric")
    baselines = (
        Baseline("constant", lambda task, known, sample: _baselines.constant(_baselines.size_of(sample))),
        Baseline("vertical ramp", lambda task, known, sample: _baselines.vertical_ramp(_baselines.size_of(sample))),
    )

    def options_for(self, kinds: Collection[str], options: Mapping[str, Any]) -> dict[str, Any]:
        rules = {kind: self._rule(kind) for kind in kinds}
        if len(kinds) > 1 and any(rules.values()):
            raise ValueError(f"predictions of different kinds in one set: {', '.join(sorted(kinds))}")
        return {**next(iter(rules.values()), {}), **options}

    @staticmethod
    def _rule(kind: str) -> dict[str, Any]:
        """What a kind of prediction says of its own comparison: metres are compared as they are, whatever the protocol."""
        if kind == "disparity_affine":
            return {"space": "disparity"}
        return {"align": "none"} if kind in KINDS and KINDS[kind].metric else {}


PLUGIN = Depth()
