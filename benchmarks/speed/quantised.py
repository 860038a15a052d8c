"""Linear layers in int8 by torchao: what they cost the embedded depth model in accuracy, and bring in time and size.

    python benchmarks/speed/quantised.py                                # quantised.md beside it; pip install torchao
    python benchmarks/speed/quantised.py --count 6 --rounds 1 --out x.md    # a check of this script

int8wo has the weights in int8, int8dq the activations too, each token by its range at that moment; convolutions stay as they
are, so all rows compute those in float32. AbsRel: held-out scenes of the synthetic world, aligned by least squares per
image, sky and beyond 25 m left out, as benchmarks/quality/mini.py has it. Largest difference: of the raw map of one scene
from float32's, as a share of its largest value. Time: the network alone, one image at a time, in turns; medians, the spread
is (most - least) / median. Size: bytes of all parameters in memory, and of the linear layers' alone.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
import genpercept
from benchmarks._network import seconds
from benchmarks._page import made, show
from benchmarks._ruler import ceilings, ceilings_line, ruler, ruler_lines
from benchmarks.quality.trade import accuracy, figure, padded
from genpercept.commands.demo.photographs import held_out
from genpercept.pipeline.call import Run

KINDS = (None, "int8wo", "int8dq")


def main() -> None:
    """Accuracy of each, then all of them timed in turns; writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini/depth")
    parser.add_argument("--count", type=int, default=100, help="held-out scenes")
    parser.add_argument("--timed", type=int, default=4, help="scenes that are timed")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--ruler", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cases = held_out(range(args.count), "mixed", (192, 256))
    pipes = {
        kind or "float32": genpercept.load(args.model, device="cpu", specialised=False, quantised=kind)
        for kind in KINDS
    }
    scores = {name: accuracy(pipe, cases, 8) for name, pipe in pipes.items()}
    pictures = padded(pipes["float32"], cases[: args.timed])
    want = answer(pipes["float32"], pictures[0])
    apart = {name: float((answer(p, pictures[0]) - want).abs().max() / want.abs().max()) for name, p in pipes.items()}
    limits = ceilings()
    taken: dict[str, list[float]] = {name: [] for name in pipes}
    for number in range(args.rounds + 1):
        for name, pipe in pipes.items():
            spent = seconds(pipe, pictures)
            if number:
                taken[name].append(spent)
    rows = [row(name, pipe, scores[name], apart[name], taken) for name, pipe in pipes.items()]
    measured = ruler_lines(ruler(), limits) if args.ruler else []
    machine = f"{made(__file__, args.threads)}, torchao {version('torchao')}. {args.model}, "
    machine += f"{scores['float32']['images']} scenes, {args.timed} of them timed, {args.rounds} rounds. "
    machine += ceilings_line(limits)
    head = "| linear layers | AbsRel ↓ | δ1 ↑ | largest difference | ms / image | spread | times as fast | MiB | linear, MiB |"
    text = (__doc__ or "").split("\n\n")[-1].replace("\n", " ").strip()
    rule = "| --- |" + " ---: |" * 8
    show(["# Linear layers in int8", "", machine, "", head, rule, *rows, "", *measured, "", text], args.out)


@torch.inference_mode()
def answer(pipe: Any, picture: Tensor) -> Tensor:
    return pipe._forward(picture, Run(pipe.paradigm(), 1), None)


def row(name: str, pipe: Any, score: dict[str, Any], apart: float, taken: dict[str, list[float]]) -> str:
    """A line of the table."""
    own, plain = taken[name], taken["float32"]
    median = statistics.median(own)
    ratio = statistics.median(a / b for a, b in zip(plain, own, strict=True))
    parts = [part for part in (pipe.unet, pipe.vae, pipe.head) if part is not None]
    layers = [module for part in parts for module in part.modules() if isinstance(module, nn.Linear)]
    whole, linear = (sum(map(size, list(p.parameters()))) for p in (nn.ModuleList(parts), nn.ModuleList(layers)))
    cells = [name, figure(score, "abs_rel"), figure(score, "delta1"), f"{apart:.1e}", f"{1e3 * median:.1f}"]
    cells += [f"{(max(own) - min(own)) / median:.0%}", f"{ratio:.2f}", f"{whole / 2**20:.1f}", f"{linear / 2**20:.1f}"]
    return f"| {' | '.join(cells)} |"


def size(parameter: Tensor) -> int:
    """Bytes, of all tensors that a parameter is made of."""
    parts = parameter.__tensor_flatten__()[0] if hasattr(parameter, "__tensor_flatten__") else []
    return sum(size(getattr(parameter, part)) for part in parts) or parameter.numel() * parameter.element_size()


if __name__ == "__main__":
    main()
