"""Hierarchical depth normalisation (Zhang et al. 2022, "Hierarchical Normalization for Robust Monocular Depth Estimation").

Each pixel is compared within several contexts, in each of which both maps are brought to median 0 and mean absolute
deviation 1. Contexts are drawn at random, as in the code that the GenPercept release took over (FACTS 3).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from genpercept.core.rng import Rng
from genpercept.training.losses._masked import hide

_FLAT = 1e-3  # a deviation below counts as this: within a flat context there is only noise to blow up
_FEWEST = 3  # pixels of a context: two always agree up to sign
_COUNTS = {"depth": 10, "spatial": 20}


def hdn(
    pred: Tensor,
    target: Tensor,
    valid: Tensor,
    *,
    contexts: Literal["depth", "spatial"] = "depth",
    count: int | None = None,
    rng: Rng | None = None,
    seed: int = 0,
) -> Tensor:
    """(B, 1, H, W) twice, valid (B, 1, H, W) -> (B,): mean over pixels of their mean error over contexts.

    contexts "depth": `count` ranges of the target's values (10), from a start in the lower three quarters to an end at least
    a tenth of the whole range later. "spatial": the whole image and `count` rectangles (20), an eighth to a half of each
    edge. The release weighs the loss by 0.5. Without rng, draws are keyed by `seed` alone. ValueError for other contexts.
    """
    if contexts not in _COUNTS:
        raise ValueError(f"hdn contexts {contexts!r}: choose one of {', '.join(_COUNTS)}")
    if pred.shape[1] != 1:
        raise ValueError(f"loss 'hdn' compares maps of 1 channel, not of {pred.shape[1]}")
    count = _COUNTS[contexts] if count is None else count
    draw_masks = _ranges if contexts == "depth" else _rectangles
    rows = []
    draws = (rng or Rng(seed, 0, [0] * len(pred))).generators("loss")
    for p, t, m, draw in zip(pred, target, valid, draws, strict=True):
        p, t = hide(p[0], m[0]), hide(t[0], m[0])
        rows.append(_over_contexts(p, t, draw_masks(t, m[0], count, draw)) if bool(m.any()) else p.sum() * 0)
    return torch.stack(rows)


def _over_contexts(p: Tensor, t: Tensor, masks: Iterator[Tensor]) -> Tensor:
    """Maps (H, W) and contexts (H, W) bool -> ()."""
    p, t = p.flatten(), t.flatten()
    seen = torch.zeros_like(p)
    errors: list[tuple[Tensor, Tensor]] = []
    for mask in masks:
        pixels = mask.flatten().nonzero()[:, 0]
        if len(pixels) >= _FEWEST:
            errors.append((pixels, (_normalised(p[pixels]) - _normalised(t[pixels])).abs()))
            seen[pixels] += 1
    # p * 0: still a function of p where no context has enough pixels
    total = sum(((error / seen[pixels]).sum() for pixels, error in errors), p.sum() * 0)
    return total / (seen > 0).sum().clamp_min(1)


def _normalised(values: Tensor) -> Tensor:
    """(N,) -> median 0, mean absolute deviation 1."""
    centred = values - values.median()
    return centred / centred.abs().mean().clamp_min(_FLAT)


def _ranges(target: Tensor, valid: Tensor, count: int, draw: np.random.Generator) -> Iterator[Tensor]:
    values = target[valid]
    low, high = float(values.min()), float(values.max())
    for begin in draw.uniform(0, 0.75, count):
        end = draw.uniform(begin + 0.1, 1)
        yield valid & (target >= low + begin * (high - low)) & (target <= low + end * (high - low))


def _rectangles(target: Tensor, valid: Tensor, count: int, draw: np.random.Generator) -> Iterator[Tensor]:
    yield valid
    h, w = target.shape
    for _ in range(count):
        (y, bottom), (x, right) = _side(h, draw), _side(w, draw)
        mask = torch.zeros_like(valid)
        mask[y:bottom, x:right] = valid[y:bottom, x:right]
        yield mask


def _side(edge: int, draw: np.random.Generator) -> tuple[int, int]:
    """Begin and end of an interval of an eighth to a half of the edge; cut off where it would leave the image."""
    smallest, largest = max(1, edge // 8), max(1, edge // 2)
    begin = int(draw.integers(0, edge - smallest + 1))
    return begin, min(edge, begin + int(draw.integers(smallest, largest + 1)))


PLUGIN = hdn
