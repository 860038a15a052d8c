"""A real `genpercept serve`, a client that costs little beside it, and photographs to ask about."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image

_TICKS = os.sysconf("SC_CLK_TCK")
_LISTENING = re.compile(r"listening on http://([\d.]+):(\d+);")


@dataclass
class Reply:
    """status 0: the connection ended before there was an answer. whole: all of its body has come."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    seconds: float = 0.0
    whole: bool = True


class Server:
    """`python -m genpercept serve WORD...` on a free port of this machine, ready when the block begins, ended after it."""

    def __init__(self, *words: object, environment: Mapping[str, str] | None = None, ready: float = 120) -> None:
        self._words, self._environment, self._ready = [*map(str, words)], dict(environment or {}), ready

    def __enter__(self) -> Server:
        self._log = tempfile.TemporaryFile()
        command = [sys.executable, "-m", "genpercept", "serve", "--port", "0", *self._words]
        self.process = subprocess.Popen(command, stderr=self._log, env=os.environ | self._environment)
        try:
            self.host, self.port = self._address()
            asyncio.run(self._until_ready())
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(40)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._log.close()

    def said(self) -> str:
        """On stderr."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def children(self) -> list[int]:
        return descendants(self.process.pid)

    def memory(self) -> int:
        """Bytes of the process and its children, what they share counted once for each."""
        return sum(resident(pid) for pid in (self.process.pid, *self.children()))

    def processor(self) -> float:
        """Seconds that the process and its living children have had."""
        return sum(_processor(pid) for pid in (self.process.pid, *self.children()))

    def ask(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Reply:
        return asyncio.run(ask(self.host, self.port, method, path, body, headers))

    def _address(self) -> tuple[str, int]:
        until = time.monotonic() + self._ready
        while time.monotonic() < until and self.alive:
            if found := _LISTENING.search(self.said()):
                return found[1], int(found[2])
            time.sleep(0.05)
        raise RuntimeError(f"the server does not listen: {self.said()}")

    async def _until_ready(self) -> None:
        until = time.monotonic() + self._ready
        while time.monotonic() < until and self.alive:
            if (await ask(self.host, self.port, "GET", "/readyz")).status == 200:
                return
            await asyncio.sleep(0.1)
        raise RuntimeError(f"the server is not ready: {self.said()}")


def request(method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """A request's bytes, its size declared unless `headers` say otherwise."""
    given = {"Host": "localhost", "Connection": "close", "Content-Length": str(len(body)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value)
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


async def ask(
    host: str, port: int, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> Reply:
    """One request on a connection of its own."""
    started = time.monotonic()
    try:
        reader, writer = await asyncio.open_connection(host, port, limit=2**20)
    except OSError:
        return Reply(0, {"error": "refused"}, seconds=time.monotonic() - started)
    try:
        writer.write(request(method, path, body, headers))
        with suppress(OSError):
            await writer.drain()
        reply = await answer(reader)
    finally:
        writer.close()
    reply.seconds = time.monotonic() - started
    return reply


async def answer(reader: asyncio.StreamReader) -> Reply:
    """What comes back on a connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, OSError) as error:
        return Reply(0, {"error": type(error).__name__})
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    status, size = int(first.split()[1]), int(headers.get("content-length", "0"))
    try:
        return Reply(status, headers, await reader.readexactly(size))
    except asyncio.IncompleteReadError as error:
        return Reply(status, headers, error.partial, whole=False)
    except OSError:
        return Reply(status, headers, whole=False)


# ---- processes -------------------------------------------------------------------------------------------------------


def descendants(pid: int) -> list[int]:
    """Numbers of a process's living children, and of theirs."""
    found: list[int] = []
    with suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += [int(child), *descendants(int(child))]
        for task in Path(f"/proc/{pid}/task").iterdir():  # a child belongs to the thread that has started it
            if task.name != str(pid):
                for child in (task / "children").read_text().split():
                    found += [int(child), *descendants(int(child))]
    return found


def resident(pid: int) -> int:
    """Bytes; 0 where the process has gone."""
    with suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _processor(pid: int) -> float:
    with suppress(OSError, IndexError):
        parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(parts[11]) + int(parts[12])) / _TICKS
    return 0.0


def scratch() -> list[str]:
    """What servers may have left in the places for temporary files."""
    places = [Path("/dev/shm"), Path(tempfile.gettempdir())]
    return [str(path) for place in places if place.is_dir() for path in place.glob(".genpercept-*")]


# ---- images ----------------------------------------------------------------------------------------------------------


def photographs(folder: Path, sizes: Sequence[float] = (1.0, 0.6)) -> dict[str, bytes]:
    """The free photographs of the demo as JPEGs of several sizes, written to `folder`; by the names of their files."""
    from genpercept.commands.demo.photographs import photographs as cases

    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for case in cases():
        for i, size in enumerate(sizes):
            image = Image.fromarray(case.image)
            image = image.resize((round(image.width * size), round(image.height * size)))
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=90)
            path = folder / f"{case.name}_{i}.jpg"
            path.write_bytes(buffer.getvalue())
            found[path.name] = buffer.getvalue()
    return found


def enlarged(image: bytes, size: tuple[int, int]) -> bytes:
    """The image at another (width, height), as a JPEG."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(image)) as opened:
        opened.resize(size).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def steps_apart(a: bytes, b: bytes) -> int:
    """The largest difference of two 16-bit PNGs in steps; 65536 for pictures of different sizes, or none."""
    try:
        with Image.open(io.BytesIO(a)) as one, Image.open(io.BytesIO(b)) as other:
            x, y = np.asarray(one, np.int64), np.asarray(other, np.int64)
    except OSError:
        return 65536
    return int(np.abs(x - y).max()) if x.shape == y.shape else 65536
