"""Disparity up to scale and shift against depth in metres: aligned in disparity, inverted, then compared as depth."""

from __future__ import annotations

from genpercept.metrics import _baselines
from genpercept.metrics._depth import DepthPlugin
from genpercept.metrics._metric import Baseline


class Disparity(DepthPlugin):
    """pred (H, W): disparity (near is large) in any unit that the alignment takes out; gt (H, W): depth in metres.

    A Prediction that is the root of a disparity is aligned as one, as arrays are with space="root_disparity".

    Figures, options and protocols are those of the depth metric.
    """

    name = "disparity"
    space = "disparity"
    kinds = ("disparity_affine", "root_disparity_affine")
    baselines = (
        Baseline("constant", lambda task, known, sample: _baselines.filled(_baselines.size_of(sample), 1.0)),
        Baseline("vertical ramp", lambda task, known, sample: _baselines.disparity_ramp(_baselines.size_of(sample))),
    )


PLUGIN = Disparity()
