"""Sums over valid pixels that stay finite, with a finite gradient, when there is none."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

LIMIT = 1e4  # values beyond this are cut: squares of them must not overflow float32


def masked_mean(value: Tensor, valid: Tensor) -> Tensor:
    """value (B, C, H, W), valid (B, 1 or C, H, W) bool -> mean over what is valid (B,); 0 where nothing is."""
    # where, not a product: NaN x 0 is NaN
    kept = torch.where(valid, value, 0.0).flatten(1).sum(1)
    return kept / (valid.flatten(1).sum(1) * (value.shape[1] // valid.shape[1])).clamp_min(1)


def masked_median(x: Tensor, mask: Tensor) -> Tensor:
    """The lower median of what is masked of each row, (..., M) and a mask as wide or wider -> (..., 1); 0 where nothing is.

    Its gradient is shared by all values that are equal to it, as that of torch's median of a whole tensor. No step of it waits
    for the device.
    """
    return cast(Tensor, _Median.apply(x, mask))  # type: ignore[no-untyped-call]


class _Median(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor) -> Tensor:
        median = torch.where(mask, x, torch.nan).nanmedian(-1, keepdim=True).values.nan_to_num()
        ctx.save_for_backward(x, mask, median)
        return median

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        x, mask, median = ctx.saved_tensors
        equal = mask & (x == median)
        share = gradients[0] / equal.sum(-1, keepdim=True).clamp_min(1)
        return (equal * share).sum_to_size(x.shape), None


def difference(pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """pred - target where valid, 0 (and no gradient) elsewhere; float32, within what squares without overflow."""
    return torch.where(valid, pred.float() - target.float(), 0.0).clamp(-LIMIT, LIMIT)


def hide(x: Tensor, valid: Tensor, fill: float = 0.0) -> Tensor:
    """x where valid, `fill` (and no gradient) elsewhere; float32, cut at +-LIMIT."""
    return torch.where(valid, x.float(), fill).clamp(-LIMIT, LIMIT)


def to_device(drawn: np.ndarray, device: torch.device) -> Tensor:
    """What was drawn on the host, on the device, without waiting for what the device still computes."""
    tensor = torch.from_numpy(drawn)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.float().to(device) if device.type == "mps" and tensor.is_floating_point() else tensor.to(device)


def wide(x: Tensor) -> Tensor:
    """In float64 where the device has it: Apple's has not."""
    return x.double() if x.device.type != "mps" else x.float()


def unit(x: Tensor, painted: bool) -> Tensor:
    """Values in [0, 1] out of ones painted in [-1, 1], or as they are."""
    return (x + 1) / 2 if painted else x


def near_weight(target: Tensor, valid: Tensor, near: float) -> Tensor:
    """1 / (near + (target + 1) / 2) for depth painted in [-1, 1], scaled to mean 1 over each image's valid pixels.

    1 everywhere for near 0.
    """
    if near <= 0:
        return torch.ones_like(target)
    weight = 1 / (near + (torch.where(valid, target.float(), 0.0).clamp(-1, 1) + 1) / 2)
    return weight / masked_mean(weight, valid).clamp_min(1e-6).view(-1, 1, 1, 1)
