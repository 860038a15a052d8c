"""The processes of a film, as the server sees them: one that looks at it (`film_look`), one that predicts it (`film_child`)."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from genpercept.commands.serve import inherited
from genpercept.commands.serve.limits import Broken, Ending, Limits
from genpercept.commands.shared_options import MAX_PIXELS_VARIABLE
from genpercept.core import said

_START_SECONDS = 120.0  # in which a process must have imported what it needs


def looked(film: Path, limits: Limits) -> dict[str, Any]:
    """What `film_look` says. Broken where the film is too much for it, Ending where it does not even begin."""
    words = inherited.command("film_look", film, limits.decode_memory, max(1, round(limits.decode_seconds)))
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=inherited.bare() | {MAX_PIXELS_VARIABLE: str(limits.film_pixels)},
        start_new_session=True,
    )
    with _ended(process):
        if _line(process, _START_SECONDS) is None:
            raise Ending("no process could be started to look at the film: try again later", 5)
        line = _line(process, limits.decode_seconds)
    if line is None:
        raise Broken("the film brings its decoder down, or takes it too long; export it again")
    return json.loads(line)


def started(order: Mapping[str, Any], limits: Limits) -> subprocess.Popen[bytes]:
    """One that does what an order says, and ends with the thread that calls this. OSError where none can be had now."""
    environment = inherited.but_the_key() | {said.VARIABLE: said.QUIET, MAX_PIXELS_VARIABLE: str(limits.film_pixels)}
    process = subprocess.Popen(
        inherited.command("film_child"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # the terminal's Ctrl-C is the server's
    )
    assert process.stdin is not None
    with suppress(OSError), process.stdin:  # it may have ended already, as its code will say
        process.stdin.write(json.dumps({**order, "server": os.getpid()}).encode())
    return process


def told(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """What one that has ended has said; an error by how it has ended, where it has said nothing."""
    assert process.stdout is not None
    with process.stdout:
        words, code = process.stdout.read(), process.returncode
    try:
        found = json.loads(words)
        return {"error": str(found["error"]), "damage": str(found["damage"]), "frames": int(found["frames"])}
    except (ValueError, KeyError, TypeError):
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
        print(f"genpercept: error: the process of a film ended {how}", file=sys.stderr, flush=True)
        return {"error": f"the process of the film ended {how}, as when memory is short; the server's log says more"}


def kill(process: subprocess.Popen[bytes]) -> None:
    """The process and what it may have started, at once; it has ended when this returns."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """It is, when the block is."""
    try:
        yield
    finally:
        kill(process)
        if process.stdout is not None:
            process.stdout.close()


def _line(process: subprocess.Popen[bytes], seconds: float) -> bytes | None:
    """What it says next on stdout; None where it ends or the time does before."""
    assert process.stdout is not None
    until, found = time.monotonic() + seconds, b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not found.endswith(b"\n"):
            if not selector.select(max(0.0, until - time.monotonic())):
                return None
            piece = os.read(process.stdout.fileno(), 1)  # no byte of the next line
            if not piece:
                return None
            found += piece
    return found
