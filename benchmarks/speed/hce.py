"""Time of the human correction effort on large masks, beside PySODMetrics', on one core.

python benchmarks/speed/hce.py                  2000 x 2000 masks made here, table in Markdown
python benchmarks/speed/hce.py gt/*.png         your own masks, at their own size
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy

import cv2
import numpy as np
import py_sod_metrics
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from genpercept.metrics._hce import correction_effort
from genpercept.metrics.dis import PLUGIN

Mask = NDArray[np.bool_]


def shapes(size: int) -> Iterator[tuple[str, Mask]]:
    """Thick, thin and ragged: what costs time differs."""
    y, x = np.mgrid[:size, :size] / size - 0.5
    radius, angle = np.hypot(y, x), np.arctan2(y, x)
    yield "disc", radius < 0.42
    yield "wheel of 120 spokes", (radius < 0.45) & ((np.sin(120 * angle) > 0.6) | (radius > 0.42) | (radius < 0.05))
    yield (
        "lattice of 2 pixel bars",
        ((np.arange(size) % 16 < 2)[:, None] | (np.arange(size) % 16 < 2)) & (radius < 0.45),
    )
    noise = np.random.default_rng(0).random((size, size))
    yield "blobs, 4 pixels", ndimage.gaussian_filter(noise, 4) > 0.5
    yield "noise, 1 pixel", ndimage.gaussian_filter(noise, 1) > 0.5


def predicted(gt: Mask) -> NDArray[np.uint8]:
    """An answer with ragged outlines, holes and islands: the truth, blurred and shaken at two scales."""
    rng = np.random.default_rng(1)
    soft = ndimage.gaussian_filter(gt.astype(np.float32), 2)
    for sigma, strength in ((3, 0.25), (25, 0.35)):
        field = ndimage.gaussian_filter(rng.standard_normal(gt.shape).astype(np.float32), sigma)
        soft += strength * field / field.std()
    return np.where(soft > 0.5, 255, 0).astype(np.uint8)


def timed(call: Callable[[], float]) -> tuple[float, float]:
    """(what it gave, CPU seconds): the best of three, or one call when it takes long."""
    best, value = float("inf"), float("nan")
    for _ in range(3):
        start = time.process_time()
        value = call()
        best = min(best, time.process_time() - start)
        if best > 5:
            break
    return value, best


def row(name: str, gt: Mask) -> str:
    pred, truth = predicted(gt), (255 * gt).astype(np.uint8)

    def theirs() -> float:
        measure = py_sod_metrics.HumanCorrectionEffortMeasure()
        measure.step(pred, truth)
        return measure.hces[0]

    def ours() -> float:
        return float(sum(correction_effort(pred > 128, gt)))

    def rest() -> float:
        return PLUGIN(hce=False).update(pred, truth)["mae"]

    (clicks, cpu), (other, public), (_, five) = timed(ours), timed(theirs), timed(rest)
    assert clicks == other, (name, clicks, other)
    return f"| {name} | {gt.shape[0]} x {gt.shape[1]} | {clicks:.0f} | {cpu:.2f} | {public:.2f} | {five:.2f} |"


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("masks", nargs="*", type=Path)
    p.add_argument("--size", type=int, default=2000)
    a = p.parse_args()
    cv2.setNumThreads(1)
    given = ((f.stem, np.asarray(Image.open(f).convert("L")) > 128) for f in a.masks)
    print(
        "| truth | pixels | HCE | HCE, s | PySODMetrics' HCE, s | the other five figures, s |\n|---|---|---|---|---|---|"
    )
    for name, gt in given if a.masks else shapes(a.size):
        print(row(name, gt), flush=True)


if __name__ == "__main__":
    main()
