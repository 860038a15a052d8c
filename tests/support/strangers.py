"""Plugins and rows as another installed package gives them: by entry points."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any

import pytest

from genpercept.core import registry
from genpercept.core.labels import LABELS
from genpercept.imaging.kinds import KINDS

Install = Callable[[Mapping[str, Mapping[str, Any]]], None]  # {group: {name: object}}


def install(monkeypatch: pytest.MonkeyPatch, groups: Mapping[str, Mapping[str, Any]]) -> None:
    """The objects, {group: {name: object}}, are found as those of the one other package that is installed."""
    module = ModuleType("stranger")
    entries: dict[str, list[EntryPoint]] = {}
    for group, objects in groups.items():
        for name, value in objects.items():
            attribute = f"{group.rpartition('.')[2]}_{name}"
            setattr(module, attribute, value)
            entries.setdefault(group, []).append(EntryPoint(name, f"{module.__name__}:{attribute}", group))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(registry, "_installed", lambda: entries)
    forget()


def forget() -> None:
    """Tables read their strangers anew."""
    for table in (LABELS, KINDS):
        vars(table).pop("_theirs", None)
