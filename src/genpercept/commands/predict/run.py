"""Many images through one model, into files: read ahead, predicted, written behind; what fails is told at the end."""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from genpercept.checkpoints import hub
from genpercept.commands.files import fitted
from genpercept.commands.files.inputs import gather, name_results
from genpercept.commands.files.results import Job, Output, lost, lost_line, prepare_folder
from genpercept.commands.predict import ends, local, processes, space
from genpercept.commands.predict.clips import plan
from genpercept.commands.predict.clips.plan import Asked, Clip
from genpercept.commands.predict.ends import End
from genpercept.commands.predict.model import Model
from genpercept.commands.predict.progress import Progress, complain
from genpercept.commands.predict.request import ENGINES, Machine, Outcome, Pipeline, Request, check
from genpercept.commands.predict.space import Seen
from genpercept.commands.predict.stopping import Stop
from genpercept.core import locks, said
from genpercept.core.names import choose
from genpercept.core.said import say
from genpercept.imaging import sidecars, write
from genpercept.imaging.read import shown
from genpercept.imaging.video import is_film

__all__ = ["Asked", "Machine", "Outcome", "Pipeline", "Progress", "Request", "run", "run_and_show", "write"]

_INTERRUPTED = 128  # exit codes from here on are signals'
_SHOWN = "genpercept-show-"  # folders of what is shown and not kept


def run(
    inputs: Sequence[str | Path],
    out: Path,
    request: Request | None = None,
    *,
    formats: Iterable[str] | None = None,
    machine: Machine | None = None,
    resume: bool = False,
    engine: str = "local",
    load: Callable[..., Pipeline] | None = None,
    recursive: bool = False,
    overwrite: bool = False,
    debug: bool = False,
    seen: Seen | None = None,
    clips: Asked | None = None,
) -> int:
    """Predict files, folders and patterns into `out`/<name>_<task>.<ext>. The exit code: Outcome's, or 130 on Ctrl-C.

    name: the file's stem, or, where stems of several folders meet, its path below the folder that all have in common.
    recursive: folders with their subfolders, and names that are paths below them. An input `-` is stdin, and so is `out`
    stdout; an `out` that ends as a format's files do is the one image's file (`ends`).

    Nothing is loaded before the arguments are known to be good and a first image has been read. Files appear whole or
    not at all; formats None: those of the kind (png and color; coco and color of keypoints). What this program did not
    write, or wrote for another image, is not replaced, unless `overwrite`. `resume` skips images whose files are whole and
    were made from the same file by the same request and weights. engine "ray": by the workers of a Ray cluster. Started by
    accelerate or torchrun, each process does its share. Either way `out`/manifest.jsonl says what is done. Of a folder with
    a model per category (fit.json) each image has that of the category in whose folder it lies. debug: tracebacks of errors.
    seen: is given each image's name, prediction and pixels. clips: of films (`clips.run`). `load` stands in for
    genpercept.load. What goes wrong with one image is told at the end, in a line; Ctrl-C once finishes what is in hand, and
    twice leaves. Raises ValueError for what concerns all: folders, formats, model, device, another run in the folder.
    """
    request, machine = request or Request(), machine or Machine()
    stills, of_clips = plan.formats(formats)
    chosen = check(request, machine, stills or None if of_clips else stills)
    choose("engine", engine, ENGINES)
    if load is None and not Path(request.model_name).expanduser().is_file():  # an exported graph is a file
        hub.here(request.model_name, request.subfolder)
    outcome, places = Outcome(), _Places()
    asked = replace(clips or Asked(), formats=of_clips)
    how = Output(out, stills and chosen, resume, overwrite, debug, seen)
    with Stop(places.clean) as stop, _scratch(inputs, out) as places.scratch:
        try:
            jobs = _all(inputs, how, request, machine, asked, engine, load, recursive, outcome, places, stop)
        except KeyboardInterrupt:
            complain(
                f"genpercept: interrupted; {outcome.done} images are done and whole, --resume continues with the rest"
            )
            if stop.hung:
                stop.leave()
            return stop.exit_code
        except OSError as error:
            if (why := lost(error, places.out)) is None:
                raise
            complain(f"genpercept: error: {lost_line(places.out, why, outcome.done + outcome.skipped)}")
            return 1 if outcome.done + outcome.skipped else 2
    if processes.first():
        _tell(jobs, out, outcome, request.tasks)
        _complain(jobs, outcome)
    return outcome.exit_code


def run_and_show(inputs: Sequence[str | Path], out: Path | None, request: Request, **how: Any) -> int:
    """`run`, and then what was predicted, in space, in a browser until Ctrl-C (viser). out None: no file is kept.

    ValueError with what leaves nothing to show here: --resume, and several processes.
    """
    from genpercept.commands.predict.show import Gallery, serve

    several = processes.several() or how.get("engine", ENGINES[0]) != ENGINES[0]
    for wrong, what in ((how.get("resume"), "--resume"), (several, "--engine ray, accelerate and torchrun")):
        if wrong:
            raise ValueError(f"--show shows what this run predicts, in one process: leave out {what}")
    if out is not None and str(out) == ends.STREAM:
        raise ValueError("--show ends with Ctrl-C, and --out - with its result: leave one of them out")
    gallery = Gallery()
    if out is not None:
        code = run(inputs, out, request, **how, seen=gallery.add)
    else:
        with tempfile.TemporaryDirectory(prefix=_SHOWN) as folder:
            code = run(inputs, Path(folder), request, **{**how, "formats": ("color",)}, seen=gallery.add)
    if code < _INTERRUPTED:
        serve(gallery)
    return code


def _complain(jobs: Sequence[Job], outcome: Outcome) -> None:
    """What failed, in the order of the inputs."""
    order = {job: i for i, job in enumerate(jobs)}
    failed = [outcome.failed[job] for job in sorted(outcome.failed, key=order.__getitem__)]
    for failure in (*outcome.problems, *failed):
        complain(f"genpercept: error: {failure}")


def _tell(jobs: list[Job], out: Path, outcome: Outcome, tasks: tuple[str, ...] = ()) -> None:
    """What lies where: the folder, and the files of its first image. For --json, all."""
    said.result(lambda: _document(jobs, out, outcome, tasks))
    space.tell(outcome.fits)
    good = next((job for job in jobs if job not in outcome.failed), None)
    if good is None or str(out) == ends.STREAM or out.name.startswith(_SHOWN):
        return
    names = [path.name for path in _files(good, tasks).values()]
    if good.file:
        said.wrote(good.stem.with_name(good.file))
    elif names:
        said.wrote(out, f"{', '.join(names)}{', ...' if len(jobs) > 1 else ''}")


def _files(job: Job, tasks: tuple[str, ...] = ()) -> dict[str, Path]:
    """{format: file} of the image's results, and of "json", which tells of them; nothing where they are not there.

    tasks: where they are several, {"task format": file} of each.
    """
    if job.file:
        path = job.stem.with_name(job.file)
        return {path.suffix.lstrip("."): path}
    if len(tasks) > 1:
        found = {task: _told(job.sidecar(task)) for task in tasks}
        return {f"{task} {format}": path for task, files in found.items() for format, path in files.items()}
    beside = job.stem.parent.glob(f"{glob.escape(job.stem.name)}_*.json")
    return _told(max(beside, key=lambda path: path.stat().st_mtime_ns, default=None))  # other tasks may have theirs


def _told(sidecar: Path | None) -> dict[str, Path]:
    if sidecar is None or not (about := sidecars.read(sidecar)):
        return {}
    return {**{format: sidecar.with_name(name) for format, name in about["files"].items()}, "json": sidecar}


def _document(jobs: Sequence[Job], out: Path, outcome: Outcome, tasks: tuple[str, ...]) -> dict[str, Any]:
    """The result, for programs."""
    images = [
        {"image": str(job.path), "error": outcome.failed[job]}
        if job in outcome.failed
        else {
            "image": str(job.path),
            "files": {format: str(path) for format, path in _files(job, tasks).items()},
            **({"fit": outcome.fits[job]} if job in outcome.fits else {}),
        }
        for job in jobs
    ]
    counts = {"predicted": outcome.done, "skipped": outcome.skipped, "failed": outcome.failures}
    return {"out": str(out), **counts, "images": images, "problems": outcome.problems, "exit_code": outcome.exit_code}


def _all(
    inputs: Sequence[str | Path],
    how: Output,
    request: Request,
    machine: Machine,
    asked: Asked,
    engine: str,
    load: Callable[..., Pipeline] | None,
    recursive: bool,
    outcome: Outcome,
    places: _Places,
    stop: Stop,
) -> list[Job]:
    """What there was to do; it has been done, or has failed, as `outcome` says."""
    end = plan.end(how.out, asked) or ends.of(how.out, how.formats, places.scratch)
    jobs, clips = _jobs(inputs, end, recursive, asked, outcome, places)
    request = space.located(request, len(jobs))
    if len(jobs) + len(clips) > 1 and (end.file or end.stdout):
        raise ValueError(f"--out {how.out}: one file for {len(jobs) + len(clips)} images: name a folder")
    if len(request.tasks) > 1 and (end.file or end.stdout):
        raise ValueError(f"--out {how.out}: one file for tasks {' and '.join(request.tasks)}: name a folder")
    plan.refuse(jobs, clips, asked, request, end, how, engine == "ray" or processes.several())
    if (end.stdout or any(job.given for job in jobs)) and (processes.several() or engine == "ray"):
        raise ValueError("-: stdin and stdout are one process's: leave out --engine ray, accelerate and torchrun")
    output = replace(how, out=end.folder, formats=end.formats)
    with _held([*jobs, *(clip.job for clip in clips)], end, places):
        for its, part in _by_model(jobs, request, outcome) if jobs or not clips else ():
            model = Model(its, processes.own_device(machine), load)
            _predict(part, model, output, outcome, engine, stop)
            if request.fit is not None and (good := [job for job in part if job not in outcome.failed]):
                outcome.fits |= space.fits(good, model.tasks)
            if end.stdout and outcome.done:
                ends.to_stdout(part[0], model.task)
            del model  # before the next one
        if clips:
            from genpercept.commands.predict.clips.run import predict

            predict(clips, Model(request, machine, load), asked, output, outcome, stop)
    return [*jobs, *(clip.job for clip in clips)]


@contextmanager
def _scratch(inputs: Sequence[str | Path], out: Path) -> Iterator[Path]:
    """A folder for what comes from stdin or goes to stdout; made where there is such a thing."""
    if ends.STREAM not in map(str, (*inputs, out)):
        yield Path()
        return
    with tempfile.TemporaryDirectory(prefix="genpercept-") as folder:
        yield Path(folder)


@dataclass
class _Places:
    """Where this process leaves temporary files, for a sudden end."""

    out: Path = field(default_factory=Path)
    scratch: Path = field(default_factory=Path)
    folders: list[Path] = field(default_factory=list)
    lock: Path | None = None

    def clean(self) -> None:
        if self.lock is not None:
            self.lock.unlink(missing_ok=True)
        if self.scratch != Path():
            shutil.rmtree(self.scratch, ignore_errors=True)
        for folder in self.folders:
            for path in folder.glob(f".genpercept-*-{os.getpid()}-*.tmp"):
                with suppress(OSError):
                    path.unlink()


def _jobs(
    inputs: Sequence[str | Path], end: End, recursive: bool, asked: Asked, outcome: Outcome, places: _Places
) -> tuple[list[Job], list[Clip]]:
    """What is to be predicted, with folders that are ready for it; says what is left out, and notes what is wrong."""
    files = [given for given in inputs if str(given) != ends.STREAM]
    if asked.together:
        if recursive:
            raise ValueError(
                "--recursive: --video takes each folder as one clip, without its subfolders: leave it out, and name "
                "each folder of frames"
            )
        clips = plan.together(inputs, asked, end)
        places.out, places.folders = end.folder, [end.folder]
        prepare_folder(end.folder, files)
        return [], clips
    found = gather(files, recursive=recursive)
    outcome.problems = found.problems
    if processes.first():
        for note in found.notes:
            say(f"genpercept: {note}")
    names = name_results(found.files, found.root)
    named = list(zip(found.files, names, strict=True))
    jobs = [end.job(file, name) for file, name in named if not is_film(file)]
    clips = [Clip(end.job(file, name)) for file, name in named if is_film(file)]
    if (piped := ends.stdin(inputs, places.scratch)) is not None:
        if piped.name in map(str.casefold, names):
            raise ValueError(f"-: its results would be called as those of {piped.name}: predict it into another folder")
        jobs.append(end.job(piped, piped.name, ends.STREAM))
    places.out = end.folder
    if everything := [*jobs, *(clip.job for clip in clips)]:
        folders = () if end.file or end.stdout else inputs
        places.folders = list(dict.fromkeys((end.folder, *(job.stem.parent for job in everything))))
        for folder in places.folders:
            prepare_folder(folder, folders)
    return jobs, clips


@contextmanager
def _held(jobs: list[Job], end: End, places: _Places) -> Iterator[None]:
    """The folder of the results is this run's; of several processes the first sees to that. A single file needs no folder."""
    if not jobs or end.file or end.stdout or processes.several():
        yield
        return
    with locks.hold(end.folder, "predict"):
        places.lock = end.folder / locks.NAME
        yield
        places.lock = None


def _predict(jobs: list[Job], model: Model, output: Output, outcome: Outcome, engine: str, stop: Stop) -> None:
    if jobs and engine == "ray":
        from genpercept.commands.predict import ray

        ray.predict(jobs, model, output, outcome)
    elif jobs and processes.several():
        processes.predict(jobs, model, output, outcome, stop)
    else:
        local.predict(jobs, model, output, outcome, stop=stop)


def _by_model(jobs: list[Job], request: Request, outcome: Outcome) -> Iterator[tuple[Request, list[Job]]]:
    """The images of each model: all of them, or, of a folder with a model per category, those that lie in its folder.

    An image of no category has failed.
    """
    categories = None if request.model is None else fitted.read(Path(request.model))
    if categories is None:
        yield request, jobs
        return
    found: dict[str, list[Job]] = {}
    for job in jobs:
        if (category := fitted.category_of(job.path, categories)) is None:
            names = ", ".join(categories)
            outcome.failed[job] = f"{shown(job.path)}: lies in no folder named after a category of --model: {names}"
        else:
            found.setdefault(category, []).append(job)
    for category, part in found.items():
        yield replace(request, model=str(categories[category])), part
