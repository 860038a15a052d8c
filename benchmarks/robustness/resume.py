"""Kill training runs at random moments, go on with --resume, and compare what comes out bit by bit.

python benchmarks/robustness/resume.py --runs 20 --out benchmarks/robustness/resume.md

Each run is killed (SIGKILL) one to three times, after a random time; the moments are drawn from --seed, where they fall depends
on the machine. A run is a process forked from one that has imported everything; --fresh starts interpreters instead.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
from benchmarks._page import made
from benchmarks._tiny import write
from genpercept.training import loop
from genpercept.training.run.state import Checkpoints, read_checkpoint
from genpercept.training.stages import autoencoder  # noqa: F401  # imported before the fork, not in each run

STEPS, EVERY = 30, 3


@dataclass
class Row:
    """One run: the last whole checkpoint at each kill, kills that fell into the writing of one, and the comparison."""

    found: list[int] = field(default_factory=list)
    halves: int = 0
    same: bool = False


def start(recipe: Path, out: Path, resume: bool, fresh: bool) -> int:
    """The id of a process that trains."""
    if fresh:
        command = [
            sys.executable,
            "-m",
            "genpercept.training.loop",
            str(recipe),
            str(out),
            *(["--resume"] if resume else []),
        ]
        return subprocess.Popen(command, stderr=subprocess.DEVNULL).pid
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        code = 1
        try:
            code = loop.main(recipe, [], out, resume=resume)
        finally:
            os._exit(code)
    return pid


def wait(pid: int, seconds: float | None) -> bool:
    """Whether the process ended well within `seconds`; it is killed when they are over. RuntimeError when it failed."""
    deadline = time.monotonic() + (seconds if seconds is not None else 1e9)
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            if status:
                raise RuntimeError(f"a run failed with status {status}")
            return True
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


def one(recipe: Path, out: Path, whole: Path, longest: float, draw: random.Random, fresh: bool) -> Row:
    row, resume = Row(), False
    for _ in range(draw.randint(1, 3)):
        if wait(start(recipe, out, resume, fresh), draw.uniform(0.05, 1.0) * longest):
            break
        steps = [int(p.name[5:]) for p in Checkpoints(out, 2).list()]
        row.found.append(max(steps, default=0))
        row.halves += len(list((out / "checkpoints").glob(".step-*")))
        resume = True
    wait(start(recipe, out, resume or (out / "model").exists(), fresh), None)
    row.same = same(whole, out)
    return row


def same(one: Path, other: Path) -> bool:
    """Model, weights, average and optimiser: every tensor equal in every bit."""
    name = "model/diffusion_pytorch_model.safetensors"
    a, b = (read_checkpoint(Checkpoints(folder, 2).list()[-1]) for folder in (one, other))
    pairs = [(load_file(one / name), load_file(other / name)), (a[1], b[1]), (a[2], b[2])]
    moments = [(x, y) for x, y in zip(flat(a[3]), flat(b[3]), strict=True)]
    tensors = [(x[k], y[k]) for x, y in pairs for k in x] + moments
    return (
        a[0].step == b[0].step
        and all(x.keys() == y.keys() for x, y in pairs)
        and all(torch.equal(x, y) for x, y in tensors)
    )


def flat(optimiser: dict) -> list[torch.Tensor]:
    return [v for p in optimiser["state"].values() for v in p.values() if isinstance(v, torch.Tensor)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    draw, rows = random.Random(options.seed), []
    with tempfile.TemporaryDirectory() as folder:
        recipe = write(Path(folder), STEPS, EVERY)
        whole = Path(folder) / "whole"
        wait(start(recipe, Path(folder) / "warm", False, options.fresh), None)
        begin = time.monotonic()
        wait(start(recipe, whole, False, options.fresh), None)
        longest = time.monotonic() - begin
        for number in range(options.runs):
            rows.append(one(recipe, Path(folder) / f"run{number}", whole, longest, draw, options.fresh))
            print(
                f"run {number + 1}: killed with checkpoints of steps {rows[-1].found}, same: {rows[-1].same}",
                flush=True,
            )
    text = table(rows, longest)
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    sys.exit(0 if all(row.same for row in rows) else 1)


def table(rows: list[Row], longest: float) -> str:
    halves = sum(row.halves for row in rows)
    kills, same_rows = sum(len(r.found) for r in rows), sum(r.same for r in rows)
    lines = [
        "# Killed and resumed",
        "",
        f"{made(__file__)}. {len(rows)} runs of {STEPS} steps (checkpoint every"
        f" {EVERY}, {longest:.1f} s uninterrupted), {kills} times killed by SIGKILL at random moments, {halves} of them while a"
        " checkpoint was being written or dropped. Compared with the run that nobody stopped: model, weights, moving average,"
        " Adam's moments.",
        "",
        f"**{same_rows} of {len(rows)} runs are equal to it in every bit.**",
        "",
        "| run | newest whole checkpoint at each kill (step) | equal in every bit |",
        "| ---: | --- | --- |",
    ]
    for number, row in enumerate(rows, 1):
        lines.append(
            f"| {number} | {', '.join(map(str, row.found)) or 'ended first'} | {'yes' if row.same else 'NO'} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
