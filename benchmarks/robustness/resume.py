"""Kill training runs at random moments, go on with --resume, and compare what comes out bit by bit.

python benchmarks/robustness/resume.py --runs 20 --out benchmarks/robustness/resume.md

Three kinds of run: an autoencoder, and two whose heads have batch norms, UperNet and ViTPose's classic decoder. Every tensor of
the last checkpoint (weights, running statistics, moving average, the optimiser's moments) and of the model is compared.
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

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
from benchmarks import _tiny
from benchmarks._page import made
from genpercept.training import loop
from genpercept.training.run.state import Checkpoints
from genpercept.training.stages import autoencoder, finetune  # noqa: F401  # imported before the fork, not in each run
from tests.support import normed

STEPS, EVERY = 20, 2


@dataclass
class Row:
    """One run: the last whole checkpoint at each kill, kills that fell into the writing of one, and the tensors that differ."""

    found: list[int] = field(default_factory=list)
    halves: int = 0
    differing: list[str] = field(default_factory=list)


def start(recipe: Path, out: Path, resume: bool, fresh: bool) -> int:
    """The id of a process that trains."""
    if fresh:
        command = [
            sys.executable,
            "-m",
            "genpercept.training",
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
        row.halves += any((out / "checkpoints").glob(".*"))
        resume = True
    wait(start(recipe, out, resume or (out / "model").exists(), fresh), None)
    row.differing = differing(whole, out)
    return row


def differing(whole: Path, run: Path) -> list[str]:
    """Names of the tensors that are not equal in every bit, or are in one of the runs alone."""
    a, b = normed.tensors(whole), normed.tensors(run)
    return [name for name in {**a, **b} if name not in a or name not in b or not torch.equal(a[name], b[name])]


def write(kind: str, folder: Path) -> Path:
    return _tiny.write(folder, STEPS, EVERY) if kind == "autoencoder" else normed.write(folder, kind, STEPS, EVERY)


def case(kind: str, folder: Path, options: argparse.Namespace, draw: random.Random) -> tuple[str, list[str]]:
    """Runs of one kind: the first line of their table and its rows."""
    recipe, whole = write(kind, folder), folder / "whole"
    wait(start(recipe, folder / "warm", False, options.fresh), None)
    begin = time.monotonic()
    wait(start(recipe, whole, False, options.fresh), None)
    longest = time.monotonic() - begin
    rows: list[Row] = []
    for number in range(options.runs):
        rows.append(one(recipe, folder / f"run{number}", whole, longest, draw, options.fresh))
        print(f"{kind} {number + 1}: killed at {rows[-1].found}, differing: {rows[-1].differing}", flush=True)
    names = list(normed.tensors(whole))
    statistics = sum("running_" in name or "num_batches" in name for name in names)
    equal = sum(not row.differing for row in rows)
    head = (
        f"| {kind} | {len(names)} | {statistics} | {longest:.1f} | {sum(len(row.found) for row in rows)} |"
        f" {sum(row.halves for row in rows)} | {'**' if equal == len(rows) else ''}{equal} of {len(rows)}"
        f"{'**' if equal == len(rows) else ''} |"
    )
    return head, [
        f"| {kind} {n} | {', '.join(map(str, row.found)) or 'ended first'} | {len(row.differing) or 'none'} |"
        for n, row in enumerate(rows, 1)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    heads: list[str] = []
    rows: list[str] = []
    for kind in ("autoencoder", *normed.TASKS):
        with tempfile.TemporaryDirectory() as folder:
            head, each = case(kind, Path(folder), options, draw)
        heads.append(head)
        rows += each
    text = table(heads, rows)
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    sys.exit(0 if all(row.endswith("| none |") for row in rows) else 1)


def table(heads: list[str], rows: list[str]) -> str:
    lines = [
        "# Killed and resumed",
        "",
        f"{made(__file__)}. Runs of {STEPS} steps with a checkpoint every {EVERY}, killed by SIGKILL one to three times at"
        " random moments and resumed. Compared, in every bit, with the run that nobody stopped: every tensor of the last"
        " checkpoint (weights, batch norms' running statistics and counts, moving average, Adam's moments) and of the model.",
        "",
        "| run | tensors | of them statistics | seconds uninterrupted | kills | while a checkpoint was written or dropped |"
        " equal in every tensor |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *heads,
        "",
        "| run | newest whole checkpoint at each kill (step) | tensors that differ |",
        "| --- | --- | ---: |",
        *rows,
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
