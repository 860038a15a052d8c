"""Several runs into one answer, with what they disagree on. Tensors in, tensors out; maps are (M, C, H, W), one per run.

Affine maps follow Marigold (Ke et al. 2024, section 3.3): a scale and a shift per run that bring the runs together, then the
median. Two solvers: diffusers' own, and a closed form that is continuous in its input.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genpercept.imaging.kinds import KINDS, MergeRule

SOLVERS = ("bfgs", "least_squares", "min_max")
_EPS = 1e-6
_ROUNDS = 3  # of least squares: the runs to their median, which then is another


def merge(kind: str, maps_MCHW: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """Runs of one kind of Prediction -> merged (C, H, W) and uncertainty (H, W), (C, H, W) of the rule "channels".

    ValueError for a kind that has no map to merge, or an unknown option.
    """
    rule = KINDS.find(kind).merge
    if rule is None:
        raise ValueError(f"predictions of kind {kind!r} are not merged as maps")
    function = _RULES[rule]
    known = (function.__kwdefaults__ or {}).keys()
    if unknown := sorted(options.keys() - known):
        raise ValueError(
            f"ensembling_kwargs: unknown {', '.join(unknown)} for {kind}; choose from {', '.join(known) or '(none)'}"
        )
    return function(maps_MCHW, **options)


def settle(kind: str, map_CHW: Tensor) -> Tensor:
    """A merged map after it was resized: directions at length 1, everything else back within the kind's limits."""
    row = KINDS[kind]
    if row.directions:
        return F.normalize(map_CHW, dim=0)
    return map_CHW if row.limits is None else map_CHW.clamp(*row.limits)


def merge_affine(
    maps_M1HW: Tensor,
    *,
    reduction: str = "median",
    solver: str = "bfgs",
    regularizer_strength: float = 0.02,
    max_iter: int = 2,
    tol: float = 1e-3,
    max_res: int | None = 1024,
) -> tuple[Tensor, Tensor]:
    """Maps right up to scale and shift -> aligned, reduced (median or mean), min-max to [0, 1]: (1, H, W).

    Uncertainty (H, W): median absolute deviation (mean: standard deviation) of the aligned runs, in units of the result.
    solver: bfgs as diffusers, with its regularizer_strength, max_iter, tol and max_res; least_squares; or min_max, each run's
    own range and no more (what GeoWizard's solver amounts to, which does not move).
    """
    if solver not in SOLVERS:
        raise ValueError(f"solver={solver!r} of affine maps: choose {', '.join(SOLVERS)}")
    if solver == "min_max":
        return combine_affine(maps_M1HW.float(), *_min_max(maps_M1HW.float()), reduction)
    if solver == "least_squares":
        return combine_affine(maps_M1HW.float(), *align_least_squares(maps_M1HW.float(), reduction), reduction)
    small = maps_M1HW.float()
    if max_res is not None and max(small.shape[-2:]) > max_res:
        factor = max_res / max(small.shape[-2:])
        size = [max(1, int(edge * factor)) for edge in small.shape[-2:]]
        small = F.interpolate(small, size, mode="nearest-exact")
    scale, shift = align_affine(small, reduction, regularizer_strength, max_iter, tol)
    return combine_affine(maps_M1HW.float(), scale, shift, reduction)


def align_affine(
    maps_M1HW: Tensor, reduction: str, regularizer_strength: float, max_iter: int, tol: float
) -> tuple[Tensor, Tensor]:
    """A scale and a shift (M,) for each run: BFGS from each run's min-max, on the sum of pairwise RMS differences.

    The regulariser pulls the reduced map's minimum to 0 and its maximum to 1; it is weak, so that the minimum of the
    objective is the collapse of all scales to 0. What keeps the answer is that the solver hardly moves: in two iterations,
    and with differences of 1.5e-8 taken in float32, where most of them vanish. Objective and arithmetic are diffusers', so
    equal maps give its answer; maps that differ by 1e-8 may give another (docs/development/decisions.md).
    """
    from scipy.optimize import minimize

    start = torch.cat(_min_max(maps_M1HW)).cpu().numpy().astype(np.float64)

    def cost(parameters: np.ndarray) -> float:
        aligned = _aligned(maps_M1HW, *_split(parameters, maps_M1HW))
        pairs = combinations(range(len(aligned)), 2)
        distance = sum(((aligned[i] - aligned[j]) ** 2).mean().sqrt().item() for i, j in pairs)
        merged = _reduce(aligned, reduction)
        return distance + regularizer_strength * (merged.min().abs().item() + (1 - merged.max()).abs().item())

    found = minimize(cost, start, method="BFGS", tol=tol, options={"maxiter": max_iter, "disp": False}).x
    return _split(found, maps_M1HW)


def align_least_squares(maps_M1HW: Tensor, reduction: str) -> tuple[Tensor, Tensor]:
    """A scale and a shift (M,) for each run: from each run's min-max, then least squares to the reduced map, three times.

    Continuous in the maps: rounding errors stay rounding errors, whatever the batch.
    """
    scale, shift = _min_max(maps_M1HW)
    exact = torch.float32 if maps_M1HW.device.type == "mps" else torch.float64  # which Apple's GPUs do not have
    x = maps_M1HW.flatten(1).to(exact)
    x = x - x.mean(1, keepdim=True)
    for _ in range(_ROUNDS):
        target = _reduce(_aligned(maps_M1HW, scale, shift), reduction).flatten().to(exact)
        slope = (x @ (target - target.mean())) / (x**2).sum(1).clamp_min(_EPS)
        scale = slope.to(maps_M1HW)
        shift = (target.mean() - slope * maps_M1HW.flatten(1).to(exact).mean(1)).to(maps_M1HW)
    return scale, shift


def combine_affine(maps_M1HW: Tensor, scale_M: Tensor, shift_M: Tensor, reduction: str) -> tuple[Tensor, Tensor]:
    """Aligned runs -> reduced, min-max to [0, 1] (1, H, W), and their spread in the same units (H, W)."""
    aligned = _aligned(maps_M1HW, scale_M, shift_M)
    merged = _reduce(aligned, reduction)
    spread = aligned.std(0) if reduction == "mean" else (aligned - merged).abs().median(0).values
    low, high = torch.aminmax(merged)
    unit = (high - low).clamp_min(_EPS)
    return (merged - low) / unit, spread[0] / unit


def merge_directions(maps_M3HW: Tensor, *, reduction: str = "closest") -> tuple[Tensor, Tensor]:
    """Unit vectors -> the mean direction, or the run nearest to it, per pixel: (3, H, W); or, "member", one run as a whole.

    Uncertainty (H, W): mean angle between the runs and the mean direction, divided by pi, as diffusers has it.
    """
    if reduction not in ("closest", "mean", "member"):
        raise ValueError(f"reduction={reduction!r} of normals: choose closest, mean, member")
    mean = F.normalize(maps_M3HW.mean(0), dim=0, eps=_EPS)
    cosine = (maps_M3HW * mean).sum(1).clamp(-1, 1)
    uncertainty = cosine.arccos().mean(0) / torch.pi
    if reduction == "member":
        return maps_M3HW[_most_usual(maps_M3HW)], uncertainty
    if reduction == "mean":
        opposed = mean.norm(dim=0) < 0.5  # runs that cancel out have no mean direction
        return torch.where(opposed, maps_M3HW[0], mean), uncertainty
    nearest = cosine.argmax(0)[None, None].expand(1, 3, -1, -1)
    return maps_M3HW.gather(0, nearest)[0], uncertainty


def _most_usual(maps_M3HW: Tensor) -> int:
    """The run with the least sum of angles to the mean of all runs' spherical angles, as GeoWizard's code chooses.

    Its azimuths count from the left, where its x axis points, and are averaged as numbers, on either side of their cut; angles
    are of cosines within 0.999.
    """
    x, y, z = maps_M3HW.unbind(1)
    azimuth = torch.atan2(y, -x).mean(0)
    polar = torch.atan2(torch.hypot(x, y), z).mean(0)
    mean = torch.stack([-polar.sin() * azimuth.cos(), polar.sin() * azimuth.sin(), polar.cos()])
    cosine = F.cosine_similarity(mean[None], maps_M3HW, dim=1).clamp(-0.999, 0.999)
    return int(cosine.arccos().flatten(1).sum(1).argmin())


def merge_channels(maps_MCHW: Tensor, *, reduction: str = "median") -> tuple[Tensor, Tensor]:
    """Median and median absolute deviation of each channel, or mean and standard deviation; as diffusers. (C, H, W) both."""
    merged = _reduce(maps_MCHW, reduction, "intrinsic images")
    if reduction == "mean":
        return merged, maps_MCHW.std(0)
    return merged, (maps_MCHW - merged).abs().median(0).values


def merge_mean(maps_MCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (C, H, W) and standard deviation, averaged over the channels (H, W)."""
    return maps_MCHW.mean(0), maps_MCHW.std(0).mean(0)


_RULES: dict[MergeRule, Callable[..., tuple[Tensor, Tensor]]] = {
    "affine": merge_affine,
    "mean": merge_mean,
    "unit vectors": merge_directions,
    "channels": merge_channels,
}


def _min_max(maps_M1HW: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift (M,) that bring each run to [0, 1]."""
    low, high = torch.aminmax(maps_M1HW.flatten(1), dim=1)
    scale = 1 / (high - low).clamp_min(_EPS)
    return scale, -scale * low


def _split(parameters: np.ndarray, like: Tensor) -> tuple[Tensor, Tensor]:
    scale, shift = np.split(parameters, 2)
    return torch.from_numpy(scale.copy()).to(like), torch.from_numpy(shift.copy()).to(like)


def _aligned(maps_M1HW: Tensor, scale_M: Tensor, shift_M: Tensor) -> Tensor:
    return maps_M1HW * scale_M.view(-1, 1, 1, 1) + shift_M.view(-1, 1, 1, 1)


def _reduce(maps_MCHW: Tensor, reduction: str, what: str = "affine maps") -> Tensor:
    if reduction == "median":
        return maps_MCHW.median(0).values
    if reduction == "mean":
        return maps_MCHW.mean(0)
    raise ValueError(f"reduction={reduction!r} of {what}: choose median, mean")
