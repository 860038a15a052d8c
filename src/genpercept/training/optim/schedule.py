"""The learning rate over a run, and the exponential moving average of what is learnt."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from genpercept.training.recipe import Ema, Optim
from genpercept.training.run.sharding import like, own


def rate(options: Optim, step: int, progress: float) -> float:
    """Factor on the learning rate at `step` (from 0), `progress` (0 to 1) through the decay to `final`."""
    rise = min(1.0, (step + 1) / options.warmup) if options.warmup else 1.0
    progress = min(max(progress, 0.0), 1.0)
    match options.decay:
        case "constant":
            fall = 1.0
        case "linear":
            fall = 1 - (1 - options.final) * progress
        case "exponential":
            fall = options.final**progress
        case "cosine":
            fall = options.final + (1 - options.final) * (1 + math.cos(math.pi * progress)) / 2
    return rise * fall


class Average:
    """Moving average of what steps change, float32, on its device. With decay 0 it is the weights themselves.

    Batch norms' running means and variances are averaged as the weights are: those of the last step belong to other weights,
    and are those of a few small batches (benchmarks/quality/averaged_statistics.md). Counts are not averaged.
    """

    def __init__(self, live: Mapping[str, Tensor], options: Ema) -> None:
        """live: tensors by name, which change in place."""
        self._live = {name: x for name, x in live.items() if x.is_floating_point()}
        self._options = options
        self.shadow = {name: x.detach().float().clone() for name, x in self._live.items()} if options.decay else {}

    @torch.no_grad()
    def update(self, step: int) -> None:
        if not self.shadow:
            return
        decay = self._options.decay
        if self._options.warmup:
            decay = min(decay, (1 + step) / (10 + step))
        live = [own(x).detach().float() for x in self._live.values()]
        torch._foreach_lerp_([own(x) for x in self.shadow.values()], live, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange average and live weights, in place; called twice, everything is as before, bit for bit."""
        for name, average in self.shadow.items():
            live = self._live[name]
            kept = live.detach().clone()
            live.copy_(average)
            average.copy_(kept)

    def load(self, state: dict[str, Tensor]) -> None:
        for name, average in self.shadow.items():
            average.copy_(like(state[name], average))
