"""Metres out of a prediction up to scale and shift, by distances that are known at some of its pixels.

    depth:          metres     = scale * value + shift
    inverse depth:  1 / metres = scale * value + shift          (scale > 0)
    its root:       1 / sqrt(metres) = scale * value + shift

RANSAC (Fischler & Bolles 1981): lines through two known points each are tried, and the one that leaves the least counts.
What it leaves at a point is its error, as a share of the true value (so that a metre at 20 m is as bad as 10 cm at 2 m), or
the inlier threshold, if that is less (MSAC, Torr & Zisserman 2000). The line is refined by least squares of the same
relative errors over its inliers, until they stay the same. Pairs are drawn by a generator of a fixed seed: the same points
give the same answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from genpercept.imaging.kinds import Distance

_EXPONENTS: dict[Distance, float] = {"depth": 1.0, "inverse depth": -1.0, "root of inverse depth": -0.5}  # of metres
INLIER = 0.25  # the largest relative error of an inlier
FARTHEST = 10_000.0  # metres; what would be farther, or behind the camera, is not valid
_TRIALS = 2000
_POOL = 4000  # points that vote, of more
_ROUNDS = 10  # of refinement at most
_BLOCK = 2**20  # errors at once
_SEED = 0x6D6574


@dataclass(frozen=True)
class Fit:
    """scale, shift: as above, of `distance`. points: that were known, inliers: those that agree within `threshold`.

    left_out: known points at which the prediction is not valid. residual: median of |z - metres| / metres, and rms in metres,
    both over the inliers; residual_all: the median over all points.
    """

    scale: float
    shift: float
    distance: Distance
    points: int
    inliers: int
    threshold: float
    residual: float
    residual_all: float
    rms: float
    left_out: int = 0

    def metres(self, values: np.ndarray) -> np.ndarray:
        """Values of any shape -> metres, float32; NaN where that is behind the camera, or farther than FARTHEST."""
        line = self.scale * np.asarray(values, np.float64) + self.shift
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.where(line > 0, line, np.nan) ** (1 / _EXPONENTS[self.distance])
            return np.where((z > 0) & (z <= FARTHEST), z, np.nan).astype(np.float32)

    def spread(self, uncertainty: np.ndarray, metres: np.ndarray) -> np.ndarray:
        """The spread of values (H, W) -> that of their metres, to first order; 0 where those are unknown."""
        exponent = _EXPONENTS[self.distance]
        slope = abs(self.scale / exponent) * metres ** (1 - exponent)
        return np.nan_to_num(uncertainty * slope).astype(np.float32)

    def to_meta(self) -> dict[str, Any]:
        """As plain values, for a Prediction's meta and a sidecar."""
        left = {"depth": "metres", "inverse depth": "1 / metres"}.get(self.distance, "1 / sqrt(metres)")
        return {
            "rule": f"{left} = {self.scale:.9g} * value + {self.shift:.9g}",
            "scale": self.scale,
            "shift": self.shift,
            "points": self.points,
            "inliers": self.inliers,
            "inlier_threshold": self.threshold,
            "residual_median": round(self.residual, 6),
            "residual_median_all": round(self.residual_all, 6),
            "residual_rms_metres": round(self.rms, 6),
            **({"left_out": self.left_out} if self.left_out else {}),
        }


def words(told: Mapping[str, Any]) -> str:
    """How well the known points agree, of what `Fit.to_meta` gives, in one line."""
    return (
        f"{told['inliers']} of {told['points']} known points agree; their residual: median "
        f"{100 * told['residual_median']:.1f} %, rms {told['residual_rms_metres']:.3g} m"
    )


def fit(values: np.ndarray, metres: np.ndarray, distance: Distance, *, threshold: float = INLIER, seed: int = 0) -> Fit:
    """values (N,) of a prediction at the points whose distance is `metres` (N,), all finite, metres > 0.

    threshold: the largest error of an inlier, relative to its true value. ValueError for fewer than two points, for points
    that are all at one distance or at one value, and where the prediction shrinks as the distance grows.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"inlier threshold {threshold:g}: a share of the distance, between 0 and 1")
    x, z = np.asarray(values, np.float64), np.asarray(metres, np.float64)
    _check(x, z)
    exponent = _EXPONENTS[distance]
    y = z**exponent
    relative = threshold * abs(exponent)  # of y: what `threshold` is of metres
    scale, shift = _consensus(x, y, relative, seed)
    inside = np.abs(scale * x + shift - y) <= relative * y
    for _ in range(_ROUNDS):
        better = _least_squares(x[inside], y[inside])
        if better is None:
            break
        scale, shift = better
        before, inside = inside, np.abs(scale * x + shift - y) <= relative * y
        if inside.sum() < 2 or (inside == before).all():
            inside = before if inside.sum() < 2 else inside
            break
    return _told(x, z, inside, Fit(float(scale), float(shift), distance, len(x), int(inside.sum()), threshold, 0, 0, 0))


def least_squares(values: np.ndarray, metres: np.ndarray, distance: Distance) -> Fit:
    """The same by least squares of relative errors over all points, wrong ones too. ValueError as `fit` has it."""
    x, z = np.asarray(values, np.float64), np.asarray(metres, np.float64)
    _check(x, z)
    found = _least_squares(x, z ** _EXPONENTS[distance])
    if found is None:
        raise ValueError(_AGAINST)
    return _told(x, z, np.ones(len(x), bool), Fit(*found, distance, len(x), len(x), np.inf, 0, 0, 0))


_AGAINST = (
    "the prediction shrinks where the known distances grow: are they of this image, along the optical axis in metres, and "
    "not inverse?"
)


def _check(x: np.ndarray, z: np.ndarray) -> None:
    if len(x) < 2:
        raise ValueError(
            f"{len(x)} known distances in the image: scale and shift take two or more, at different distances"
        )
    if np.ptp(z) <= 1e-9 * z.max():
        raise ValueError(f"all {len(z)} known points are at {z[0]:g} m: scale and shift take different distances")
    if np.ptp(x) <= 1e-9 * max(1.0, np.abs(x).max()):
        raise ValueError(f"the prediction has one value at all {len(x)} known points: give points on different things")


def _consensus(x: np.ndarray, y: np.ndarray, threshold: float, seed: int) -> tuple[float, float]:
    """Of the lines through two points the one that leaves the least, with a scale above 0."""
    rng = np.random.default_rng((_SEED, seed))
    if len(x) > _POOL:
        pool = rng.choice(len(x), _POOL, replace=False)
        x, y = x[pool], y[pool]
    if len(x) * (len(x) - 1) // 2 <= _TRIALS:
        first, second = np.array(list(combinations(range(len(x)), 2))).T
    else:
        first, second = rng.integers(0, len(x), (2, _TRIALS))
    with np.errstate(divide="ignore", invalid="ignore"):
        scales = (y[second] - y[first]) / (x[second] - x[first])
    good = np.isfinite(scales) & (scales > 0)
    scales, first = scales[good], first[good]
    shifts = y[first] - scales * x[first]
    if not len(scales):
        raise ValueError(_AGAINST)
    costs = np.empty(len(scales))
    for start in range(0, len(scales), step := max(1, _BLOCK // len(x))):
        part = slice(start, start + step)
        error = np.abs(scales[part, None] * x + shifts[part, None] - y) / y
        costs[part] = np.square(np.minimum(error, threshold)).sum(1)
    best = int(costs.argmin())
    return float(scales[best]), float(shifts[best])


def _least_squares(x: np.ndarray, y: np.ndarray) -> tuple[float, float] | None:
    """(scale, shift) of the least sum of ((scale x + shift - y) / y)^2; None where the scale is not above 0."""
    w = 1 / np.square(y)
    mean_x, mean_y = (w * x).sum() / w.sum(), (w * y).sum() / w.sum()
    spread = (w * np.square(x - mean_x)).sum()
    if spread <= 0:
        return None
    scale = (w * (x - mean_x) * (y - mean_y)).sum() / spread
    return (float(scale), float(mean_y - scale * mean_x)) if scale > 0 else None


def _told(x: np.ndarray, z: np.ndarray, inside: np.ndarray, found: Fit) -> Fit:
    """With its residuals; a point that comes to lie behind the camera is wrong by all of its distance."""
    error = np.abs(np.nan_to_num(found.metres(x).astype(np.float64)) - z)
    relative, inner = error / z, error[inside]
    numbers = {"residual": np.median(relative[inside]), "residual_all": np.median(relative)}
    numbers["rms"] = np.sqrt(np.mean(np.square(inner)))
    return Fit(**{**vars(found), **{key: float(value) for key, value in numbers.items()}})
