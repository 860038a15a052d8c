"""`genpercept WORDS...` as `python -m genpercept` runs it, in this process: importing torch takes longer than most commands."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PROGRESS = re.compile(r"^\d+/\d+ images, .* left\n", re.MULTILINE)  # how many there are depends on the time
_DURATION = re.compile(r"[\d.]+(?= (?:s|min|images/s)\b)")


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def timeless(self) -> dict[str, Any]:
        """All of it, but for progress and durations."""
        return {"code": self.code, "out": self.out, "err": _DURATION.sub("T", _PROGRESS.sub("", self.err))}

    @property
    def last(self) -> str:
        return self.err.strip().splitlines()[-1] if self.err.strip() else ""


def genpercept(*words: str | Path) -> Answer:
    """Exit code and what was printed. Errors of the program's own are raised as they are."""
    before, out, err = sys.argv, io.StringIO(), io.StringIO()
    sys.argv = ["genpercept", *map(str, words)]
    code: int | str | None = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _flushed():
            runpy.run_module("genpercept", run_name="__main__")
    except SystemExit as end:
        code = end.code
    finally:
        sys.argv = before
    return Answer(code if isinstance(code, int) else int(bool(code)), out.getvalue(), err.getvalue())


def done(*words: str | Path) -> Answer:
    """The same; RuntimeError unless it went well."""
    answer = genpercept(*words)
    if answer.code:
        raise RuntimeError(f"genpercept {' '.join(map(str, words))}: exit code {answer.code}: {answer.last}")
    return answer


@contextlib.contextmanager
def _flushed() -> Iterator[None]:
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
