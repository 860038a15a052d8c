"""A run whose folder cannot be written ends: what is wrong, what is left of it, and what to do."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genpercept.core import files
from genpercept.core.texts import one_line, shown
from genpercept.training.run.state import UNWRITABLE, Checkpoints

_CURES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EFBIG: "lift the limit on the size of files",
    errno.EROFS: "make it writable",
    errno.EACCES: "make it writable",
    errno.EPERM: "make it writable",
    errno.ENOENT: "bring it back",
}


class Unwritable(ValueError):
    """One line: the run's folder, what could not be written and why, the last whole checkpoint."""


@contextmanager
def explained(run: Path, what: str) -> Iterator[None]:
    """Unwritable where the block fails to write `what` of the run."""
    try:
        yield
    except UNWRITABLE as error:
        raise Unwritable(_line(run, what, error)) from None


def probe(run: Path) -> None:
    """Unwritable where the folder of a run takes no file."""
    with explained(run, "a file"):
        files.probe(run)


def _line(run: Path, what: str, error: BaseException) -> str:
    number = _number(error)
    reason = os.strerror(number) if number else one_line(error)
    cure = _CURES.get(number or 0, "see to that")
    kept = Checkpoints(run, 1).list()
    if kept:
        left = f"the last whole checkpoint is {kept[-1].name}: {cure}, then go on with --resume"
    elif run.is_dir():
        left = f"there is no whole checkpoint: {cure}, then begin again"
    else:
        left = f"the folder is not there: {cure}, then go on with --resume, or begin again"
    return f"{shown(run)}: {what} could not be written ({reason}), and training has stopped; {left}"


def _number(error: BaseException | None) -> int | None:
    """The system's number of an error that a library has wrapped into one of its own."""
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return error.errno
        if match := re.search(r"os error (\d+)", str(error)):
            return int(match[1])
        error = error.__cause__ or error.__context__
    return None
