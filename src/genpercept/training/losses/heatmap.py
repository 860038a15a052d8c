"""Mean squared error of keypoint heatmaps, each joint with its weight (Xiao et al. 2018, "Simple Baselines")."""

from __future__ import annotations

import torch
from torch import Tensor

from genpercept.training.losses._masked import difference, masked_mean


def heatmap(
    pred: Tensor, target: Tensor, valid: Tensor, *, joint_weights: Tensor | None = None, peak: float = 0.0
) -> Tensor:
    """(B, J, H, W) twice, valid (B, 1, H, W), joint_weights (B, J) or None for ones -> (B,).

    The mean is over all joints, those of weight 0 included, so that a person half seen weighs half. peak: a pixel weighs
    1 + peak x its target, for joints fill a hundredth of their map and a network that answers 0 everywhere is hard to leave
    (after the weighted loss map of Wang et al. 2019, "Adaptive Wing Loss"). ValueError for weights of another shape.
    """
    error = difference(pred, target, valid).square()
    if peak:
        error = error * (1 + peak * torch.where(valid, target.float(), 0.0).clamp(0, 1))
    if joint_weights is not None:
        if joint_weights.shape != error.shape[:2]:
            raise ValueError(f"joint_weights {list(joint_weights.shape)}: must be (B, J), here {list(error.shape[:2])}")
        error = error * joint_weights[..., None, None]
    return masked_mean(error, valid)


PLUGIN = heatmap
