"""Losses: masked, per sample. Each module's PLUGIN is called as `loss(pred, target, valid, **options, **context)`.

To write one begin with `difference` and `masked_mean`: docs/extend.md.
Options come from the recipe. Context comes from the batch: a loss that uses one of CONTEXT names it among its keywords, with
a default where it can do without, and is given exactly those (`needs`).

    intrinsics     (B, 3, 3) float32, pixels of the maps as they are (augmentations and resizing applied)
    rng            genpercept.core.rng.Rng of the batch: what a loss draws is keyed by (seed, step, sample)
    joint_weights  (B, J) float32, weight of each keypoint (0 where it is not annotated)
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, Protocol

from torch import Tensor

from genpercept.core.names import hint
from genpercept.core.registry import Registry
from genpercept.training.losses._masked import difference, hide, masked_mean

__all__ = ["CONTEXT", "LOSSES", "Loss", "check_options", "difference", "find", "hide", "masked_mean", "needs"]

CONTEXT = ("intrinsics", "rng", "joint_weights")


class Loss(Protocol):
    def __call__(self, pred: Tensor, target: Tensor, valid: Tensor, **keywords: Any) -> Tensor:
        """pred, target (B, C, H, W); valid (B, 1, H, W) bool -> (B,) float32. No valid pixel: zero, with zero gradient.

        Whatever lies under invalid pixels, NaN and infinity included, has no effect.
        """
        ...


LOSSES = Registry[Loss](__name__, "loss", "genpercept.losses", Loss)
find = LOSSES.find


def needs(loss: Loss) -> tuple[str, ...]:
    """The members of CONTEXT that this loss takes, in their order there."""
    keywords = inspect.signature(loss).parameters
    return tuple(name for name in CONTEXT if name in keywords)


def check_options(name: str, loss: Loss, options: Iterable[str]) -> None:
    """ValueError for an option that the loss called `name` does not have."""
    parameters = inspect.signature(loss).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return
    known = [p for p in parameters if p not in ("pred", "target", "valid", *CONTEXT)]
    for option in options:
        if option not in known:
            raise ValueError(
                f"loss {name!r} has no option {option!r}: {hint(option, known) if known else 'it has none'}"
            )
