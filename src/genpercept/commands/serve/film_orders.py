"""A film that has come becomes a job: looked at, checked against its model and the limits, and put into the queue."""

from __future__ import annotations

from dataclasses import asdict

from genpercept.commands.predict.clips import plan
from genpercept.commands.serve.engine import Engine
from genpercept.commands.serve.film_jobs import Job
from genpercept.commands.serve.limits import FilmAsked, NoSuchFormat
from genpercept.commands.serve.sizes import seen_size


def check(engine: Engine, model: str, asked: FilmAsked) -> None:
    """Refusals that need no film. model: one of `engine.models`."""
    engine.check(model, asked)
    try:
        plan.check(asked.formats, engine.models[model].kind)
    except ValueError as error:
        raise NoSuchFormat(str(error).replace("--format ", "")) from None


def order(engine: Engine, job: Job, model: str, asked: FilmAsked) -> None:
    """Put a film that has arrived into the queue. A Refusal of a film that cannot be read, or is too much. Blocks."""
    check(engine, model, asked)
    info, computing = engine.models[model], engine.asking(model, asked)
    seen_size(computing, engine.films.look(job), asked, engine.limits, info.resolution)
    job.task, job.model = info.task, info.name
    request, machine = asdict(computing.request), asdict(computing.machine)
    how = {"smooth": asked.smooth, "side_by_side": asked.side_by_side, "formats": asked.formats}
    engine.films.submit(job, {"request": request, "machine": machine, "name": info.name, **how})
