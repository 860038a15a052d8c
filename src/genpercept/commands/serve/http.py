"""The HTTP interface: routes over an engine, each error a line of JSON."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

from genpercept.commands.serve import film_routes, openapi, upload
from genpercept.commands.serve.answers import Answer, choose
from genpercept.commands.serve.engine import Engine
from genpercept.commands.serve.film_routes import PIECE
from genpercept.commands.serve.gate import STATIC, Gate
from genpercept.commands.serve.limits import Ending, Refusal
from genpercept.commands.serve.metrics import CONTENT_TYPE, Metrics
from genpercept.commands.serve.parameters import FilmOptions, Options, line_of, merged
from genpercept.core.version import __version__
from genpercept.imaging.kinds import KINDS

_PREDICT = "/v1/predict/"


def make_app(
    engine: Engine,
    *,
    key: str | None = None,
    origins: tuple[str, ...] = (),
    log: Callable[[str], None] | None = None,
) -> FastAPI:
    """The app over an engine, which may be loaded later: until then it answers 503.

    key: that every request must have, but for /healthz, /readyz and the documentation; None: anybody may ask. origins: of
    pages whose scripts may read answers. log: is told a line of each request. Further routes may be added, or apps mounted;
    they are behind the same gate.
    """
    app = FastAPIOffline(
        title="GenPercept", version=__version__, description=openapi.ABOUT, redoc_url=None, static_url=STATIC
    )
    metrics = Metrics(engine)
    _handlers(app)
    _state_routes(app, engine, metrics)

    @app.post(
        f"{_PREDICT}{{task}}",
        summary="Predict one image",
        response_class=Response,
        responses=openapi.RESPONSES,
        openapi_extra=openapi.body("image", Options.model_fields, ("image/jpeg", "image/png")),
        tags=["predict"],
    )
    async def predict(task: str, options: Annotated[Options, Query()], request: Request) -> Response:
        """Depth, normals, segmentation, cut-outs, poses, ... of one image, at the image's own size."""
        return await _predict(engine, metrics, task, options, request)

    film_routes.add(app, engine)

    def ended(scope: Scope, status: int, seconds: float) -> None:
        metrics.request(_route(engine, scope), status, seconds)
        if log is not None:
            path = scope.get("raw_path", b"").decode("ascii", "replace")[:200]
            log(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {scope['method'][:10]} {path} {status} {seconds:.3f} s")

    app.add_middleware(Gate, key=key, on_end=ended, ending=lambda: engine.draining)
    if origins:  # outside of the gate: a browser asks whether it may ask before it sends the key
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=[
                "Location",
                "Retry-After",
                "X-GenPercept-Model",
                "X-GenPercept-Kind",
                "X-GenPercept-Format",
            ],
        )
    return app


def _state_routes(app: FastAPI, engine: Engine, metrics: Metrics) -> None:
    @app.get("/v1/models", tags=["state"], summary="What is served", responses=openapi.MODELS)
    async def models() -> dict[str, Any]:
        """The models, the first of a task being its default, and the server's limits."""
        if not engine.ready and not engine.draining:
            raise Ending("the models are being loaded", 5)
        rows = [vars(info) | {"meaning": KINDS[info.kind].meaning} for info in engine.models.values()]
        limits = engine.limits
        return {
            "models": rows,
            "limits": {
                "bytes": limits.body,
                "pixels": limits.pixels,
                "processing_resolution": limits.resolution,
                "ensemble_size": limits.ensemble,
                "steps": limits.steps,
                "film_bytes": limits.film_body,
                "film_pixels": limits.film_pixels,
                "film_frames": limits.film_frames,
            },
        }

    @app.get("/healthz", tags=["state"], summary="Whether the process is alive")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", tags=["state"], summary="Whether requests are taken", responses=openapi.READY)
    async def readyz() -> Response:
        """503 while models are being loaded, and from the moment that the server is asked to end."""
        if engine.ready:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"error": "ending" if engine.draining else "loading"}, 503, {"Retry-After": "5"})

    @app.get("/metrics", tags=["state"], summary="Figures for Prometheus", response_class=Response)
    async def figures() -> Response:
        return Response(metrics.text(), headers={"Content-Type": CONTENT_TYPE})


async def _predict(engine: Engine, metrics: Metrics, task: str, options: Options, request: Request) -> Response:
    """All that needs no body is checked before one byte of it is read."""
    media, parameters = upload.content_type(request)
    accept = request.headers.get("accept", "")
    info = engine.model_for(task, options.model)
    choose(info.kind, options.format, accept)
    engine.check(info.name, options.asked())
    size = upload.declared_size(request, engine.limits.body)
    with ExitStack() as held:
        ticket = held.enter_context(engine.admitted(size))
        body = await upload.read(request, ticket, engine.limits)
        image, fields = upload.image_of(body, media, parameters)
        del body
        if fields:
            options = merged(options, fields)
            info = engine.model_for(task, options.model)
        work = asyncio.create_task(engine.answer(image, info.name, options.asked(), accept, ticket))
        del image
        answer = await _unless_departed(work, request)
        metrics.stages(answer.seconds)
        return _Held(held.pop_all(), answer, info.name)


async def _unless_departed(work: asyncio.Task[Answer], request: Request) -> Answer:
    """What `work` gives; Departed, and the work is dropped, where the client goes first."""
    leaving = asyncio.create_task(_departure(request))
    try:
        await asyncio.wait({work, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise upload.Departed
        return work.result()
    finally:
        for task in (work, leaving):
            task.cancel()


async def _departure(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _Held(Response):
    """An answer whose place in the queue is given up when its last byte has been handed over."""

    def __init__(self, held: ExitStack, answer: Answer, model: str) -> None:
        timing = ", ".join(f"{stage};dur={1000 * took:.1f}" for stage, took in answer.seconds.items())
        headers = {
            "X-GenPercept-Model": model,
            "X-GenPercept-Kind": answer.kind,
            "X-GenPercept-Format": answer.format,
            "Content-Disposition": f'inline; filename="{answer.name}"',
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Server-Timing": timing,
        }
        super().__init__(answer.body, media_type=answer.media, headers=headers)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            body = memoryview(self.body)
            for start in range(0, len(body), PIECE):
                piece = bytes(body[start : start + PIECE])
                await send({"type": "http.response.body", "body": piece, "more_body": start + PIECE < len(body)})


# ---- errors ----------------------------------------------------------------------------------------------------------


def _handlers(app: FastAPI) -> None:
    """Every error is {"error": line}."""

    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> Response:
        return JSONResponse({"error": str(error)}, error.status, error.headers)

    @app.exception_handler(upload.Departed)
    async def departed(request: Request, error: Exception) -> Response:
        return Response(status_code=499)  # nobody reads it; for the count

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        kind = FilmOptions if request.url.path.startswith(film_routes.PATH) else Options
        return JSONResponse({"error": line_of(list(error.errors()), kind)}, 422)

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        line = f"{request.method} {request.url.path[:80]}: {str(error.detail).lower()}; see /docs"
        return JSONResponse({"error": line}, error.status_code, error.headers)


def _route(engine: Engine, scope: Scope) -> str:
    """For the count: few names, whatever is asked."""
    path = scope["path"]
    tasks = {info.task for info in engine.models.values()}
    if path.startswith(film_routes.PATH):
        return film_routes.route(path, tasks)
    if path.startswith(_PREDICT):
        task = path.removeprefix(_PREDICT)
        return f"predict/{task if task in tasks else 'unknown'}"
    return path[1:] if path in ("/v1/models", "/healthz", "/readyz", "/metrics") else "other"
