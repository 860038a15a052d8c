"""Angle between normals: acos of the cosine similarity, clamped so that its gradient stays finite."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from genpercept.training.losses._masked import LIMIT, masked_mean

_CLAMP = 1 - 1e-4


def angular(pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """(B, 3, H, W) twice, any length, valid (B, 1, H, W) -> mean angle in radians (B,)."""
    towards = torch.tensor([0.0, 0.0, 1.0], device=pred.device).view(1, 3, 1, 1)
    # invalid pixels get a constant before the normalisation: a zero vector there has no finite gradient to mask
    p = torch.where(valid, pred.float(), towards).clamp(-LIMIT, LIMIT)
    t = torch.where(valid, target.float(), towards)
    cosine = F.cosine_similarity(p, t, dim=1, eps=1e-6)
    return masked_mean(torch.acos(cosine.clamp(-_CLAMP, _CLAMP))[:, None], valid)


PLUGIN = angular
