"""A folder for what libraries want as a file: in memory where the system has that, readable by nobody else, gone at the end."""

from __future__ import annotations

import tempfile
from pathlib import Path

from genpercept.core import files


def make() -> Path:
    """A new one. Those of servers that were killed are removed."""
    memory = Path("/dev/shm")
    parent = memory if memory.is_dir() else Path(tempfile.gettempdir())
    files.sweep(parent)
    folder = files.temporary(parent)
    folder.mkdir(mode=0o700)
    return folder


def remove(folder: Path) -> None:
    files.discard(folder)
