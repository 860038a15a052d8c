"""Does a long shot keep its scale? Frames with known values, noise, and a scale and shift of their own each.

    python benchmarks/quality/video_drift.py    # writes video_drift.md beside it

A window of 96 x 128 pixels wanders over a picture for 400 frames and comes back again and again; its values are a smooth map,
right up to a scale of 0.5 to 0.8 and a shift, with smooth noise of their own in each frame. "Key frames" is what clips are
aligned by. Two other ways: each frame fitted to the one before, as aligned, by the same line, or by least squares.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))  # a script's own folder is all that Python looks into

from benchmarks._page import made, show
from genpercept.imaging.prediction import Prediction
from genpercept.imaging.video import Frame
from genpercept.pipeline.video.align import Line, fit
from genpercept.pipeline.video.motion import Flow, Look
from genpercept.pipeline.video.stream import Tracker

SIZE, FRAMES = (96, 128), 400
NOISE = (0.0, 0.01, 0.03)  # of the range [0, 1]
Fit = Callable[[np.ndarray, np.ndarray], Line | None]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args(argv)
    lines = ["# Long shots: drift of the scale", "", made(__file__) + ".", ""]
    lines += [*(__doc__ or "").strip().split("\n\n", 2)[-1].split("\n"), ""]
    lines += [
        "The found scale times the true one, over its value in the first frame: at the end; at its farthest from 1.",
        "",
    ]
    lines += [
        "| noise | key frames | neighbours, same line | neighbours, least squares |",
        "| ---: | ---: | ---: | ---: |",
    ]
    for noise in NOISE:
        images, values, scales = clip(args.frames, noise)
        ways = (by_keys(images, values), by_neighbours(images, values, fit), by_neighbours(images, values, squares))
        cells = [_cell(np.array(found) * scales) for found in ways]
        lines.append(f"| {noise:.0%} | {' | '.join(cells)} |")
    show(lines, None if str(args.out) == "-" else args.out)
    return 0


def clip(count: int, noise: float, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """(images (H, W, 3) uint8, values (H, W) in [0, 1], the scale of each)."""
    h, w = SIZE
    rng = np.random.default_rng(seed)
    picture, truth = smooth(rng, (h + 160, w + 240, 3), 3), smooth(rng, (h + 160, w + 240), 25)
    scales = rng.uniform(0.5, 0.8, count)
    shifts = 0.1 + rng.uniform(0, 0.8 - scales)
    images, values = [], []
    for i, (scale, shift) in enumerate(zip(scales, shifts, strict=True)):
        y, x = round(80 + 75 * np.sin(0.031 * i)), round(120 + 115 * np.sin(0.019 * i + 1))
        images.append(np.rint(picture[y : y + h, x : x + w] * 255).astype(np.uint8))
        wrong = (
            noise * 4 * (smooth(rng, SIZE, 6) - 0.5)
        )  # a field over its range has a quarter of it as deviation, or less
        values.append(np.clip(scale * (truth[y : y + h, x : x + w] + wrong) + shift, 0, 1).astype(np.float32))
    return images, values, scales


def smooth(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> np.ndarray:
    """Noise, blurred, on [0, 1]."""
    field = cv2.GaussianBlur(rng.standard_normal(shape).astype(np.float32), (0, 0), sigma)
    return (field - field.min()) / (field.max() - field.min())


def by_keys(images: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> list[float]:
    tracker = Tracker(True)
    frames = (Frame(i, Fraction(i, 25), image) for i, image in enumerate(images))
    steps = [tracker.add(f, Prediction(v, "depth_affine")) for f, v in zip(frames, values, strict=True)]
    return [step.line.scale for step in steps]


def by_neighbours(images: Sequence[np.ndarray], values: Sequence[np.ndarray], fitted: Fit) -> list[float]:
    flow, line, found = Flow(), Line(), [1.0]
    looks = [Look.at(image) for image in images]
    for i in range(1, len(images)):
        motion = flow.between(looks[i - 1], looks[i])
        before = motion.warp(line(values[i - 1]))
        line = fitted(values[i][motion.seen], before[motion.seen]) or line
        found.append(line.scale)
    return found


def squares(x: np.ndarray, y: np.ndarray) -> Line:
    """Least squares of y on x."""
    scale, shift = np.polyfit(x.astype(np.float64), y.astype(np.float64), 1)
    return Line(float(scale), float(shift))


def _cell(whole: np.ndarray) -> str:
    ratio = whole / whole[0]
    return f"{ratio[-1]:.3f}, {ratio[np.abs(np.log(np.maximum(ratio, 1e-9))).argmax()]:.3f}"


if __name__ == "__main__":
    raise SystemExit(main())
