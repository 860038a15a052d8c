"""Virtual normals: of the planes through random triplets of back-projected pixels (Yin et al. 2019, "Enforcing geometric
constraints of virtual normal for depth prediction"; thresholds as in its code, ratio and dropped share: FACTS 3)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genpercept.core.rng import Rng
from genpercept.training.losses._masked import hide

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
    rows = []
    draws = (rng or Rng(seed, 0, [0] * len(pred))).generators("loss")
    for p, t, m, k, draw in zip(pred, target, valid, intrinsics, draws, strict=True):
        p, t = hide(p[0], m[0]), hide(t[0], m[0])
        if near is not None:
            p, t = near + (p + 1) / 2, near + (t + 1) / 2
        rows.append(_of_one(p, t, m[0], k.float(), draw, ratio, drop, apart))
    return torch.stack(rows)


def _of_one(
    p: Tensor, t: Tensor, m: Tensor, k: Tensor, draw: np.random.Generator, ratio: float, drop: float, apart: float
) -> Tensor:
    """Depth maps and validity (H, W), intrinsics (3, 3) -> ()."""
    pixels = m.flatten().nonzero()[:, 0]
    count = max(1, int(ratio * len(pixels)))
    if len(pixels) < 3:
        return p.sum() * 0
    corners = pixels[torch.from_numpy(draw.integers(0, len(pixels), (3, count))).to(pixels.device)]
    there = _triangles(t, k, corners)
    kept = _well_formed(there, apart)
    if not bool(kept.any()):
        return p.sum() * 0
    # left out before the normals are computed: a triangle without area has no gradient to mask
    difference = (_normals(_triangles(p, k, corners[:, kept])) - _normals(there[:, kept])).abs().sum(-1)
    return difference.sort().values[int(drop * len(difference)) :].mean()


def _triangles(depth: Tensor, k: Tensor, corners: Tensor) -> Tensor:
    """Depth (H, W), flat pixel indices (3, N) -> points (3, N, 3) in the camera frame, in the unit of depth."""
    y, x = corners // depth.shape[1], corners % depth.shape[1]
    rays = torch.stack([(x - k[0, 2]) / k[0, 0], (y - k[1, 2]) / k[1, 1], torch.ones_like(x, dtype=depth.dtype)], -1)
    return depth.flatten()[corners][..., None] * rays


def _well_formed(points: Tensor, apart: float) -> Tensor:
    """(3, N, 3) -> (N,) bool: corners apart and not in a line."""
    edges = torch.stack([points[1] - points[0], points[2] - points[0], points[2] - points[1]])
    near = (edges.abs() < apart).any(0).all(-1)
    pairs = [F.cosine_similarity(edges[i], edges[j], dim=-1, eps=_EPS).abs() for i, j in ((0, 1), (0, 2), (1, 2))]
    return ~near & (torch.stack(pairs).amax(0) <= _COLINEAR)


def _normals(points: Tensor) -> Tensor:
    """(3, N, 3) -> unit normals (N, 3); zero for a triangle without area."""
    return F.normalize(torch.linalg.cross(points[1] - points[0], points[2] - points[0]), dim=-1, eps=_EPS)


PLUGIN = vnl
