"""Runs of `genpercept predict` in processes forked from one that has imported everything, and pictures for them."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

import genpercept.pipeline.loading  # noqa: F401  # once, before the forks
from genpercept.commands import cli
from genpercept.commands.predict import run  # noqa: F401
from genpercept.imaging import sidecars

SMALL = ("--processing-resolution", "32", "--device", "cpu")
KINDS = ("png", "jpg", "webp", "gif", "bmp", "tif", "tga", "ppm", "jp2", "avif")  # suffixes, as Pillow takes them


def start(words: Sequence[str | Path], log: Path) -> int:
    """The id of a process that is `genpercept predict WORD...`; what it says goes to `log`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads: the child uses none of them
        pid = os.fork()
    if pid:
        return pid
    code: object = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        for stream in (1, 2):
            os.dup2(said, stream)
        sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1, closefd=False) for stream in (1, 2))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = ["genpercept", "predict", *map(str, words)]
        cli.main()
    except SystemExit as stop:
        code = stop.code
    finally:
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0)


def wait(pid: int, seconds: float) -> int | None:
    """The exit code, negative for a signal; None where it has not ended by then, and is left running."""
    deadline = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.002)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def whole(words: Sequence[str | Path], log: Path, seconds: float = 600) -> int:
    """The exit code of a run that is waited for. TimeoutError where it takes longer."""
    pid = start(words, log)
    code = wait(pid, seconds)
    if code is None:
        kill(pid)
        raise TimeoutError(f"predict {' '.join(map(str, words))}: {seconds:g} s and not done")
    return code


def errors(log: Path) -> list[str]:
    """The lines that begin with our word for errors; a traceback's first line, too."""
    lines = log.read_text(errors="replace").splitlines()
    return [line for line in lines if line.startswith(("genpercept: error:", "Traceback"))]


def pictures(folder: Path, count: int, draw: random.Random, kinds: Sequence[str] = ("png",)) -> list[Path]:
    """Small pictures of several sizes, in three folders of a tree."""
    rng, found = np.random.default_rng(draw.getrandbits(32)), []
    for i in range(count):
        size = (24 + 8 * (i % 4), 32, 3)
        path = folder / f"s{i % 3}" / f"{i:05d}.{kinds[i % len(kinds)]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(rng.integers(0, 256, size, np.uint8), path.suffix[1:]))
        found.append(path)
    return found


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    names = {"jpg": "JPEG", "tif": "TIFF", "ppm": "PPM", "jp2": "JPEG2000"}
    Image.fromarray(pixels).save(buffer, names.get(kind, kind.upper()))
    return buffer.getvalue()


def damaged(data: bytes, draw: random.Random) -> bytes:
    """Cut, overwritten, with bytes put in or taken out, mostly near the beginning, where headers are."""
    found = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8, 64))):
        at = min(len(found) - 1, int(len(found) * draw.random() ** draw.choice((1, 4))))
        if at < 1:
            break
        kind = draw.randrange(5)
        if kind == 0:
            found[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            found[at : at + draw.randrange(1, 9)] = draw.randbytes(draw.randrange(1, 9))
        elif kind == 2:
            found[at : at + 4] = draw.choice((bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff"))
        elif kind == 3:
            found[at:at] = draw.randbytes(draw.randrange(1, 33))
        else:
            del found[at:]
    return bytes(found)


def files(folder: Path) -> dict[str, bytes]:
    """All that lies in a folder, by its path there."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in walk(folder)}


def walk(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def differences(wanted: Path, out: Path) -> list[str]:
    """Names of files that are in one folder alone, or not the same in every bit; those left over are among them."""
    a, b = files(wanted), files(out)
    return [name for name in sorted({*a, *b}) if a.get(name) != b.get(name)]


def claims(out: Path) -> list[str]:
    """Files that no sidecar names: nobody would know that they are ours."""
    named: set[Path] = set()
    for path in walk(out):
        if path.suffix in (".json", sidecars.CLAIM):
            about = json.loads(path.read_bytes())
            named |= {path, *(path.with_name(name) for name in about["files"].values())}
    return [str(path) for path in walk(out) if path not in named and not path.name.startswith(".")]
