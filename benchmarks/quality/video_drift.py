"""Does a long shot keep its scale? Frames with known values, noise, and a scale and shift of their own each.

    python benchmarks/quality/video_drift.py    # writes video_drift.md beside it

A window of 96 x 128 pixels wanders over a picture for 200 frames; its values are a smooth map, right up to a scale of 0.5 to
0.8 and a shift, with smooth noise of their own in each frame. "Clips" is what clips are aligned by: each frame fitted to the
one before, by a line with errors on both sides. Two other ways: by least squares; and by the same line, but to key frames,
along the motion since then, each of which lasts while half of it is in sight.

How far the scale is off in the last 20 frames: the root mean square, over four shots, of the mean logarithm of the found scale
times the true one, over its value in the first five frames. 0.1 is a tenth of the scale.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))  # a script's own folder is all that Python looks into

from benchmarks._page import made, show
from genpercept.pipeline.video.align import Aligner, Line, fit
from genpercept.pipeline.video.motion import Flow, Look, Motion

SIZE, FRAMES, SHOTS = (96, 128), 200, 4
NOISE = (0.01, 0.03)  # of the range [0, 1]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args(argv)
    lines = ["# Long shots: drift of the scale", "", made(__file__) + ".", ""]
    lines += [*(__doc__ or "").strip().split("\n\n", 2)[-1].split("\n"), ""]
    lines += ["| noise | clips | least squares | key frames |", "| ---: | ---: | ---: | ---: |"]
    for noise in NOISE:
        off = np.array([_off(*clip(args.frames, noise, seed)) for seed in range(SHOTS)])
        lines.append(f"| {noise:.0%} | {' | '.join(f'{x:.3f}' for x in np.sqrt((off**2).mean(0)))} |")
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


def _off(images: Sequence[np.ndarray], values: Sequence[np.ndarray], scales: np.ndarray) -> list[float]:
    """Of each way."""
    looks, flow = [Look.at(image) for image in images], Flow()
    motions = [flow.between(a, b) for a, b in pairwise(looks)]
    found = (aligned(values, motions), by_squares(values, motions), by_keys(values, motions))
    whole = [np.log(np.maximum(np.array(one) * scales, 1e-9)) for one in found]
    return [float(one[-20:].mean() - one[:5].mean()) for one in whole]


def aligned(values: Sequence[np.ndarray], motions: Sequence[Motion]) -> list[float]:
    aligner = Aligner()
    return [aligner.add(v, None, motion).scale for v, motion in zip(values, (None, *motions), strict=True)]


def by_squares(values: Sequence[np.ndarray], motions: Sequence[Motion]) -> list[float]:
    line, found = Line(), [1.0]
    for i, motion in enumerate(motions, 1):
        before = motion.warp(line(values[i - 1]))
        line = squares(values[i][motion.seen], before[motion.seen])
        found.append(line.scale)
    return found


def by_keys(values: Sequence[np.ndarray], motions: Sequence[Motion]) -> list[float]:
    line, found, key = Line(), [1.0], values[0]
    path: Motion | None = None
    for i, motion in enumerate(motions, 1):
        if path is not None:
            seen = motion.seen & (motion.warp(path.seen.astype(np.float32)) > 0.5)
            motion = Motion(motion.back + motion.warp(path.back), seen)
        path = motion
        line = fit(values[i][path.seen], path.warp(key)[path.seen]) or line
        found.append(line.scale)
        if path.explained < 0.5:
            key, path = line(values[i]), None
    return found


def squares(x: np.ndarray, y: np.ndarray) -> Line:
    """Least squares of y on x."""
    scale, shift = np.polyfit(x.astype(np.float64), y.astype(np.float64), 1)
    return Line(float(scale), float(shift))


if __name__ == "__main__":
    raise SystemExit(main())
