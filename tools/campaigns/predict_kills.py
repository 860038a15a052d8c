"""Kill `genpercept predict` at random moments, go on with --resume, and compare every file with an undisturbed run's.

    python tools/campaigns/predict_kills.py --runs 100 --out benchmarks/robustness/predict_kills.md

Each run is killed (SIGKILL) one to three times, after times drawn from --seed; every fifth gets SIGINT twice instead. Where
the moments fall depends on the machine. Exit code 1 where a file differs in a bit, is left over, is nobody's, or a run does not
end.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` and `tools` lie
os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks._page import made, show
from tools.campaigns import _predicts

FORMATS = ("--format", "png,color,npy,npz")


@dataclass
class Row:
    """Results that were whole at each kill, half-written files at the kills, and what is wrong in the end."""

    found: list[int] = field(default_factory=list)
    halves: int = 0
    wrong: list[str] = field(default_factory=list)


def one(
    words: list[str | Path], folder: Path, wanted: Path, longest: float, draw: random.Random, politely: bool
) -> Row:
    row, out, log = Row(), folder / "out", folder / "log"
    for attempt in range(draw.randint(1, 3)):
        pid = _predicts.start([*words, "--out", out, *(["--resume"] if attempt else [])], log)
        if _predicts.wait(pid, draw.uniform(0.05, 1.0) * longest) is not None:
            break
        for sent in [signal.SIGINT] * 2 if politely else [signal.SIGKILL]:
            os.kill(pid, sent)
            time.sleep(0.01)
        if _predicts.wait(pid, 10) is None:
            _predicts.kill(pid)
            row.wrong.append("did not leave")
        there = [path for path in _predicts.walk(out) if path.suffix == ".json"] if out.is_dir() else []
        row.found.append(len(there))
        row.halves += out.is_dir() and any(path.name.endswith(".tmp") for path in out.rglob("*"))
        row.wrong += [f"nobody's: {name}" for name in _predicts.claims(out)] if out.is_dir() else []
    code = _predicts.whole([*words, "--out", out, "--resume"], log)
    row.wrong += [f"exit code {code}: {_predicts.errors(log)[:1]}"] if code else []
    row.wrong += [f"differs: {name}" for name in _predicts.differences(wanted, out)]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--minutes", type=float, default=60, help="no run is begun after them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    draw, end, rows = random.Random(options.seed), time.monotonic() + 60 * options.minutes, list[Row]()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _predicts.pictures(folder / "in", options.images, draw)
        words = [folder / "in", "--recursive", *FORMATS, *_predicts.SMALL]
        begin = time.monotonic()
        assert _predicts.whole([*words, "--out", folder / "whole"], folder / "log") == 0, (folder / "log").read_text()
        longest = time.monotonic() - begin
        while len(rows) < options.runs and time.monotonic() < end:
            number = len(rows)
            (folder / f"{number}").mkdir()
            rows.append(one(words, folder / f"{number}", folder / "whole", longest, draw, number % 5 == 4))
            print(f"{number + 1}: whole at the kills {rows[-1].found}, wrong: {rows[-1].wrong[:3]}", flush=True)
    equal = sum(not row.wrong for row in rows)
    show(
        [
            "# `predict`, killed and resumed",
            "",
            f"{made(__file__)}. Runs over {options.images} small images in four formats, {longest:.1f} s when nobody stops"
            " them; killed one to three times at random moments, every fifth by Ctrl-C twice, then resumed. Every file is"
            " compared, in every bit, with the undisturbed run's, sidecars too.",
            "",
            "| runs | kills | while a file was half-written | equal in every file, nothing left over |",
            "| ---: | ---: | ---: | ---: |",
            f"| {len(rows)} | {sum(len(row.found) for row in rows)} | {sum(row.halves for row in rows)} | {equal} |",
            "",
            "| run | results that were whole at each kill | wrong |",
            "| --- | --- | --- |",
            *(
                f"| {n} | {', '.join(map(str, row.found)) or 'ended first'} | {'; '.join(row.wrong) or 'nothing'} |"
                for n, row in enumerate(rows, 1)
            ),
        ],
        options.out,
    )
    sys.exit(0 if rows and equal == len(rows) else 1)


if __name__ == "__main__":
    main()
