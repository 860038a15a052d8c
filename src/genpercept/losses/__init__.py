"""Losses: masked, per sample. Each module's PLUGIN is called as `loss(pred, target, valid, **options)`."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor


class Loss(Protocol):
    def __call__(self, pred: Tensor, target: Tensor, valid: Tensor, **options: Any) -> Tensor:
        """pred, target (B, C, H, W) float32; valid (B, 1, H, W) bool -> (B,). No valid pixel: zero, with zero gradient."""
        ...
