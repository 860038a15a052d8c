"""Randomness keyed by (seed, step, sample) and never by a generator's history.

A run that was stopped and resumed, or that uses other workers or process counts, draws the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# What the numbers are for: streams of one (seed, step, sample) that must not be correlated have different purposes.
PURPOSES = (
    "data",
    "augment",
    "timestep",
    "noise",
    "caption",
    "posterior",
    "scene",
    "init",
    "multires",
    "loss",
    "prepare",
    "dropout",
)


def generator(seed: int, step: int, sample: int, purpose: str) -> np.random.Generator:
    """A fresh counter-based generator (Philox) for this key. Same key, same numbers, on every machine."""
    words = (seed, step, sample, PURPOSES.index(purpose))
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([w & 0xFFFFFFFFFFFFFFFF for w in words])))


@dataclass(frozen=True)
class Window:
    """Where a tile lies: height and width of the picture that it is a part of, and the tile's first row and column there."""

    field: tuple[int, int]
    corner: tuple[int, int]

    def shrunk(self, by: int) -> Window:
        """The same in cells of so many pixels, of which all of it are multiples."""
        (h, w), (top, left) = self.field, self.corner
        return Window((h // by, w // by), (top // by, left // by))


@dataclass(frozen=True)
class Rng:
    """The randomness of one batch: one key per sample, so a batch of two draws what two batches of one draw.

    seed: one for all samples, or one for each. windows: samples are tiles, each of which has its part of the noise of its whole
    picture, so that neighbours have the same where they overlap; (): they are pictures of their own.
    """

    seed: int | Sequence[int]
    step: int
    samples: Sequence[int]
    windows: Sequence[Window] = ()

    def generators(self, purpose: str) -> list[np.random.Generator]:
        """One fresh generator per sample, for draws whose number depends on the sample."""
        seeds = [self.seed] * len(self.samples) if isinstance(self.seed, int) else self.seed
        return [generator(seed, self.step, s, purpose) for seed, s in zip(seeds, self.samples, strict=True)]

    def normal(self, shape: Sequence[int], purpose: str = "noise") -> Tensor:
        """Standard normal, (len(samples), *shape) float32; of windows the last two axes of `shape` are those of tiles."""
        draws = self.generators(purpose)
        if not self.windows:
            return torch.from_numpy(np.stack([draw.standard_normal(tuple(shape), np.float32) for draw in draws]))
        *channels, h, w = shape
        rows = []
        for draw, window in zip(draws, self.windows, strict=True):
            top, left = window.corner
            field = draw.standard_normal((*channels, *window.field), np.float32)
            rows.append(field[..., top : top + h, left : left + w])
        return torch.from_numpy(np.stack(rows))

    def integers(self, low: int, high: int, purpose: str = "timestep") -> Tensor:
        """One integer in [low, high) per sample, (len(samples),) int64."""
        return torch.tensor([int(draw.integers(low, high)) for draw in self.generators(purpose)])

    def uniform(self, purpose: str) -> Tensor:
        """One number in [0, 1) per sample, (len(samples),) float32."""
        return torch.tensor([draw.random() for draw in self.generators(purpose)], dtype=torch.float32)
