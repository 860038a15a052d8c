"""Files and folders, each whole or absent; JSON as everybody reads it.

What is written gets a temporary name beside its target, is synced, and is renamed onto it: an interrupt, a full disk or a power
cut leaves the old file or the new one. What a killed process left is told by its name, and removed by `sweep`.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

_TEMP = re.compile(r"\.genpercept-(?P<host>.+)-(?P<pid>\d+)-\d+\.tmp")
_HOST = re.sub(r"[^A-Za-z0-9.]", "_", platform.node()) or "host"
_serial = count()
_serial_lock = threading.Lock()

# ---- atomically


def temporary(folder: Path) -> Path:
    """A name in `folder` that nobody has, and from which `sweep` sees whose it was."""
    with _serial_lock:
        return folder / f".genpercept-{_HOST}-{os.getpid()}-{next(_serial)}.tmp"


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


@contextmanager
def atomic_folder(target: Path, *, replace: bool = True) -> Iterator[Path]:
    """A temporary folder beside `target`; it takes the target's place when the block ends well, else nothing of it is left.

    An existing target stays whole until the new one is complete. replace=False: a target that is there by then, because
    another process made the same meanwhile, stays, and this one's work is dropped.
    """
    with _scratch(target.parent) as work:
        yield work
        for path in work.rglob("*"):
            if path.is_file():
                _sync(path)
        if not replace:
            _place_unless_there(work, target)
        elif target.exists():
            _exchange(work, target)
        else:
            work.replace(target)


@contextmanager
def atomic_files(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` for files that belong together; when the block ends well they are moved beside it.

    Each is whole or absent, and `path` itself comes last, because it is the one that names the others.
    """
    with _scratch(path.parent) as work:
        yield work
        for file in sorted(work.iterdir(), key=lambda file: file.name == path.name):
            _sync(file)
            file.replace(path.with_name(file.name))


@contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    """A new folder under a temporary name in `parent`, which is made where it must be; gone at the end, however that is."""
    parent.mkdir(parents=True, exist_ok=True)
    work = temporary(parent)
    work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _place_unless_there(work: Path, target: Path) -> None:
    try:
        work.rename(target)
    except OSError:
        if not target.is_dir():
            raise


def _exchange(work: Path, target: Path) -> None:
    """The old folder is put aside, and put back where the new one cannot take its place."""
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    target.replace(aside / "x")
    try:
        work.replace(target)
    except BaseException:
        (aside / "x").replace(target)
        aside.rmdir()
        raise
    shutil.rmtree(aside)


def _sync(path: Path) -> None:
    """To the disk itself: a rename may otherwise survive a power cut that the content does not."""
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
    """Strict JSON: NumPy scalars and arrays as numbers, paths as text, NaN and infinities as null."""
    return json.dumps(plain(value), indent=indent, ensure_ascii=False, allow_nan=False)


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
    """Remove temporary files and folders that a killed run left in `folder`; how many. Those of living processes stay."""
    removed = 0
    for path in folder.glob(".genpercept-*.tmp"):
        match = _TEMP.fullmatch(path.name)
        if match is None:
            continue
        with suppress(OSError):
            old = time.time() - path.stat().st_mtime > 24 * 3600  # its writer may be on another machine: let a day pass
            if old or (match["host"] == _HOST and _dead(int(match["pid"]))):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                removed += 1
    return removed


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
