"""A folder of plugins is its own registry: `TASKS.find("depth")` is the PLUGIN of genpercept/tasks/depth.py.

Each folder makes its registry in its `__init__`: `TASKS = Registry[Task](__name__, "task", "genpercept.tasks", Task)`. Other
installed packages add plugins by entry points of the group (docs/extend.md); a name of ours always wins. What is a row and no
module, such as a label or a kind of prediction, is in a `Table`, to which entry points add rows. This module knows none of the
kinds.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any, Generic, Protocol, TypeVar

from genpercept.core.names import choose
from genpercept.core.texts import listed

T = TypeVar("T")


class Row(Protocol):
    """A row of a table goes by its name."""

    @property
    def name(self) -> str: ...


R = TypeVar("R", bound=Row)

_PREFIX = "genpercept."


class Registry(Generic[T]):
    """The plugins of one kind: modules of the folder `package`, and entry points of `group`.

    noun: what an error calls one of them. protocol: the class that says which members a plugin has, T. Which names there are is
    read once per process; a module is imported when it is first asked for.
    """

    def __init__(self, package: str, noun: str, group: str, protocol: type) -> None:
        self.package, self.noun, self.group, self.protocol = package, noun, group, protocol

    def names(self) -> list[str]:
        """Every plugin of this kind, sorted; modules whose name begins with `_` are shared code, not plugins."""
        return sorted(self._modules | entries(self.group).keys())

    def find(self, name: str) -> T:
        """The plugin `name`. ValueError with the names there are when it does not exist, cannot be loaded, or is not whole."""
        if name in self._modules:
            return importlib.import_module(f"{self.package}.{name}").PLUGIN
        choose(self.noun, name, self.names())
        entry = entries(self.group)[name]
        return self.whole(load(entry, self.noun), entry)

    def all(self) -> dict[str, T]:
        """Every plugin by its name, in the order of `names`."""
        return {name: self.find(name) for name in self.names()}

    def ours(self, name: str) -> bool:
        """Whether this package itself has a plugin of this name, which then goes before others'."""
        return name in self._modules

    def __contains__(self, name: object) -> bool:
        """Whether there is such a plugin. Of a name of ours this is known without the metadata of what else is installed."""
        return name in self._modules or name in entries(self.group)

    def whole(self, plugin: T, entry: EntryPoint) -> T:
        """Another package's plugin. ValueError where it lacks a member, which else shows when it is used, hours later."""
        where = f"{self.noun} {entry.name!r} of the package {package_of(entry)} ({entry.value})"
        if lacking := [member for member in members(self.protocol) if not hasattr(plugin, member)]:
            known = f"{self.protocol.__module__}.{self.protocol.__qualname__}"
            raise ValueError(
                f"{where}: a {type(plugin).__name__} without {listed(lacking, 8)}; {known} says what they are"
            )
        if getattr(plugin, "name", entry.name) != entry.name:
            raise ValueError(f"{where}: it is named {getattr(plugin, 'name', None)!r}; give both the same name")
        return plugin

    @cached_property
    def _modules(self) -> frozenset[str]:
        folder = importlib.import_module(self.package).__path__
        return frozenset(m.name for m in pkgutil.iter_modules(folder) if not m.name.startswith("_"))


class Table(Mapping[str, R]):
    """Rows of ours by name, in their order, and after them those that entry points of `group` name.

    noun: what an error calls a row. A name of ours always wins. Other packages' rows are loaded when the table is listed, or
    asked for a row that is not ours.
    """

    def __init__(self, noun: str, group: str, *rows: R) -> None:
        self.noun, self.group = noun, group
        self._ours = {row.name: row for row in rows}

    def find(self, name: str) -> R:
        """The row `name`. ValueError with the nearest name when there is none."""
        if name not in self._ours:
            choose(self.noun, name, self)
        return self[name]

    def ours(self, name: str) -> bool:
        """Whether this package itself has a row of this name, which then goes before others'."""
        return name in self._ours

    def __contains__(self, name: object) -> bool:
        """By its name alone: the package that gives the row may be in the middle of its own import, and ask."""
        return name in self._ours or name in entries(self.group)

    def __getitem__(self, name: str) -> R:
        return self._ours[name] if name in self._ours else self._theirs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ours | self._theirs)

    def __len__(self) -> int:
        return len(self._ours | self._theirs)

    @cached_property
    def _theirs(self) -> dict[str, R]:
        found = {name: load(entry, self.noun) for name, entry in entries(self.group).items() if name not in self._ours}
        known = type(next(iter(self._ours.values())))
        for name, row in found.items():
            where = f"{self.noun} {name!r} of {self.group}: its row is"
            if not hasattr(row, "name"):
                raise ValueError(f"{where} a {type(row).__name__}; make it a {known.__module__}.{known.__qualname__}")
            if row.name != name:
                raise ValueError(f"{where} named {row.name!r}; give both the same name")
        return found


def members(protocol: type) -> list[str]:
    """Names of what a Protocol, or another class, declares for others to use; calling is one of them."""
    own = [c for c in protocol.__mro__ if c.__module__ not in ("typing", "builtins", "abc")]
    found = {name for c in own for name in (*inspect.get_annotations(c), *vars(c))}
    return sorted(name for name in found if not name.startswith("_") or name == "__call__")


def groups() -> list[str]:
    """Groups of entry points that are meant for us, of all installed packages; also those that nobody reads."""
    return sorted(_installed())


def entries(group: str) -> Mapping[str, EntryPoint]:
    """Entry points of this group by name. ValueError where two packages give the same name."""
    found: dict[str, EntryPoint] = {}
    for entry in _installed().get(group, ()):
        if entry.name in found and entry.value != found[entry.name].value:
            both = f"{package_of(found[entry.name])} and {package_of(entry)}"
            raise ValueError(f"{group}: {both} both give {entry.name!r}; uninstall one of them")
        found[entry.name] = entry
    return found


def load(entry: EntryPoint, noun: str) -> Any:
    """What an entry point names: an object, or the PLUGIN of a module. ValueError in one line where it cannot be had."""
    try:
        found = entry.load()
        return found.PLUGIN if isinstance(found, ModuleType) else found
    except Exception as error:
        raise ValueError(
            f"{noun} {entry.name!r} of the package {package_of(entry)} ({entry.value}) cannot be loaded: "
            f"{type(error).__name__}: {error}; mend or uninstall that package"
        ) from error


@cache
def _installed() -> dict[str, list[EntryPoint]]:
    """Entry points for us of all installed packages, by group. Read once: it opens the metadata of every distribution."""
    every = entry_points()
    return {group: list(every.select(group=group)) for group in every.groups if group.startswith(_PREFIX)}


def package_of(entry: EntryPoint) -> str:
    """The name of the package that gives an entry point."""
    return entry.dist.name if entry.dist is not None else "(unknown)"
