"""Stand-ins of modules and of their names, which become the real thing when they are used (`core.later` gives them out)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import Any


class Later:
    """The stand-in of a module (no `name`) or of what a module calls `name`."""

    def __init__(self, module: str, name: str = "", inside: str = "") -> None:
        """inside: the module below it of `import module.below as name`, which asks for one after the other."""
        self._module, self._name, self._inside = module, name, inside

    def _real(self) -> Any:
        module = importlib.import_module(self._module)
        if not self._name or hasattr(module, self._name):
            return getattr(module, self._name) if self._name else module
        return importlib.import_module(f"{self._module}.{self._name}")

    def __getattr__(self, name: str) -> Any:
        if name in ("_module", "_name", "_inside"):  # of a copy that is being made
            raise AttributeError(name)
        if f"{self._inside}.".startswith(f"{self._module}.{name}."):
            return Later(f"{self._module}.{name}", inside=self._inside)
        if name == "__version__" and not self._name and self._module not in sys.modules:
            from importlib.metadata import version

            return version(self._module)
        if name.startswith("__") and name in ("__origin__", "__wrapped__", "__signature__"):  # what typing asks of all
            raise AttributeError(name)
        return getattr(self._real(), name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._real()(*args, **options)

    def __instancecheck__(self, value: Any) -> bool:
        return self._module in sys.modules and isinstance(value, self._real())  # else there can be no such object

    def __subclasscheck__(self, value: type) -> bool:
        return self._module in sys.modules and issubclass(value, self._real())

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._real(),)

    def __or__(self, other: Any) -> Any:
        return Either(self, other)

    def __ror__(self, other: Any) -> Any:
        return Either(other, self)

    def __eq__(self, other: object) -> bool:
        return self is other or self._real() == (other._real() if isinstance(other, Later) else other)

    def __hash__(self) -> int:
        return hash(self._real())

    def __str__(self) -> str:
        return str(self._real())

    def __iter__(self) -> Iterator[Any]:
        return iter(self._real())

    def __getitem__(self, key: Any) -> Any:
        return self._real()[key]

    def __contains__(self, value: object) -> bool:
        return value in self._real()


class Either:
    """`A | None` of a stand-in: an annotation, made when a module runs, for which nothing need be imported."""

    def __init__(self, *kinds: Any) -> None:
        self._kinds = kinds

    def __or__(self, other: Any) -> Either:
        return Either(*self._kinds, other)

    def __ror__(self, other: Any) -> Either:
        return Either(other, *self._kinds)

    def __instancecheck__(self, value: Any) -> bool:
        return any(isinstance(value, type(None) if kind is None else kind) for kind in self._kinds)
