"""Scale- and shift-invariant error: align the prediction to the target per image, then masked L1 (MiDaS, FACTS 3)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from genpercept.training.losses._masked import difference, masked_mean, masked_median, near_weight


def ssi(
    pred: Tensor,
    target: Tensor,
    valid: Tensor,
    *,
    align: Literal["least_squares", "median"] = "least_squares",
    paper_exact: bool = False,
    near: float = 0.0,
) -> Tensor:
    """(B, C, H, W) twice, valid (B, 1, H, W) -> (B,). near: as in `l1`, with least_squares alone.

    least_squares: the prediction's best scale and shift. median: both maps to median 0 and mean absolute deviation 1;
    paper_exact then takes these statistics over invalid pixels too, as the released code does.
    """
    zero = torch.zeros_like(pred)
    if align == "median":
        if near:
            raise ValueError("ssi near: weighs errors in the target's own units, so it goes with align 'least_squares'")
        everywhere = torch.ones_like(valid) if paper_exact else valid
        p, t = difference(pred, zero, everywhere), difference(target, zero, everywhere)
        return masked_mean((_unit(p, everywhere, valid) - _unit(t, everywhere, valid)).abs(), valid)
    if align != "least_squares":
        raise ValueError(f"ssi align {align!r}: choose 'least_squares' or 'median'")
    p, t = difference(pred, zero, valid), difference(target, zero, valid)
    scale, shift = least_squares(p, t, valid)
    return masked_mean((scale * p + shift - t).abs() * near_weight(target, valid, near), valid)


def least_squares(p: Tensor, t: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Per image scale and shift (B, 1, 1, 1) that take p closest to t on valid pixels; 0 and the mean for constant p.

    From centred values, in float64: the textbook determinant loses all digits where p varies little.
    """
    weight = valid.expand_as(p).double()
    n = weight.sum((1, 2, 3), keepdim=True).clamp_min(1)
    p64, t64 = p.double(), t.double()
    mean_p, mean_t = (p64 * weight).sum((1, 2, 3), keepdim=True) / n, (t64 * weight).sum((1, 2, 3), keepdim=True) / n
    dp, dt = (p64 - mean_p) * weight, (t64 - mean_t) * weight
    variance = dp.square().sum((1, 2, 3), keepdim=True)
    flat = variance <= n * 1e-12
    scale = torch.where(flat, 0.0, (dp * dt).sum((1, 2, 3), keepdim=True) / torch.where(flat, 1.0, variance))
    return scale.float(), (mean_t - scale * mean_p).float()


def _unit(x: Tensor, counted: Tensor, valid: Tensor) -> Tensor:
    """Median to 0, mean absolute deviation to 1: both over the counted pixels, the mean per valid pixel."""
    values, mask = x.flatten(1), counted.expand_as(x).flatten(1)
    median = masked_median(values, mask)
    n = valid.expand_as(x).flatten(1).sum(1, keepdim=True).clamp_min(1)
    deviation = torch.where(mask, (values - median).abs(), 0.0).sum(1, keepdim=True) / n
    return ((values - median) / (deviation + 1e-6)).view_as(x)


PLUGIN = ssi
