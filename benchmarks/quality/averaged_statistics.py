"""Batch norms' statistics of averaged weights: averaged as the weights are, or those of the last step?

python benchmarks/quality/averaged_statistics.py --out benchmarks/quality/averaged_statistics.md

An UperNet on a tiny DINOv2 is trained with a moving average of its weights. At some steps both are compared with the statistics
that the averaged weights really have over the training samples, and their losses on them are taken in eval mode.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
from benchmarks._page import made, show
from genpercept.training import recipe as recipes
from genpercept.training.loop import Training
from genpercept.training.networks import learning
from genpercept.training.stages.base import Making
from tests.support import normed

STEPS = (30, 60, 120, 240)
SETTINGS = ["data.0.count=64", "loader.batch_size=4", "ema.decay=0.99", "optim.lr=3e-3", "augment.flip=0.0"]


def buffers(net: nn.Module) -> dict[str, Tensor]:
    return {name: x for name, x in learning.changing(net).items() if not isinstance(x, nn.Parameter)}


@torch.no_grad()
def put(net: nn.Module, values: dict[str, Tensor]) -> None:
    for name, x in buffers(net).items():
        x.copy_(values[name])


def norms(net: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]


@torch.no_grad()
def loss(training: Training, train: bool) -> float:
    """Mean over all samples in one batch; in train mode batch norms measure it, and note it as their statistics."""
    stage = training.stage
    learning.train(stage.net) if train else stage.net.eval()
    pair = stage.training_pair(stage.encode(stage.make_batch(0, range(stage.samples))))
    return float(stage.loss(stage.net(*pair.inputs), pair)[0].mean())


def row(training: Training) -> list[float]:
    """Distance from the exact statistics of the averaged ones and of the live ones; the loss by these three."""
    net = training.stage.net
    live = {name: x.clone() for name, x in buffers(net).items()}
    training.average.swap()
    averaged = {name: x.clone() for name, x in buffers(net).items()}
    found = [loss(training, False)]
    put(net, live)
    found.append(loss(training, False))
    for norm in norms(net):
        norm.reset_running_stats()
        norm.momentum = None
    loss(training, True)
    exact = {name: x.clone() for name, x in buffers(net).items()}
    found.append(loss(training, False))
    for norm in norms(net):
        norm.momentum = 0.1
    put(net, averaged)
    training.average.swap()
    return [distance(averaged, exact), distance(live, exact), *found]


def distance(statistics: dict[str, Tensor], exact: dict[str, Tensor]) -> float:
    """Mean over all channels of |mean - exact mean| in exact standard deviations, plus |log(deviation / exact deviation)|."""
    found = []
    for name, mean in exact.items():
        if name.endswith("running_mean"):
            other = name.replace("running_mean", "running_var")
            deviation = exact[other].sqrt().clamp_min(1e-6)
            far = (statistics[name] - mean).abs() / deviation
            found.append(far + (statistics[other].sqrt().clamp_min(1e-6) / deviation).log().abs())
    return float(torch.cat(found).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    lines = []
    for seed in range(3):
        with tempfile.TemporaryDirectory() as folder:
            recipe = normed.write(Path(folder), "upernet", max(STEPS), 0)
            training = Training(recipes.load(recipe, [*SETTINGS, f"seed={seed}"]), Path(folder) / "run", resume=False)
            making = Making(training.stage, training.split)
            for step in range(1, max(STEPS) + 1):
                passes = training.split.passes
                training.step([making((step - 1) * passes + part) for part in range(passes)])
                if step in STEPS:
                    lines.append(f"| {seed} | {step} | " + " | ".join(f"{x:.4f}" for x in row(training)) + " |")
    page = [
        "# Statistics of averaged weights",
        "",
        f"{made(__file__)}. UperNet on a tiny DINOv2, batches of 4, average with decay 0.99 and warm-up. Distance: mean over"
        " the channels of the error of the mean, in standard deviations, plus that of the logarithm of the deviation. Exact:"
        " what the averaged weights have over all training samples in one batch. Loss: on those samples, in eval mode.",
        "",
        "| seed | step | distance, averaged as the weights | distance, of the last step | loss, averaged | last | exact |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        *lines,
    ]
    show(page, options.out)


if __name__ == "__main__":
    main()
