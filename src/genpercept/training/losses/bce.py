"""Binary cross-entropy of masks and soft masks."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from genpercept.training.losses._masked import hide, masked_mean, unit

_CLAMP = 1e-3  # probabilities nearer to 0 or 1 count as this near


def bce(pred: Tensor, target: Tensor, valid: Tensor, *, logits: bool = False, painted: bool = True) -> Tensor:
    """(B, C, H, W) twice, valid (B, 1, H, W) -> (B,).

    painted: maps are in [-1, 1], as a codec paints them, else in [0, 1]; with `logits` that holds for the target alone.
    A prediction beyond the ends of its range is drawn back by its distance from them.
    """
    t = unit(hide(target, valid), painted).clamp(0, 1)
    if logits:
        return masked_mean(F.binary_cross_entropy_with_logits(hide(pred, valid), t, reduction="none"), valid)
    p = unit(hide(pred, valid), painted)
    inside = p.clamp(_CLAMP, 1 - _CLAMP)
    return masked_mean(F.binary_cross_entropy(inside, t, reduction="none") + (p - p.clamp(0, 1)).abs(), valid)


PLUGIN = bce
