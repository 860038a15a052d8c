"""One image and its results on disk: whose the files there are, what is done already, where to write."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from genpercept.core import files
from genpercept.core.devices import out_of_memory
from genpercept.core.texts import one_line
from genpercept.imaging import sidecars, write
from genpercept.imaging.read import shown

# What no other image would fare better with: the disk of the results is full, or no longer what it was.
_LOST = {
    errno.ENOSPC: ("no space is left on its disk", "free some space"),
    errno.EDQUOT: ("the quota of its disk is used up", "free some space"),
    errno.EROFS: ("its disk has become read-only", "mount it for writing"),
    errno.EIO: ("its disk reports an input/output error", "check the disk"),
    errno.ENODEV: ("its disk is gone", "connect it again"),
    errno.ENXIO: ("its disk is gone", "connect it again"),
    errno.ESTALE: ("its disk is gone", "mount it again"),
    errno.ENOTCONN: ("its disk is gone", "mount it again"),
}

# Of a line about a failure, for those who say what to do in other words.
NO_MEMORY, SHOWN_BY_DEBUG = "not enough memory", "--debug shows where"


@dataclass(frozen=True)
class Job:
    """One image and the stem of its results, without task and suffix.

    file: the name that a single result has in place of the usual one. given: what the user named, where that is no file ("-").
    """

    path: Path
    stem: Path
    file: str = ""
    given: str = field(default="", compare=False)

    def base(self, task: str) -> Path:
        """The path of the results without their suffixes."""
        return self.stem if self.file else self.stem.with_name(f"{self.stem.name}_{task}")

    def sidecar(self, task: str) -> Path:
        base = self.base(task)
        return base.with_name(f"{base.name}.json")

    def target(self, task: str, name: str) -> Path:
        """Where the file of the format `name` goes."""
        base = self.base(task)
        return base.with_name(self.file or base.name + write.FORMATS[name].suffix)

    @property
    def shown(self) -> str:
        """The image, for a message."""
        return self.given or shown(self.path)

    @property
    def name(self) -> str:
        """Of the image, without its suffix."""
        return self.path.stem

    @property
    def place(self) -> str:
        """The image, for a sidecar."""
        return self.given or str(self.path.absolute())


@dataclass(frozen=True)
class Output:
    """What is to be done with the results. formats None: those of the model's kind.

    resume: leave alone what is done. overwrite: replace other people's files, too. debug: print tracebacks of images' errors.
    seen: is given each image's name, prediction and pixels.
    """

    out: Path
    formats: tuple[str, ...] | None = None
    resume: bool = False
    overwrite: bool = False
    debug: bool = False
    seen: Callable[[str, Any, Any], None] | None = None


def prepare_folder(out: Path, inputs: Iterable[str | Path] = ()) -> None:
    """Make the folder, prove that it can be written to, and clear what a killed run left there.

    ValueError when it cannot be made or written, or when it is one of the input folders.
    """
    for given in map(Path, inputs):
        if given.is_dir() and os.path.realpath(given) == os.path.realpath(out):
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
    sidecars.sweep(out)


def source(job: Job) -> dict[str, Any]:
    """What tells one version of an input from another. OSError where it is not there."""
    if job.given:
        return {"path": job.given, **vars(write.digest_of(job.path))}
    found = job.path.stat()
    return {"path": job.place, "bytes": found.st_size, "modified_ns": found.st_mtime_ns}


def is_done(
    job: Job,
    request: Mapping[str, Any],
    weights: Mapping[str, str],
    sha256: str | None,
    task: str,
    formats: Iterable[str],
    known: Mapping[str, Any] | None = None,
) -> bool:
    """Whether all files of `job` are whole, made from this file by this request and these weights. The sidecar knows.

    `request`, `weights` and `known` as they were put into the sidecar's meta, beside `source`. Of an older sidecar, which
    has no weights and no hashes: whether the files are there and not empty; sha256: of the model, None where that is not known.
    """
    try:
        sidecar = sidecars.read(job.sidecar(task))
        if sidecar is None:
            return False
        meta, named = sidecar["meta"], sidecar["files"]
        if meta["request"] != request or meta["input"] != source(job) or meta.get("known") != known:
            return False
        of_old = meta.get("model_sha256")
        if meta["weights"] != weights if "weights" in meta else None not in (of_old, sha256) and of_old != sha256:
            return False
        wanted = [
            named[name] for name in dict.fromkeys((*formats, *(["uncertainty"] if "uncertainty" in named else [])))
        ]
        paths = [job.stem.with_name(name) for name in wanted]
        digests = sidecars.digests(sidecar)
        if digests is None:
            return all(path.is_file() and path.stat().st_size > 0 for path in paths)
        return all(digests[path.name].fits(path) for path in paths)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def refusal(job: Job, task: str, formats: Iterable[str], *, uncertain: bool = False) -> str:
    """Why the results of `job` may not be written where they would go, on one line; "": they may.

    What is there must have been written by this program, as its sidecar says, and from the same image.
    """
    sidecar = job.sidecar(task)
    targets = [job.target(task, name) for name in formats]
    if uncertain:
        targets.append(sidecar.with_name(job.base(task).name + sidecars.UNCERTAINTY))
    return strange(job, sidecar, targets)


def strange(job: Job, sidecar: Path, targets: Iterable[Path]) -> str:
    """As `refusal`, of a sidecar and the files that it is to name."""
    targets = [*targets, sidecar]
    there = [path for path in targets if os.path.lexists(path)]
    if not there:
        return ""
    about = sidecars.known(sidecar)
    ours = {sidecar.name, *sidecars.names(about)} if about else set[str]()
    if strange := [path for path in there if path.name not in ours]:
        names = ", ".join([shown(strange[0]), *(shown(Path(path.name)) for path in strange[1:])])
        return f"{names}: there already, and not written by this program: choose another --out, or --overwrite to replace it"
    assert about is not None
    told = about["meta"].get("input")
    other = told.get("path") if isinstance(told, dict) else None
    if isinstance(other, str) and not _same(other, job, told):
        return f"{shown(sidecar)} is the result of {shown(Path(other))}: choose another --out, or --overwrite to replace it"
    return ""


def _same(other: str, job: Job, told: Mapping[str, Any]) -> bool:
    """Whether the image that a sidecar names is this one."""
    if job.given:
        return dict(told) == source(job)
    return other == job.place or os.path.realpath(other) == os.path.realpath(job.path)


def protect_inputs(jobs: Sequence[Job], task: str, formats: Iterable[str]) -> None:
    """ValueError when a result would take the place of an image that is still to be read."""
    real = lru_cache(None)(os.path.realpath)
    inputs = {os.path.realpath(job.path) for job in jobs}
    inputs |= {os.path.join(real(job.path.parent), job.path.name) for job in jobs}  # noqa: PTH118  (many)
    for job in jobs:
        for name in formats:
            target = job.target(task, name)
            if os.path.join(real(target.parent), target.name) in inputs:  # noqa: PTH118
                raise ValueError(
                    f"{shown(target)}: an input that a result would overwrite; choose another folder for --out"
                )


def lost(error: OSError, folder: Path) -> tuple[str, str] | None:
    """(what is wrong with the folder of the results, what to do) where this error says that nothing can be written there."""
    if error.errno in _LOST:
        return _LOST[error.errno]
    if not folder.is_dir():
        return "is no longer there", "make it or mount it again"
    if isinstance(error, PermissionError) and not os.access(folder, os.W_OK | os.X_OK):
        return "may no longer be written to", "change its permissions"
    return None


def lost_line(folder: Path, why: tuple[str, str], done: int | None) -> str:
    """What stopped the run, what is safe, and what to do; done: None where nobody knows."""
    whole = "what was written is whole" if done is None else f"{done} images are done and whole"
    return f"--out {shown(folder)}: {why[0]}; {whole}: {why[1]}, then --resume goes on with the rest"


def failure_line(job: Job, error: BaseException) -> str:
    """One line that names the file."""
    text = one_line(error)
    if out_of_memory(error):
        text = f"{NO_MEMORY}; use a smaller --processing-resolution or --batch-size, or --vae-tiling"
    elif not isinstance(error, ValueError | OSError):
        text = f"{type(error).__name__}: {text}; {SHOWN_BY_DEBUG}" if str(error) else type(error).__name__
    name = shown(job.path)
    text = text.removeprefix(f"{name}: ")
    return f"{job.shown}: {text}"
