"""1 - intersection over union of soft masks (with bce and ssim: Qin et al. 2019, BASNet)."""

from __future__ import annotations

from torch import Tensor

from genpercept.training.losses._masked import hide, unit


def iou(pred: Tensor, target: Tensor, valid: Tensor, *, painted: bool = True) -> Tensor:
    """(B, C, H, W) twice, valid (B, 1, H, W) -> (B,) in [0, 1]: 1 - sum(p t) / sum(p + t - p t) over an image's valid pixels.

    painted: maps are in [-1, 1], else in [0, 1]. Values beyond count as the ends. An image without any mask, in neither: 0.
    """
    p, t = (unit(hide(x, valid, -1.0 if painted else 0.0), painted).clamp(0, 1).flatten(1) for x in (pred, target))
    both = (p * t).sum(1)
    either = (p + t).sum(1) - both
    return 1 - (both + 1e-6) / (either + 1e-6)


PLUGIN = iou
