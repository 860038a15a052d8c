"""Multi-scale gradient matching: absolute differences of neighbouring errors (MegaDepth, MiDaS; FACTS 3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genpercept.training.losses._masked import difference


def gradient(
    pred: Tensor, target: Tensor, valid: Tensor, *, scales: int = 1, paper_exact: bool = False, **options: Any
) -> Tensor:
    """(B, C, H, W) twice, valid (B, 1, H, W) -> (B,). Scale s = 0, 1, ... looks at every 2^s-th pixel.

    Each scale is divided by the valid pixels of all channels. paper_exact: as the released code calls it, where only the
    differences along the height count: it passes (B, 1, H, W) where (B, H, W) is expected.
    """
    if scales < 1:
        raise ValueError(f"gradient scales {scales}: must be at least 1 (the original has 4)")
    d, m = difference(pred, target, valid), valid.expand_as(pred)
    total = torch.zeros(len(d), device=d.device)
    for scale in range(scales):
        step = 2**scale
        total = total + _at_one_scale(d[..., ::step, ::step], m[..., ::step, ::step], paper_exact)
    return total


def _at_one_scale(d: Tensor, m: Tensor, paper_exact: bool) -> Tensor:
    across = ((d[..., 1:] - d[..., :-1]).abs() * (m[..., 1:] & m[..., :-1])).flatten(1).sum(1)
    down = ((d[..., 1:, :] - d[..., :-1, :]).abs() * (m[..., 1:, :] & m[..., :-1, :])).flatten(1).sum(1)
    return (down if paper_exact else across + down) / m.flatten(1).sum(1).clamp_min(1)


PLUGIN = gradient
