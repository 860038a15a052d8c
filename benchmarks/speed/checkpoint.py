"""How long a training step stands still for a checkpoint: written in the step, and copied in the step and written beside it.

python benchmarks/speed/checkpoint.py --out benchmarks/speed/checkpoint.md

An autoencoder of about 19 million parameters: 300 MB of weights, moving average and Adam's two moments.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
from benchmarks._page import made, show
from benchmarks._tiny import write
from genpercept.training import recipe as recipes
from genpercept.training.loop import Training
from genpercept.training.networks import learning
from genpercept.training.stages.base import Making

SIZES = "model.codec_config={block_out_channels = [128, 256, 256], layers_per_block = 2, norm_num_groups = 8}"


def timed(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def in_the_step(training: Training) -> None:
    """As it was done before: from the tensors in training to the disk, while nothing else happens."""
    held = learning.changing(training.stage.net), training.average.shadow, training.optimiser.state_dict()
    weights, average, optimiser = held
    weights = {name: x.detach() for name, x in weights.items()}
    training.saving.checkpoints.save(training.state, weights, average, optimiser)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        recipe = write(Path(folder), 1000, every=0, batch=4)
        training = Training(recipes.load(recipe, [SIZES]), Path(folder) / "run", resume=False)
        state = training.state
        making = Making(training.stage, training.split)
        batches = [making(number) for number in range(training.split.passes)]
        step = lambda: training.step(batches)  # noqa: E731
        step(), step()
        found: dict[str, list[float]] = {name: [] for name in ("alone", "before", "still", "beside", "written")}
        for _ in range(options.rounds):  # in turns: a machine that slows down slows all of them
            found["alone"].append(timed(step))
            state.step += 1
            found["before"].append(timed(lambda: in_the_step(training)))
            state.step += 1
            begin = time.perf_counter()
            found["still"].append(timed(lambda: training.saving.save(state)))
            thread = training.saving._writer._thread
            steps = []
            while thread is not None and thread.is_alive():
                steps.append(timed(step))
            found["beside"].append(statistics.median(steps) if steps else 0.0)
            training.saving.wait()
            found["written"].append(time.perf_counter() - begin)
        newest = training.saving.checkpoints.list()[-1]
        size = sum(path.stat().st_size for path in newest.iterdir()) / 1e6
    middle = {name: statistics.median(values) for name, values in found.items()}
    lines = [
        "# A checkpoint beside the step",
        "",
        f"{made(__file__)}. A state of {size:.0f} MB; medians of {options.rounds} rounds, in turns.",
        "",
        f"**The step stands still for {middle['still']:.2f} s instead of {middle['before']:.2f} s**"
        f" ({middle['before'] / middle['still']:.0f} times as short).",
        "",
        "| | seconds |",
        "| --- | ---: |",
        f"| a step, nothing beside it | {middle['alone']:.2f} |",
        f"| standing still, written in the step (as before) | {middle['before']:.2f} |",
        f"| standing still, copied in the step and written beside it | {middle['still']:.2f} |",
        f"| a step while a checkpoint is written (last one included, which outlasts it) | {middle['beside']:.2f} |",
        f"| from the beginning of the copy to the checkpoint on the disk, steps beside it | {middle['written']:.2f} |",
    ]
    show(lines, options.out)


if __name__ == "__main__":
    main()
