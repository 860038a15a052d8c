"""Hierarchical depth normalisation (Zhang et al. 2022, "Hierarchical Normalization for Robust Monocular Depth Estimation").

Each pixel is compared within several contexts, in each of which both maps are brought to median 0 and mean absolute
deviation 1. Contexts are drawn at random, as in the code that the GenPercept release took over (FACTS 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from genpercept.core.rng import Rng
from genpercept.training.losses._masked import hide, masked_median, to_device, wide

_FLAT = 1e-3  # a deviation below counts as this: within a flat context there is only noise to blow up
_FEWEST = 3  # pixels of a context: two always agree up to sign
_LARGEST = 1 << 20  # numbers that go together: beyond, processors' caches and allocators are the slower for it
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
    draws = (rng or Rng(seed, 0, [0] * len(pred))).generators("loss")
    p, t, m = hide(pred, valid).flatten(1), hide(target, valid).flatten(1), valid.flatten(1)
    if contexts == "depth":
        masks = _ranges(t, m, count, draws).split(_at_once(m.numel()), 1)
        return _mean_over_contexts([_Contexts(p[:, None], t[:, None], mask) for mask in masks], m)
    parts = [_Contexts(p[:, None], t[:, None], m[:, None])]
    if count:
        pixels, inside = _rectangles((pred.shape[2], pred.shape[3]), count, draws, pred.device)
        first = torch.arange(len(p), device=pred.device)[:, None, None]
        n = _at_once(inside[:, 0].numel())
        for some, within in zip(pixels.split(n, 1), inside.split(n, 1), strict=True):
            # indexed, not gathered: the gradient then adds up in one order on GPUs too
            p_BCM, t_BCM, m_BCM = (x[first, some] for x in (p, t, m))
            parts.append(_Contexts(p_BCM, t_BCM, m_BCM & within, some))
    return _mean_over_contexts(parts, m)


def _at_once(numbers: int) -> int:
    """How many contexts go together, each of so many numbers over the batch."""
    return max(1, _LARGEST // max(1, numbers))


class _Contexts:
    """Some contexts of each map of a batch, as rows of M pixels. No step of it waits for the device, whatever is valid."""

    def __init__(self, p: Tensor, t: Tensor, mask: Tensor, pixels: Tensor | None = None) -> None:
        """p, t (B, C or 1, M), mask (B, C, M) bool, pixels (B, C, M): the rows' flat pixels; None: all of the map, in order."""
        self.mask = mask & (mask.sum(-1, keepdim=True) >= _FEWEST)
        self.pixels = pixels
        self.error = (_normalised(p, self.mask) - _normalised(t, self.mask)).abs()  # 0 beyond the mask

    def seen(self, size: int) -> Tensor:
        """How many of the contexts each pixel is in, (B, size)."""
        if self.pixels is None:
            return self.mask.sum(1)
        counts = self.mask.new_zeros(len(self.mask), size, dtype=torch.int64)
        return counts.scatter_add_(1, self.pixels.flatten(1), self.mask.flatten(1).long())

    def total(self, seen: Tensor) -> Tensor:
        """The sum of errors, each divided by how many contexts its pixel is in, (B,)."""
        if self.pixels is None:
            return (self.error.sum(1) / seen).sum(1)
        return (self.error.flatten(1) / seen.gather(1, self.pixels.flatten(1))).sum(1)


def _mean_over_contexts(parts: Sequence[_Contexts], valid: Tensor) -> Tensor:
    """(B,): the mean over the pixels that are in a context of their mean error over contexts."""
    seen = torch.stack([part.seen(valid.shape[1]) for part in parts]).sum(0)
    total = torch.stack([part.total(seen.clamp_min(1)) for part in parts]).sum(0)
    return total / (seen > 0).sum(1).clamp_min(1)


def _normalised(x: Tensor, mask: Tensor) -> Tensor:
    """(B, C or 1, M), mask (B, C, M) -> the masked part of each row at median 0 and mean absolute deviation 1, the rest 0."""
    median = masked_median(x, mask)
    centred = torch.where(mask, x - median, 0.0)
    deviation = centred.abs().sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp_min(1)
    return centred / deviation.clamp_min(_FLAT)


def _ranges(target: Tensor, valid: Tensor, count: int, draws: Sequence[np.random.Generator]) -> Tensor:
    """Maps (B, N), valid (B, N) -> contexts (B, count, N) bool: pixels whose target is between two values."""
    shares = np.empty((2, len(target), count, 1))
    for row, draw in enumerate(draws):
        shares[0, row, :, 0] = draw.uniform(0, 0.75, count)
        shares[1, row, :, 0] = draw.uniform(shares[0, row, :, 0] + 0.1, 1)
    low = torch.where(valid, target, torch.inf).amin(1)[:, None, None]
    high = torch.where(valid, target, -torch.inf).amax(1)[:, None, None]
    begin, end = (wide(low) + share * (wide(high) - wide(low)) for share in wide(to_device(shares, target.device)))
    return valid[:, None] & (target[:, None] >= begin.float()) & (target[:, None] <= end.float())


def _rectangles(
    size: tuple[int, int], count: int, draws: Sequence[np.random.Generator], device: torch.device
) -> tuple[Tensor, Tensor]:
    """`count` rectangles of each map, padded to one size: flat pixels (B, count, M), and whether they are inside (B, count, M).

    Where the padding leaves the image its pixels are the last one's.
    """
    h, w = size
    sides = np.array([[(*_side(h, draw), *_side(w, draw)) for _ in range(count)] for draw in draws])
    tall, broad = int((sides[..., 1] - sides[..., 0]).max()), int((sides[..., 3] - sides[..., 2]).max())
    top, bottom, left, right = to_device(sides, device)[..., None, None].unbind(2)
    y = top + torch.arange(tall, device=device)[:, None]
    x = left + torch.arange(broad, device=device)
    inside = (y < bottom) & (x < right)
    return (y.clamp_max(h - 1) * w + x.clamp_max(w - 1)).flatten(2), inside.flatten(2)


def _side(edge: int, draw: np.random.Generator) -> tuple[int, int]:
    """Begin and end of an interval of an eighth to a half of the edge; cut off where it would leave the image."""
    smallest, largest = max(1, edge // 8), max(1, edge // 2)
    begin = int(draw.integers(0, edge - smallest + 1))
    return begin, min(edge, begin + int(draw.integers(smallest, largest + 1)))


PLUGIN = hdn
