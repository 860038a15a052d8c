"""Where the time of a training step goes: encoder, network, losses, their gradients, clipping, optimiser, average, data.

    python benchmarks/speed/training_step.py                 # training_step.md beside it: the embedded base
    python benchmarks/speed/training_step.py --full          # and Stable Diffusion 2.1's shape, random weights (8 GB)

The engine's own step with its own data threads; a clock stands around each part (on a GPU it waits for the device at each
border, so that the parts do not overlap there: their sum is then more than a step without clocks). A share is of all the
steps' wall time; `rest` is what no clock stands around. Cases take turns, round after round, in one process, so that a
machine that slows down slows all of them; seconds are the median of the rounds, the spread is (most - least) / median. bf16:
torch.autocast for the network; the frozen encoder either so (mixed), or in a copy that is bf16 throughout. The ceiling is
the quickest product of two square matrices in the same process, in float32 and in bf16: where the second is no higher, bf16
cannot pay.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
from benchmarks._page import made, show
from benchmarks.memory.full_size_training import build
from genpercept.commands.bench import ceiling
from genpercept.commands.bench.setting import Effort
from genpercept.core.devices import synchronise
from genpercept.training import recipe as recipes
from genpercept.training.loop import Training
from genpercept.training.samples.prefetch import Batches, OnDevice, ahead
from genpercept.training.stages.base import Batch, Making

COMMON: dict[str, Any] = {
    "stage": "finetune",
    "task": "depth",
    "model": {"base": "mini/base"},
    "data": [{"domain": "mixed", "count": 256, "size": [96, 128], "far": 25}],
    "augment": {"sizes": [[48, 64]], "crop": [0.75, 1.0], "colour": 0.2},
    "logging": {"tensorboard": False},
    "steps": 100_000,
    "precision": "fp32",
}
_PIXELS = {"loss": {"mse": 1.0}, "loader": {"batch_size": 8}}
_DRAWN = {"loss": {"mse": 1.0, "hdn": 0.5, "vnl": 0.5}, "loader": {"batch_size": 8}}
CASES: dict[str, dict[str, Any]] = {
    "mini, cached latents, batch 16": {"loss": {"latent": 1.0}, "loader": {"batch_size": 16, "latent_variants": 1}},
    "mini, loss behind the decoder, batch 8": _PIXELS,
    "mini, with HDN and VNL, batch 8": _DRAWN,
    "mini, bf16, encoder mixed, batch 8": _PIXELS | {"precision": "bf16", "speed": {"encoder": "mixed"}},
    "mini, bf16, encoder bf16 throughout, batch 8": _PIXELS | {"precision": "bf16", "speed": {"encoder": "bf16"}},
}
FULL: dict[str, dict[str, Any]] = {
    "SD 2.1's shape, LoRA, 192 x 256, batch 1": {
        "loss": {"mse": 1.0},
        "loader": {"batch_size": 1},
        "learn": {"denoiser": "lora"},
        "ema": {"decay": 0.999},
        "augment": {"sizes": [[192, 256]]},
    }
}
PARTS = (
    "waiting for data",
    "to the device",
    "encoder",
    "pair",
    "network",
    "loss",
    "backward",
    "clipping",
    "optimiser",
    "average",
)


@dataclass
class Clocks:
    """Seconds of each part, and of whole steps."""

    device: str
    parts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    steps: list[float] = field(default_factory=list)

    def around(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, clocked."""

        def clocked(*args: Any, **kwargs: Any) -> Any:
            synchronise(self.device)
            begin = time.perf_counter()
            found = function(*args, **kwargs)
            synchronise(self.device)
            self.parts[part] += time.perf_counter() - begin
            return found

        return clocked


class Case:
    """A run of the engine that is stepped from here."""

    def __init__(self, settings: dict[str, Any], folder: Path) -> None:
        self.training = Training(recipes.parse(settings), folder, resume=False)
        device, recipe = self.training.accelerator.device, self.training.recipe
        self.batches: Batches[Batch] = ahead(Making(self.training.stage, self.training.split), 0, recipe.loader)
        if device.type == "cuda":
            self.batches = OnDevice(self.batches, device, recipe.speed.channels_last)
        self.stream: Iterator[Batch] = iter(self.batches)
        self.clocks = Clocks(str(device))
        self._clocked()

    def _clocked(self) -> None:
        training: Any = self.training
        around = self.clocks.around
        stage, accelerator = training.stage, training.accelerator
        stage.encode = around("encoder", stage.encode)
        stage.training_pair = around("pair", stage.training_pair)
        stage.loss = around("loss", stage.loss)
        training.net.forward = around("network", training.net.forward)
        accelerator.backward = around("backward", accelerator.backward)
        training._clip = around("clipping", training._clip)
        training.optimiser.step = around("optimiser", training.optimiser.step)
        training.average.update = around("average", training.average.update)

    def round(self, steps: int) -> None:
        """So many steps; their mean is noted."""
        whole = time.perf_counter()
        for _ in range(steps):
            begin = time.perf_counter()
            batch = next(self.stream)
            self.clocks.parts["waiting for data"] += time.perf_counter() - begin
            recipe = self.training.recipe
            move = self.clocks.around("to the device", batch.to)
            self.training.step([move(self.training.accelerator.device, recipe.speed.channels_last)])
        self.clocks.steps.append((time.perf_counter() - whole) / steps)

    def forget(self) -> None:
        """What the first round, the warm-up, took."""
        self.clocks.steps.clear()
        self.clocks.parts.update(dict.fromkeys(PARTS, 0.0))


def main() -> None:
    """Step every case in turns, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6, help="of a round")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    speed = {"threads": args.threads}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    best = {dtype: ceiling.measure(dtype, device, Effort())["tflops"] for dtype in ("fp32", "bf16")}
    rows: list[str] = []
    with tempfile.TemporaryDirectory(prefix="training_step_") as temp:
        settings = {name: COMMON | case | {"speed": speed | case.get("speed", {})} for name, case in CASES.items()}
        rows += stepped(settings, Path(temp), args.rounds, args.steps)
        if args.full:
            build(Path(temp) / "base", False)
            base = {"model": {"base": str(Path(temp) / "base")}, "speed": speed}
            full = {name: COMMON | base | case for name, case in FULL.items()}
            rows += stepped(full, Path(temp), min(3, args.rounds), 1)
    head = "| case | s / step | spread | " + " | ".join((*PARTS, "rest")) + " |"
    rule = "| --- |" + " ---: |" * (len(PARTS) + 3)
    limits = f"Ceiling of this run: {best['fp32']:.3g} TFLOP/s in float32, {best['bf16']:.3g} in bf16."
    effort = f"{args.rounds} rounds of {args.steps} steps after one that is not counted"
    title = f"{made(__file__, args.threads)}; {effort}. {limits}"
    text = (__doc__ or "").split("\n\n")[-1].replace("\n", " ").strip()
    show(["# A training step", "", title, "", head, rule, *rows, "", text], args.out)


def stepped(cases: dict[str, dict[str, Any]], folder: Path, rounds: int, steps: int) -> list[str]:
    """A row of the table for each case."""
    running = {name: Case(case, folder / f"run{number}") for number, (name, case) in enumerate(cases.items())}
    try:
        for number in range(rounds + 1):
            for case in running.values():
                case.round(steps)
                if not number:
                    case.forget()
        return [row(name, case.clocks, steps) for name, case in running.items()]
    finally:
        for case in running.values():
            case.batches.close()
        running.clear()
        gc.collect()


def row(name: str, clocks: Clocks, steps: int) -> str:
    """A line of the table: shares of the steps' time."""
    median = statistics.median(clocks.steps)
    spread = (max(clocks.steps) - min(clocks.steps)) / median
    total = sum(clocks.steps) * steps
    shares = [clocks.parts[part] / total for part in PARTS]
    cells = [name, f"{median:.3f}", f"{spread:.0%}", *(f"{share:.1%}" for share in (*shares, 1 - sum(shares)))]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
