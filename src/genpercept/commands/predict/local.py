"""One process: what is left to do, through the stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from genpercept.commands.files.results import Job, is_done
from genpercept.commands.predict.model import Model
from genpercept.commands.predict.progress import Progress
from genpercept.commands.predict.request import Outcome
from genpercept.commands.predict.stream import Stream
from genpercept.imaging import write


def left_to_do(jobs: list[Job], model: Model, formats: tuple[str, ...] | None) -> tuple[list[Job], list[Job]]:
    """(to do, done): by the sidecars of an earlier run."""
    formats = formats or write.default_formats(model.kind)
    done = {job for job in jobs if is_done(job, model.request.record(), model.task, formats)}
    return [job for job in jobs if job not in done], [job for job in jobs if job in done]


def predict(
    jobs: list[Job],
    model: Model,
    formats: tuple[str, ...] | None,
    resume: bool,
    outcome: Outcome,
    *,
    inputs: Iterable[Job] = (),
    on_end: Callable[[Job, str], None] = lambda job, line: None,
    quiet: bool = False,
) -> None:
    """Fill `outcome`. inputs, on_end as Stream has them; on_end is called for what was done before, too."""
    if resume:
        jobs, before = left_to_do(jobs, model, formats)
        outcome.skipped += len(before)
        for job in before:
            on_end(job, "")
    with Progress(len(jobs), outcome, quiet) as progress:
        Stream(jobs, model, formats, outcome, progress, inputs=inputs, on_end=on_end).run()
