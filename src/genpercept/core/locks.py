"""One run per folder: a lock that says who holds it and since when, and that ends with its process however that ends."""

from __future__ import annotations

import errno
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from genpercept.core import files
from genpercept.core.texts import shown

NAME = ".genpercept.lock"
_WITHOUT = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # file systems that know no locks
_held: set[int] = set()  # descriptors: a fork of ours must not keep what its parent holds


@contextmanager
def hold(folder: Path, what: str) -> Iterator[None]:
    """`folder`, which is there, is this process's until the block ends; what: "predict", "train", for whoever comes second.

    Raises ValueError with a line that names the holder where another process (or this one) holds it already. The system
    lets go of the lock when the process is gone, even by an outright kill. Where a file system knows no locks there is none.
    Of several processes that work on one folder together only the first calls this.
    """
    path = folder / NAME
    descriptor = _take(path)
    if descriptor is None:
        raise ValueError(
            f"{shown(folder)}: in use by {_holder(path)}; wait until it has ended, or choose another folder"
        )
    _held.add(descriptor)
    try:
        about = {"what": what, "pid": os.getpid(), "host": platform.node(), "since": time.time()}
        with suppress(OSError):  # a full disk: the lock holds without its words
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps(about).encode())
        yield
    finally:
        _held.discard(descriptor)
        with suppress(OSError):  # before it is let go of; and not the file of another, in a folder made anew
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                path.unlink()
        os.close(descriptor)


@contextmanager
def own(folder: Path, what: str) -> Iterator[None]:
    """As `hold`, of a folder that is made where it must be; ValueError, too, where it cannot be written."""
    with ExitStack() as stack:
        try:
            files.make_folder(folder)
            stack.enter_context(hold(folder, what))
        except OSError as error:
            raise ValueError(f"{folder}: cannot be written: {error.strerror}") from None
        yield


def _take(path: Path) -> int | None:
    """The open, locked file; None where another holds it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor)
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in _WITHOUT:
                return descriptor
            os.close(descriptor)
            if isinstance(error, BlockingIOError | PermissionError):
                return None
            raise
        os.close(descriptor)  # its holder has just ended and removed it: there may be a new one


def _lock(descriptor: int) -> None:
    if os.name == "posix":
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        import msvcrt

        windows: Any = msvcrt
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # far behind the words, which others are to read
        windows.locking(descriptor, windows.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)


def _holder(path: Path) -> str:
    try:
        about = files.read_json(path)
        since = time.localtime(float(about["since"]))
        today = since[:3] == time.localtime()[:3]
        when = time.strftime("%H:%M" if today else "%Y-%m-%d %H:%M", since)
        return f"process {int(about['pid'])} on {about['host']} since {when} ({about['what']})"
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return "another process"


def _after_fork() -> None:
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
