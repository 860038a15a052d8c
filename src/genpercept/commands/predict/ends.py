"""Where images come from and results go to beside folders: stdin, stdout, and one file of a name of its own."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from genpercept.commands.files.results import Job
from genpercept.imaging import sidecars, write
from genpercept.imaging.read import SUFFIXES, shown

STREAM = "-"
_STDIN = "stdin"  # what results of it are called


@dataclass(frozen=True)
class End:
    """Results go to `folder`; those of the one image, if `stem`, to `file` in it; or, stdout, from there to stdout."""

    folder: Path
    formats: tuple[str, ...] | None
    stem: str = ""
    file: str = ""
    stdout: bool = False

    def job(self, path: Path, name: str, given: str = "") -> Job:
        return Job(path, self.folder / (self.stem or name), self.file, given)


def of(out: Path, formats: tuple[str, ...] | None, scratch: Path) -> End:
    """What `--out` means: `-` is stdout, by way of the folder `scratch`; a name that ends as a format's files do is a file.

    Of a file the longest suffix decides: photo.png holds 16-bit values, photo_color.png a picture; so does photo.png with
    `--format color`. ValueError for several formats in one file, and for a file of a kind that is not written.
    """
    if str(out) == STREAM:
        if formats is not None and len(formats) > 1:
            raise ValueError(f"--out -: only one format goes to stdout: choose one of {', '.join(formats)}")
        if sys.stdout.isatty():
            raise ValueError("--out -: stdout is a terminal, and the result is no text: pipe it on, or name a folder")
        return End(scratch, formats, stdout=True)
    extensions = {Path(f"x{each.suffix}").suffix for each in write.FORMATS.values()}
    if out.is_dir() or out.suffix.lower() not in (*extensions, *SUFFIXES):
        return End(out, formats)
    name = _format_of(out, formats)
    ending = write.FORMATS[name].suffix
    stem = out.name[: -len(ending)] if out.name.lower().endswith(ending) else out.stem
    if not stem or out.name == f"{stem}.json":
        raise ValueError(f"--out {shown(out)}: that is the sidecar's name: end in _coco.json, or name a folder")
    return End(out.parent, (name,), stem, out.name)


def _format_of(out: Path, formats: tuple[str, ...] | None) -> str:
    """The one format of a single file."""
    name = shown(out)
    by_suffix = {each.suffix: key for key, each in write.FORMATS.items()}
    if formats is None:
        found = [suffix for suffix in by_suffix if out.name.lower().endswith(suffix)]
        if not found:
            raise ValueError(f"--out {name}: no such file is written: end in {', '.join(by_suffix)}; or name a folder")
        return by_suffix[max(found, key=len)]
    if len(formats) > 1:
        raise ValueError(f"--out {name}: one file for {len(formats)} formats: choose one, or name a folder")
    chosen = next(iter(formats))
    extension = Path(f"x{write.FORMATS[chosen].suffix}").suffix
    if out.suffix.lower() != extension:
        raise ValueError(f"--out {name}: format {chosen} is written as {extension}; or name a folder")
    return chosen


def stdin(inputs: Sequence[str | Path], scratch: Path) -> Path | None:
    """The file into which stdin has been read, where an input is `-`. ValueError where nothing can be read from it."""
    count = sum(str(given) == STREAM for given in inputs)
    if count > 1:
        raise ValueError("-: stdin holds one image, and is named more than once")
    if not count:
        return None
    if sys.stdin.isatty():
        raise ValueError("-: nothing is piped in: predict - < photo.jpg, or name a file")
    path = scratch / _STDIN
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return path


def to_stdout(job: Job, task: str) -> None:
    """The first of the result's files to stdout."""
    about = sidecars.read(job.sidecar(task))
    assert about is not None  # it has just been written
    with job.stem.with_name(next(iter(about["files"].values()))).open("rb") as file:
        shutil.copyfileobj(file, sys.stdout.buffer)
    sys.stdout.buffer.flush()
