"""A folder of very many small files: seconds until the first result, seconds and memory in all, and for finding all done.

    python tools/campaigns/many_files.py --count 10000 --out benchmarks/robustness/many_files.md

Memory is the largest resident size of the process. Exit code 1 where an image is not done, or --resume predicts one again.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` and `tools` lie
os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks._page import made, show
from genpercept.commands.files.inputs import gather, name_results
from tools.campaigns import _predicts


def run(words: list[str | Path], out: Path, log: Path, seconds: float) -> tuple[int, float, float, float]:
    """Exit code, seconds until the first result and until the end, and MB."""
    begin, first, over = time.monotonic(), 0.0, threading.Event()
    pid = _predicts.start([*words, "--out", out], log)

    def stop() -> None:
        if not over.wait(seconds):
            os.kill(pid, 9)

    threading.Thread(target=stop, daemon=True).start()
    while not first and not over.is_set():
        time.sleep(0.01)
        if next(out.rglob("*.png"), None) is not None or os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            first = time.monotonic() - begin
    _, status, usage = os.wait4(pid, 0)
    over.set()
    return os.waitstatus_to_exitcode(status), first, time.monotonic() - begin, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=30, help="for each run, which is killed after them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows, wrong = list[str](), list[str]()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _predicts.pictures(folder / "few", 10, random.Random(options.seed))
        _predicts.pictures(folder / "in", options.count, random.Random(options.seed))
        begin = time.monotonic()
        found = gather([folder / "in"], recursive=True)
        name_results(found.files, found.root)
        listing = time.monotonic() - begin
        for what, photos, more in (("10 files", "few", []), ("all", "in", []), ("all, --resume", "in", ["--resume"])):
            words: list[str | Path] = [folder / photos, "--recursive", "--format", "png", *_predicts.SMALL, *more]
            out = folder / f"out-{photos}"
            code, first, seconds, memory = run(words, out, folder / "log", 60 * options.minutes)
            count = options.count if photos == "in" else 10
            there = len(list(out.rglob("*.json")))
            if code or there != count or (more and f"{count} done before" not in (folder / "log").read_text()):
                wrong.append(f"{what}: exit code {code}, {there} results")
            rows.append(
                f"| {what} | {count} | {'' if more else f'{first:.1f}'} | {seconds:.1f} | {1000 * seconds / count:.2f} |"
                f" {memory:.0f} |"
            )
            print(rows[-1], flush=True)
    show(
        [
            "# A folder of very many files",
            "",
            f"{made(__file__)}. {options.count:,} images of 32 x 24 to 48 pixels, one process; finding and naming them takes"
            f" {listing:.2f} s of it.",
            "",
            "| run | images | first result, s | all, s | ms per image | peak memory, MB |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
            *rows,
            "",
            f"Wrong: {'; '.join(wrong) or 'nothing'}.",
        ],
        options.out,
    )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
