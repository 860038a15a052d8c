"""Films over HTTP: one is sent and becomes a job, which is asked after, fetched, and cancelled or removed."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.types import Receive, Scope, Send

from genpercept.commands.serve import film_orders, openapi, upload
from genpercept.commands.serve.answers import pick
from genpercept.commands.serve.engine import Engine
from genpercept.commands.serve.film_jobs import DONE, QUEUED, RUNNING, Job
from genpercept.commands.serve.limits import NotYet
from genpercept.commands.serve.parameters import FilmOptions, merged

PATH = "/v1/films/"
PREDICT = f"{PATH}predict/"
PIECE = 2**17  # bytes of an answer that are handed over at once
_MEDIA = {"mp4": "video/mp4", "zip": "application/zip", "json": "application/json"}


def add(app: FastAPI, engine: Engine) -> None:
    """The routes. They stand behind what all routes stand behind."""
    films = engine.films

    @app.post(
        f"{PREDICT}{{task}}",
        status_code=202,
        summary="Send a film",
        response_class=Response,
        responses=openapi.FILM_SENT,
        openapi_extra=openapi.body("film", FilmOptions.model_fields, ("video/mp4", "video/webm")),
        tags=["films"],
    )
    async def send(task: str, options: Annotated[FilmOptions, Query()], request: Request) -> Response:
        """It becomes a job, whose address is in `Location`: ask there how far it is."""
        job = await _received(engine, task, options, request)
        return JSONResponse(about(engine, job, request), 202, {"Location": _address(request, job)})

    @app.get(f"{PATH}{{id}}", name="film", summary="How far a film is", responses=openapi.FILM_ASKED, tags=["films"])
    async def state(id: str, request: Request) -> dict[str, Any]:
        """queued, running, done, failed or cancelled."""
        return about(engine, films.find(id), request)

    @app.get(
        f"{PATH}{{id}}/result",
        name="film_result",
        summary="Fetch a film's result",
        response_class=Response,
        responses=openapi.FILM_RESULT,
        tags=["films"],
    )
    async def result(id: str, request: Request, format: Annotated[str | None, Query()] = None) -> Response:
        """mp4: the film. zip: the files of frames, where they were asked for. json: shots, scales, flicker, request."""
        job = films.find(id)
        if job.state != DONE:
            raise NotYet(f"the film is {job.state}{f': {job.error}' if job.error else ''}: there is no result to fetch")
        offers = {name: _MEDIA[name] for name in job.results}
        name = pick(offers, format, request.headers.get("accept", ""), "the film")
        with ExitStack() as held:
            held.enter_context(engine.admitted())
            path = held.enter_context(films.reading(job, name))
            return _File(held.pop_all(), path, job, name)

    @app.delete(f"{PATH}{{id}}", summary="Cancel or remove a film", responses=openapi.FILM_DELETED, tags=["films"])
    async def remove(id: str, request: Request) -> Response:
        """One that waits or runs is cancelled; one that is over is removed, with its result."""
        job = films.find(id)
        if job.over:
            films.remove(job)
            return Response(status_code=204)
        await asyncio.to_thread(films.cancel, job)
        return JSONResponse(about(engine, job, request))


def route(path: str, tasks: set[str]) -> str:
    """For the count: few names, whatever is asked."""
    if path.startswith(PREDICT):
        task = path.removeprefix(PREDICT)
        return f"films/predict/{task if task in tasks else 'unknown'}"
    return "films/result" if path.endswith("/result") else "films/job"


def about(engine: Engine, job: Job, request: Request) -> dict[str, Any]:
    """A job as JSON."""
    films, total = engine.films, job.total
    told: dict[str, Any] = {"id": job.id, "state": job.state, "task": job.task, "model": job.model}
    told["progress"] = 1.0 if job.state == DONE else min(1.0, round(job.done / total, 3)) if total else None
    told["frames"] = {"done": job.done, "total": total}
    if job.state in (QUEUED, RUNNING):
        told["films_before"] = films.before(job)
    if job.error:
        told["error"] = job.error
    if job.damage:
        told["damage"] = job.damage
    if job.state == DONE:
        told["result"] = request.url_for("film_result", id=job.id).path
        told["formats"] = list(job.results)
    if job.over:
        told["kept_seconds"] = round(films.left(job))
    return told


async def _received(engine: Engine, task: str, options: FilmOptions, request: Request) -> Job:
    """All that needs no body is checked before one byte of it is read."""
    media, parameters = upload.content_type(request, upload.FILM)
    film_orders.check(engine, engine.model_for(task, options.model).name, options.asked())
    size = upload.declared_size(request, engine.limits.film_body)
    with engine.admitted(), engine.films.arriving(size) as job:
        fields = await upload.store(request, media, parameters, job, engine.films, engine.limits)
        options = merged(options, fields) if fields else options
        model = engine.model_for(task, options.model).name
        await asyncio.to_thread(film_orders.order, engine, job, model, options.asked())
        return job


def _address(request: Request, job: Job) -> str:
    return request.url_for("film", id=job.id).path


class _File(FileResponse):
    """A result, whose place in the queue is given up when its last byte has been handed over. Parts of it may be asked for."""

    chunk_size = PIECE

    def __init__(self, held: ExitStack, path: Path, job: Job, name: str) -> None:
        headers = {
            "X-GenPercept-Model": job.model,
            "X-GenPercept-Format": name,
            "Content-Disposition": f'inline; filename="{job.task}{path.suffix}"',
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        }
        super().__init__(path, media_type=_MEDIA[name], headers=headers, stat_result=path.stat())
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            await super().__call__(scope, receive, send)
