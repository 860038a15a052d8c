"""Which sample a slot of a step sees: a function of (seed, step, slot), so resuming restores nothing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from genpercept.core.rng import generator

_BLOCK = 1000  # draws in which every set has its exact share


class Order:
    """Sets are mixed by weight, exactly within each block of draws; each set is gone through in a new order each epoch."""

    def __init__(
        self, lengths: Sequence[int], weights: Sequence[float], seed: int, batch: int, one_set_per_batch: bool
    ) -> None:
        """`batch`: samples of one optimiser step over all processes, however many passes it is made in."""
        self._lengths, self._seed, self._batch, self._per_batch = tuple(lengths), seed, batch, one_set_per_batch
        share = np.asarray(weights, np.float64) / np.sum(weights)
        ends = np.round(np.cumsum(share) * _BLOCK).astype(int)
        self._quota = np.diff(ends, prepend=0)
        if (self._quota == 0).any():
            raise ValueError(f"data weights {list(weights)}: the smallest share must be at least 1 in {_BLOCK}")

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, int]:
        """(step, slot) -> (set, index within the set)."""
        step, slot = key
        turn = step if self._per_batch else step * self._batch + slot
        chosen, earlier = self._set(turn)
        draw = earlier * self._batch + slot if self._per_batch else earlier
        epoch, place = divmod(draw, self._lengths[chosen])
        return chosen, int(_permutation(self._seed, epoch, chosen, self._lengths[chosen])[place])

    def _set(self, turn: int) -> tuple[int, int]:
        """The set of this turn and how many turns it had before."""
        block, place = divmod(turn, _BLOCK)
        table = _block(self._seed, block, tuple(self._quota))
        chosen = int(table[place])
        return chosen, block * int(self._quota[chosen]) + int((table[:place] == chosen).sum())


@lru_cache(maxsize=8)
def _permutation(seed: int, epoch: int, which: int, length: int) -> np.ndarray:
    return generator(seed, epoch, which, "data").permutation(length)


@lru_cache(maxsize=8)
def _block(seed: int, block: int, quota: tuple[int, ...]) -> np.ndarray:
    # key -1: no set has this number, so the stream is its own
    return generator(seed, block, -1, "data").permutation(np.repeat(np.arange(len(quota)), quota))
