"""L1 over the bands of a Laplacian pyramid (Burt & Adelson 1983): edges and textures count beside mean values."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from genpercept.training.losses._masked import difference, masked_mean


def pyramid(pred: Tensor, target: Tensor, valid: Tensor, *, levels: int = 3) -> Tensor:
    """(B, C, H, W) twice, valid (B, 1, H, W) -> (B,). The bands are linear in the images, so those of the difference do."""
    rest = difference(pred, target, valid)
    total = torch.zeros(len(rest), device=rest.device)
    for _ in range(levels):
        if min(rest.shape[-2:]) < 2:
            break
        low = F.avg_pool2d(rest, 2, ceil_mode=True, count_include_pad=False)
        band = rest - F.interpolate(low, rest.shape[-2:], mode="nearest")
        total = total + masked_mean(band.abs(), torch.ones_like(band[:, :1], dtype=torch.bool))
        rest = low
    return total


PLUGIN = pyramid
