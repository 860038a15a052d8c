"""Binary cross-entropy of masks and soft masks."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from genpercept.training.losses._masked import hide, masked_mean, unit

_TANGENT = 0.02  # probabilities nearer to 0 than this have the logarithm's tangent here, a gradient of 50 at most


def bce(pred: Tensor, target: Tensor, valid: Tensor, *, logits: bool = False, painted: bool = True) -> Tensor:
    """(B, C, H, W) twice, valid (B, 1, H, W) -> (B,).

    painted: maps are in [-1, 1], as a codec paints them, else in [0, 1]; with `logits` that holds for the target alone.
    Painted probabilities do reach 0 and 1, where the logarithm has no end: from 0.02 on it goes on along its tangent, so that
    a pixel at the wrong end is drawn back by a bounded gradient. A prediction beyond its range is drawn back by its distance.
    """
    t = unit(hide(target, valid), painted).clamp(0, 1)
    if logits:
        return masked_mean(F.binary_cross_entropy_with_logits(hide(pred, valid), t, reduction="none"), valid)
    p = unit(hide(pred, valid), painted)
    entropy = -t * _log(p) - (1 - t) * _log(1 - p)
    return masked_mean(entropy + (p - p.clamp(0, 1)).abs(), valid)


def _log(p: Tensor) -> Tensor:
    """The logarithm of p, of 1 from there on, and its tangent below _TANGENT."""
    p = p.clamp_max(1)
    tangent = math.log(_TANGENT) + (p - _TANGENT) / _TANGENT
    return torch.where(p > _TANGENT, p.clamp_min(_TANGENT).log(), tangent)


PLUGIN = bce
