"""uvicorn's HTTP/1.1 with the time limits that it has not: for headers, and for clients that do not read their answers.

The limit of an upload's body is in `upload`, which can answer it like any other refusal.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from genpercept.commands.serve.limits import Limits

_PIECES = 2  # of an answer that a client must take in `stall_seconds`; a piece is what `http` hands over at once


def timed(limits: Limits) -> type[H11Protocol]:
    """The protocol of one server: uvicorn wants a class and makes the connections itself."""

    class Timed(_Timed):
        _limits = limits

    return Timed


class _Timed(H11Protocol):
    _limits: Limits

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._headers: asyncio.TimerHandle | None = None  # until when the next request's headers must be there
        self._stall: asyncio.TimerHandle | None = None  # until when so much of an answer must be read
        self._read = 0  # pieces that the client has read since the last look

    # ---- headers

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            self._refuse(503, "too many connections: try again later")
        else:
            self._await_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._await_headers()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._await_headers()
        self._watch_reading()

    def _await_headers(self) -> None:
        """The clock starts with the connection, and later with a request's first byte; it ends when all headers are there."""
        idle = self.cycle is None or self.cycle.response_complete
        begun = self.cycle is None or bool(self.conn.trailing_data[0])
        if not idle or self.transport.is_closing() or not begun or self.conn.their_state is not h11.IDLE:
            self._stop_headers()
        elif self._headers is None:
            self._headers = self.loop.call_later(self._limits.header_seconds, self._too_slow)

    def _stop_headers(self) -> None:
        if self._headers is not None:
            self._headers.cancel()
            self._headers = None

    def _too_slow(self) -> None:
        self._headers = None
        if not self.transport.is_closing():
            self._refuse(408, f"the headers were not there after {self._limits.header_seconds:g} seconds")

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "no valid HTTP request")

    def _refuse(self, status: int, line: str) -> None:
        """Before there is a request that the app could answer."""
        self._unset_keepalive_if_required()
        body = json.dumps({"error": line})
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        self.transport.write((head + body).encode())
        self.transport.close()
        self._watch_reading()

    # ---- answers

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._read += 1

    def _watch_reading(self) -> None:
        if self._stall is None and self.transport.get_write_buffer_size():
            self._read = 0
            self._stall = self.loop.call_later(self._limits.stall_seconds, self._look)

    def _look(self) -> None:
        self._stall = None
        if self.transport.get_write_buffer_size() and self._read < _PIECES:
            self._give_up()
        else:
            self._watch_reading()

    def _give_up(self) -> None:
        """Without the system's patience, which would keep megabytes for a client that does not read."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_headers()
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        super().connection_lost(exc)
