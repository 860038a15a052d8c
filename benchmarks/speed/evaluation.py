"""Metrics of `genpercept evaluate` beside a plain loop: NYU-sized depth maps on disk, label and prediction read for each.

python benchmarks/speed/evaluation.py [--count 1000] [--workers 2] [--write benchmarks/speed/evaluation.md]

Both do the same work on the same files in one run: read the image, the 16-bit depth and the prediction, check that the
prediction is of this image, align, score. The figures must be equal in every bit.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from genpercept.commands.evaluate import cache
from genpercept.commands.evaluate.cell import rules_of
from genpercept.commands.evaluate.scoring import Scorer, Scores, Source
from genpercept.commands.evaluate.sets import EvalSet, SetSpec, open_set
from genpercept.imaging.prediction import Prediction
from genpercept.metrics import METRICS
from genpercept.tasks import TASKS

SIZE = (480, 640)
DISTINCT = 20  # the others are links to these: as many bytes are read and scored


def make(root: Path, store: cache.Cache, count: int) -> EvalSet:
    """`count` frames of smooth depth with noise, as `folder` reads them, and a prediction of each in `store`."""
    rng = np.random.default_rng(0)
    for name in ("images", "depth"):
        (root / name).mkdir(parents=True)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] / 100
    for i in range(min(DISTINCT, count)):
        metres = 3 + np.sin(x + i) + np.cos(y * (1 + i / DISTINCT)) + rng.normal(0, 0.05, SIZE)
        Image.fromarray(np.rint(metres * 1000).astype(np.uint16)).save(root / "depth" / f"{i:05d}.png")
        grey = np.rint(metres / metres.max() * 255).astype(np.uint8)
        Image.fromarray(np.stack([grey, grey, 255 - grey], -1)).save(root / "images" / f"{i:05d}.jpg", quality=95)
    for i in range(DISTINCT, count):
        for name in (f"images/{i:05d}.jpg", f"depth/{i:05d}.png"):
            os.link(root / name.replace(f"{i:05d}", f"{i % DISTINCT:05d}"), root / name)
    data = open_set(SetSpec("folder", "maps", root, protocol="nyu"))
    for i, (entry, name) in enumerate(zip(data.entries, data.names, strict=True)):
        if i >= DISTINCT:
            os.link(store.path(data.names[i % DISTINCT]), store.path(name))
            continue
        sample = data.dataset.load(entry)
        depth = sample.label("depth").numpy() / 6 + rng.normal(0, 0.02, SIZE)
        cache.save(store.path(name), Prediction(np.clip(depth, 0, 1).astype(np.float32), "depth_affine"), sample)
    return data


def plain(data: EvalSet, store: cache.Cache) -> tuple[float, dict[str, float]]:
    """Seconds and figures of one metric object, one sample after the other."""
    task = TASKS.find("depth")
    metric = METRICS.find("depth")(protocol="nyu")
    begin = time.perf_counter()
    for entry, name in zip(data.entries, data.names, strict=True):
        sample = data.dataset.load(entry)
        metric.update(cache.load(store.path(name), sample), **task.truth(sample), name=name)
    return time.perf_counter() - begin, metric.compute()


def spread(data: EvalSet, store: cache.Cache, workers: int) -> tuple[float, Scores]:
    """Seconds, from the first process's start to the last figure, and scores of the command's own machinery."""
    begin = time.perf_counter()
    with Scorer(rules_of(TASKS.find("depth"), data), workers, False) as scorer:
        for entry, name in zip(data.entries, data.names, strict=True):
            scorer.add(entry, name, Source(store.path(name)))
        scores = scorer.finish()
    return time.perf_counter() - begin, scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = cache.Cache(Path(folder) / "predictions")
        store.folder.mkdir()
        data = make(Path(folder) / "data", store, given.count)
        load_before = os.getloadavg()[0]
        used = time.process_time()
        seconds, figures = plain(data, store)
        used = time.process_time() - used
        spread_seconds, scores = spread(data, store, given.workers)
    if scores.figures != figures:
        raise SystemExit(f"the figures differ: {figures} and {scores.figures}")
    lines = [
        "| | seconds | maps/s | seconds of processor |",
        "|---|---|---|---|",
        f"| plain loop, one process | {seconds:.1f} | {given.count / seconds:.1f} | {used:.1f} |",
        f"| `--workers {given.workers}`, their start included | {spread_seconds:.1f} | {given.count / spread_seconds:.1f} "
        f"| {scores.seconds:.1f} |",
    ]
    print("\n".join(lines))
    if given.write is not None:
        given.write.write_text(document(given.count, lines, load_before, scores.seconds), encoding="utf-8")


def document(count: int, lines: list[str], load: float, busy: float) -> str:
    """The Markdown page. busy: seconds of processor time of all workers."""
    where = f"{os.cpu_count()} processors ({platform.machine()}), Python {platform.python_version()}"
    return (
        "# Speed of the metrics of `genpercept evaluate`\n\n"
        f"{datetime.date.today()}, {where}, load average {load:.1f} when it began: what else ran there took its share.\n"
        f"`python benchmarks/speed/evaluation.py --count {count} --write benchmarks/speed/evaluation.md`\n\n"
        f"{count} depth maps of {SIZE[0]} x {SIZE[1]}: "
        "image (JPEG), truth (16-bit PNG) and prediction (npz) read for each, least squares, all ten figures, protocol `nyu`.\n"
        "The figures of both are equal in every bit.\n\n" + "\n".join(lines) + "\n\n"
        f"The last column is processor time, {1000 * busy / count:.0f} ms a map in the workers; where others use the\n"
        "processors as well, it rises too.\n"
    )


if __name__ == "__main__":
    main()
