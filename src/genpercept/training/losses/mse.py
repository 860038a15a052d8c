"""Mean squared error over valid pixels."""

from __future__ import annotations

from torch import Tensor

from genpercept.training.losses._masked import difference, masked_mean


def mse(pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """(B, C, H, W) twice, valid (B, 1, H, W) -> (B,)."""
    return masked_mean(difference(pred, target, valid).square(), valid)


PLUGIN = mse
