"""What of gradio's server the page needs, and nothing else: no fetching of addresses, no proxy, nothing from elsewhere.

And how a browser, which cannot send the server's key by itself, is asked for it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PAGES = ("", "config", "theme.css", "favicon.ico", "manifest.json", "robots.txt", "login", "logout")
_FOLDERS = ("assets/", "static/")
_CALLS = ("upload", "upload_progress", "queue/join", "queue/data", "cancel", "reset", "startup-events", "app_id")
_CALLS += ("info", "login_check", "user", "token", "theme.css")
_BODY = 2**20  # bytes of what a page sends beside uploads: names, numbers and paths
_JOIN = "queue/join"
_STREAMS = ("queue/data", "heartbeat/")
_LOOK_SECONDS = 0.5  # between two looks at whether the server ends

# Whatever a script of gradio's may name: the browser asks this server alone.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; form-action 'self'; frame-ancestors 'self'; base-uri 'self'; object-src 'none'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Gate:
    """ASGI, around the mounted page. folder: of its uploads. ending(): whether the server ends, and nothing is in hand."""

    def __init__(self, app: ASGIApp, folder: Path, ending: Callable[[], bool]) -> None:
        self.app, self._folder, self._ending = app, folder.resolve(), ending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = _path(scope)
        if not allowed(path):
            await PlainTextResponse("not found\n", 404)(scope, receive, send)
            return
        if path.removeprefix("gradio_api/") == _JOIN:
            body = await _body(receive)
            if body is None or names_else(body, self._folder):
                await PlainTextResponse("a question to the page names files of its own upload, nothing else\n", 400)(
                    scope, receive, send
                )
                return
            receive = _again(body, receive)

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *extra]
            await send(message)

        if path.removeprefix("gradio_api/").startswith(_STREAMS):
            await self._stream(scope, receive, told)
        else:
            await self.app(scope, receive, told)

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What an open page listens to, which has no end of its own: the server's end would wait for it."""
        ended = False

        async def noted(message: Message) -> None:
            nonlocal ended
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        work = asyncio.ensure_future(self.app(scope, receive, noted))
        try:
            while not work.done() and not self._ending():
                await asyncio.wait({work}, timeout=_LOOK_SECONDS)
        finally:
            over = work.done()
            work.cancel()
        if over:
            await work
            return
        await asyncio.wait({work})
        if not ended:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _path(scope: Scope) -> str:
    """Below where the page is mounted."""
    path, root = scope["path"], scope.get("root_path", "")
    return (path.removeprefix(root) if root else path).strip("/")


def allowed(path: str) -> bool:
    """Whether the page asks for such a path, without the slash at its begin."""
    if path in _PAGES or path.startswith(_FOLDERS):
        return True
    call = path.removeprefix("gradio_api/")
    if call == path:
        return False
    if call.startswith("file="):
        return not _is_address(call.removeprefix("file="))
    return call in _CALLS or call.startswith("heartbeat/")


async def _body(receive: Receive) -> bytes | None:
    """All of it; None where it is too long or the client is gone."""
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        size, more = size + len(parts[-1]), message.get("more_body", False)
        if size > _BODY:
            return None
    return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read, then what comes after it."""
    given = False

    async def once() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return once


def names_else(body: bytes, folder: Path) -> bool:
    """Whether a file in it is none of `folder`, such as an address that gradio would fetch, or it is no JSON."""
    try:
        found = json.loads(body)
        return not all(Path(path).resolve().is_relative_to(folder) for path in _paths(found))
    except (ValueError, RecursionError, OSError):
        return True


def _is_address(path: str) -> bool:
    return "://" in path or path.lower().startswith(("http:", "https:"))


def _paths(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += one.values()
            if isinstance(one.get("path"), str):
                yield one["path"]
        elif isinstance(one, list):
            waiting += one


class Login:
    """ASGI, around the whole app: a browser asks for a password, which is the server's key, whatever the user name.

    It sends both by HTTP Basic; the server below wants `Bearer KEY`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = [(name, _bearer(value) if name == b"authorization" else value) for name, value in scope["headers"]]

        async def asking(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 401:
                kept = [pair for pair in message["headers"] if pair[0].lower() != b"www-authenticate"]
                message = {**message, "headers": [*kept, (b"www-authenticate", b'Basic realm="GenPercept"')]}
            await send(message)

        await self.app({**scope, "headers": headers}, receive, asking)


def _bearer(value: bytes) -> bytes:
    """The password of HTTP Basic as a bearer's; anything else as it is."""
    scheme, _, rest = value.partition(b" ")
    if scheme.lower() != b"basic":
        return value
    try:
        return b"Bearer " + base64.b64decode(rest, validate=True).partition(b":")[2]
    except binascii.Error:
        return value
