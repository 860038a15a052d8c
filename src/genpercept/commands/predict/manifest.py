"""What several writers have done in one folder, one JSON object per line, for people and programs that come after.

Each process appends to a file of its own in `out`/.manifest; one of them merges these into `out`/manifest.jsonl while the
others wait, so nobody ever writes what another one writes. A killed run leaves its parts; the next one merges them first. What
is to be done again is decided by the sidecars beside the results, which know more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genpercept.commands.files.results import Job, source
from genpercept.core import files
from genpercept.core.texts import read_log, shown

NAME = "manifest.jsonl"
_PARTS = ".manifest"


class Part:
    """The lines of one process: {"result", "input", "bytes", "modified_ns", "task", "status", "error"}.

    result: the stem of the files, as a path from the folder. status "done" (now or before) or "failed", whose error is a line.
    """

    def __init__(self, out: Path, index: int) -> None:
        self._out = out.absolute()
        folder = out / _PARTS
        folder.mkdir(exist_ok=True)
        self._file = (folder / f"{index:05d}.jsonl").open("a", encoding="utf-8")

    def note(self, job: Job, task: str, error: str = "") -> None:
        """`job` has ended: well, or with `error`."""
        result = job.base(task).absolute().relative_to(self._out).as_posix()
        line: dict[str, Any] = {"result": result, "input": job.place, "task": task}
        try:
            known = source(job)
            line |= {"bytes": known["bytes"], "modified_ns": known["modified_ns"]}
        except OSError:  # the failure says what is wrong with the file
            line |= {"bytes": None, "modified_ns": None}
        line |= {"status": "failed", "error": error} if error else {"status": "done"}
        self._file.write(files.to_json(line) + "\n")
        self._file.flush()  # so that a killed run has said what it did

    def close(self) -> None:
        self._file.close()


def check(out: Path) -> None:
    """ValueError where the manifest's place is taken by a file of someone else's."""
    path = out / NAME
    if path.exists() and path.stat().st_size and not entries(path):
        raise ValueError(f"{shown(path)} was not written by this program: choose another --out, or move it away")


def merge(out: Path) -> None:
    """All parts into the manifest, which keeps what earlier runs did; later lines of one result count. One caller at a time."""
    folder = out / _PARTS
    parts = sorted(folder.glob("*.jsonl")) if folder.is_dir() else []
    if not parts:
        return
    lines = {line["result"]: line for path in (out / NAME, *parts) for line in entries(path)}
    text = "".join(files.to_json(lines[result]) + "\n" for result in sorted(lines))
    files.write_text(out / NAME, text)
    for path in parts:
        path.unlink()
    folder.rmdir()


def entries(path: Path) -> list[dict[str, Any]]:
    """The lines of a manifest or a part; none where there is no file. A line that a kill cut short is left out."""
    return [line for line in read_log(path) if {"result", "input", "status"} <= line.keys()]
