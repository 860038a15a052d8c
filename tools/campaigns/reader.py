"""Damaged image files against the reader: an image or a ValueError of one line, within ten seconds, in little memory.

    python tools/campaigns/reader.py                       # 100,000, into benchmarks/robustness/fuzz_reader.md
    python tools/campaigns/reader.py --mutants 2000 --out page.md --found DIR

Small files of every format and pixel type are damaged: bits flipped, bytes overwritten, cut out, doubled, taken from another
file, sizes in headers changed, the end cut off. Mutant number n is the same wherever it runs. Workers read them one after the
other; one that dies or hangs is replaced, and its mutant is kept, as is every mutant that gives anything else than promised.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # a script's own folder is all that Python looks into

from benchmarks._page import made, show
from tests.support.pixel_types import PIXEL_TYPES, write_pixel_type
from tools.campaigns.mutations import mutant

HANG = 10.0  # seconds for one file
MAX_PIXELS = 2**22  # so that a size changed in a header is refused, or costs little
_MEMORY = 6 * 2**30  # of a worker's addresses: a decoder that wants more gets none
_WARM = 300  # mutants of a worker after which its memory has found its size
GOOD = ("image", "refused")


@dataclass
class Tally:
    """What came of the mutants of one campaign."""

    outcomes: dict[str, Counter[str]] = field(default_factory=dict)  # by format
    bad: list[tuple[int, str, str, str]] = field(default_factory=list)  # number, kind, outcome, message
    slowest: tuple[float, int, str] = (0.0, -1, "")
    peak: int = 0  # bytes that a worker grew by at most while it read one file
    growth: list[int] = field(default_factory=list)  # bytes of each worker from its first mutants to its last
    seconds: float = 0.0

    @property
    def done(self) -> int:
        return sum(sum(counts.values()) for counts in self.outcomes.values())


def seeds(size: tuple[int, int] = (40, 30)) -> dict[str, bytes]:
    """A small file of each kind."""
    with tempfile.TemporaryDirectory(prefix="seeds_") as temp:
        return {kind: write_pixel_type(Path(temp), kind, size).read_bytes() for kind in PIXEL_TYPES}


def number(n: int, seed: int, files: dict[str, bytes]) -> tuple[str, bytes]:
    """(kind, contents) of mutant `n`."""
    kinds = list(files)
    return kinds[n % len(kinds)], mutant(list(files.values()), n % len(kinds), random.Random(seed * 1_000_003 + n))


def run(mutants: int, seed: int, workers: int, minutes: float, found: Path) -> Tally:
    """Mutants 0 .. mutants - 1, or as many as `minutes` allow; what is not as promised is kept in the folder `found`."""
    files, tally, start = seeds(), Tally(), time.monotonic()
    hands = [_Hand(files, seed, first, workers, mutants) for first in range(min(workers, mutants))]
    while hands and time.monotonic() - start < 60 * minutes:
        ready = connection.wait([hand.pipe for hand in hands], timeout=0.5)
        for hand in list(hands):
            over = hand.take(tally) if hand.pipe in ready else hand.look(tally)
            if over and not hand.renew():
                hands.remove(hand)
    for hand in hands:
        hand.stop()
    tally.seconds = time.monotonic() - start
    if tally.bad:
        found.mkdir(parents=True, exist_ok=True)
    for n, *_ in tally.bad:
        kind, data = number(n, seed, files)
        (found / f"{n}{PIXEL_TYPES[kind][0]}").write_bytes(data)
    return tally


class _Hand:
    """A worker process and where it is."""

    def __init__(self, files: dict[str, bytes], seed: int, first: int, step: int, end: int) -> None:
        self._files, self._seed, self._next, self._step, self._end = files, seed, first, step, end
        self._begin()

    def _begin(self) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe(duplex=False)
        work = (theirs, self._files, self._seed, self._next, self._step, self._end)
        self._process: Any = context.Process(target=_work, args=work, daemon=True)
        self._process.start()
        theirs.close()
        self._since, self._ready, self._first, self._last = time.monotonic(), False, 0, 0

    def take(self, tally: Tally) -> bool:
        """One message. True when the process is over."""
        try:
            message = self.pipe.recv()
        except EOFError:
            self._process.join()
            if self._ready and self._next < self._end:
                _note(tally, self._files, self._next, "crash", f"exit code {self._process.exitcode}", 0.0)
                self._next += self._step
            tally.growth.append(self._last - self._first)
            return True
        self._since = time.monotonic()
        if message is None:  # it has imported what it needs
            self._ready = True
            return False
        n, outcome, words, seconds, resident, grown = message
        _note(tally, self._files, n, outcome, words, seconds)
        tally.peak = max(tally.peak, grown)
        if n < _WARM * self._step:
            self._first = resident
        self._last, self._next = resident, n + self._step
        return False

    def look(self, tally: Tally) -> bool:
        """Whether it hangs; then it is ended. True when the process is over."""
        if not self._ready or time.monotonic() - self._since < HANG:
            return False
        self.stop()
        _note(tally, self._files, self._next, "hang", f"over {HANG:.0f} s", HANG)
        self._next += self._step
        return True

    def renew(self) -> bool:
        """Another process for what is left. False when nothing is."""
        if self._next < self._end:
            self._begin()
            return True
        return False

    def stop(self) -> None:
        self._process.kill()
        self._process.join()


def _note(tally: Tally, files: dict[str, bytes], n: int, outcome: str, words: str, seconds: float) -> None:
    kind = list(files)[n % len(files)]
    tally.outcomes.setdefault(kind.partition(",")[0], Counter())[outcome] += 1
    tally.slowest = max(tally.slowest, (seconds, n, kind))
    if outcome not in GOOD:
        tally.bad.append((n, kind, outcome, words))


# ---- in a worker


def _work(pipe: Any, files: dict[str, bytes], seed: int, first: int, step: int, end: int) -> None:
    from genpercept.imaging.read import read

    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders in C complain there
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory(prefix="mutants_", dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as temp:
        for kind, data in files.items():  # so that codecs are there when memory begins to be counted
            path = Path(temp) / f"seed{PIXEL_TYPES[kind][0]}"
            path.write_bytes(data)
            read(path)
        pipe.send(None)
        for n in range(first, end, step):
            kind, data = number(n, seed, files)
            path = Path(temp) / f"x{PIXEL_TYPES[kind][0]}"
            path.write_bytes(data)
            before = _memory(restart=True)
            start = time.perf_counter()
            outcome, words = _outcome(read, path)
            seconds = time.perf_counter() - start
            after = _memory()
            pipe.send((n, outcome, words, seconds, after[0], after[1] - before[0]))


def _outcome(read: Any, path: Path) -> tuple[str, str]:
    try:
        image = read(path, max_pixels=MAX_PIXELS)
    except ValueError as error:
        words = str(error)
        good = len(words.splitlines()) == 1 and words.isprintable() and path.name in words and len(words) < 400
        return ("refused" if good else "unclear line"), words
    except Exception as error:  # noqa: BLE001  # that there is none is what this looks for
        return "exception", f"{type(error).__name__}: {error}"
    good = image.dtype == "uint8" and image.ndim == 3 and image.shape[2] == 3 and image.size > 0
    return ("image", "") if good else ("wrong image", f"{image.dtype} {image.shape}")


def _memory(restart: bool = False) -> tuple[int, int]:
    """Resident bytes now, and at their peak since the last restart."""
    if restart:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return int(found["VmRSS"].split()[0]) * 1024, int(found["VmHWM"].split()[0]) * 1024


# ---- the page


def page(tally: Tally, args: argparse.Namespace) -> list[str]:
    asked = "" if tally.done == args.mutants else f" of {args.mutants:,}: {args.minutes:g} minutes were over"
    seconds, n, kind = tally.slowest
    growth = max(tally.growth, default=0) / 2**20
    out = [
        "# Damaged images against the reader",
        "",
        made(__file__) + f"; {args.workers} workers.",
        "",
        (__doc__ or "").strip().split("\n\n")[-1],
        "",
        f"{tally.done:,} mutants{asked}, {len(PIXEL_TYPES)} kinds, seed {args.seed}; {tally.seconds / 60:.1f} minutes.",
        f"{len(tally.bad)} were neither an image nor refused in a line. The slowest took {seconds:.2f} s ({kind}, number {n}).",
        f"While it read one file, a worker grew by up to {tally.peak / 2**20:.0f} MiB, with a limit of {MAX_PIXELS:,} pixels;",
        f"from its first {_WARM} mutants to its last one by {growth:.1f} MiB at most.",
        "",
    ]
    names = sorted({name for counts in tally.outcomes.values() for name in counts} - set(GOOD))
    out += [
        f"| format | mutants | {' | '.join((*GOOD, *names))} |",
        "| --- |" + " ---: |" * (len(GOOD) + len(names) + 1),
    ]
    for group, counts in sorted(tally.outcomes.items()):
        cells = [sum(counts.values()), *(counts[name] for name in (*GOOD, *names))]
        out.append(f"| {group} | {' | '.join(f'{cell:,}' for cell in cells)} |")
    if tally.bad:
        out += ["", "| number | kind | outcome | message |", "| ---: | --- | --- | --- |"]
        out += [
            f"| {n} | {kind} | {outcome} | {words[:160].replace('|', '/')} |" for n, kind, outcome, words in tally.bad
        ]
    return out


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--mutants", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=120, help="after which no more are read")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "benchmarks/robustness/fuzz_reader.md")
    parser.add_argument(
        "--found", type=Path, default=Path("reader_found"), help="folder for mutants that are not as promised"
    )
    args = parser.parse_args(argv)
    tally = run(args.mutants, args.seed, args.workers, args.minutes, args.found)
    show(page(tally, args), args.out)
    return 1 if tally.bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
