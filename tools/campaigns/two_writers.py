"""Two runs of `genpercept predict` in one folder: the second is told who is there; the first is killed, and the next works.

    python tools/campaigns/two_writers.py --rounds 20 --out benchmarks/robustness/two_writers.md

Exit code 1 where a second run writes, does not name the first, or the folder is not free after a kill at a moment drawn from
--seed, and where the files in the end are not those of a run that was alone.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` and `tools` lie
os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks._page import made, show
from genpercept.core import locks
from tools.campaigns import _predicts


def one(words: list[str | Path], at: Path, wanted: Path, draw: random.Random) -> tuple[list[str], str]:
    """What is wrong, and the line of the second run."""
    out, wrong = at / "out", list[str]()
    first = _predicts.start([*words, "--out", out], at / "first")
    deadline = time.monotonic() + 120
    while not ((out / locks.NAME).exists() and (out / locks.NAME).stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.002)
    code = _predicts.whole([*words, "--out", out, "--overwrite"], at / "second")
    said = _predicts.errors(at / "second")
    line = said[0].removeprefix("genpercept: error: ") if said else "nothing"
    if _predicts.wait(first, draw.uniform(0, 0.5)) is not None:
        wrong.append("the first ended too soon to tell")
    else:
        _predicts.kill(first)
    if code != 2 or len(said) != 1 or f"in use by process {first} on {platform.node()} since " not in line:
        wrong.append(f"exit code {code}, said {said}")
    code = _predicts.whole([*words, "--out", out, "--resume"], at / "third")
    wrong += [f"the third: exit code {code}, {_predicts.errors(at / 'third')}"] if code else []
    wrong += [f"differs: {name}" for name in _predicts.differences(wanted, out)]
    return wrong, line.replace(str(out), "DIR").replace(str(first), "PID").replace(platform.node(), "HOST")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--minutes", type=float, default=30, help="no round is begun after them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    draw, end, rows, bad = random.Random(options.seed), time.monotonic() + 60 * options.minutes, list[str](), 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _predicts.pictures(folder / "in", options.images, draw)
        words = [folder / "in", "--recursive", *_predicts.SMALL]
        assert _predicts.whole([*words, "--out", folder / "whole"], folder / "log") == 0, (folder / "log").read_text()
        for number in range(options.rounds):
            if time.monotonic() > end:
                break
            at = folder / str(number)
            at.mkdir()
            wrong, line = one(words, at, folder / "whole", draw)
            bad += bool(wrong)
            rows.append(f"| {number + 1} | {line} | {'; '.join(wrong) or 'nothing'} |")
            print(rows[-1], flush=True)
    show(
        [
            "# Two writers in one folder",
            "",
            f"{made(__file__)}. A second run while the first is writing; the first is killed; a third goes on with --resume,"
            " and its files are those of a run that was alone.",
            "",
            "| round | line of the second run | wrong |",
            "| --- | --- | --- |",
            *rows,
        ],
        options.out,
    )
    sys.exit(1 if bad or not rows else 0)


if __name__ == "__main__":
    main()
