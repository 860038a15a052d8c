"""What the sample of an entry is made of: the files that loading it reads, and the rest that the entry itself says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from genpercept.core.labels import LABELS


def files_of(entry: Any) -> list[Path]:
    """The files of an entry, each once, whether they are there or not: the paths in its fields, and what its `files()` names.

    An entry whose data set reads files that are in no field of it has a method `files`, without arguments, that names them.
    """
    named: Callable[[], Iterable[Path]] = getattr(entry, "files", tuple)
    found = [*_paths(entry), *named()]
    return [path for path in dict.fromkeys(found) if not path.is_dir()]


def lacking(entry: Any, labels: Iterable[str]) -> list[str]:
    """Of these labels those that the entry says it has not, before a file is read; none where it does not list its labels."""
    own = getattr(entry, "labels", None)
    if not isinstance(own, Mapping):
        return []
    return [name for name in labels if name in LABELS and LABELS[name].has_files and not _there(own.get(name))]


def _there(path: Any) -> bool:
    return path is not None and (not isinstance(path, Path) or path.is_file())


def said_by(value: Any) -> Any:
    """All that an entry says beside paths, as JSON holds it: boxes, captions, options. Where its files lie does not matter."""
    if isinstance(value, Path):
        return "file"
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: said_by(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): said_by(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [said_by(one) for one in value]
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def _paths(value: Any) -> Iterator[Path]:
    if isinstance(value, Path):
        yield value
    elif is_dataclass(value) and not isinstance(value, type):
        for f in fields(value):
            yield from _paths(getattr(value, f.name))
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _paths(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _paths(one)
