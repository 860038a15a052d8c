"""The losses that draw, HDN and VNL: seconds of a pass forwards and backwards, and how often the host waits for the device.

python benchmarks/speed/losses.py
python benchmarks/speed/losses.py --before OLD/src    # another version's two modules in turns with these; answers compared

A wait is an operation whose answer the host needs before it goes on: a number read from a tensor, or a shape that depends on
values (nonzero, an index by a mask). On a CPU it costs nothing; on a GPU the queue of work runs empty at each. They are counted
here, on the CPU, among the operations that PyTorch dispatches. Maps are smooth with noise and a tenth of the pixels invalid.
CPU seconds are the process's own, the least of the rounds, and the spread is (most - least) / least.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
from benchmarks._page import made, show
from benchmarks._waits import Waits
from genpercept.core.rng import Rng
from genpercept.training.losses import LOSSES, needs

CASES: dict[str, dict[str, Any]] = {"hdn": {}, "hdn, spatial": {"contexts": "spatial"}, "vnl": {}}
SHAPES = ((16, 96, 128), (4, 480, 640))


def main() -> None:
    """Time both versions in turns, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="the src folder of another version")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = [row(name, shape, args) for shape in SHAPES for name in CASES]
    names = ["loss", "maps", "CPU s", "spread", "waits"]
    if args.before:
        names += ["CPU s before", "spread", "waits before", "times as fast", "values differ by", "gradients differ by"]
    head = "| " + " | ".join(names) + " |", "| --- | --- |" + " ---: |" * (len(names) - 2)
    text = (__doc__ or "").split("\n\n")[-1].replace("\n", " ").strip()
    differ = " Differences are the largest, as shares of the largest value." if args.before else ""
    title = ["# Losses that draw", "", f"{made(__file__, args.threads)}; {args.rounds} rounds.", ""]
    show([*title, *head, *rows, "", text + differ], args.out)


def row(case: str, shape: tuple[int, int, int], args: argparse.Namespace) -> str:
    """A line of the table."""
    name, options = case.split(",")[0], CASES[case]
    pred, target, valid = maps(shape)
    versions = [LOSSES.find(name)]
    if args.before:
        versions.append(other(args.before, name))
    calls = [bound(loss, pred, target, valid, options) for loss in versions]
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(args.rounds + 1):
        for taken, call in zip(seconds, calls, strict=True):
            begin = os.times()
            call()
            end = os.times()
            taken.append(end.user + end.system - begin.user - begin.system)
    cells = [case, " x ".join(map(str, shape))]
    for taken, call in zip(seconds, calls, strict=True):
        least, most = min(taken[1:]), max(taken[1:])
        with Waits() as waits:
            call()
        cells += [f"{least:.3f}", f"{most / max(least, 1e-9) - 1:.0%}", str(waits.count)]
    if args.before:
        answers = [call() for call in calls]
        differ = [float((a - b).abs().max() / b.abs().max()) for a, b in zip(*answers, strict=True)]
        cells += [f"{min(seconds[1][1:]) / min(seconds[0][1:]):.2f}", *(f"{x:.1e}" for x in differ)]
    return "| " + " | ".join(cells) + " |"


def maps(shape: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Prediction, target (B, 1, H, W) in about [-1, 1], and what is valid."""
    b, h, w = shape
    g = torch.Generator().manual_seed(0)
    smooth = F.interpolate(torch.randn(b, 1, 6, 8, generator=g), (h, w), mode="bicubic").tanh()
    pred = smooth + 0.1 * torch.randn(b, 1, h, w, generator=g)
    return pred.requires_grad_(True), smooth, torch.rand(b, 1, h, w, generator=g) > 0.1


def bound(loss: Any, pred: Tensor, target: Tensor, valid: Tensor, options: Any) -> Callable[[], tuple[Tensor, Tensor]]:
    """A pass of the loss with whatever context it asks for: its values and its gradient."""
    b, _, h, w = pred.shape
    context: dict[str, Any] = {
        "intrinsics": torch.tensor([[w, 0, w / 2], [0, w, h / 2], [0, 0, 1]]).expand(b, 3, 3),
        "rng": Rng(0, 0, range(b)),
    }

    def call() -> tuple[Tensor, Tensor]:
        values = loss(pred, target, valid, **options, **{key: context[key] for key in needs(loss)})
        return values.detach(), torch.autograd.grad(values.sum(), pred)[0]

    return call


def other(src: Path, name: str) -> Any:
    """The loss of another version, in this one's package: its module stands on `hide` and `Rng` alone."""
    path = src / "genpercept" / "training" / "losses" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"before_{name}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise SystemExit(f"--before {src}: no {path}; give the src folder of a version that has it")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.PLUGIN


if __name__ == "__main__":
    main()
