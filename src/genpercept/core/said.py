"""What a command tells beside its result: progress and notes go to stderr, and how many of them the user chooses.

One rule for all commands: stdout has the result alone; `--quiet` silences notes and progress, never errors; `--verbose` adds
details; `--json` makes the result one JSON document. The choice holds for the processes that a command starts, too.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VARIABLE = "GENPERCEPT_SAYS"
QUIET, VERBOSE = "quiet", "verbose"


@dataclass
class Told:
    """Of the command that runs: its result, if it has one beside its text, and what it wrote."""

    result: Any = None  # or a function that makes it
    written: list[str] = field(default_factory=list)


told = Told()


def quiet() -> bool:
    """Whether notes and progress are not wanted."""
    return os.environ.get(VARIABLE) == QUIET


def say(line: str) -> None:
    """A note, or a line of progress."""
    if not quiet():
        print(line, file=sys.stderr, flush=True)


_said: set[str] = set()


def once(line: str) -> None:
    """A note that this process gives once, such as why its first answer takes long."""
    if line not in _said and not quiet():
        _said.add(line)
        say(line)


def detail(line: str) -> None:
    """What only --verbose shows."""
    if os.environ.get(VARIABLE) == VERBOSE:
        print(line, file=sys.stderr, flush=True)


def wrote(path: Path, what: str = "") -> None:
    """At the end: what lies where."""
    told.written.append(str(path))
    say(f"wrote {path}{f': {what}' if what else ''}")


def result(document: Any) -> None:
    """The result as --json gives it: tables, lists, texts and numbers, or a function that makes them if they are wanted."""
    told.result = document
