"""Mean squared error between latents, over cells whose pixels are all valid."""

from __future__ import annotations

from torch import Tensor

from genpercept.training.losses._masked import difference, masked_mean


def latent(pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Network output and its target (B, 4, h, w), valid (B, 1, h, w) -> (B,)."""
    return masked_mean(difference(pred, target, valid).square(), valid)


PLUGIN = latent
