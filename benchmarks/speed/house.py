"""One version of the program beside another: import, help, loading, one small image, a folder of small images.

    python benchmarks/speed/house.py --before OLD/src --after NEW/src --rounds 10

The versions take turns, and every other round the second one begins, because machines wander. Every figure comes from fresh
processes: "load" and "image" are medians within one process that has loaded once already, "import" and "help" medians of five
processes. Compiled Python files go to a folder of their own and are there before the first round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
from benchmarks._page import made

SIZE = (48, 64)  # height, width
STARTS = 5  # processes of "import" and "help"
WARM = """
import json, statistics, sys, time
import numpy as np
import genpercept
def seconds(work, times):
    found = []
    for _ in range(times):
        begin = time.perf_counter()
        work()
        found.append(time.perf_counter() - begin)
    return statistics.median(found)
image = np.random.default_rng(0).integers(0, 256, (int(sys.argv[1]), int(sys.argv[2]), 3), np.uint8)
load = lambda: genpercept.load("mini/depth", device="cpu")
pipe = load()
for _ in range(5):
    pipe(image)
print(json.dumps({"load": seconds(load, 10), "image": seconds(lambda: pipe(image), 100)}))
"""
IMPORT = "import time; t = time.perf_counter(); import genpercept; print(time.perf_counter() - t)"
ROWS = {
    "import": ("`import genpercept`", 1e3, "ms"),
    "help": ("`genpercept --help`, the whole process", 1e3, "ms"),
    "load": ('`load("mini/depth")`, warm', 1e3, "ms"),
    "image": (f"`pipe(image)` at {SIZE[0]} x {SIZE[1]}", 1e3, "ms"),
    "predict": ("`genpercept predict` of {images} images of {h} x {w}, the whole process", 1, "s"),
}
Figures = dict[str, float]  # row -> seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, metavar="SRC", help="the older checkout's src folder")
    parser.add_argument("--after", type=Path, required=True, metavar="SRC", help="the newer checkout's")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--images", type=int, default=200, help="of one `genpercept predict`")
    parser.add_argument("--threads", type=int, default=0, help="of the network's arithmetic; 0: torch's choice")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    sources = {"before": args.before.resolve(), "after": args.after.resolve()}
    rounds: dict[str, list[Figures]] = {name: [] for name in sources}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_images(work / "images", args.images)
        for source in sources.values():
            measure(source, work, args.threads, "warm-up")
        for number in range(args.rounds):
            for name in list(sources)[:: -1 if number % 2 else 1]:
                rounds[name].append(measure(sources[name], work, args.threads, f"round {number + 1}, {name}"))
            args.out.write_text(page(rounds, args.images, args.threads, sources), encoding="utf-8")
    print(args.out.read_text(encoding="utf-8"))


def write_images(folder: Path, count: int) -> None:
    draw = np.random.default_rng(0)
    folder.mkdir()
    for i in range(count):
        Image.fromarray(draw.integers(0, 256, (*SIZE, 3), np.uint8)).save(folder / f"{i:04d}.png")


def measure(source: Path, work: Path, threads: int, title: str) -> Figures:
    """Seconds of every row, of the version in `source`."""
    kept = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    env = kept | {"PYTHONPATH": str(source), "PYTHONPYCACHEPREFIX": str(work / "compiled")}
    env |= {"OMP_NUM_THREADS": str(threads)} if threads else {}

    def python(*words: str) -> str:
        done = subprocess.run([sys.executable, *words], cwd=work, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{source}: python {' '.join(words)[:60]}: {done.stderr.strip() or done.returncode}")
        return done.stdout

    def predict() -> None:
        python("-m", "genpercept", "predict", "images", "--device", "cpu", "--out", tempfile.mkdtemp(dir=work))

    check(python("-c", "import genpercept; print(genpercept.__file__)").strip(), source)
    found = {"import": statistics.median(float(python("-c", IMPORT)) for _ in range(STARTS))}
    found["help"] = statistics.median(clocked(lambda: python("-m", "genpercept", "--help")) for _ in range(STARTS))
    found |= json.loads(python("-c", WARM, *map(str, SIZE)))
    found["predict"] = clocked(predict)
    print(f"{title}: " + ", ".join(f"{name} {seconds:.4g} s" for name, seconds in found.items()), flush=True)
    return found


def check(file: str, source: Path) -> None:
    """SystemExit where another version than the one in `source` was imported."""
    if Path(file).resolve().parents[1] != source:
        raise SystemExit(f"{source}: genpercept came from {file}: give a checkout's src folder")


def clocked(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def page(rounds: dict[str, list[Figures]], images: int, threads: int, sources: dict[str, Path]) -> str:
    """The rounds so far, as Markdown. The ratio is that of the medians; above 1, the newer version is quicker."""
    count = min(map(len, rounds.values()))
    before, after = (commit(source) for source in sources.values())
    argv = ["--before", "OLD/src", "--after", "NEW/src", "--rounds", str(count), "--images", str(images)]
    lines = [
        f"# {before} beside {after}\n",
        f"{made(__file__, threads, argv)}. {count} rounds in turns; the smallest and the median of each version, and how many "
        "times as fast the newer one is, by the medians.\n",
        "| | | before, min | median | after, min | median | before / after |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for key, (title, scale, unit) in ROWS.items():
        old, new = ([figures[key] * scale for figures in rounds[name]] for name in ("before", "after"))
        medians = statistics.median(old), statistics.median(new)
        figures = (min(old), medians[0], min(new), medians[1])
        shown = " | ".join(f"{value:.3g}" for value in figures)
        name = title.format(images=images, h=SIZE[0], w=SIZE[1])
        lines.append(f"| {name} | {unit} | {shown} | {medians[0] / medians[1]:.2f} |")
    return "\n".join(lines) + "\n"


def commit(source: Path) -> str:
    """The checkout's commit, abbreviated; where there is none, the folder's name."""
    words = ["git", "-C", str(source), "describe", "--always", "--dirty", "--exclude", "*"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.strip() or source.parent.name


if __name__ == "__main__":
    main()
