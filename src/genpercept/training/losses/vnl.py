"""Virtual normals: of the planes through random triplets of back-projected pixels (Yin et al. 2019, "Enforcing geometric
constraints of virtual normal for depth prediction"; thresholds as in its code, ratio and dropped share: FACTS 3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genpercept.core.rng import Rng
from genpercept.training.losses._masked import hide, to_device, wide

_COLINEAR = 0.867  # cosine: no angle of a triangle under 30 or above 150 degrees
_EPS = 1e-8


def vnl(
    pred: Tensor,
    target: Tensor,
    valid: Tensor,
    *,
    intrinsics: Tensor | None,
    rng: Rng | None = None,
    ratio: float = 0.2,
    drop: float = 0.25,
    near: float | None = 0.1,
    apart: float = 0.01,
    seed: int = 0,
) -> Tensor:
    """Depth maps (B, 1, H, W) twice, valid (B, 1, H, W), intrinsics (B, 3, 3) in pixels -> (B,), mean L1 of unit normals.

    ratio x valid pixels triplets are drawn; the `drop` share with the smallest differences is left out. Left out beforehand,
    by the target: triangles that are nearly a line, and those with two corners nearer than `apart` along all three axes.
    near: depth painted as x in [-1, 1] is taken to be near + (x + 1) / 2, up to scale; None: x is depth itself, in any unit.
    Without rng, draws are keyed by `seed` alone. ValueError without intrinsics or for more than one channel.
    """
    if intrinsics is None:
        raise ValueError("loss 'vnl' needs the camera's intrinsics: choose a data set that gives them, or leave it out")
    if pred.shape[1] != 1:
        raise ValueError(f"loss 'vnl' compares depth maps of 1 channel, not of {pred.shape[1]}")
    p, t = hide(pred, valid)[:, 0], hide(target, valid)[:, 0]
    if near is not None:
        p, t = near + (p + 1) / 2, near + (t + 1) / 2
    draws = (rng or Rng(seed, 0, [0] * len(pred))).generators("loss")
    corners, drawn = _corners(valid.flatten(1), ratio, draws)
    k = intrinsics.float()
    there = _triangles(t, k, corners)
    kept = drawn & _well_formed(there, apart)
    # others take a triangle's place before the normals are computed: one without area has no gradient to mask
    away = torch.eye(3, device=pred.device).view(1, 3, 1, 3)
    here = torch.where(kept[:, None, :, None], _triangles(p, k, corners), away)
    difference = (_normals(here) - _normals(there)).abs().sum(-1)
    return _mean_of_largest(difference, kept, drop)


def _corners(valid: Tensor, ratio: float, draws: Sequence[np.random.Generator]) -> tuple[Tensor, Tensor]:
    """(B, N) bool -> flat pixels of triplets (B, 3, T), and which of them count (B, T): rows are padded to one length.

    How many pixels are valid is the one thing that the host waits for, once for the batch: it bounds what is drawn.
    """
    numbers = valid.sum(1).tolist()
    counts = [max(1, int(ratio * n)) if n >= 3 else 0 for n in numbers]
    places = np.zeros((len(numbers), 3, max(counts)), np.int64)
    for row, n, count, draw in zip(places, numbers, counts, draws, strict=True):
        if count:
            row[:, :count] = draw.integers(0, n, (3, count))
    # pixels of the valid ones in order; the others all go to a last place that is never read
    size = valid.shape[1]
    order = torch.where(valid, valid.cumsum(1) - 1, size)
    pixels = order.new_zeros(len(order), size + 1)
    pixels.scatter_(1, order, torch.arange(size, device=valid.device).expand_as(order))
    corners = pixels.gather(1, to_device(places, valid.device).flatten(1)).view(places.shape)
    drawn = torch.arange(corners.shape[2]) < torch.tensor(counts)[:, None]
    return corners, to_device(drawn.numpy(), valid.device)


def _mean_of_largest(difference: Tensor, kept: Tensor, drop: float) -> Tensor:
    """(B, T), which count (B, T) -> their mean without the `drop` share of the smallest, (B,); 0 where none counts."""
    n = kept.sum(1, keepdim=True)
    ascending = torch.where(kept, difference, -1.0).sort(1).values  # what does not count comes first
    first = kept.shape[1] - n + (drop * wide(n)).long()
    largest = torch.arange(kept.shape[1], device=kept.device) >= first
    return torch.where(largest, ascending, 0.0).sum(1) / largest.sum(1).clamp_min(1)


def _triangles(depth: Tensor, k: Tensor, corners: Tensor) -> Tensor:
    """Depth (B, H, W), intrinsics (B, 3, 3), flat pixels (B, 3, T) -> points (B, 3, T, 3) of the camera's frame."""
    y, x = corners // depth.shape[2], corners % depth.shape[2]
    (fx, cx), (fy, cy) = ((k[:, i, i, None, None], k[:, i, 2, None, None]) for i in (0, 1))
    rays = torch.stack([(x - cx) / fx, (y - cy) / fy, torch.ones_like(x, dtype=depth.dtype)], -1)
    # indexed, not gathered: the gradient then adds up in one order on GPUs too
    return depth.flatten(1)[torch.arange(len(depth), device=depth.device)[:, None, None], corners][..., None] * rays


def _well_formed(points: Tensor, apart: float) -> Tensor:
    """(B, 3, T, 3) -> (B, T) bool: corners apart and not in a line."""
    a, b, c = points.unbind(1)
    edges = torch.stack([b - a, c - a, c - b])
    near = (edges.abs() < apart).any(0).all(-1)
    pairs = [F.cosine_similarity(edges[i], edges[j], dim=-1, eps=_EPS).abs() for i, j in ((0, 1), (0, 2), (1, 2))]
    return ~near & (torch.stack(pairs).amax(0) <= _COLINEAR)


def _normals(points: Tensor) -> Tensor:
    """(B, 3, T, 3) -> unit normals (B, T, 3); zero for a triangle without area."""
    a, b, c = points.unbind(1)
    return F.normalize(torch.linalg.cross(b - a, c - a), dim=-1, eps=_EPS)


PLUGIN = vnl
