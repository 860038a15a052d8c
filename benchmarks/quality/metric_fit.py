"""Metres out of a prediction up to scale and shift, by 100 known points: how good, and against what.

    python benchmarks/quality/metric_fit.py --rgbd FRAMES         # writes metric_fit.md beside it

`--rgbd`: a folder of real frames with depth and an index.csv that names them (columns name, set, scene, tier, unit).

Of each frame 100 pixels with a measured depth are drawn, as a person with a laser would have them, five times with other
draws. All other measured pixels judge: AbsRel is the mean of |z - true| / true, δ1 the share within a factor of 1.25; what
a fit puts behind the camera counts as wrong by all of its distance. Means are over scenes, of the means of their frames and
draws; ± is the standard error over scenes. "20 of them wrong": at those the known distance is another one, log-uniform
between the nearest and the farthest of the frame, as of points that were mixed up. The rows of all measured pixels say what
a scale and a shift can do for this model: least squares makes the squared error in metres least, this fit the relative error
of those within its threshold. The median row has no shift: the prediction times one number, the ratio of the medians of
the 100 points and of the prediction there. "No answer": draws whose line came out upside down, which is refused. The last table
stands for a model that is better than the embedded ones: the true depth itself with noise, up to scale and shift.

Where no point is wrong, least squares of relative errors over all of them has the lower AbsRel with mini/depth, for that is
what it makes small, and a lower δ1; where one in five is wrong it loses in both. With models as coarse as the embedded ones a
wider threshold has a little less AbsRel; the better the model, the more wrong points a wide one lets in. 25 % is the default.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
import genpercept
from benchmarks._page import made, show, with_error
from benchmarks.quality.fewer_operations import frames
from benchmarks.quality.real_frames import by_scene
from genpercept.imaging import metric
from genpercept.imaging.kinds import KINDS
from genpercept.imaging.metric import Fit
from genpercept.imaging.prediction import Prediction
from genpercept.metrics import _affine

_POINTS, _WRONG, _DRAWS = 100, 20, 5
_NOISE = 0.03  # relative, as full-size weights have it
_THRESHOLDS = (0.05, 0.1, 0.25, 0.5)


def main(argv: Sequence[str] | None = None) -> int:
    """Judge every way of each model and write the page. Exit status 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rgbd", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=["mini/depth", "mini/disparity"])
    parser.add_argument("--frames", type=int, default=0, help="at most; 0: all of tier A")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    cases = frames(args.rgbd, args.frames)
    tables = [_table(name, cases, genpercept.load(name, device="cpu")) for name in args.models]
    tables.append(_table(f"The true depth with {_NOISE:.0%} noise", cases, None))
    shown = made(__file__, args.threads, ["--rgbd", "FRAMES"])
    lines = ["# Metres by 100 known points", "", f"{shown}. {len(cases)} real frames of {_scenes(cases)} scenes.", ""]
    lines += [*(__doc__ or "").split("\n\n", 3)[3].strip().split("\n"), ""]
    show([*lines, *(line for table in tables for line in table)], args.out)
    return 0


def _scenes(cases: Sequence[Any]) -> int:
    return len({case.note for case in cases})


def _noisy(case: Any, number: int) -> Prediction:
    """The true depth as a model would give it: in [0, 1], with errors."""
    depth = case.depth * np.exp(_NOISE * np.random.default_rng(number).normal(size=case.depth.shape))
    low, high = depth[case.valid].min(), depth[case.valid].max()
    return Prediction(((depth - low) / (high - low)).clip(0, 1), "depth_affine")


def _table(name: str, cases: Sequence[Any], pipe: Any) -> list[str]:
    """The rows of a model, or, pipe None, of the truth with noise, as Markdown."""
    found: dict[str, list[np.ndarray]] = {}
    for number, case in enumerate(cases):
        answer = _noisy(case, number) if pipe is None else pipe(case.image)
        for row, figures in _of_frame(answer, case, number).items():
            found.setdefault(row, []).append(figures)
        print(f"{name}: {number + 1} of {len(cases)}", file=sys.stderr, flush=True)
    scenes = [case.note for case in cases]
    lines = [f"## {name}", "", "| metres by | AbsRel ↓ | δ1 ↑ | no answer |", "| --- | ---: | ---: | ---: |"]
    for row, figures in found.items():
        table = np.array(figures)
        cells = [with_error(by_scene(table[:, k], scenes)) for k in (0, 1)]
        lines.append(f"| {row} | {' | '.join(cells)} | {table[:, 2].mean():.0%} |")
    return [*lines, ""]


def _of_frame(answer: Any, case: Any, number: int) -> dict[str, np.ndarray]:
    """Way -> (AbsRel, δ1, share of draws that gave no answer), means over draws."""
    distance = KINDS[answer.kind].distance
    assert distance is not None
    values, true = answer.values[case.valid].astype(np.float64), case.depth[case.valid].astype(np.float64)
    target = 1 / true if distance == "inverse depth" else true
    exact = Fit(*_affine.least_squares(values, target), distance, 0, 0, 0, 0, 0, 0)
    robust = metric.fit(values, true, distance)
    found: dict[str, list[np.ndarray]] = {
        "all measured pixels, aligned by least squares": [_figures(exact.metres(values), true)],
        "all measured pixels, this fit": [_figures(robust.metres(values), true)],
    }
    for draw in range(_DRAWS):
        rng = np.random.default_rng((number, draw))
        chosen = rng.choice(len(true), min(_POINTS, len(true) // 2), replace=False)
        others = np.ones(len(true), bool)
        others[chosen] = False
        mixed = true[chosen].copy()
        wrong = rng.choice(len(chosen), _WRONG * len(chosen) // _POINTS, replace=False)
        mixed[wrong] = np.exp(rng.uniform(np.log(true.min()), np.log(true.max()), len(wrong)))
        for row, way in _ways(values[chosen], true[chosen], mixed, distance).items():
            try:
                figures = _figures(way(values[others]), true[others])
            except ValueError:  # which says that these points cannot be fitted
                figures = np.array([np.nan, np.nan, 1])
            found.setdefault(row, []).append(figures)
    return {row: _mean(np.array(figures)) for row, figures in found.items()}


def _mean(figures: np.ndarray) -> np.ndarray:
    good = figures[figures[:, 2] == 0]
    means = good[:, :2].mean(0) if len(good) else np.full(2, np.nan)
    return np.array([*means, figures[:, 2].mean()])


Way = Callable[[np.ndarray], np.ndarray]


def _ways(x: np.ndarray, z: np.ndarray, mixed: np.ndarray, distance: Any) -> dict[str, Way]:
    """What is compared: each takes values and gives metres."""
    sign = -1 if distance == "inverse depth" else 1

    def ransac(known: np.ndarray, threshold: float = metric.INLIER) -> Way:
        return lambda values: metric.fit(x, known, distance, threshold=threshold).metres(values)

    def plain(known: np.ndarray) -> Way:
        return lambda values: metric.least_squares(x, known, distance).metres(values)

    usual = f"{_POINTS} points, this fit"
    ways: dict[str, Way] = {
        usual: ransac(z),
        f"{usual}, {_WRONG} of them wrong": ransac(mixed),
        f"{_POINTS} points, least squares": plain(z),
        f"{_POINTS} points, least squares, {_WRONG} of them wrong": plain(mixed),
        f"{_POINTS} points, the median alone": lambda v: np.median(z) / np.median(x) ** sign * v**sign,
        "5 points, this fit": lambda v: metric.fit(x[:5], z[:5], distance).metres(v),
    }
    for threshold in _THRESHOLDS:
        if threshold != metric.INLIER:
            ways[f"{usual}, inliers within {threshold:.0%}"] = ransac(z, threshold)
            ways[f"{usual}, inliers within {threshold:.0%}, {_WRONG} of them wrong"] = ransac(mixed, threshold)
    return ways


def _figures(metres: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(AbsRel, δ1, 0); metres that are not known or infinite count as 0."""
    z = np.where(np.isfinite(metres) & (metres > 0), metres, 0).astype(np.float64)
    with np.errstate(divide="ignore"):
        ratio = np.maximum(z / true, true / z)
    return np.array([np.mean(np.abs(z - true) / true), np.mean(ratio < 1.25), 0.0])


if __name__ == "__main__":
    raise SystemExit(main())
