"""The program: an engine, its HTTP interface, a socket, signals, and an end within its time."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NoReturn

import uvicorn
from starlette.types import ASGIApp

from genpercept.checkpoints import hub
from genpercept.commands.serve.engine import Engine, ModelSpec
from genpercept.commands.serve.http import make_app
from genpercept.commands.serve.inherited import KEY
from genpercept.commands.serve.limits import Limits
from genpercept.commands.serve.protocol import timed
from genpercept.core.interrupts import forget
from genpercept.core.said import say
from genpercept.tasks import listed

_SHORTEST_KEY = 16  # characters
_HEADERS = 2**14  # bytes of a request's headers
_CLOSING = 2  # seconds for the last bytes when all has been said


def run(
    models: Sequence[str],
    host: str,
    port: int,
    limits: Limits,
    *,
    device: str = "auto",
    dtype: str = "fp32",
    batch_size: int | Literal["auto"] = "auto",
    specialised: bool | None = None,
    tf32: bool = False,
    source: dict[str, Any] | None = None,
    origins: Sequence[str] = (),
    access_log: bool = False,
) -> NoReturn:
    """Serve until SIGTERM or Ctrl-C; the process ends with exit code 0 then.

    models: "mini/depth", "NAME=FOLDER" or "NAME=OWNER/NAME"; none: all embedded ones. source: base, family, ... of those that
    are not embedded. origins: of pages whose scripts may read answers. ValueError for models, devices and addresses that do
    not go, and where a host that others can reach has no key in the environment.
    """
    key, listener = key_for(host), listen(host, port)
    engine = Engine(specs(models, source or {}), limits, device, dtype, batch_size, specialised, tf32)
    app = make_app(engine, key=key, origins=tuple(origins), log=say if access_log else None)
    where = address(listener)
    greeting = f"genpercept: listening on {where}; how to ask: {where}/docs"
    return until_asked(Server(config(app, limits), engine, greeting), listener)


def config(app: ASGIApp, limits: Limits) -> uvicorn.Config:
    """How uvicorn serves an app within `limits`."""
    return uvicorn.Config(
        app,
        http=timed(limits),
        ws="none",
        loop="asyncio",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=_HEADERS,
        timeout_graceful_shutdown=_CLOSING,
        backlog=limits.connections,
    )


def until_asked(server: Server, listener: socket.socket) -> NoReturn:
    """Serve until SIGTERM or Ctrl-C; the exit code is 0 then."""
    forget()  # a second signal is the server's, which cleans up
    try:
        asyncio.run(server.serve([listener]))
    finally:
        server.engine.close()
    if server.failure is not None:
        raise server.failure
    sys.stderr.flush()
    os._exit(0)  # not by the interpreter's own end, which takes torch apart for seconds and waits for networks


def specs(models: Sequence[str], source: dict[str, Any]) -> list[ModelSpec]:
    """The models by what was typed; none: the embedded ones, in the order of pages."""
    embedded = hub.embedded_names()
    if not models:
        return [ModelSpec(name, name) for task in listed() if (name := f"{hub.EMBEDDED}/{task}") in embedded]
    found = []
    for given in models:
        name, separator, model = given.partition("=")
        if not separator:
            name, model = Path(given).name if Path(given).is_dir() else given, given
        if not name or not model or not name.isprintable():
            raise ValueError(f"--model {given}: write NAME=FOLDER, NAME=OWNER/NAME or an embedded name")
        found.append(ModelSpec(name, model, {} if model in embedded else source))
    return found


class Server(uvicorn.Server):
    """uvicorn's, which loads the models while it listens, and at SIGTERM or Ctrl-C answers first what is in hand.

    greeting: said when it listens. An engine that is loaded already stays as it is.
    """

    def __init__(self, config: uvicorn.Config, engine: Engine, greeting: str) -> None:
        super().__init__(config)
        self.engine = engine
        self.failure: Exception | None = None
        self._greeting, self._asked = greeting, 0
        self._jobs: list[asyncio.Task[None]] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        say(self._greeting)
        self._jobs.append(asyncio.create_task(self._load()))

    async def on_tick(self, counter: int) -> bool:
        if self._asked and len(self._jobs) == 1:
            self._jobs.append(asyncio.create_task(self._drain()))
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._asked:  # whoever asks twice does not want to wait
            self.engine.close()
            os._exit(128 + sig)
        self._asked = sig

    async def _load(self) -> None:
        started = time.monotonic()
        try:
            if not self.engine.ready:
                await asyncio.to_thread(self.engine.load)
        except Exception as error:  # noqa: BLE001  told when the server has ended, by the rules of all commands
            self.failure, self.should_exit = error, True
        else:
            names = ", ".join(self.engine.models)
            say(f"genpercept: ready after {time.monotonic() - started:.1f} s: {names}")

    async def _drain(self) -> None:
        drain = self.engine.limits.drain
        name = signal.Signals(self._asked).name
        say(f"genpercept: {name}: {self.engine.in_hand} requests in hand have {drain:g} s; again: ends at once")
        await asyncio.to_thread(self.engine.close, drain)
        self.should_exit = True


def key_for(host: str) -> str | None:
    """The key that requests need; None: none is set, and nobody but this machine can reach the host.

    ValueError for a short key, and for a host that others can reach without one.
    """
    key = os.environ.get(KEY) or None
    if key is not None and len(key) < _SHORTEST_KEY:
        raise ValueError(
            f"{KEY}: {len(key)} characters: take at least {_SHORTEST_KEY}, such as `openssl rand -hex 16` gives"
        )
    if key is None and not _loopback(host):
        raise ValueError(f"--host {host}: others can reach it: set {KEY} in the environment, which requests then need")
    return key


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """A socket that waits for connections; port 0: any that is free. ValueError where that cannot be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ValueError(f"--host {host} --port {port}: cannot listen there ({reason}); choose another port") from None


def address(listener: socket.socket) -> str:
    """Where it listens, as browsers write it."""
    name, port = listener.getsockname()[:2]
    return f"http://{f'[{name}]' if ':' in name else name}:{port}"
