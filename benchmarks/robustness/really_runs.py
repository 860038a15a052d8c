"""Run every recipe and every arm of every study in miniature, to the end, and say what became of each.

    python benchmarks/robustness/really_runs.py --out benchmarks/robustness/really_runs.md
    PYTHONPATH=../before/src python benchmarks/robustness/really_runs.py --recipes ../before/recipes --out before.md

Data sets are miniatures in their published layouts, bases stand-ins of random weights; the page lists the keys of a recipe
that are replaced. Each case is dry-run, trained for 4 steps through validation and checkpoints, resumed from its first
checkpoint (the model must come out equal, byte by byte), predicted with, exported, and evaluated by its task's suites or
measured on its study's sets. Exit code 1 when one of them failed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` and `tests` lie

from benchmarks._page import made
from tests.support.miniature import runs, world
from tests.support.miniature.cases import REPLACED
from tests.support.miniature.runs import Row
from tests.support.paths import RECIPES


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*", help="only cases of these names or patterns, such as paper/*")
    parser.add_argument("--recipes", type=Path, default=RECIPES)
    parser.add_argument("--work", type=Path, help="folder of the miniatures and the runs [a temporary one]")
    parser.add_argument("--jobs", type=int, default=2, help="cases side by side")
    parser.add_argument("--out", type=Path, help="the page")
    parser.add_argument("--json", type=Path, help="the rows, for programs")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="really_runs_") as temp:
        begin = time.monotonic()
        runs.preload()
        work = world.build((args.work or Path(temp)).resolve())
        known, rows = runs.read(args.recipes.resolve())
        chosen = runs.match(known, args.only)
        rows = [row for row in rows if runs.meant(row.name, args.only)]
        rows += runs.run_all(chosen, known, work, args.jobs, _say)
        text = page(rows, time.monotonic() - begin)
    print(text.partition("\n## ")[0])
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows]), encoding="utf-8")
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    return int(any(not row.done for row in rows))


def _say(row: Row) -> None:
    print(f"{row.name}: {'ok' if row.done else f'{row.stage}: {row.line}'} ({row.seconds:.1f} s)", flush=True)


def page(rows: Sequence[Row], seconds: float) -> str:
    arms = [row for row in rows if row.name.startswith("studies/")]
    bad = [row for row in rows if not row.done]
    wrong = [row for row in rows if row.accepted and row.stage == "train"]
    stages = ", ".join(f"{count} at {stage}" for stage, count in Counter(row.stage.split()[0] for row in bad).items())
    lines = [
        "# Every recipe and every arm, in miniature",
        "",
        made(__file__),
        "",
        f"{len(rows) - len(arms)} recipes and {len(arms)} arms of studies in {seconds / 60:.0f} minutes: "
        f"**{len(bad)} failed**{f' ({stages})' if bad else ''}. {len(wrong)} of them had been accepted by their dry run and "
        "could not be trained.",
        "",
        "## What is replaced",
        "",
        *(f"- `{key}`: {value}" for key, value in REPLACED.items()),
        "",
        "All else is the recipe's: data sets, splits, options, losses, head, paradigm, precision, optimiser, augmentation.",
        "",
        "## Cases",
        "",
        "| recipe, or study: arm | seconds | |",
        "| --- | ---: | --- |",
        *(f"| {row.name} | {row.seconds:.1f} | {_verdict(row)} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def _verdict(row: Row) -> str:
    return "ok" if row.done else f"**{row.stage}**: {row.line.replace('|', '/')}"


if __name__ == "__main__":
    sys.exit(main())
