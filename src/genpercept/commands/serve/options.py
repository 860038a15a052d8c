"""The options of `genpercept serve`; the work is done by `run.py`, imported when the command runs."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal

import rich_click as click

from genpercept.commands import shared_options as shared

if TYPE_CHECKING:
    from genpercept.commands.serve.limits import Limits

_MIB = 2**20
_IN_MIB = ("body", "queue_bytes", "decode_memory", "film_body", "film_disk")
_NAMED = {  # limits whose options have other names
    "body": "max_body",
    "pixels": "max_pixels",
    "resolution": "max_resolution",
    "ensemble": "max_ensemble",
    "steps": "max_steps",
    "tiles": "max_tiles",
    "queue_bytes": "queue_memory",
    "film_body": "max_film",
    "film_pixels": "max_film_pixels",
    "film_frames": "max_film_frames",
}


def _most(name: str, default: int, about: str) -> Any:
    kind = click.IntRange(min=1)
    return click.option(
        name, panel=shared.LIMITS, type=kind, default=default, show_default=True, metavar="N", help=about
    )


def _seconds(name: str, default: float, about: str, least: float = 0.1) -> Any:
    kind = click.FloatRange(min=least)
    return click.option(
        name, panel=shared.LIMITS, type=kind, default=default, show_default=True, metavar="S", help=about
    )


_limits = shared.together(
    _most("--max-body", 32, "MiB of an upload."),
    _most("--max-pixels", 50_000_000, "Refuse larger images by their header."),
    _most("--max-resolution", 1024, "Longest edge that a request may have the network see."),
    _most("--max-ensemble", 10, "Runs that a request may have merged."),
    _most("--max-steps", 50, "Steps that a request may ask for."),
    _most("--max-tiles", 64, "Tiles of one image that a request may ask for."),
    _most("--queue", 64, "Requests in hand at once; more are told 429 and when to come back."),
    _most("--queue-memory", 512, "MiB that these requests may hold."),
    _most("--connections", 256, "Open connections at once."),
    _seconds("--header-seconds", 10, "For a request's headers."),
    _seconds("--body-seconds", 30, "For its body."),
    _seconds("--stall-seconds", 30, "In which a client must read some of its answer."),
    _most("--decoders", 2, "Child processes that decode images."),
    _seconds("--decode-seconds", 10, "For one image, then its child is replaced.", 1),
    _most("--decode-memory", 1536, "MiB of addresses of a child."),
    _most("--decoder-images", 1000, "Images after which a child is replaced."),
    _most("--max-film", 256, "MiB of a film."),
    _most("--max-film-pixels", 8_294_400, "Refuse films with larger frames."),
    _most("--max-film-frames", 3000, "Refuse longer films."),
    _most("--film-queue", 8, "Films in hand at once, one of which is computed; more are told 429."),
    _most("--film-disk", 4096, "MiB of films and their results; where room is short the oldest results go."),
    _seconds("--film-upload-seconds", 300, "For a film's upload."),
    _seconds("--film-seconds", 3600, "For a film, from its turn on."),
    _seconds("--film-keep", 3600, "For which a film's result is kept."),
    _seconds("--drain", 30, "After SIGTERM, for requests in hand; those left are told 503.", 0),
)


@click.command(
    epilog=shared.examples(
        "genpercept serve",
        "genpercept serve --model mini/depth --model fine=MY_MODEL --port 8001",
        "curl -F image=@photo.jpg 'http://127.0.0.1:8000/v1/predict/depth?format=color' -o depth.png",
    )
)
@shared.service(8000, "its default")
@shared.batch_size(type=shared.BatchSize(), default="auto", help="Images of one size at once; auto: as memory allows.")
@_limits
@click.option(
    "--allow-origin",
    "origins",
    panel=shared.SERVER,
    multiple=True,
    metavar="URL",
    help="Pages of it may read answers by script (CORS).",
)
@click.option("--access-log", panel=shared.SERVER, is_flag=True, help="A line on stderr for each request.")
@shared.debuggable
def serve(
    models: tuple[str, ...],
    host: str,
    port: int,
    device: str,
    dtype: str,
    tf32: bool,
    batch_size: int | Literal["auto"],
    specialised: bool | None,
    origins: tuple[str, ...],
    access_log: bool,
    **rest: Any,
) -> None:
    """Answer HTTP requests: POST an image to /v1/predict/TASK. Models are loaded once and stay warm.

    Any other --host than this machine's own (127.0.0.1) needs a key in the environment, GENPERCEPT_API_KEY, which requests then
    have to send. SIGTERM and Ctrl-C answer what is in hand first. http://HOST:PORT/docs says how to ask.
    """
    from genpercept.commands.serve.run import run

    limits = limits_of(rest)
    run(
        models,
        host,
        port,
        limits,
        device=device,
        dtype=dtype,
        tf32=tf32,
        batch_size=batch_size,
        specialised=specialised,
        source={name: value for name, value in rest.items() if value},
        origins=origins,
        access_log=access_log,
    )


def limits_of(options: dict[str, Any]) -> Limits:
    """What the options, by their names, say of limits; taken out of `options`."""
    from genpercept.commands.serve.limits import Limits

    found = {}
    for field in fields(Limits):
        value = options.pop(_NAMED.get(field.name, field.name))
        found[field.name] = value * _MIB if field.name in _IN_MIB else value
    return Limits(**found)
