"""Mean absolute error over valid pixels."""

from __future__ import annotations

from torch import Tensor

from genpercept.training.losses._masked import difference, masked_mean, near_weight


def l1(pred: Tensor, target: Tensor, valid: Tensor, near: float = 0.0) -> Tensor:
    """(B, C, H, W) twice, valid (B, 1, H, W) -> (B,).

    near > 0, for depth painted in [-1, 1], weighs a pixel by 1 / (near + (target + 1) / 2), scaled to mean 1 over the
    image: closer to the relative error that depth is judged by. Smaller is steeper; 0 weighs all alike.
    """
    return masked_mean(difference(pred, target, valid).abs() * near_weight(target, valid, near), valid)


PLUGIN = l1
