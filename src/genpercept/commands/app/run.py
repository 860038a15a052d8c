"""The program: the server's engine and API, the page over them, and what goes when it ends."""

from __future__ import annotations

import os
import socket
import time
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from starlette.routing import Mount

from genpercept.commands.app import files, look
from genpercept.commands.app.desk import Desk
from genpercept.commands.app.gate import Gate, Login
from genpercept.commands.app.page import Page
from genpercept.commands.app.store import Folder, Store
from genpercept.commands.serve.engine import Engine
from genpercept.commands.serve.http import make_app
from genpercept.commands.serve.run import Server, address, config, key_for, listen, specs, until_asked
from genpercept.core.devices import pick_device
from genpercept.core.said import say

_WAITING = 64  # clicks that wait for an answer, of all visitors
_TICKS = 100  # of the server, about ten seconds


def run(
    models: Sequence[str],
    host: str,
    port: int,
    *,
    device: str = "auto",
    dtype: str = "fp32",
    tf32: bool = False,
    specialised: bool | None = None,
    source: dict[str, Any] | None = None,
    browser: bool = False,
) -> int:
    """Serve the page until SIGTERM or Ctrl-C; the exit code is 0 then.

    models, source: as `genpercept.commands.serve.run` has them. browser: open the page in one. ValueError for models, devices
    and addresses that do not go, and where a host that others can reach has no key in the environment.
    """
    key, listener = key_for(host), listen(host, port)
    chosen = specs(models, source or {})
    # One image and one run at a time, as the commands of the boxes do it: to the bit the same, whoever else asks.
    engine = Engine(chosen, None, device, dtype, 1, specialised, tf32)
    plain = {"device": "auto", "dtype": "fp32", "specialised": None}
    given = {"device": device, "dtype": dtype, "specialised": specialised}
    options: dict[str, Any] = {name: value for name, value in given.items() if value != plain[name]}
    if pick_device(device).startswith("cuda"):  # where Python has another default than the commands
        options["tf32"] = tf32
    started = time.monotonic()
    say(f"genpercept: loading {', '.join(spec.name for spec in chosen)}")
    folder = Folder()
    engine.films.home = folder.path
    try:
        engine.load()
        private(folder.path)
        desk = Desk(engine, Store(), {spec.name: spec for spec in chosen}, options)
        app = with_page(make_app(engine, key=key), desk, folder.path)
        server = _Server(desk, app, listener, folder, time.monotonic() - started)
        server.browser = browser
        return until_asked(server, listener)
    finally:
        engine.close()
        folder.close()


def private(folder: Path) -> None:
    """gradio keeps its files in `folder` and asks nobody on the network anything."""
    os.environ |= {
        "GRADIO_TEMP_DIR": str(folder),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_SHARE": "False",
        "GRADIO_MCP_SERVER": "False",
        "GRADIO_SSR_MODE": "False",
    }


def with_page(app: FastAPI, desk: Desk, folder: Path) -> FastAPI:
    """The server's app with the page at its root, and the files of answers. folder: of gradio's files."""
    files.serve(app, desk.store)
    blocks = Page(desk).blocks
    blocks.queue(default_concurrency_limit=None, max_size=_WAITING, api_open=False)
    blocks.has_launched = True  # or gradio takes any file of this machine for one that the browser has sent
    gr.mount_gradio_app(
        app,
        blocks,
        "/",
        footer_links=[],
        run_history=False,
        show_error=False,  # what goes wrong is said by `guarded`; gradio's own words name paths
        max_file_size=desk.engine.limits.body,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=look.theme(),
        css=look.CSS,
        head=look.HEAD,
    )
    for route in app.routes:
        if isinstance(route, Mount):
            route.app = Gate(route.app, folder, lambda: desk.engine.draining and not desk.engine.in_hand)
    app.add_middleware(Login)
    return app


class _Server(Server):
    """The server's, which also forgets what nobody uses any more."""

    def __init__(self, desk: Desk, app: FastAPI, listener: socket.socket, folder: Folder, seconds: float) -> None:
        where = address(listener)
        super().__init__(
            config(app, desk.engine.limits), desk.engine, f"genpercept: open {where} ({seconds:.0f} s to load)"
        )
        self._store, self._folder, self._page, self.browser = desk.store, folder, where, False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.browser:
            webbrowser.open(self._page)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        self._folder.close()

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS == 0:
            self._store.expire()
        return await super().on_tick(counter)
