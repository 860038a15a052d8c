"""From nothing to the first answer: commands in fresh processes, and what of a first prediction is imports.

    python benchmarks/speed/cold_start.py --before OLD/src        # writes cold_start.md beside it
    python benchmarks/speed/cold_start.py --rounds 1 --rows predict wrong

Each command is a process of its own, with files in the page cache and compiled Python files on disk. The versions take turns,
and every other round the second one begins. Wall is what a person waits for; processor seconds (user and system) are what the
command costs, which other programs on the machine change less. Modules are counted by -X importtime, which costs next to
nothing. Of `doctor` the time to its first line is taken. Without --before the version beside this script is timed alone.
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
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from skimage import data

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
from benchmarks._page import made

HERE = Path(__file__).parents[2] / "src"
CHILD = """
import json, sys, time
start = last = time.perf_counter()
seconds = {}
def note(name):
    global last
    seconds[name], last = time.perf_counter() - last, time.perf_counter()
import torch; note("import torch")
import genpercept
from genpercept.pipeline.pipeline import GenPerceptPipeline; note("import diffusers' parts and genpercept")
pipe = genpercept.load(sys.argv[1]); note("load")
pipe(sys.argv[2]); note("first image")
seconds["all"] = time.perf_counter() - start
pipe(sys.argv[2]); note("second image")
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([seconds, int(peak.split()[1]) / 2**20]))
"""


@dataclass(frozen=True)
class Row:
    """A command. first: its first line on stdout is waited for, not its end. code: with which it ends."""

    title: str
    words: tuple[str, ...]
    first: bool = False
    code: int = 0


ROWS = {
    "help": Row("`genpercept --help`", ("--help",)),
    "wrong": Row(
        "`predict` with a misspelt model: refused", ("predict", "photo.png", "-o", "out", "-m", "mini/dept"), code=2
    ),
    "inspect": Row("`inspect mini/depth`", ("inspect", "mini/depth")),
    "doctor": Row("`doctor`: its first line", ("doctor", "--device", "cpu"), first=True),
    "predict": Row(
        "`predict photo.png -m mini/depth`",
        ("predict", "photo.png", "-o", "out", "-m", "mini/depth", "--device", "cpu"),
    ),
    "cutout": Row(
        "`predict photo.png -m mini/dis`", ("predict", "photo.png", "-o", "out", "-m", "mini/dis", "--device", "cpu")
    ),
    "graph": Row("`predict photo.png -m model.onnx`", ("predict", "photo.png", "-o", "out", "-m", "model.onnx")),
}


@dataclass(frozen=True)
class Taken:
    """Seconds of one run, and the modules that it imported."""

    wall: float
    cpu: float
    modules: int


Found = dict[str, dict[str, list[Taken]]]  # version -> row -> runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, metavar="SRC", help="an older checkout's src folder, to compare with")
    parser.add_argument("--model", default="mini/depth", help="whose parts are timed in one process")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="of the network's arithmetic; 0: torch's choice")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    sources = ({"before": args.before.resolve()} if args.before else {}) | {"after": HERE}
    found: Found = {version: {row: [] for row in args.rows} for version in sources}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Image.fromarray(data.astronaut()).save(folder / "photo.png")  # 512 x 512
        if "graph" in args.rows:
            run(Row("", ("export", "mini/depth", "--to", "onnx", "--out", "model.onnx")), HERE, folder, args.threads)
        parts: list[tuple[dict[str, float], float]] = []
        for number in range(args.rounds):
            for version in list(sources)[:: -1 if number % 2 else 1]:
                for row in args.rows:
                    found[version][row].append(run(ROWS[row], sources[version], folder, args.threads))
                    print(f"round {number + 1}, {version}, {row}: {found[version][row][-1]}", flush=True)
            parts.append(child(args.model, folder / "photo.png", args.threads))
            args.out.write_text(page(args, found, parts), encoding="utf-8")  # of the rounds so far
    print(args.out.read_text(encoding="utf-8"))


def environment(source: Path, threads: int) -> dict[str, str]:
    """Compiled Python files are kept: where PYTHONPYCACHEPREFIX says, or beside their sources."""
    kept = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "PYTHONDONTWRITEBYTECODE")}
    return (
        kept
        | {"PYTHONPATH": str(source), "HF_HUB_OFFLINE": "1"}
        | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    )


def run(row: Row, source: Path, folder: Path, threads: int) -> Taken:
    """One process. SystemExit where it ends otherwise than it should."""
    command = [sys.executable, "-X", "importtime", "-m", "genpercept", *row.words]
    begin = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(source, threads), stdout=subprocess.PIPE, stderr=errors
        )
        assert process.stdout is not None
        process.stdout.readline() if row.first else process.stdout.read()
        wall = time.perf_counter() - begin  # stdout is open until the process ends
        if row.first:
            process.kill()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stdout.close()
        errors.seek(0)
        said = errors.read().decode()
        if not row.first and process.returncode != row.code:
            raise SystemExit(f"{' '.join(command)}: {process.returncode}: {said[-2000:]}")
    modules = sum(line.startswith("import time:") for line in said.splitlines()) - 1  # its header
    return Taken(wall, usage.ru_utime + usage.ru_stime, modules)


def child(model: str, photo: Path, threads: int) -> tuple[dict[str, float], float]:
    """Seconds of each part and the peak in GiB, of a process of its own."""
    command = [sys.executable, "-c", CHILD, model, str(photo)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment(HERE, threads))
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    return seconds, peak


def page(
    args: argparse.Namespace,
    found: Found,
    parts: list[tuple[dict[str, float], float]],
) -> str:
    argv = (["--before", "OLD/src"] if args.before else []) + ["--rounds", str(len(parts))]
    argv += [] if args.rows == list(ROWS) else ["--rows", *args.rows]
    lines = [
        "# Cold start\n",
        f"{made(__file__, args.threads, argv)}. {len(parts)} rounds of fresh processes, the versions in turns; medians, "
        "and the least in brackets. Files lie in the page cache; a photograph of 512 x 512, at the model's own resolution.\n",
        *table(args, found),
        f"\n## Parts of the first prediction of {args.model}, in one process\n",
        *parts_table(parts),
    ]
    return "\n".join(lines) + "\n"


def table(args: argparse.Namespace, found: Found) -> Iterable[str]:
    versions = list(found)
    kinds = ("wall, s", "processor, s", "modules")
    yield (
        "| | "
        + " | ".join(f"{v}: {kind}" for kind in kinds for v in versions)
        + " |"
        + " ratio of processor s |" * (len(versions) > 1)
    )
    yield "| --- |" + " ---: |" * (len(kinds) * len(versions) + (len(versions) > 1))
    for row in args.rows:
        walls = [spread([t.wall for t in found[v][row]]) for v in versions]
        cpus = [spread([t.cpu for t in found[v][row]]) for v in versions]
        cells = [*walls, *cpus, *(f"{found[v][row][-1].modules:,}" for v in versions)]
        if len(versions) > 1:
            old, new = (statistics.median(t.cpu for t in found[v][row]) for v in versions)
            cells.append(f"{old / new:.1f}")
        yield f"| {ROWS[row].title} | " + " | ".join(cells) + " |"


def spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} ({min(seconds):.2f})"


def parts_table(parts: list[tuple[dict[str, float], float]]) -> Iterable[str]:
    yield "| part | wall, s |\n| --- | ---: |"
    for name in parts[0][0]:
        yield f"| {name} | {spread([seconds[name] for seconds, _ in parts])} |"
    yield f"\nPeak memory {statistics.median(peak for _, peak in parts):.2f} GiB."


if __name__ == "__main__":
    main()
