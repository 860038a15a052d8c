"""Many images through one model, into files: read ahead, predicted, written behind; what fails is told at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from genpercept.commands.files import fitted
from genpercept.commands.files.inputs import gather, name_results
from genpercept.commands.files.results import Job, prepare_folder
from genpercept.commands.predict import local, processes
from genpercept.commands.predict.model import Model
from genpercept.commands.predict.progress import Progress, say
from genpercept.commands.predict.request import ENGINES, Machine, Outcome, Pipeline, Request, check
from genpercept.core.names import choose
from genpercept.imaging import write
from genpercept.imaging.read import shown

__all__ = ["Machine", "Outcome", "Pipeline", "Progress", "Request", "run", "write"]


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
) -> int:
    """Predict files, folders and patterns into `out`/<name>_<task>.<ext>. The exit code: Outcome's, 130 on Ctrl-C.

    name: the file's stem, or, where stems of several folders meet, its path below the folder that all have in common.

    Nothing is loaded before the arguments are known to be good and a first image has been read. Files appear whole or
    not at all; formats None: those of the kind (png and color; coco and color of keypoints). `resume` skips images
    whose files are there and were made from the same file by the same request. engine "ray": by the workers of a Ray
    cluster. Started by accelerate or torchrun, each process does its share. Either way `out`/manifest.jsonl says what is
    done. Of a folder with a model per category (fit.json) each image has that of the category in whose folder it lies.
    `load` stands in for genpercept.load. Raises ValueError for what concerns all images: folders, formats, model, device.
    """
    request, machine = request or Request(), machine or Machine()
    chosen = check(request, machine, formats)
    choose("engine", engine, ENGINES)
    files, problems = gather(inputs)
    outcome = Outcome(problems)
    jobs = [Job(file, out / name) for file, name in zip(files, name_results(files), strict=True)]
    if jobs:
        prepare_folder(out, inputs)
        for folder in dict.fromkeys(job.stem.parent for job in jobs):
            prepare_folder(folder, inputs)
    try:
        for asked, part in _by_model(jobs, request, outcome):
            _predict(part, Model(asked, processes.own_device(machine), load), chosen, resume, outcome, out, engine)
    except KeyboardInterrupt:
        say(f"genpercept: interrupted; {outcome.done} images are done and whole, --resume continues with the rest")
        return 130
    if processes.first():
        order = {job: i for i, job in enumerate(jobs)}
        for failure in (
            *outcome.problems,
            *(outcome.failed[job] for job in sorted(outcome.failed, key=order.__getitem__)),
        ):
            say(f"genpercept: error: {failure}")
    return outcome.exit_code


def _predict(
    jobs: list[Job],
    model: Model,
    formats: tuple[str, ...] | None,
    resume: bool,
    outcome: Outcome,
    out: Path,
    engine: str,
) -> None:
    if jobs and engine == "ray":
        from genpercept.commands.predict import ray

        ray.predict(jobs, model, formats, resume, outcome, out)
    elif jobs and processes.several():
        processes.predict(jobs, model, formats, resume, outcome, out)
    else:
        local.predict(jobs, model, formats, resume, outcome)


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
