"""Fill the disk that a run is on, more or less: the line that ends it, what is left, and the way on.

    python tools/campaigns/training_full_disk.py --runs 12 --out benchmarks/robustness/training_full_disk.md

The disk is a tmpfs mounted for this (root), or with --limit the largest file that a process may write. A run
begins on it with a free share drawn from --seed, until it ends; then room is made and --resume takes it to its end, which is
compared with a run that had room from the beginning. Exit code 1 where a run goes on, says more than a line, leaves something
half-written or comes to another end.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks`, `tests` and `tools` lie
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmarks._page import made, show
from genpercept.training.run.state import Checkpoints
from tools.campaigns import _runs

STEPS = 16


@contextmanager
def disk(folder: Path, size: int) -> Iterator[Path]:
    """A small disk of `size` bytes at `folder`. PermissionError where this user cannot mount one."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={max(size, 2**20)}", "tmpfs", folder], check=False)
    if done.returncode:
        raise PermissionError("a tmpfs cannot be mounted by this user: use --limit")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(disk: Path, free: int) -> Path:
    """A file that leaves so many bytes of the disk."""
    ballast = disk / "ballast"
    found = os.statvfs(disk)
    with ballast.open("wb") as file:
        for _ in range(max(0, found.f_bavail * found.f_frsize - free) // 4096):
            file.write(bytes(4096))
    return ballast


def one(kind: str, recipe: Path, whole: Path, at: Path, free: int, limit: bool) -> tuple[list[str], str, int, float]:
    """What is wrong, the line, the newest whole checkpoint at the end, and the seconds until then."""
    out, log = at / "run", at.parent / f"{at.name}.log"
    log.unlink(missing_ok=True)
    ballast = None if limit else fill(at, free)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (free, resource.RLIM_INFINITY))
    begin = time.monotonic()
    run = _runs.Run(recipe, out, _runs.KINDS[kind], log)
    over = run.wait(300)
    run.kill()
    seconds = time.monotonic() - begin
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    said = [line for line in log.read_text(errors="replace").splitlines() if line.startswith(("error:", "Traceback"))]
    kept = max((int(path.name[5:]) for path in Checkpoints(out, 2).list()), default=0)
    wrong = [] if over else ["does not end"]
    if run.codes and run.codes[0] == 0:
        return [*wrong, *_runs.differences(whole, out)], "it all fitted", kept, seconds
    line = said[0].removeprefix("error: ").replace(str(out), "RUN") if said else "nothing"
    if len(said) != 1 or "RUN" not in line or ("resume" not in line and "begin again" not in line):
        wrong.append(f"said {said}")
    if kept and f"step-{kept:07d}" not in line:
        wrong.append(f"does not name step-{kept:07d}")
    wrong += [f"left {name}" for name in _runs.leftovers(out)] if out.exists() else []
    if ballast is not None:
        ballast.unlink()
    run = _runs.Run(recipe, out, _runs.KINDS[kind], log)
    if not run.wait(300) or any(run.codes):
        wrong.append(f"does not go on: {log.read_text(errors='replace').splitlines()[-1:]}")
    else:
        wrong += _runs.differences(whole, out)
    run.kill()
    return wrong, line, kept, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=12)
    parser.add_argument("--kinds", nargs="+", choices=[*_runs.KINDS], default=["autoencoder", "predictor"])
    parser.add_argument("--limit", action="store_true", help="limit the size of files instead: needs no root")
    parser.add_argument("--minutes", type=float, default=30, help="no run is begun after them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    draw, end, bad = random.Random(options.seed), time.monotonic() + 60 * options.minutes, 0
    lines = [
        "# Training on a full disk",
        "",
        f"{made(__file__)}. A run of {STEPS} steps with a checkpoint every {_runs.EVERY} on a disk with so little room that it"
        " cannot end: what it says, what is left; with room made it goes on, and its end is that of a run that had room.",
        "",
        "| run | room, KB | line | newest whole checkpoint | seconds | then the same end |",
        "| --- | ---: | --- | ---: | ---: | --- |",
    ]
    with tempfile.TemporaryDirectory() as temporary:
        for kind in options.kinds:
            work = Path(temporary) / kind.replace(" ", "_")
            work.mkdir()
            recipe, whole = _runs.write(kind, work, STEPS), work / "whole"
            first = _runs.Run(recipe, whole, _runs.KINDS[kind], work / "log")
            if not first.wait(300) or any(first.codes):
                raise SystemExit(f"{kind}: does not run: {(work / 'log').read_text(errors='replace')[-500:]}")
            sizes = [path.stat().st_size for path in whole.rglob("*") if path.is_file()]
            for number in range(options.runs // len(options.kinds)):
                if time.monotonic() > end:
                    break
                free = int(draw.uniform(0.1, 1.0) * (max(sizes) if options.limit else sum(sizes)))
                at = work / f"disk{number}"
                if options.limit:
                    at.mkdir()
                    wrong, line, kept, seconds = one(kind, recipe, whole, at, free, True)
                else:
                    with disk(at, 4 * sum(sizes)) as mounted:  # beside two checkpoints a third is written
                        wrong, line, kept, seconds = one(kind, recipe, whole, mounted, free, False)
                bad += bool(wrong)
                cells = (kind, free // 1024, line, kept or "none", f"{seconds:.1f}", "; ".join(wrong[:3]) or "yes")
                lines.append(f"| {' | '.join(map(str, cells))} |")
                print(lines[-1], flush=True)
    show(lines, options.out)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
