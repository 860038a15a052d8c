"""How many of a scene's depth edges a model's answer has, at the scene's own pixels.

    python benchmarks/quality/edges.py --models mini/depth      # edges.md beside it

Scenes of 256 x 192 of the mixed domain's test split; sky and what is beyond 25 m left out; aligned by least squares per image.
Edge F1 and AbsRel near edges as fewer_operations.py has them; paired differences from the first model, standard errors over
scenes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import genpercept
from genpercept.commands.demo.photographs import held_out

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
from benchmarks._page import with_error
from benchmarks.quality.fewer_operations import abs_rel, edges

_SIZE = (192, 256)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", nargs="+", default=["mini/depth"], metavar="MODEL")
    parser.add_argument("--count", type=int, default=150, help="scenes")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args(argv)
    cases = held_out(range(args.count), "mixed", _SIZE)
    lines = [
        f"`python benchmarks/quality/edges.py --models {' '.join(args.models)} --count {args.count}`, "
        f"{time.strftime('%Y-%m-%d')}. {args.count} held-out scenes of {_SIZE[1]} x {_SIZE[0]}.",
        "",
        "| model | edge F1 ↑ | against the first | AbsRel near edges ↓ | AbsRel ↓ | against the first |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    first: np.ndarray | None = None
    for name in args.models:
        pipe = genpercept.load(name, device="cpu")
        found = np.column_stack([edges(pipe, cases), abs_rel(pipe, cases)])
        first = found if first is None else first
        apart = ["" if first is found else with_error((found - first)[:, k], "+") for k in (0, 2)]
        means = [with_error(found[:, k]) for k in range(3)]
        lines.append(f"| {name} | {means[0]} | {apart[0]} | {means[1]} | {means[2]} | {apart[1]} |")
    args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
