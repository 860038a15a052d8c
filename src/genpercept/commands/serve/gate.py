"""What every request passes: the key, a count, and an orderly end of refusals whose upload is still on its way."""

from __future__ import annotations

import asyncio
import hmac
import json
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from genpercept.commands.serve.limits import MIB

STATIC = "/static-docs"  # scripts and styles of /docs, which so need no other host
_OPEN = (
    *("/healthz", "/readyz", "/docs", "/openapi.json"),
    *(f"{STATIC}/{name}" for name in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png")),
)  # without a key
_LINGER_SECONDS, _LINGER_BYTES = 2.0, 64 * MIB  # of an upload that is not wanted any more


class Gate:
    """ASGI around an app. key: that requests must have, None: anybody may ask. on_end(scope, status, seconds) after each.

    ending(): whether the server ends, so that no connection should wait for another request.
    """

    def __init__(
        self, app: ASGIApp, key: str | None, on_end: Callable[[Scope, int, float], None], ending: Callable[[], bool]
    ) -> None:
        self._app, self._on_end, self._ending = app, on_end, ending
        self._key = None if key is None else key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange, started = _Exchange(scope, receive, send, self._ending), time.monotonic()
        try:
            if self._key is not None and scope["path"] not in _OPEN and not self._knows(scope):
                line = "an API key is needed: Authorization: Bearer KEY"
                await exchange.refuse(401, line, (b"www-authenticate", b"Bearer"))
            else:
                await self._app(scope, exchange.receive, exchange.send)
        except Exception as error:  # one request's fault is its own
            traceback.print_exception(error, file=sys.stderr)
            if exchange.status == 0:
                await exchange.refuse(500, "an error of the server; its log says more")
            else:
                raise
        finally:
            self._on_end(scope, exchange.status, time.monotonic() - started)

    def _knows(self, scope: Scope) -> bool:
        """Whether the request has the key; takes as long for a wrong one as for the right one."""
        assert self._key is not None
        headers = dict(scope["headers"])
        given = headers.get(b"authorization", b"")
        given = given[7:] if given[:7].lower() == b"bearer " else headers.get(b"x-api-key", b"")
        return hmac.compare_digest(given.strip(), self._key)


class _Exchange:
    """A request and its answer. An answer that comes before its request is there in full must reach a client that still
    sends: the rest of the upload is read and forgotten, for a moment, before the connection is closed."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, ending: Callable[[], bool]) -> None:
        self._receive, self._send, self.status, self._ending = receive, send, 0, ending
        headers = dict(scope["headers"])
        has_body = headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
        self._asks_first = headers.get(b"expect", b"").lower() == b"100-continue"
        self._arrived, self._read = not has_body, False

    async def receive(self) -> Message:
        message = await self._receive()
        self._read = True
        self._arrived = self._arrived or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if not self._arrived or self._ending():
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        elif not self._arrived and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def refuse(self, status: int, line: str, *headers: tuple[bytes, bytes]) -> None:
        body = json.dumps({"error": line}).encode()
        kept = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
        await self.send({"type": "http.response.start", "status": status, "headers": kept})
        await self.send({"type": "http.response.body", "body": body})

    async def _linger(self) -> None:
        if self._asks_first and not self._read:  # it has not begun, and now it will not
            return
        left = _LINGER_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                while left > 0 and not self._arrived:
                    left -= len((await self.receive()).get("body", b""))
