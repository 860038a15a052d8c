"""What every benchmark's page says of itself: what was typed, when, and on which machine."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from genpercept.commands.bench.machine import cores

ROOT = Path(__file__).parents[1]  # of the repository


def command(file: str, argv: Sequence[str] | None = None) -> str:
    """The command line of the script `file`; argv None: this process's own."""
    script = Path(file).resolve().relative_to(ROOT).as_posix()
    return shlex.join(["python", script, *(sys.argv[1:] if argv is None else argv)])


def made(file: str, threads: int = 0, argv: Sequence[str] | None = None) -> str:
    """The command, the date, the processor's cores and PyTorch; and the threads, unless 0."""
    machine = cores() + (f", {threads} threads" if threads else "")
    return f"`{command(file, argv)}`, {time.strftime('%Y-%m-%d')}; {machine}; torch {version('torch')}"


def with_error(values: np.ndarray, sign: str = "") -> str:
    """Mean and its standard error of what is finite of values (N,), three digits; the mean alone of one. sign: "+" for it."""
    good = values[np.isfinite(values)]
    mean = f"{good.mean():{sign}.3f}"
    return f"{mean} ± {good.std(ddof=1) / np.sqrt(len(good)):.3f}" if len(good) > 1 else mean


def show(lines: Iterable[str], out: Path | None) -> None:
    """Print a page, and write it to `out`, if any."""
    text = "\n".join(lines) + "\n"
    print(text)
    if out:
        out.write_text(text, encoding="utf-8")
