"""Samples per second of the batches that a training step takes, by threads of its process and by worker processes.

    python benchmarks/speed/workers.py                 # the page beside it
    python benchmarks/speed/workers.py --batches 4 --rounds 1 --out check.md

Frames of Hypersim's size, published and prepared, as in prepare.py; batches of four 768 x 768 pieces with the depth task's
label maps. The step takes no time, so this is the most that a loader gives. In turns; a round begins when the first batch is
there.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
from benchmarks._page import made
from benchmarks.speed.prepare import write_frames
from genpercept.training.run.batches import Split
from genpercept.training.stages.base import Making

BATCH = 4
RECIPE = """
stage = "finetune"
model = {{base = "mini/base"}}
loss = {{l1 = 1.0}}
[[data]]
name = "hypersim"
root = "{root}"
split = "all"
size = [768, 768]
options = {{labels = ["depth"]}}
[augment]
colour = 0.2
[loader]
batch_size = {batch}
[validation]
split = "all"
"""


def opened(file: Path, root: Path) -> Making:
    """A stage on the tree, and one pass a step."""
    from genpercept.training import recipe as recipes
    from genpercept.training import stages

    file.write_text(RECIPE.format(root=root, batch=BATCH), encoding="utf-8")
    return Making(stages.build(recipes.load(file), lambda line: None), Split(BATCH))


def rate(making: Making, workers: int, batches: int) -> float:
    """Samples per second; workers 0: one thread."""
    from genpercept.training.recipe import Loader
    from genpercept.training.samples.prefetch import ahead

    stream = ahead(making, 0, Loader(workers=workers, prefetch=2))
    try:
        taken = iter(stream)
        next(taken)
        begin = time.perf_counter()
        for _ in range(batches):
            next(taken)
        return batches * BATCH / (time.perf_counter() - begin)
    finally:
        stream.close()


def main() -> None:
    """Make the trees, time them in turns, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    from genpercept.commands.data import prepare

    torch.set_num_threads(1)
    figures: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as temp:
        trees = {"published": Path(temp, "published"), "prepared": Path(temp, "prepared")}
        write_frames(trees["published"], 4)
        prepare.main("hypersim", trees["published"], trees["prepared"], {"labels": ("depth",)}, ["all"], processes=1)
        makings = {name: opened(Path(temp) / f"{name}.toml", root) for name, root in trees.items()}
        for _ in range(args.rounds):
            for name in trees:
                for workers in args.workers:
                    found = rate(makings[name], workers, args.batches)
                    figures.setdefault((name, workers), []).append(found)
    rows = [
        f"| {name} | {workers or 'one thread'} | {statistics.median(found):.1f} | {min(found):.1f} to {max(found):.1f} |"
        for (name, workers), found in figures.items()
    ]
    text = [
        "# Batches by threads and by worker processes",
        "",
        f"{made(__file__, 1)}. Hypersim's depth, batches of {BATCH} of 768 x 768 pixels; {len(os.sched_getaffinity(0))} cores "
        f"may be used, the machine had a load of {os.getloadavg()[0]:.1f}. Medians of {args.rounds} rounds in turns.",
        "",
        "| Hypersim | loader.workers | samples per second | range |",
        "| --- | --- | ---: | ---: |",
        *rows,
        "",
    ]
    args.out.write_text("\n".join(text), encoding="utf-8")
    print(args.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
