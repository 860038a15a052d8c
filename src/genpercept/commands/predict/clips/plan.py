"""Which inputs are clips, what is asked of them, and where their results go."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from genpercept.commands.files import fitted
from genpercept.commands.files.inputs import gather, name_results
from genpercept.commands.files.results import Job, Output, source
from genpercept.commands.predict.ends import End
from genpercept.commands.predict.request import Request
from genpercept.core.names import hint
from genpercept.core.texts import shown
from genpercept.imaging import sidecars, video, write
from genpercept.imaging.kinds import KINDS
from genpercept.imaging.read import size_of
from genpercept.pipeline.video.sources import by_number

FILM = "mp4"  # the format of a whole clip, beside those of its frames
_RATES = 1001  # largest denominator of a rate: 29.97 is 30000/1001


@dataclass(frozen=True)
class Asked:
    """What is asked of clips. together: folders, patterns and images of the inputs are frames of clips. rate: theirs, a second.

    smooth: weight of the frame before, along the motion. beside: the film beside its colours. formats: mp4, and of frames.
    """

    together: bool = False
    rate: float | None = None
    smooth: float = 0.0
    beside: bool = False
    formats: tuple[str, ...] = (FILM,)

    def record(self) -> dict[str, Any]:
        """For the sidecar."""
        return {"smooth": self.smooth, "side_by_side": self.beside, "formats": list(self.formats)}

    @property
    def flag(self) -> str:
        """The first of the options that only clips have, of those given."""
        given = {"--video": self.together, "--fps": self.rate, "--smooth": self.smooth, "--side-by-side": self.beside}
        return next((flag for flag, value in given.items() if value), "")


@dataclass(frozen=True)
class Clip:
    """One clip. job: its path and the stem of its results. files: its frames; none of a film."""

    job: Job
    files: tuple[Path, ...] = ()
    rate: Fraction = video.DEFAULT_RATE

    def opened(self) -> video.Clip:
        """ValueError where it cannot be read, or frames have several sizes."""
        if not self.files:
            return video.Film(self.job.path)
        sizes = {file: size for file in self.files if (size := size_of(file)) is not None}
        first = next(iter(sizes), None)
        for file, size in sizes.items():
            if first is not None and size != sizes[first]:
                raise ValueError(
                    f"{shown(file)}: {size[0]} x {size[1]} pixels, but {shown(first)} has {sizes[first][0]} x"
                    f" {sizes[first][1]}: frames of one clip are of one size"
                )
        return video.Stills(self.files, self.rate)

    @property
    def pixels(self) -> int:
        """Of a frame, as far as is known."""
        w, h = (size_of(self.files[0]) or (0, 0)) if self.files else video.Film(self.job.path).size
        return w * h

    @property
    def sound(self) -> Path | None:
        """The film whose sound is copied."""
        return None if self.files else self.job.path

    def version(self) -> dict[str, Any]:
        """What tells one version of it from another. OSError where it is not there."""
        if not self.files:
            return source(self.job)
        digest = hashlib.sha256()
        for file in self.files:
            found = file.stat()
            digest.update(os.fsencode(f"{file.name}\0{found.st_size}\0{found.st_mtime_ns}\0"))
        return {"path": self.job.place, "frames": len(self.files), "sha256": digest.hexdigest(), "fps": str(self.rate)}

    def film(self, task: str) -> Path:
        """Where its film of colours goes."""
        base = self.job.base(task)
        return base.with_name(self.job.file or base.name + sidecars.FILM)

    def frames(self, task: str) -> Path:
        """The folder of its frames."""
        return self.job.base(task)

    def work(self, task: str) -> Path:
        """A hidden folder of the network's answers, until all is done."""
        base = self.job.base(task)
        return base.with_name(f".{base.name}.frames")


def formats(asked: Iterable[str] | None) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """(formats of images, or None; of clips: mp4 and those of their frames). ValueError for one that is unknown."""
    if asked is None:
        return None, (FILM,)
    chosen = tuple(dict.fromkeys(asked))
    known = (*write.FORMATS, FILM)
    if unknown := [name for name in chosen if name not in known]:
        raise ValueError(f"unknown output format {unknown[0]!r}: {hint(unknown[0], known)}")
    return tuple(name for name in chosen if name != FILM) if chosen else chosen, chosen


def check(chosen: tuple[str, ...], kind: str) -> None:
    """ValueError for formats that do not hold this kind, or a film of a kind without colours."""
    if FILM in chosen and KINDS[kind].painter is None:
        raise ValueError(f"format {FILM}: {kind} has no colours: choose --format npy")
    if stills := [name for name in chosen if name != FILM]:
        write.check_formats(stills, kind)


def end(out: Path, asked: Asked) -> End | None:
    """Where results go when `--out` is a film's name, x.mp4; None for any other."""
    if out.suffix.lower() != sidecars.FILM or out.is_dir():
        return None
    if asked.formats != (FILM,):
        raise ValueError(f"--out {shown(out)}: one film for formats {', '.join(asked.formats)}: name a folder")
    return End(out.parent, (), out.stem, out.name)


def refuse(
    jobs: Sequence[Job], clips: Sequence[Clip], asked: Asked, request: Request, end: End, how: Output, several: bool
) -> None:
    """ValueError for what images and clips cannot have of what is asked. several: processes, or a cluster's workers."""
    if jobs and how.formats == ():
        raise ValueError(
            f"{jobs[0].shown}: an image, and format {FILM} is of films: add a format of images, such as png,color"
        )
    film_out = end.file.lower().endswith(sidecars.FILM)
    if jobs and film_out:
        raise ValueError(
            f"--out {shown(how.out)}: a film, and {jobs[0].shown} is an image: name a folder, or a file.png"
        )
    if not clips:
        if asked.flag:
            raise ValueError(f"{asked.flag}: is for films and for --video, and no input is one: leave it out")
        return
    first = clips[0].job.shown
    for flag, wanted in (("--fit", request.fit is not None), ("--show", how.seen is not None)):
        if wanted:
            raise ValueError(f"{flag}: is of images, and {first} is a film: leave it out, or give frames one by one")
    if len(request.tasks) > 1:
        raise ValueError(
            f"--task {request.task}: {first} is a film, of which one task is predicted at a time: name one"
        )
    if asked.rate is not None and not any(clip.files for clip in clips):
        raise ValueError(f"--fps: {first} has a rate of its own: leave it out")
    if end.file and not film_out:
        raise ValueError(f"--out {shown(how.out)}: {first} has more than one frame: name a folder, or a file.mp4")
    if end.stdout:
        raise ValueError(f"--out -: the results of {first} are no stream: name a folder, or a file.mp4")
    if several:
        raise ValueError(f"{first}: frames follow one another: leave out --engine ray, accelerate and torchrun")
    if request.boxes is not None:
        raise ValueError(f"--boxes: {first} has frames without names: leave it out, or find people by --detector")
    if request.model is not None and fitted.read(Path(request.model)) is not None:
        raise ValueError(f"{request.model}: a folder of models by category, which films have none of: name one of them")
    if asked.beside and FILM not in asked.formats:
        raise ValueError(f"--side-by-side: of format {FILM}, which is not asked for: leave it out")
    inputs = {os.path.realpath(path) for clip in clips for path in (clip.job.path, *clip.files)}
    for clip in clips:
        if clip.job.file and os.path.realpath(clip.job.stem.with_name(clip.job.file)) in inputs:
            raise ValueError(f"--out {shown(how.out)}: an input that the result would overwrite; choose another name")


def together(inputs: Sequence[str | Path], asked: Asked, end: End) -> list[Clip]:
    """--video: each folder and pattern of images is a clip, named after its folder; images that are named are one; films too.

    ValueError for an input without images, and for two clips of one name.
    """
    rate = video.DEFAULT_RATE if asked.rate is None else Fraction(asked.rate).limit_denominator(_RATES)
    found: list[tuple[Path, tuple[Path, ...]]] = []
    loose: list[Path] = []
    for given in map(Path, inputs):
        path = given.expanduser()
        if not path.is_dir() and not glob.has_magic(str(given)):
            found += [(path, ())] if video.is_film(path) else []
            loose += [] if video.is_film(path) else [path]
            continue
        there = gather([given])
        if there.problems:
            raise ValueError(there.problems[0])
        if path.is_dir() or not all(map(video.is_film, there.files)):
            found.append(_frames(there.files, path if path.is_dir() else None))
        else:
            found += [(film, ()) for film in there.files]
    found += [_frames(loose)] if loose else []
    stems = [path.resolve().name if frames else name_results([path])[0] for path, frames in found]
    lower = [name.casefold() for name in stems]
    for place, name in enumerate(lower):
        if name in lower[:place]:
            other = found[lower.index(name)][0]
            raise ValueError(
                f"{shown(other)} and {shown(found[place][0])} would both become {stems[place]}:"
                " predict them into different folders"
            )
    return [Clip(end.job(path, name), frames, rate) for (path, frames), name in zip(found, stems, strict=True)]


def _frames(files: Sequence[Path], folder: Path | None = None) -> tuple[Path, tuple[Path, ...]]:
    """(the folder after which the clip is named, its frames by name, whose numbers count by their value)."""
    ordered = tuple(sorted(files, key=by_number))
    return folder or ordered[0].absolute().parent, ordered
