"""Mean squared error of keypoint heatmaps, each joint with its weight (Xiao et al. 2018, "Simple Baselines")."""

from __future__ import annotations

from torch import Tensor

from genpercept.losses._masked import difference, masked_mean


def heatmap(pred: Tensor, target: Tensor, valid: Tensor, *, joint_weights: Tensor | None = None) -> Tensor:
    """(B, J, H, W) twice, valid (B, 1, H, W), joint_weights (B, J) or None for ones -> (B,).

    The mean is over all joints, those of weight 0 included, so that a person half seen weighs half. ValueError for weights of
    another shape.
    """
    error = difference(pred, target, valid).square()
    if joint_weights is not None:
        if joint_weights.shape != error.shape[:2]:
            raise ValueError(f"joint_weights {list(joint_weights.shape)}: must be (B, J), here {list(error.shape[:2])}")
        error = error * joint_weights[..., None, None]
    return masked_mean(error, valid)


PLUGIN = heatmap
