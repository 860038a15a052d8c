"""One process: what is left to do, through the stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from genpercept.commands.files.results import Job, Output, is_done
from genpercept.commands.predict import space, weights
from genpercept.commands.predict.model import Model
from genpercept.commands.predict.progress import Progress
from genpercept.commands.predict.request import Outcome, Request
from genpercept.commands.predict.stopping import Stop
from genpercept.commands.predict.stream import Stream
from genpercept.imaging import write
from genpercept.tasks import TASKS

_CHECKS = 4  # files that are hashed at once


def left_to_do(jobs: list[Job], model: Model, formats: tuple[str, ...] | None) -> tuple[list[Job], list[Job]]:
    """(to do, done): by the sidecars of an earlier run, and what the files hold."""
    wanted = {task: formats or write.default_formats(TASKS.find(task).kind) for task in model.tasks}
    request = model.request
    if not any(job.sidecar(task).exists() for job in jobs for task in wanted):
        return jobs, []
    record, hashes, sha256 = request.record(), model.weights(check=True), weights.model_sha256(request)

    def whole(job: Job) -> bool:
        beside = _known(request, job)
        return all(is_done(job, record, hashes, sha256, task, names, beside) for task, names in wanted.items())

    with ThreadPoolExecutor(_CHECKS, "check") as pool:
        done = list(pool.map(whole, jobs))
    return (
        [job for job, is_whole in zip(jobs, done, strict=True) if not is_whole],
        [job for job, is_whole in zip(jobs, done, strict=True) if is_whole],
    )


def _known(request: Request, job: Job) -> dict[str, Any] | None:
    """The image's file of known distances; an empty one, which no sidecar has, where predicting it says what is wrong."""
    try:
        return space.version(request, job)
    except (OSError, ValueError):
        return {}


def predict(
    jobs: list[Job],
    model: Model,
    output: Output,
    outcome: Outcome,
    *,
    inputs: Iterable[Job] = (),
    on_end: Callable[[Job, str], None] = lambda job, line: None,
    quiet: bool = False,
    stop: Stop | None = None,
) -> None:
    """Fill `outcome`. inputs, on_end, stop as Stream has them; on_end is called for what was done before, too."""
    if output.resume:
        jobs, before = left_to_do(jobs, model, output.formats)
        outcome.skipped += len(before)
        for job in before:
            on_end(job, "")
    with Progress(len(jobs), outcome, quiet) as progress:
        Stream(jobs, model, output, outcome, progress, inputs=inputs, on_end=on_end, stop=stop).run()
