"""Means over images and seeds, and differences between two arms on the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = Mapping[int, tuple[Sequence[str], Sequence[float]]]  # seed -> names of the images, their figures


@dataclass(frozen=True)
class Mean:
    """value: over images and seeds. error: standard error over images, each averaged over the seeds first; None for one.

    seeds: each seed's own mean over the images. seed_error: standard error over them; None for one seed.
    """

    value: float
    error: float | None
    seeds: dict[int, float]
    seed_error: float | None
    images: int


def mean(scores: Scores) -> Mean | None:
    """Of one arm. None when no image has a figure. ValueError when the seeds saw different images."""
    return _mean(*_aligned(scores))


def difference(scores: Scores, reference: Scores) -> Mean | None:
    """Of two arms, image by image, over the seeds that both have: `scores` minus `reference`. None without such a seed."""
    common = sorted(scores.keys() & reference.keys())
    if not common:
        return None
    seeds, ours = _aligned({seed: scores[seed] for seed in common})
    _, theirs = _aligned({seed: reference[seed] for seed in common})
    _same(scores[common[0]][0], reference[common[0]][0])
    return _mean(seeds, ours - theirs)


def _aligned(scores: Scores) -> tuple[list[int], NDArray[np.float64]]:
    """Seeds, and figures (seeds, images)."""
    seeds = sorted(scores)
    for seed in seeds[1:]:
        _same(scores[seeds[0]][0], scores[seed][0])
    return seeds, np.array([scores[seed][1] for seed in seeds], np.float64)


def _same(a: Sequence[str], b: Sequence[str]) -> None:
    if list(a) != list(b):
        raise ValueError("paired figures need the same images in the same order")


def _mean(seeds: Sequence[int], x_SN: NDArray[np.float64]) -> Mean | None:
    x_SN = x_SN[:, np.isfinite(x_SN).all(axis=0)]  # an image without a valid pixel has no figure in any arm
    if x_SN.size == 0:
        return None
    by_seed = x_SN.mean(axis=1)
    return Mean(
        value=float(x_SN.mean()),
        error=_standard_error(x_SN.mean(axis=0)),
        seeds={seed: float(value) for seed, value in zip(seeds, by_seed, strict=True)},
        seed_error=_standard_error(by_seed),
        images=x_SN.shape[1],
    )


def _standard_error(values: NDArray[np.float64]) -> float | None:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
