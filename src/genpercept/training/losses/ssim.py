"""1 - SSIM of masks (Wang et al. 2004, eq. 13; as part of a segmentation loss: Qin et al. 2019, BASNet)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from genpercept.training.losses._masked import hide, masked_mean, unit

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2  # for values in [0, 1]


def ssim(pred: Tensor, target: Tensor, valid: Tensor, *, painted: bool = True) -> Tensor:
    """(B, C, H, W) twice, valid (B, 1, H, W) -> (B,) in [0, 2]. painted: maps are in [-1, 1], else in [0, 1]."""
    p, t = (unit(hide(x, valid), painted) for x in (pred, target))
    return masked_mean(1 - similarity(p, t, valid), valid)


def similarity(p: Tensor, t: Tensor, valid: Tensor) -> Tensor:
    """Structural similarity (B, C, H, W) in [-1, 1] of maps in [0, 1] with finite values under invalid pixels.

    Means and variances in the 11 x 11 Gaussian window are over its valid pixels; beyond the border there are none.
    """
    m = valid.float()
    weight = _blur(m).clamp_min(1e-12)

    def mean(x: Tensor) -> Tensor:
        return _blur(x * m) / weight

    mu_p, mu_t = mean(p), mean(t)
    # rounding can take a variance below zero, and the quotient with it out of its range
    var_p, var_t = (mean(p * p) - mu_p * mu_p).clamp_min(0), (mean(t * t) - mu_t * mu_t).clamp_min(0)
    covariance = mean(p * t) - mu_p * mu_t
    same = (2 * mu_p * mu_t + _C1) * (2 * covariance + _C2)
    value = same / ((mu_p.square() + mu_t.square() + _C1) * (var_p + var_t + _C2))
    return value.clamp(-1, 1)


def _blur(x: Tensor) -> Tensor:
    """Gaussian of each channel, zeros beyond the border."""
    offsets = torch.arange(_WINDOW, device=x.device, dtype=x.dtype) - _WINDOW // 2
    kernel = torch.exp(-offsets.square() / (2 * _SIGMA**2))
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, -1)
    x = F.conv2d(x, kernel[..., None], padding=(_WINDOW // 2, 0), groups=x.shape[1])
    return F.conv2d(x, kernel[:, :, None], padding=(0, _WINDOW // 2), groups=x.shape[1])


PLUGIN = ssim
