"""What cached latents are kept under: the content of the files and the code that they were made from.

A file's content stands for it, not its path or its time of change: so a copied tree finds the latents that are there, and an
image that was changed and put back finds its old ones. As reading terabytes at every start would take hours, a digest is kept
with the file's size, times (of change, and of the last change of anything about it, which no program can set), and number on
the disk; while these are the same, the digest is taken to be. Where they say too little it is not kept: a file that was changed
in the last seconds or in the future, for clocks of discs may be that coarse, and wrong.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from genpercept.core.files import blocks, read_json, write_text

_DOUBTFUL = 3.0  # seconds; FAT keeps times to 2 seconds, network discs' clocks may go wrong by one
_AT_ONCE = 4096  # files between two reports


@cache
def code(*modules: str) -> str:
    """SHA-256 over the source of modules and of what they import from their own folders. A comment counts as well: to make
    latents again is cheaper than to find out."""
    found: dict[str, bytes] = {}
    folders = tuple({name.rpartition(".")[0] for name in modules})
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in found or (source := _source(name)) is None:
            continue
        found[name] = source
        waiting += [one for one in _imported(source, name) if one.rpartition(".")[0] in folders]
    digest = hashlib.sha256()
    for name in sorted(found):
        digest.update(name.encode() + b"\0" + found[name].replace(b"\r\n", b"\n") + b"\0")
    return digest.hexdigest()


def _source(name: str) -> bytes | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin).read_bytes()


def _imported(source: bytes, name: str) -> Iterator[str]:
    """Names of modules that may be imported by the source of module `name`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*name.split(".")[: -node.level], *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


class Contents:
    """SHA-256 of files' contents, kept in `folder` between runs; see above."""

    def __init__(self, folder: Path, report: Callable[[str], None]) -> None:
        self._file, self._report = folder / "digests.json", report
        try:
            self._known: dict[str, Any] = read_json(self._file)
        except (OSError, ValueError):  # not there, or torn: everything is read anew
            self._known = {}

    def of(self, paths: Sequence[Path]) -> dict[Path, str]:
        """Digest of each; "" of one that is not there. OSError for one that cannot be read."""
        found: dict[Path, str] = {}
        unknown: list[tuple[Path, list[int], float]] = []
        for path in paths:
            try:
                stamp, newest = _stamp(path)
            except FileNotFoundError:
                found[path] = ""
                continue
            known = self._known.get(str(path.absolute()))
            if known is not None and known[:-1] == stamp:
                found[path] = known[-1]
            else:
                unknown.append((path, stamp, newest))
        for start in range(0, len(unknown), _AT_ONCE):
            found |= self._read(unknown[start : start + _AT_ONCE])
            if len(unknown) > _AT_ONCE:
                self._report(f"digests of {min(start + _AT_ONCE, len(unknown))} of {len(unknown)} files")
        return found

    def _read(self, files: list[tuple[Path, list[int], float]]) -> dict[Path, str]:
        begin = time.time()
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # hashing and reading leave the interpreter alone
            digests = list(pool.map(digest_of, [path for path, _, _ in files]))
        for (path, stamp, newest), digest in zip(files, digests, strict=True):
            if newest < begin - _DOUBTFUL:
                self._known[str(path.absolute())] = [*stamp, digest]
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_text(self._file, json.dumps(self._known))
        return {path: digest for (path, _, _), digest in zip(files, digests, strict=True)}


def _stamp(path: Path) -> tuple[list[int], float]:
    """What is kept with a digest, and the latest of its times in seconds."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino], max(stat.st_mtime, stat.st_ctime)


def token(value: Any) -> str:
    """SHA-256 of a value that JSON holds."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def digest_of(path: Path) -> str:
    """SHA-256 of a file's content."""
    digest = hashlib.sha256()
    for block in blocks(path):
        digest.update(block)
    return digest.hexdigest()
