"""Damaged images among good ones: each has its line or its result, and all good ones are done.

    python tools/campaigns/predict_mutants.py --mutants 2000 --out benchmarks/robustness/predict_mutants.md

Mutants of every kind that Pillow writes are drawn from --seed, and predicted in folders of --share beside a tenth as many good
images. No folder is begun after --minutes. Exit code 1 where a run takes more than its time, a good image is not done, an image
has neither a whole result nor exactly one line, or a run's exit code is not that of its failures.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` and `tools` lie
os.environ.setdefault("OMP_NUM_THREADS", "1")

from PIL import features

from benchmarks._page import made, show
from tools.campaigns import _predicts

_SECONDS = 600.0  # for one folder
_MOST = ("--max-pixels", str(2**22))  # a header that claims more is refused, not computed


def one(folder: Path, count: int, draw: random.Random) -> tuple[list[str], Counter[str], Counter[str]]:
    """What is wrong; mutants and lines by kind."""
    kinds = [kind for kind in _predicts.KINDS if kind != "avif" or features.check("avif")]
    good = _predicts.pictures(folder / "in", max(2, count // 10), draw, kinds)
    bad = []
    for i, model in enumerate(_predicts.pictures(folder / "models", count, draw, kinds)):
        path = folder / "in" / f"bad_{i:05d}{model.suffix}"
        path.write_bytes(_predicts.damaged(model.read_bytes(), draw))
        bad.append(path)
    out, log = folder / "out", folder / "log"
    try:
        code = _predicts.whole([folder / "in", "--recursive", "--out", out, *_predicts.SMALL, *_MOST], log, _SECONDS)
    except TimeoutError as error:
        return [str(error)], Counter(), Counter()
    lines = _predicts.errors(log)
    told = Counter(path for path in (*good, *bad) for line in lines if f"{path}: " in line)
    wrong = [f"exit code {code} of {len(lines)} failures"] if code != (1 if lines else 0) else []
    wrong += [f"a line of no image: {line}" for line in lines if not any(f"{path}: " in line for path in told)]
    for path in (*good, *bad):
        stem = out / path.relative_to(folder / "in").with_suffix("")
        results = [stem.with_name(f"{stem.name}_depth{s}") for s in (".png", "_color.png", ".json")]
        done = [result.is_file() for result in results]
        if path in good and told[path]:
            wrong.append(f"a good image failed: {path.name}")
        if (told[path], all(done), any(done)) not in ((0, True, True), (1, False, False)):
            wrong.append(f"{path.name}: {told[path]} lines, {sum(done)} files")
    wrong += [f"left {path.name}" for path in _predicts.walk(out) if path.name.startswith(".")]
    return wrong, Counter(path.suffix for path in bad), Counter(path.suffix for path in bad if told[path])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=2000)
    parser.add_argument("--share", type=int, default=250, help="mutants in one folder")
    parser.add_argument("--minutes", type=float, default=60, help="no folder is begun after them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    draw, end = random.Random(options.seed), time.monotonic() + 60 * options.minutes
    wrong: list[str] = []
    mutants, failed = Counter[str](), Counter[str]()
    while (left := options.mutants - mutants.total()) > 0 and time.monotonic() < end and not wrong:
        with tempfile.TemporaryDirectory() as folder:
            found, some, lines = one(Path(folder), min(left, options.share), draw)
        wrong += found
        mutants, failed = mutants + some, failed + lines
        print(f"{mutants.total()} mutants, {failed.total()} failed in a line; wrong: {found}", flush=True)
    rows = [f"| {kind[1:]} | {mutants[kind]} | {failed[kind]} |" for kind in sorted(mutants)]
    show(
        [
            "# Damaged images among good ones",
            "",
            f"{made(__file__)}. {mutants.total()} mutants with seed {options.seed}, a tenth as many good images among them;"
            " each mutant that cannot be read has one line, all others a whole result, and every good image is done.",
            "",
            "| kind | mutants | of them refused in a line |",
            "| --- | ---: | ---: |",
            *rows,
            "",
            f"Wrong: {'; '.join(wrong) or 'nothing'}.",
        ],
        options.out,
    )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
