"""Which files are opened while something runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import h5py

_listening: list[set[Path]] = []


def _heard(event: str, args: tuple[Any, ...]) -> None:
    if _listening and event == "open" and isinstance(args[0], str):
        _listening[-1].add(Path(args[0]))


sys.addaudithook(_heard)  # cannot be taken back; silent unless somebody listens


@contextmanager
def opened(root: Path) -> Iterator[set[Path]]:
    """The files under `root` that Python or h5py opens meanwhile."""
    found: set[Path] = set()
    real = h5py.File.__init__

    def init(self: Any, name: Any, *args: Any, **options: Any) -> None:
        if isinstance(name, str | Path):  # it also makes them of its own handles
            found.add(Path(name))
        real(self, name, *args, **options)

    _listening.append(found)
    try:
        with mock.patch.object(h5py.File, "__init__", init):
            yield found
    finally:
        _listening.pop()
        found.intersection_update({path for path in found if path.is_relative_to(root) and path.is_file()})
