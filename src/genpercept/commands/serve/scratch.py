"""A folder for what libraries want as a file: in memory where the system has that, readable by nobody else, gone at the end."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from genpercept.core import files

_ROOM = 2**28  # bytes below which a disk is better: a container's usual 64 MB hold no large answer


def make(*, memory: bool = True) -> Path:
    """A new one. Those of servers that were killed are removed. memory: in memory, where the system has that."""
    shared = Path("/dev/shm")
    roomy = memory and shared.is_dir() and shutil.disk_usage(shared).free >= _ROOM
    parent = shared if roomy else Path(tempfile.gettempdir())
    files.sweep(parent)
    folder = files.temporary(parent)
    folder.mkdir(mode=0o700)
    return folder


def remove(folder: Path) -> None:
    files.discard(folder)
