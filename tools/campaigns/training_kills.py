"""Kill training at random moments, go on with --resume, and compare all that comes out with a run that nobody stopped.

    python tools/campaigns/training_kills.py --kills 100 --minutes 60 --out benchmarks/robustness/training_kills.md

Six kinds of run: the four stages, a head with batch norms (UperNet), and two processes over gloo, all as small as they
can be. A run is killed (SIGKILL) one to three times, after random times, and then goes on to its end. Compared are every
tensor of the last checkpoint (weights, running statistics, moving average, Adam's moments), all other files byte by byte,
the figures of each validation; and nothing hidden may be left, neither half-written files nor locks. The moments are drawn
from --seed; where they fall depends on the machine. A run is forked from a process that has imported everything. Exit code
1 where something differs.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks`, `tests` and `tools` lie
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmarks._page import made, show
from genpercept.training.run.state import Checkpoints
from tools.campaigns import _runs

LIMIT = 900.0  # seconds of a run: it hangs
MOMENTS = (
    "before the first checkpoint",
    "between two",
    "while one was written or dropped",
    "at the model or the best",
    "at the end",
)


@dataclass
class Outcome:
    """A run: where its kills fell, by MOMENTS; the newest whole checkpoint at each; what is wrong with the end."""

    kind: str
    moments: Counter[str] = field(default_factory=Counter)
    found: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    cpu: float = 0.0


def moment(out: Path) -> tuple[str, int]:
    """Where a kill fell, told by what is left; and the newest whole checkpoint."""
    step = max((int(path.name[5:]) for path in Checkpoints(out, 2).list()), default=0)
    if list((out / "checkpoints").glob(".*")):
        return MOMENTS[2], step
    if list(out.glob(".genpercept-*.*")):
        return MOMENTS[3], step
    if (out / "model").exists():
        return MOMENTS[4], step
    return MOMENTS[1] if step else MOMENTS[0], step


def one(kind: str, recipe: Path, out: Path, whole: Path, longest: float, draw: random.Random, most: int) -> Outcome:
    """A run killed up to `most` times."""
    outcome, log = Outcome(kind), out.with_suffix(".log")
    for _ in range(draw.randint(1, min(3, most))):
        run = _runs.Run(recipe, out, _runs.KINDS[kind], log)
        over = run.wait(draw.uniform(0.02, 1.0) * longest)
        run.kill()
        outcome.cpu += run.cpu
        if over:
            break
        what, step = moment(out)
        outcome.moments[what] += 1
        outcome.found.append(step)
    run = _runs.Run(recipe, out, _runs.KINDS[kind], log)
    if not run.wait(LIMIT):
        outcome.wrong.append("hangs")
    run.kill()
    outcome.cpu += run.cpu
    if any(run.codes):
        outcome.wrong.append(f"exit {run.codes}: {log.read_text(errors='replace').splitlines()[-1:]}")
    else:
        outcome.wrong += _runs.differences(whole, out) + [f"left {name}" for name in _runs.leftovers(out)]
    return outcome


def campaign(kinds: list[str], kills: int, minutes: float, steps: int, seed: int, work: Path) -> list[Outcome]:
    draw, outcomes = random.Random(seed), list[Outcome]()
    end = time.monotonic() + 60 * minutes
    ready: dict[str, tuple[Path, Path, float]] = {}
    for kind in kinds:
        folder = work / kind.replace(" ", "_")
        folder.mkdir()
        recipe, whole = _runs.write(kind, folder, steps), folder / "whole"
        for out in (folder / "warm", whole):  # the first one fills the caches
            begin, run = time.monotonic(), _runs.Run(recipe, out, _runs.KINDS[kind], folder / "log")
            done = run.wait(LIMIT)
            run.kill()
            if not done or any(run.codes):
                raise SystemExit(f"{kind}: does not run: {(folder / 'log').read_text(errors='replace')[-500:]}")
        ready[kind] = recipe, whole, time.monotonic() - begin
        print(f"{kind}: {ready[kind][2]:.1f} s undisturbed, {run.cpu:.1f} s of the CPU", flush=True)
    number = 0
    while (left := kills - sum(outcome.moments.total() for outcome in outcomes)) > 0 and time.monotonic() < end:
        kind = kinds[number % len(kinds)]
        recipe, whole, longest = ready[kind]
        number += 1
        outcomes.append(one(kind, recipe, recipe.parent / f"run{number}", whole, longest, draw, left))
        last = outcomes[-1]
        print(f"{number} {kind}: killed at {last.found}, wrong: {last.wrong or 'nothing'}", flush=True)
    return outcomes


def page(outcomes: list[Outcome], steps: int) -> list[str]:
    kills = sum(outcome.moments.total() for outcome in outcomes)
    lines = [
        "# Training, killed and resumed",
        "",
        f"{made(__file__)}. Runs of {steps} steps with a checkpoint every {_runs.EVERY} and two validations, killed by SIGKILL"
        " at random moments and resumed until they are done. Compared with the run that nobody stopped: every tensor of the"
        " last checkpoint and every file of the run, bit by bit (of files with seconds in them the rest), the figures of each"
        " validation; and that nothing hidden is left.",
        "",
        f"| run | runs | kills | {' | '.join(MOMENTS)} | CPU seconds per kill | equal, nothing left |",
        f"| --- | ---: | ---: | {'---: | ' * len(MOMENTS)}---: | ---: |",
    ]
    for kind in dict.fromkeys(outcome.kind for outcome in outcomes):
        mine = [outcome for outcome in outcomes if outcome.kind == kind]
        moments = sum((outcome.moments for outcome in mine), Counter[str]())
        good = sum(not outcome.wrong for outcome in mine)
        cells = " | ".join(str(moments[name]) for name in MOMENTS)
        each = sum(outcome.cpu for outcome in mine) / max(1, moments.total())
        lines.append(f"| {kind} | {len(mine)} | {moments.total()} | {cells} | {each:.1f} | **{good} of {len(mine)}** |")
    lines += ["", f"{kills} kills. The newest whole checkpoint at each (0: none yet):", ""]
    for kind in dict.fromkeys(outcome.kind for outcome in outcomes):
        found = "; ".join(", ".join(map(str, o.found)) for o in outcomes if o.kind == kind and o.found)
        lines.append(f"- {kind}: {found or 'ended first'}")
    wrong = [f"- {outcome.kind}: {', '.join(outcome.wrong[:5])}" for outcome in outcomes if outcome.wrong]
    return [*lines, *(["", "Wrong:", "", *wrong] if wrong else [])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--kinds", nargs="+", choices=[*_runs.KINDS], default=[*_runs.KINDS])
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--minutes", type=float, default=60, help="no run is begun after them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        outcomes = campaign(options.kinds, options.kills, options.minutes, options.steps, options.seed, work)
        left = [name for name in _runs.leftovers(work) if "/run" not in name]
    show(page(outcomes, options.steps), options.out)
    if left:
        print(f"left in caches: {left}")
    sys.exit(1 if left or any(outcome.wrong for outcome in outcomes) else 0)


if __name__ == "__main__":
    main()
