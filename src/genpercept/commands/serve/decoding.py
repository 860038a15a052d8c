"""Uploads to pixels, in child processes that are replaced when they die, hang, or have done their share."""

from __future__ import annotations

import json
import os
import queue
import selectors
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from genpercept.commands.serve import inherited, scratch
from genpercept.commands.serve.limits import Broken, Ending, Limits, TooLarge
from genpercept.core import files
from genpercept.imaging.camera import Camera

_LINE = 2**16  # bytes that a child's answer may begin with
_PIPE = 2**20  # bytes of a pipe's buffer, where the system allows it
_START_SECONDS = 60.0  # in which a child must have imported what it needs
_STARTS = 5  # of children for one image, where they end before they are ready
_ENDING = "the server is ending"


class _Crashed(Exception):  # no error of anybody's, but news of a child
    """A child has ended."""


class _Hangs(Exception):
    """A child has taken too long."""


class Decoded(NamedTuple):
    """An image (H, W, 3) uint8, upright, and the camera that its EXIF tells; None where it does not."""

    image: np.ndarray
    camera: Camera | None


def _camera(told: Any, size: tuple[int, int]) -> Camera | None:
    """What a child says of the camera, as far as it is one of an image of this size."""
    try:
        found = None if told is None else Camera.of_meta(told)
    except (ValueError, TypeError):
        return None
    return found if found is not None and found.size == size else None


class Decoders:
    """`limits.decoders` children. `decode` may be called from as many threads as there are children; further ones wait."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._folder = limits, scratch.make()
        self._idle: queue.SimpleQueue[_Child | None] = queue.SimpleQueue()
        self._all: set[_Child] = set()
        self._lock = threading.Lock()
        self._closed = False
        self.replaced: dict[str, int] = {"lost": 0, "used": 0}  # why children were replaced, and how often
        for _ in range(limits.decoders):
            self._add()

    @property
    def processes(self) -> list[int]:
        """Their numbers."""
        with self._lock:
            return [child.number for child in self._all]

    def decode(self, data: bytes) -> Decoded:
        """Pixels (H, W, 3) uint8 and camera. Broken for what is no image, TooLarge for one of too many pixels.

        Where a child ends another one tries again: the first may have been brought down by the image before.
        """
        try:
            return self._decode(data)
        except _Crashed:
            pass
        try:
            return self._decode(data)
        except _Crashed:
            raise Broken("the image brings its decoder down; export it again") from None

    def _decode(self, data: bytes) -> Decoded:
        child = self._taken()
        try:
            found = child.decode(data, self._limits.decode_seconds)
        except _Hangs:
            self._replace(child, "lost")
            raise self._too_long() from None
        except _Crashed:
            code = self._replace(child, "lost")
            if self._closed:
                raise Ending(_ENDING) from None
            if code == -signal.SIGXCPU:
                raise self._too_long() from None
            raise
        except BaseException:
            self._put_back(child)
            raise
        self._put_back(child)
        return found

    def _taken(self) -> _Child:
        """An idle child; a new one, where the last could not be replaced."""
        child = self._idle.get()
        if self._closed:
            self._idle.put(child)  # for the next thread that waits
            raise Ending(_ENDING)
        for _ in range(_STARTS):
            try:
                child = child or self._new()
            except OSError:  # no process or memory to be had
                break
            if child.ready():
                return child
            self._forget(child, "lost")  # before it had this image: somebody else's fault
            child = None
        self._idle.put(None)
        raise Ending("no process could be started to decode the image: try again later", 5)

    def _too_long(self) -> Exception:
        if self._closed:
            return Ending(_ENDING)
        seconds = self._limits.decode_seconds
        return Broken(f"the image takes more than {seconds:g} seconds to decode; shrink it or export it again")

    def close(self) -> None:
        """End all children, whatever they do."""
        self._closed = True
        with self._lock:
            gone, self._all = self._all, set()
        for child in gone:  # a thread that waits for one finds that its pipes have ended
            child.kill()
        for child in gone:
            self._idle.put(child)
        scratch.remove(self._folder)

    def _put_back(self, child: _Child) -> None:
        if child.images >= self._limits.decoder_images:
            self._replace(child, "used")
        else:
            self._idle.put(child)

    def _replace(self, child: _Child, why: str) -> int | None:
        """The exit code of the child that has gone."""
        code = self._forget(child, why)
        self._add()
        return code

    def _forget(self, child: _Child, why: str) -> int | None:
        code = child.end()
        with self._lock:
            self._all.discard(child)
            self.replaced[why] += 1
        return code

    def _add(self) -> None:
        """A new child; it imports what it needs while nobody waits for it."""
        try:
            self._idle.put(self._new())
        except OSError:  # no process or memory to be had now
            self._idle.put(None)

    def _new(self) -> _Child:
        child = _Child(self._limits, files.temporary(self._folder))
        with self._lock:
            closed = self._closed
            if not closed:
                self._all.add(child)
        if closed:
            child.kill()
        return child


class _Child:
    """One process and the pipes to it."""

    def __init__(self, limits: Limits, file: Path) -> None:
        self._file = file
        words = (file, limits.pixels, limits.decode_memory, max(1, round(limits.decode_seconds)), limits.body)
        self._process = subprocess.Popen(
            inherited.command("child", *words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=inherited.bare(),
            bufsize=0,
            start_new_session=True,  # the terminal's Ctrl-C is the server's
        )
        self.images, self._until, self._pixels, self._ended, self._ready = 0, 0.0, limits.pixels, False, False
        assert self._process.stdin is not None and self._process.stdout is not None
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        for pipe in (self._in, self._out):
            os.set_blocking(pipe, False)
            _widen(pipe)

    @property
    def number(self) -> int:
        return self._process.pid

    def ready(self) -> bool:
        """Waits until it has imported what it needs. False: it has ended."""
        if not self._ready:
            self._until = time.monotonic() + _START_SECONDS
            with suppress(_Hangs, OSError):
                self._wait(self._out, selectors.EVENT_READ)
                self._ready = os.read(self._out, 1) == b"\n"
        return self._ready and self._process.poll() is None

    def decode(self, data: bytes, seconds: float) -> Decoded:
        self._until = time.monotonic() + seconds
        self.images += 1
        try:
            self._send(memoryview(len(data).to_bytes(8, "big")))
            self._send(memoryview(data))
            told, rest = self._line()
        except OSError:  # a pipe that nobody reads any more
            self._ended = True
            raise _Crashed from None
        if "error" in told:
            raise TooLarge(told["error"].partition(", or raise")[0]) if told["large"] else Broken(told["error"])
        h, w = (int(edge) for edge in told["shape"])
        if h < 1 or w < 1 or h * w > self._pixels:  # whoever has taken the child over shall not have our memory
            raise _Crashed
        image = np.empty((h, w, 3), np.uint8)
        view = memoryview(image.data).cast("B")
        view[: len(rest)] = rest
        done = len(rest)
        while done < len(view):
            self._wait(self._out, selectors.EVENT_READ)
            got = os.readv(self._out, [view[done:]])
            if not got:
                self._ended = True
                raise _Crashed
            done += got
        return Decoded(image, _camera(told.get("camera"), (h, w)))

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def end(self) -> int | None:
        """The exit code: its own, where it has ended by itself."""
        with suppress(subprocess.TimeoutExpired):  # its pipes end a little before itself
            self._process.wait(0.1 if self._ended else 0)
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self._file.unlink(missing_ok=True)
        return self._process.returncode

    def _send(self, data: memoryview) -> None:
        while data:
            self._wait(self._in, selectors.EVENT_WRITE)
            data = data[os.write(self._in, data) :]

    def _line(self) -> tuple[dict[str, Any], bytes]:
        """A line of JSON, and what has come after it."""
        found = b""
        while b"\n" not in found:
            self._wait(self._out, selectors.EVENT_READ)
            got = os.read(self._out, _LINE)
            if not got or len(found) > _LINE:
                self._ended = True
                raise _Crashed
            found += got
        line, _, rest = found.partition(b"\n")
        return json.loads(line), rest

    def _wait(self, pipe: int, event: int) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, event)
            if not selector.select(max(0.0, self._until - time.monotonic())):
                raise _Hangs


def _widen(pipe: int) -> None:
    """Fewer turns between the two processes."""
    if sys.platform == "linux":
        import fcntl

        with suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE)
