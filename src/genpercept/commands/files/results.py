"""One image and its results on disk: what is done already, what may not be overwritten, where to write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genpercept.core import files
from genpercept.core.devices import out_of_memory
from genpercept.core.texts import one_line
from genpercept.imaging import write
from genpercept.imaging.read import shown


@dataclass(frozen=True)
class Job:
    """One image and the stem of its results, without task and suffix."""

    path: Path
    stem: Path


def prepare_folder(out: Path, inputs: Iterable[str | Path] = ()) -> None:
    """Make the folder, prove that it can be written to, and clear what a killed run left there.

    ValueError when it cannot be made or written, or when it is one of the input folders, whose next run would take the
    results for images.
    """
    for given in map(Path, inputs):
        if given.is_dir() and given.resolve() == out.resolve():
            raise ValueError(f"{shown(out)}: is an input folder, too; choose another for --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = files.temporary(out)
        probe.touch()
        probe.unlink()
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"{shown(out)}: is a file or lies below one, not a folder; choose another for --out") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ValueError(f"{shown(out)}: cannot be written to ({reason}); choose another folder for --out") from None
    files.sweep(out)


def source(path: Path) -> dict[str, Any]:
    """What tells one version of an input file from another."""
    found = path.stat()
    return {"path": str(path.absolute()), "bytes": found.st_size, "modified_ns": found.st_mtime_ns}


def is_done(job: Job, request: Mapping[str, Any], task: str, formats: Iterable[str]) -> bool:
    """Whether all files of `job` are there, made from this file by this request. The sidecar, written last, knows.

    `request` as it was put into the sidecar's meta, beside `source`.
    """
    stem = f"{job.stem.name}_{task}"
    try:
        sidecar = files.read_json(job.stem.with_name(f"{stem}.json"))
        meta, written = sidecar["meta"], sidecar["files"]
        same = meta["input"] == source(job.path) and meta["request"] == request
        return same and all(name in written and job.stem.with_name(written[name]).is_file() for name in formats)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def protect_inputs(jobs: Sequence[Job], task: str, formats: Iterable[str]) -> None:
    """ValueError when a result would take the place of an image that is still to be read."""
    inputs = {job.path.resolve() for job in jobs}
    for job in jobs:
        for name in formats:
            target = job.stem.with_name(f"{job.stem.name}_{task}{write.FORMATS[name].suffix}")
            if target.resolve() in inputs:
                raise ValueError(
                    f"{shown(target)}: an input that a result would overwrite; choose another folder for --out"
                )


def failure_line(job: Job, error: BaseException) -> str:
    """One line that names the file."""
    text = one_line(error)
    if out_of_memory(error):
        text = "not enough memory; use a smaller --processing-resolution or --batch-size, or --vae-tiling"
    name = shown(job.path)
    return text if text.startswith(name) else f"{name}: {text}"
