"""Means over images and seeds, and differences between two arms on the same images.

Images of one scene are not independent. Where a set says which are of one, each scene's images are averaged first: all
scenes weigh alike, and the standard error is over scenes (a cluster-robust one, of clusters of equal weight).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = Mapping[int, tuple[Sequence[str], Sequence[float]]]  # seed -> names of the images, their figures


@dataclass(frozen=True)
class Mean:
    """value: over images and seeds. error: standard error over images, each averaged over the seeds first; None for one.

    seeds: each seed's own mean over the images. seed_error: standard error over them; None for one seed. scenes: their number,
    where they take the images' place in all of these; else None.
    """

    value: float
    error: float | None
    seeds: dict[int, float]
    seed_error: float | None
    images: int
    scenes: int | None = None


Scene = Callable[[str], str]  # an image's name -> its scene's


def mean(scores: Scores, scene: Scene | None = None) -> Mean | None:
    """Of one arm. None when no image has a figure. ValueError when the seeds saw different images."""
    seeds, found = _aligned(scores)
    return _mean(seeds, found, _scenes(scores, scene))


def difference(scores: Scores, reference: Scores, scene: Scene | None = None) -> Mean | None:
    """Of two arms, image by image, over the seeds that both have: `scores` minus `reference`. None without such a seed."""
    common = sorted(scores.keys() & reference.keys())
    if not common:
        return None
    seeds, ours = _aligned({seed: scores[seed] for seed in common})
    _, theirs = _aligned({seed: reference[seed] for seed in common})
    _same(scores[common[0]][0], reference[common[0]][0])
    return _mean(seeds, ours - theirs, _scenes(scores, scene))


def folder_of(name: str) -> str:
    """The scene of an image whose name is NUMBER FOLDER/IMAGE, as `measure` has it: its folder. Its own where it has none."""
    folder = name.partition(" ")[2].rpartition("/")[0]
    return folder or name


def _scenes(scores: Scores, scene: Scene | None) -> list[str] | None:
    return None if scene is None else [scene(name) for name in next(iter(scores.values()))[0]]


def _aligned(scores: Scores) -> tuple[list[int], NDArray[np.float64]]:
    """Seeds, and figures (seeds, images)."""
    seeds = sorted(scores)
    for seed in seeds[1:]:
        _same(scores[seeds[0]][0], scores[seed][0])
    return seeds, np.array([scores[seed][1] for seed in seeds], np.float64)


def _same(a: Sequence[str], b: Sequence[str]) -> None:
    if list(a) != list(b):
        raise ValueError("paired figures need the same images in the same order")


def _mean(seeds: Sequence[int], x_SN: NDArray[np.float64], scenes: Sequence[str] | None = None) -> Mean | None:
    known = np.isfinite(x_SN).all(axis=0)  # an image without a valid pixel has no figure in any arm
    if not known.any():
        return None
    x_SN = x_SN[:, known]
    images = x_SN.shape[1]
    if scenes is not None:
        x_SN = _by_scene(x_SN, np.array(scenes)[known])
    by_seed = x_SN.mean(axis=1)
    return Mean(
        value=float(x_SN.mean()),
        error=_standard_error(x_SN.mean(axis=0)),
        seeds={seed: float(value) for seed, value in zip(seeds, by_seed, strict=True)},
        seed_error=_standard_error(by_seed),
        images=images,
        scenes=None if scenes is None else x_SN.shape[1],
    )


def _by_scene(x_SN: NDArray[np.float64], scenes: NDArray[np.str_]) -> NDArray[np.float64]:
    """Means over the images of each scene: (seeds, scenes)."""
    _, number = np.unique(scenes, return_inverse=True)
    return np.stack([np.bincount(number, row) for row in x_SN]) / np.bincount(number)


def _standard_error(values: NDArray[np.float64]) -> float | None:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
