"""A disk as a power cut may leave it, from the calls that a process made: names in folders, and the files behind them."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

_LINE = re.compile(r"^(?P<pid>\d+) +(?P<call>\w+)\((?P<args>.*)\) += (?P<answer>-?\d+)")
_UNFINISHED = re.compile(r"^(?P<pid>\d+) +(?P<text>.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"^(?P<pid>\d+) +<\.\.\. \w+ resumed>(?P<text>.*)$")
_PLACE = re.compile(r'(?:AT_FDCWD<[^>]*>, |(?:\d+)<(?P<at>[^>]*)>, )?"(?P<name>[^"]*)"')


def _split(path: str) -> tuple[str, str]:
    above, _, name = path.rpartition("/")
    return above, name


@dataclass(frozen=True)
class Call:
    """kind: create, mkdir, write, sync, rename, swap, unlink, rmdir. Paths below the watched folder; "" is itself."""

    kind: str
    path: str
    other: str = ""

    @property
    def folder(self) -> str:
        """The one in which a sync makes it last."""
        return _split(self.other or self.path)[0]


def read_calls(trace: Path, top: Path, begin: Path, end: Path) -> list[Call]:
    """Those between the making of the folders `begin` and `end` that succeeded and have to do with `top`."""
    found: list[Call] = []
    inside = False
    for line in _whole_lines(trace):
        match = _LINE.match(line)
        if match is None or int(match["answer"]) < 0:
            continue
        places = [str(Path(place["at"] or "/", place["name"])) for place in _PLACE.finditer(match["args"])]
        if match["call"] in ("mkdir", "mkdirat") and places[0] in (str(begin), str(end)):
            inside = places[0] == str(begin)
        elif inside:
            found += _calls(match["call"], match["args"], places, top)
    return found


def _whole_lines(trace: Path) -> Iterator[str]:
    """Lines of several threads, put together where another one's came between."""
    waiting: dict[str, str] = {}
    for line in trace.read_text(errors="replace").splitlines():
        if match := _UNFINISHED.match(line):
            waiting[match["pid"]] = f"{match['pid']} {match['text']}"
        elif match := _RESUMED.match(line):
            yield waiting.pop(match["pid"], "") + match["text"]
        else:
            yield line


def _calls(name: str, args: str, places: list[str], top: Path) -> Iterator[Call]:
    def below(path: str) -> str | None:
        if path == str(top):
            return ""
        return os.path.relpath(path, top) if path.startswith(f"{top}/") else None

    if name in ("write", "writev", "pwrite64", "ftruncate", "fsync", "fdatasync"):
        match = re.match(r"\d+<([^>]*)>", args)
        path = below(match[1]) if match else None
        if path is not None:
            yield Call("sync" if name.endswith("sync") else "write", path)
        return
    paths = [below(place) for place in places]
    if not paths or paths[0] is None:
        return
    if name in ("openat", "creat"):
        if "O_CREAT" in args:
            yield Call("create", paths[0])
    elif name in ("rename", "renameat", "renameat2"):
        assert paths[1] is not None, "moved out of what is watched"
        yield Call("swap" if "EXCHANGE" in args else "rename", paths[0], paths[1])
    elif name in ("mkdir", "mkdirat"):
        yield Call("mkdir", paths[0])
    else:
        yield Call("rmdir" if name == "rmdir" or "AT_REMOVEDIR" in args else "unlink", paths[0])


@dataclass
class Node:
    """A folder with its names, or a file by its number."""

    names: dict[str, Node] | None = None
    file: int = -1

    def copy(self) -> Node:
        return Node(None if self.names is None else {k: v.copy() for k, v in self.names.items()}, self.file)

    def at(self, path: str) -> Node | None:
        node: Node | None = self
        for part in path.split("/") if path else []:
            node = None if node is None or node.names is None else node.names.get(part)
        return node

    def text(self) -> str:
        if self.names is None:
            return f"#{self.file}"
        return "{" + ",".join(f"{name}:{self.names[name].text()}" for name in sorted(self.names)) + "}"


@dataclass
class State:
    """Names, and what each file has."""

    root: Node
    data: dict[int, bytes]

    def write(self, folder: Path) -> None:
        _write(self.root, folder, self.data)


def _write(node: Node, path: Path, data: dict[int, bytes]) -> None:
    if node.names is None:
        path.write_bytes(data.get(node.file, b""))
        return
    path.mkdir()
    for name, child in node.names.items():
        _write(child, path / name, data)


@dataclass
class Disk:
    """before: a copy of the folder as it was; after: the folder as the calls left it. AssertionError where they do not."""

    before: Path
    after: Path
    calls: list[Call]
    _data: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._start = self._read(self.before)
        self._files: dict[int, int] = {}  # call that makes a file: its number
        self._of: list[int | None] = []  # the file that a write or sync is about
        root = self._start.copy()
        for number, call in enumerate(self.calls):
            if call.kind == "create" and root.at(call.path) is None:
                self._files[number] = len(self._data)
                self._data[len(self._data)] = b""
            node = root.at(call.path)
            self._of.append(node.file if call.kind in ("write", "sync") and node and node.names is None else None)
            assert self._apply(root, number) or call.kind in ("write", "sync", "create"), call
        self._collect(root, self.after)

    def states(self, draw: random.Random, random_ones: int = 8) -> Iterator[list[State]]:
        """For each number of calls done, from none to all, the states that the disk may be in then, each once."""
        for done in range(len(self.calls) + 1):
            seen: dict[str, State] = {}
            pending = [n for n in range(done) if self._is_name(n) and not self._is_safe(n, done)]
            choices = [set(pending[:k]) for k in range(len(pending) + 1)]
            choices += [set(pending) - {n} for n in pending] + [{n} for n in pending]
            choices += [{n for n in pending if draw.random() < 0.5} for _ in range(random_ones)]
            open_files = self._not_synced(done)
            for kept in choices:
                root = self._start.copy()
                for n in range(done):
                    if self._is_name(n) and (n not in pending or n in kept):
                        self._apply(root, n)
                for share in (0.0, 0.5, 1.0):
                    data = {f: d[: int(len(d) * share)] if f in open_files else d for f, d in self._data.items()}
                    there = f"{root.text()} {share if open_files else ''}"
                    seen.setdefault(there, State(root, data))
            yield list(seen.values())

    def _is_name(self, number: int) -> bool:
        return self.calls[number].kind not in ("write", "sync")

    def _is_safe(self, number: int, done: int) -> bool:
        """Whether the folder of the name has been synced since, or that of a later name of the same file."""
        call, folder = self.calls[number], self.calls[number].folder
        if call.kind == "create":
            renamed = [
                n for n in range(number + 1, done) if self.calls[n].kind == "rename" and self.calls[n].path == call.path
            ]
            if any(self._is_safe(n, done) for n in renamed):
                return True
        where = self._places[number].get(folder)
        later = (n for n in range(number + 1, done) if self.calls[n].kind == "sync")
        return any(self._places[n].get(self.calls[n].path) == where for n in later)

    @cached_property
    def _places(self) -> list[dict[str, int]]:
        """For each call, the folders by path as they are before it. They are told apart by the call that made them."""
        at = {"": -1}
        for n, path in enumerate(sorted(p for p in self.before.rglob("*") if p.is_dir())):
            at[path.relative_to(self.before).as_posix()] = -2 - n
        found = []
        for n, call in enumerate(self.calls):
            found.append(dict(at))
            if call.kind == "mkdir":
                at[call.path] = n
            elif call.kind in ("rename", "swap"):
                moved = {p: i for p, i in at.items() if p == call.path or p.startswith(call.path + "/")}
                back = {p: i for p, i in at.items() if p == call.other or p.startswith(call.other + "/")}
                at = {p: i for p, i in at.items() if p not in moved and p not in back}
                at |= {call.other + p[len(call.path) :]: i for p, i in moved.items()}
                if call.kind == "swap":
                    at |= {call.path + p[len(call.other) :]: i for p, i in back.items()}
            elif call.kind == "rmdir":
                at.pop(call.path, None)
        return found

    def _not_synced(self, done: int) -> set[int]:
        """Files that were written to after their last sync, or never synced."""
        open_files: set[int] = set()
        for n in range(done):
            file = self._files.get(n) if self.calls[n].kind == "create" else self._of[n]
            if file is not None:
                (open_files.discard if self.calls[n].kind == "sync" else open_files.add)(file)
        return open_files

    def _apply(self, root: Node, number: int) -> bool:
        """Do a call on names; False, with nothing done, where the disk has not what it is about."""
        call = self.calls[number]
        if call.kind in ("write", "sync"):
            return False
        above, name = _split(call.path)
        parent = root.at(above)
        if parent is None or parent.names is None:
            return False
        if call.kind in ("create", "mkdir"):
            if name in parent.names or (call.kind == "create" and number not in self._files):
                return False
            parent.names[name] = Node({}) if call.kind == "mkdir" else Node(None, self._files[number])
            return True
        if name not in parent.names:
            return False
        if call.kind in ("unlink", "rmdir"):
            del parent.names[name]
            return True
        above, new = _split(call.other)
        target = root.at(above)
        if target is None or target.names is None or (call.kind == "swap" and new not in target.names):
            return False
        moved = parent.names.pop(name)
        if call.kind == "swap":
            parent.names[name] = target.names[new]
        target.names[new] = moved
        return True

    def _read(self, path: Path) -> Node:
        if path.is_dir():
            return Node({child.name: self._read(child) for child in path.iterdir()})
        self._data[len(self._data)] = path.read_bytes()
        return Node(None, len(self._data) - 1)

    def _collect(self, node: Node, path: Path) -> None:
        """What the files have in the end, from the folder itself; it must have the names that the calls give."""
        if node.names is None:
            self._data[node.file] = path.read_bytes()
            return
        assert set(node.names) == {child.name for child in path.iterdir()}, (path, sorted(node.names))
        for name, child in node.names.items():
            self._collect(child, path / name)
