"""Hostile model folders: what `genpercept inspect` and `genpercept.load` say to each, how long that takes, and how much memory.

    python tools/campaigns/hostile_models.py --out benchmarks/robustness/hostile_models.md
    python tools/campaigns/hostile_models.py --cases 0 --seed 7 --minutes 30     # random changes of configs alone

Each case is a process of its own, forked from one that has imported the libraries and loaded nothing. Then, until --minutes
are over, random values at random keys of random configs. Exit code 1 where one takes 5 seconds, twice the memory of a whole
model's load, more than a line, anything but a ValueError, or runs code.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` and `tests` lie
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

import genpercept
from benchmarks._page import made, show
from genpercept.commands.inspect.show import main as inspect
from tools.campaigns._hostile_cases import PUBLIC, Case, cases, starts

SECONDS, MEMORY = 5.0, 2.0  # at most, of a case; times a whole model's
_HANGS = 60  # seconds until a case is killed
VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    1.5,
    10**6,
    10**12,
    10**30,
    -(10**9),
    "",
    "x",
    "a\nb",
    "../..",
    "/dev/zero",
    [],
    [[]],
]
VALUES += [{}, {"a": {}}, [0] * 1000, ["x"] * 3, 1e-300, 1e300, "é" * 10_000, [None], {"path": 1}, "\x1b[2J", "inf"]


@dataclass(frozen=True)
class Answer:
    """What a command said: its line; wrong: why that is no good answer, "" where it is one."""

    line: str
    seconds: float  # of the processor
    megabytes: float
    wrong: str = ""
    clock: float = 0.0  # seconds by the clock


# ---- one case ----------------------------------------------------------------------------------------------------------


def load(work: Path, options: dict[str, Any]) -> str:
    """ "" where it loads, else the line of the ValueError."""
    given = {**options, **({"base": work / options["base"]} if "base" in options else {})}
    try:
        genpercept.load(work / "m", device="cpu", **given)
    except ValueError as error:
        return str(error)
    return ""


def look(work: Path, options: dict[str, Any]) -> str:
    """ "" where `genpercept inspect` finds the model whole, else its first problem, or the line with which it stops."""
    given: dict[str, Any] = {k: str(work / v) if k == "base" else v for k, v in options.items()}
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            code = inspect(str(work / "m"), **given)
        except ValueError as error:
            return str(error)
    problems = [line.removeprefix("problem: ") for line in out.getvalue().split("\n") if line.startswith("problem: ")]
    return (problems or ["exit code 1 without a problem"])[0] if code else ""


def alone(run: Callable[[], str], limit: int = _HANGS) -> Answer:
    """What `run` returns in a forked process. wrong: an exception, a signal, or no answer in time."""
    read, write = os.pipe()
    begin = time.monotonic()
    child = os.fork()
    if child == 0:
        signal.alarm(limit)
        os.close(read)
        try:
            answer = {"line": run()}
        except BaseException as error:  # noqa: BLE001  # what no case may answer
            answer = {"line": " ".join(str(error).split())[:200], "wrong": type(error).__name__}
        used = resource.getrusage(resource.RUSAGE_SELF)
        found = {"megabytes": used.ru_maxrss / 1024, "seconds": used.ru_utime + used.ru_stime}
        with os.fdopen(write, "w") as file:
            json.dump({**answer, **found}, file)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        text = file.read()
    _, status = os.waitpid(child, 0)
    clock = time.monotonic() - begin
    if not text:
        return Answer("", clock, 0, f"killed by signal {status & 127} after {clock:.0f} s", clock)
    return Answer(**json.loads(text), clock=clock)


def judged(answer: Answer, work: Path, loads: bool, normal: float) -> Answer:
    """The answer with what is wrong with it, its paths shortened."""
    line = answer.line.replace(f"{work}/", "").replace(str(work), ".")
    checks = {
        answer.wrong: bool(answer.wrong),
        "it ran code": (work / "canary").exists(),
        "more than one line": "\n" in line or not line.isprintable(),
        f"{answer.seconds:.1f} s": answer.seconds > SECONDS,
        f"{answer.megabytes / normal:.1f} times the memory": answer.megabytes > MEMORY * normal,
        "it is taken": not line and not loads,
        "it is refused": bool(line) and loads,
    }
    wrong = "; ".join(what for what, is_so in checks.items() if is_so)
    return replace(answer, line=line, wrong=wrong)


@dataclass(frozen=True)
class Row:
    case: Case
    look: Answer
    load: Answer


def run(root: Path, chosen: Sequence[Case], normal: dict[str, Answer], whole: dict[str, Path]) -> list[Row]:
    """Each case, in a copy of its own."""
    rows = []
    for case in chosen:
        work = root / "work"
        shutil.copytree(whole[case.start], work)
        case.damage(work)
        peak = normal[case.start].megabytes
        first = judged(alone(lambda work=work, case=case: look(work, case.options)), work, case.loads, peak)
        second = judged(alone(lambda work=work, case=case: load(work, case.options)), work, case.loads, peak)
        rows.append(Row(case, first, second))
        shutil.rmtree(work)
    return rows


def ordinary(whole: dict[str, Path]) -> dict[str, Answer]:
    """The load of each whole model, as cases are measured. ValueError where one does not load."""
    found = {name: alone(lambda f=folder, n=name: load(f, _options(n))) for name, folder in whole.items()}
    for name, answer in found.items():
        if answer.line or answer.wrong:
            raise ValueError(f"{name}: the whole model does not load: {answer.wrong} {answer.line}")
    return found


def _options(start: str) -> dict[str, Any]:
    return PUBLIC if start == "public" else {}


# ---- random changes ----------------------------------------------------------------------------------------------------


def change(work: Path, rng: random.Random) -> str:
    """Between one and three values of one config made something else; says what."""
    path = rng.choice(sorted(p for p in work.rglob("*.json") if p.name not in ("vocab.json", "tokenizer.json")))
    value = json.loads(path.read_text())
    said = []
    for _ in range(rng.randint(1, 3)):
        place, key = value, rng.choice(sorted(value))
        while isinstance(place[key], dict) and place[key] and rng.random() < 0.8:
            place = place[key]
            key = rng.choice(sorted(place))
        new = rng.choice([*VALUES, rng.randint(-100, 1000), [rng.randint(0, 512) for _ in range(rng.randint(1, 5))]])
        if rng.random() < 0.1:
            del place[key]
        else:
            place[key] = copy.deepcopy(new)  # which a later change may go into
        said.append(f"{key} = {str(new)[:40]!r}")
        if not value:
            break
    path.write_text(json.dumps(value))
    return f"{path.relative_to(work)}: {', '.join(said)}"


def randomly(root: Path, seed: int, until: float, most: int, whole: dict[str, Path], normal: dict[str, Answer]) -> Any:
    """Counts of answers, the longest and the largest of them, and what was wrong with any."""
    rng, counts, wrong = random.Random(seed), Counter[str](), []
    slowest = largest = 0.0
    while sum(counts.values()) < most and time.monotonic() < until:
        start, work = rng.choice(sorted(whole)), root / "work"
        shutil.copytree(whole[start], work)
        said = change(work, rng)
        answer = alone(lambda work=work, start=start: load(work, _options(start)))
        found = judged(answer, work, not answer.line, normal[start].megabytes)
        if found.wrong:
            wrong.append(f"{start}: {said}: {found.wrong}: {found.line[:200]}")
        counts["loaded" if not answer.line else "refused"] += 1
        slowest = max(slowest, answer.seconds)
        largest = max(largest, answer.megabytes / normal[start].megabytes)
        shutil.rmtree(work)
    return counts, slowest, largest, wrong


# ---- the page ----------------------------------------------------------------------------------------------------------


def page(rows: Sequence[Row], normal: dict[str, Answer], chance: Any, seed: int, minutes: float) -> list[str]:
    # what was typed, but for where the page went
    said = ["--seed", str(seed), "--minutes", f"{minutes:g}"]
    counts, slowest, largest, wrong = chance
    clock = max([0.0, *(a.clock for row in rows for a in (row.look, row.load))])
    bad = [row for row in rows if row.look.wrong or row.load.wrong]
    base = min(normal.values(), key=lambda answer: answer.megabytes)
    lines = [
        "# Hostile model folders",
        "",
        f"{made(__file__, argv=said)}.",
        f"{len(rows)} folders, made by code from whole models, each given to `genpercept inspect` and to `genpercept.load` in",
        "a process of its own. It is forked from one that has imported the libraries: starting Python and importing them, some",
        "seconds, is not in the times, and their memory is in the peaks. Times are of the processor, of which other programs",
        f"took their share (the longest case by the clock: {clock:.1f} s). Paths begin in the folder that holds the model,",
        "`m`, and the base that it is given, `base`. A file would be left if code of a model ran; "
        + ("none was." if not any("code" in row.load.wrong + row.look.wrong for row in rows) else "SOME DID."),
        "",
        "A whole model's load: "
        + ", ".join(f"{name} {a.seconds:.2f} s and {a.megabytes:.0f} MB" for name, a in normal.items())
        + ".",
        "",
    ]
    if rows:
        slow = max(max(row.look.seconds, row.load.seconds) for row in rows)
        much = max(max(r.look.megabytes, r.load.megabytes) / normal[r.case.start].megabytes for r in rows)
        lines += [
            f"{len(rows) - len(bad)} of {len(rows)} answered as they should; the slowest took {slow:.2f} s, the largest "
            f"{much:.2f} times the memory of its whole model.",
            "",
            "| | folder | `load` says | s | MB | `inspect` says | s |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        for number, row in enumerate(rows, 1):
            same = row.look.line == row.load.line
            lines.append(
                f"| {number} | {row.case.title} | {_cell(row.load)} | {row.load.seconds:.2f} | {row.load.megabytes:.0f} | "
                f"{'the same' if same else _cell(row.look)} | {row.look.seconds:.2f} |"
            )
    lines += [
        "",
        "## Random changes",
        "",
        f"{sum(counts.values())} folders of seed {seed}: one to three values of one JSON file are made something else, and the "
        f"model is loaded. {counts['refused']} were refused, {counts['loaded']} loaded; {len(wrong)} answered wrongly. "
        f"The slowest took {slowest:.2f} s, the largest {largest:.2f} times the memory of its whole model "
        f"(the smallest of those has {base.megabytes:.0f} MB).",
        *(f"- {_plain(each)}" for each in wrong),
    ]
    return lines


def _cell(answer: Answer) -> str:
    text = _plain(answer.line or "(loads: what it names is ignored)")
    return f"{text} **{answer.wrong}**" if answer.wrong else text


def _plain(text: str) -> str:
    return ascii(text)[1:-1].replace("|", "\\|") if not text.isprintable() else text.replace("|", "\\|")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=10, help="of random changes, after the cases")
    parser.add_argument("--most", type=int, default=1_000_000, help="random changes at most")
    parser.add_argument("--cases", type=int, default=None, help="only the first N cases")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        made_of = alone(lambda: (starts(root / "whole"), "")[1], 600)  # forked too: this process never computes
        if made_of.wrong:
            raise RuntimeError(f"the whole models were not made: {made_of.wrong} {made_of.line}")
        whole = {path.name: path for path in sorted((root / "whole").iterdir())}
        normal = ordinary(whole)
        rows = run(root, cases()[: given.cases], normal, whole)
        until = time.monotonic() + 60 * given.minutes
        chance = randomly(root, given.seed, until, given.most, whole, normal)
    show(page(rows, normal, chance, given.seed, given.minutes), given.out)
    return int(bool(chance[3]) or any(row.look.wrong or row.load.wrong for row in rows))


if __name__ == "__main__":
    sys.exit(main())
