"""An absolute error that is smooth at zero (Charbonnier et al. 1994)."""

from torch import Tensor

from genpercept.training.losses import difference, masked_mean


def charbonnier(pred: Tensor, target: Tensor, valid: Tensor, *, eps: float = 1e-3) -> Tensor:
    """pred, target (B, C, H, W), valid (B, 1, H, W) bool -> (B,)."""
    return masked_mean((difference(pred, target, valid).square() + eps**2).sqrt(), valid)


PLUGIN = charbonnier
