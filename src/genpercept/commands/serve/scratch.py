"""A folder for what libraries want as a file: in memory where the system has that, readable by nobody else, gone at the end."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from genpercept.core import files

_ROOM = 2**28  # bytes below which a disk is better: a container's usual 64 MB hold no large answer


def make(parent: Path | None = None) -> Path:
    """A new one in `parent`; None: in memory, where the system has that. Those of servers that were killed are removed."""
    if parent is None:
        memory = Path("/dev/shm")
        roomy = memory.is_dir() and shutil.disk_usage(memory).free >= _ROOM
        parent = memory if roomy else Path(tempfile.gettempdir())
    files.sweep(parent)
    folder = files.temporary(parent)
    folder.mkdir(mode=0o700)
    return folder


def remove(folder: Path) -> None:
    files.discard(folder)
