"""One request to a server within this process."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from genpercept.commands.serve.engine import Engine
from genpercept.commands.serve.http import make_app


def ask(engine: Engine, method: str, path: str, app: dict[str, Any] | None = None, **request: Any) -> httpx.Response:
    """app: options of make_app. request: as httpx's client has them."""

    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(make_app(engine, **app or {}))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **request)

    return asyncio.run(asked())
