"""Files and folders, each whole or absent; JSON as everybody reads it.

What is written gets a temporary name beside its target, is synced, and is renamed onto it; then the folder is synced, too: an
interrupt, a full disk or a power cut leaves the old file or the new one, and what was said to be written stays. What a killed
process left is told by its name, and removed, or put back, by `sweep`.
"""

from __future__ import annotations

import ctypes
import errno
import json
import math
import os
import platform
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

_OURS = re.compile(r"\.genpercept-(?P<host>.+)-(?P<pid>\d+)-\d+\.(?P<what>tmp|old)")
_HOST = re.sub(r"[^A-Za-z0-9.]", "_", platform.node()) or "host"
_BEGAN = time.time()
_NO_UTF8 = re.compile("[\ud800-\udfff]")  # how Python holds such bytes in a name
_serial = count()
_serial_lock = threading.Lock()
_together = threading.local()  # .folders: those whose sync waits for the end of `synced_once`

# ---- atomically


def temporary(folder: Path, what: str = "tmp") -> Path:
    """A name in `folder` that nobody has, and from which `sweep` sees whose it was. what: old, for what may be put back."""
    with _serial_lock:
        return folder / f".genpercept-{_HOST}-{os.getpid()}-{next(_serial)}.{what}"


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; renamed onto it when the block ends well, removed when it does not."""
    temp = temporary(path.parent)
    try:
        yield temp
        _sync(temp)
        temp.replace(path)
    except BaseException:  # an interrupt, too, must not leave the half-written file behind
        with suppress(OSError):
            temp.unlink()
        raise
    sync_folder(path.parent)


@contextmanager
def atomic_folder(target: Path, *, replace: bool = True) -> Iterator[Path]:
    """A temporary folder beside `target`; it takes the target's place when the block ends well, else nothing of it is left.

    An existing target stays whole until the new one is complete, and on Linux there is no moment without one. replace=False: a
    target that is there by then, because another process made the same meanwhile, stays, and this one's work is dropped.
    NotADirectoryError, besides what writing raises, where the target is a file.
    """
    with _scratch(target.parent) as work:
        yield work
        for path in work.rglob("*"):
            if path.is_file():
                _sync(path)
            elif path.is_dir():
                sync_folder(path)
        sync_folder(work)
        if target.exists() and not target.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(target))
        if not replace:
            _place_unless_there(work, target)
        elif not target.exists():
            work.replace(target)
        elif not _swap(work, target):
            _exchange(work, target)
        sync_folder(target.parent)  # before what was there is removed


@contextmanager
def atomic_files(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` for files that belong together; when the block ends well they are moved beside it.

    Each is whole or absent, and `path` itself comes last, because it is the one that names the others. An older `path` goes
    before they come: it must not name those of another.
    """
    with _scratch(path.parent) as work:
        yield work
        found = sorted(work.iterdir(), key=lambda file: file.name == path.name)
        for file in found:
            _sync(file)
        if len(found) > 1:
            path.unlink(missing_ok=True)
            sync_folder(path.parent)
        for file in found:
            if file.name == path.name:
                sync_folder(path.parent)  # the others' names first
            file.replace(path.with_name(file.name))
        sync_folder(path.parent)


@contextmanager
def synced_once() -> Iterator[None]:
    """Folders in which this thread renames files meanwhile are synced at the end, once each: for files that belong together.

    Their order on the disk is open until then: the one that is read first should tell whether the others are as it knows them.
    """
    outer = getattr(_together, "folders", None)
    folders: dict[Path, None] = {}
    _together.folders = folders
    try:
        yield
    finally:
        _together.folders = outer
        for folder in folders:
            with suppress(FileNotFoundError):
                sync_folder(folder)


@contextmanager
def unsynced() -> Iterator[None]:
    """What this thread writes meanwhile need not survive a power cut: scratch, which is read back at once."""
    outer = getattr(_together, "scratch", False)
    _together.scratch = True
    try:
        yield
    finally:
        _together.scratch = outer


def make_folder(folder: Path) -> None:
    """`folder` and its parents, where they are not there; the new names are on the disk. OSError as mkdir has it."""
    new = []
    at = folder
    while not at.exists() and at != at.parent:
        new.append(at)
        at = at.parent
    folder.mkdir(parents=True, exist_ok=True)
    for made in reversed(new):
        sync_folder(made.parent)


def probe(folder: Path) -> None:
    """OSError where no file of 64 KB can be written in `folder`."""
    path = temporary(folder)
    try:
        path.write_bytes(bytes(1 << 16))
    finally:
        path.unlink(missing_ok=True)


def discard(folder: Path) -> None:
    """Remove a folder, out of sight first: a kill in the middle must not leave half of it under its name."""
    hidden = temporary(folder.parent)
    with suppress(FileNotFoundError):
        folder.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


@contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    """A new folder under a temporary name in `parent`, which is made where it must be; gone at the end, however that is."""
    make_folder(parent)
    work = temporary(parent)
    work.mkdir()
    try:
        yield work
    finally:
        with suppress(OSError):
            work.unlink() if work.is_symlink() else shutil.rmtree(work)  # a link, that was in the target's place


def _place_unless_there(work: Path, target: Path) -> None:
    try:
        work.rename(target)
    except OSError:
        if not target.is_dir():
            raise


def _swap(work: Path, target: Path) -> bool:
    """Each gets the other's name in one step; False where the system or the file system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):  # an old or another C library
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if call(here, os.fsencode(work), here, os.fsencode(target), exchange) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(target))


def _exchange(work: Path, target: Path) -> None:
    """The old folder is put aside, and back where the new one cannot take its place; by `sweep`, where this is killed."""
    aside = temporary(target.parent, "old")
    aside.mkdir()
    target.replace(aside / target.name)
    try:
        work.replace(target)
    except BaseException:
        (aside / target.name).replace(target)
        aside.rmdir()
        raise
    sync_folder(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _sync(path: Path) -> None:
    """To the disk itself: a rename may otherwise survive a power cut that the content does not."""
    if getattr(_together, "scratch", False):
        return
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """The names in it to the disk; later inside `synced_once`. Nothing where a system or file system has no such thing."""
    if os.name != "posix":
        return
    waiting = getattr(_together, "folders", None)
    if waiting is not None:
        waiting[folder] = None
        return
    try:
        _sync(folder)
    except OSError as error:  # some network file systems; a folder that may be written and not read
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM):
            raise


def write_bytes(path: Path, data: bytes) -> None:
    """`data` to `path`, atomically."""
    with atomic(path) as temp:
        temp.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """`text` to `path` in UTF-8, atomically."""
    write_bytes(path, text.encode())


def write_array(path: Path, array: np.ndarray) -> None:
    """`array` to `path` as .npy, atomically."""
    with atomic(path) as temp, temp.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """`arrays` by name to `path` as .npz, not compressed, atomically."""
    with atomic(path) as temp, temp.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Readable JSON to `path`, atomically; NumPy scalars as numbers, paths as text, NaN as null."""
    write_text(path, to_json(value, indent=2) + "\n")


def read_json(path: Path, *, errors: str = "strict") -> Any:
    """What a JSON file in UTF-8 holds. OSError, or ValueError for what is no JSON; errors: as `open` has it."""
    return json.loads(path.read_text(encoding="utf-8", errors=errors))


def to_json(value: Any, indent: int | None = None) -> str:
    """Strict JSON: NumPy scalars and arrays as numbers, paths as text, NaN and infinities as null.

    A byte of a file's name that is no UTF-8 is escaped, so that it comes back as it was.
    """
    text = json.dumps(plain(value), indent=indent, ensure_ascii=False, allow_nan=False)
    return _NO_UTF8.sub(lambda byte: f"\\u{ord(byte[0]):04x}", text)


def plain(value: Any) -> Any:
    """A value as JSON can hold it, by the rules of `to_json`."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def blocks(path: Path) -> Iterator[bytes]:
    """The file's content piece by piece, for hashes of files that are larger than memory."""
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            yield block


# ---- what the dead left


def sweep(folder: Path) -> int:
    """Remove what a killed run left half-written in `folder`; how much. What belongs to a living process stays.

    A folder that was put aside for another, which did not come, is put back under its name.
    """
    removed = 0
    for path in folder.glob(".genpercept-*"):
        match = _OURS.fullmatch(path.name)
        with suppress(OSError):
            if match is None or not _left(path, match["host"], int(match["pid"])):
                continue
            if match["what"] == "old":
                for kept in path.iterdir():
                    _put_back(kept, folder / kept.name)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            removed += 1
    return removed


def _put_back(kept: Path, target: Path) -> None:
    if not target.exists():
        kept.rename(target)
        sync_folder(target.parent)


def _left(path: Path, host: str, pid: int) -> bool:
    """Whether its writer is gone. On another machine that is not known: a day has to pass."""
    changed = path.stat().st_mtime
    if time.time() - changed > 24 * 3600:
        return True
    if host != _HOST:
        return False
    return _dead(pid) or (
        pid == os.getpid() and changed < _BEGAN - 10
    )  # in containers the next one has the same number


def _dead(pid: int) -> bool:
    if os.name != "posix":  # there, signal 0 is no question but an interrupt
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
