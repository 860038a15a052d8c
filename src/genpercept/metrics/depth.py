"""Depth up to scale and shift (or metric, with align="none") against depth in metres."""

from __future__ import annotations

from genpercept.metrics import _baselines
from genpercept.metrics._depth import DepthPlugin
from genpercept.metrics._metric import Baseline


class Depth(DepthPlugin):
    """pred (H, W): depth in any unit that the alignment takes out; gt (H, W): depth in metres.

    Figures: abs_rel sq_rel rmse rmse_log log10 delta1 delta2 delta3 (fractions) i_rmse (1/m) silog (x 100). See
    `DepthProtocol` for the options. protocol: nyu, kitti, kitti_garg, scannet, eth3d, diode, hypersim, ... A Prediction
    that is a disparity, or the root of one, is aligned as what it is.
    """

    name = "depth"
    space = "depth"
    kinds = ("depth_affine", "disparity_affine", "root_disparity_affine")
    baselines = (
        Baseline("constant", lambda task, known, sample: _baselines.constant(_baselines.size_of(sample))),
        Baseline("vertical ramp", lambda task, known, sample: _baselines.vertical_ramp(_baselines.size_of(sample))),
    )


PLUGIN = Depth()
