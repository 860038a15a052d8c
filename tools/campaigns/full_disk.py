"""Take the disk away from `genpercept predict`, in every way: the line that ends it, what is left, and the way on.

    python tools/campaigns/full_disk.py --runs 30 --out benchmarks/robustness/full_disk.md

The disk is a tmpfs, mounted for this (root). It is full after a number of bytes drawn from --seed, or the folder of the results
is taken away, or the disk becomes read-only, while the run goes on. Then all is put right, and --resume takes it to its end,
which is compared with a run that had room. Exit code 1 where a run says more than one line of its own, does not name --out,
goes on, leaves something half-written or comes to another end.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` and `tools` lie
os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks._page import made, show
from tools.campaigns import _predicts

FORMATS = ("png,color", "npy", "npz", "exr", "ply")
WAYS = ("full", "full", "full", "gone", "read-only")
_LINE = re.compile(
    r"genpercept: error: --out (\S+): [^;]+; (\d+) images are done and whole: .*--resume goes on with the rest"
)


@contextmanager
def disk(folder: Path, kilobytes: int) -> Iterator[None]:
    """A small disk at `folder`. PermissionError where this user cannot mount one."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder], check=False).returncode:
        raise PermissionError("a tmpfs cannot be mounted by this user: run it as root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def one(
    way: str, photos: Path, at: Path, formats: str, images: int, draw: random.Random
) -> tuple[list[str], str, float]:
    """What is wrong, the line, and the seconds from the fault until the end."""
    words, log = [photos, "--recursive", "--format", formats, *_predicts.SMALL], at / "log"
    assert _predicts.whole([*words, "--out", at / "whole"], log) == 0, log.read_text()
    size = sum(len(data) for data in _predicts.files(at / "whole").values()) + 4096 * len(_predicts.files(at / "whole"))
    place, out = at / "disk", at / "disk/out"
    with disk(place, max(64, size // 1024 * 3)):
        if way == "full":
            (place / "ballast").write_bytes(
                bytes(int((size // 1024 * 3 - draw.uniform(0.1, 0.7) * size // 1024) * 1024))
            )
        pid, begin = _predicts.start([*words, "--out", out], log), time.monotonic()
        if way != "full":
            wanted = draw.randint(1, max(1, images // 3))
            _until(lambda: len(list(out.rglob("*.json"))) >= wanted)
            begin = time.monotonic()
            if way == "gone":
                out.rename(place / "x")
            else:  # over itself: a disk with a file open for writing, the lock's, cannot be made read-only from outside
                subprocess.run(["mount", "--bind", place, place], check=True)
                subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
        code = _predicts.wait(pid, 300)
        seconds = time.monotonic() - begin
        said = _predicts.errors(log)
        line = said[0] if said else "nothing"
        match = _LINE.fullmatch(line)
        wrong = [] if code in (1, 2) else [f"exit code {code}"]
        if len(said) != 1 or match is None or match[1] != str(out) or ".tmp" in line:
            wrong.append(f"said {said[:3]}")
        if way == "read-only":
            subprocess.run(["umount", "-l", place], check=True)
        elif way == "gone":
            (place / "x").rename(out)
        else:
            (place / "ballast").unlink()
        whole = len(list(out.rglob("*.json")))
        if match is not None and int(match[2]) != whole:
            wrong.append(f"{whole} are whole, {match[2]} were said to be")
        if whole == images:
            wrong.append("went on to its end")
        code = _predicts.whole([*words, "--out", out, "--resume"], log)
        wrong += [f"exit code {code} on --resume: {_predicts.errors(log)[:1]}"] if code else []
        wrong += [f"differs: {name}" for name in _predicts.differences(at / "whole", out)]
    return wrong, line.replace(str(out), "DIR").removeprefix("genpercept: error: "), seconds


def _until(ready: Callable[[], bool], pause: float = 0.002) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not ready():
        time.sleep(pause)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--minutes", type=float, default=30, help="no run is begun after them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    draw, end, bad, rows = random.Random(options.seed), time.monotonic() + 60 * options.minutes, 0, list[str]()
    with tempfile.TemporaryDirectory() as temporary:
        photos = Path(temporary, "in")
        _predicts.pictures(photos, options.images, draw)
        for number in range(options.runs):
            if time.monotonic() > end:
                break
            way, formats = WAYS[number % len(WAYS)], FORMATS[number // len(WAYS) % len(FORMATS)]
            at = Path(temporary, str(number))
            at.mkdir()
            wrong, line, seconds = one(way, photos, at, formats, options.images, draw)
            bad += bool(wrong)
            rows.append(f"| {way} | {formats} | {line} | {seconds:.1f} | {'; '.join(wrong) or 'nothing'} |")
            print(rows[-1], flush=True)
    show(
        [
            "# `predict` without its disk",
            "",
            f"{made(__file__)}. Runs over {options.images} small images on a disk that fills up, whose folder is taken away, or"
            " that becomes read-only: what it says, and the seconds until it has ended (of a full disk, from its start). Then"
            " --resume goes on, and its files are those of a run that had room.",
            "",
            "| disk | formats | line | seconds | wrong |",
            "| --- | --- | --- | ---: | --- |",
            *rows,
        ],
        options.out,
    )
    sys.exit(1 if bad or not rows else 0)


if __name__ == "__main__":
    main()
