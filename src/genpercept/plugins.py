"""The folder is the registry: `find("tasks", "depth")` is the PLUGIN of genpercept/tasks/depth.py.

Third parties add theirs by an entry point of the group `genpercept.<kind>`; a name of ours always wins.
"""

from __future__ import annotations

import importlib
import pkgutil
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal, overload

from genpercept.names import choose

if TYPE_CHECKING:
    from genpercept.backbones import BackbonePlugin
    from genpercept.codecs import CodecPlugin
    from genpercept.datasets import Dataset
    from genpercept.detectors import DetectorPlugin
    from genpercept.families import Family
    from genpercept.heads import HeadPlugin
    from genpercept.losses import Loss
    from genpercept.metrics import MetricPlugin
    from genpercept.paradigms import Paradigm
    from genpercept.tasks import Task

KINDS = ("codecs", "backbones", "heads", "paradigms", "tasks", "losses", "datasets", "metrics", "families", "detectors")

_SINGULAR = {"losses": "loss", "families": "family", "datasets": "data set"}


def names(kind: str) -> list[str]:
    """Every plugin of this kind, sorted; modules whose name begins with `_` are shared code, not plugins."""
    package = _package(kind)
    ours = {m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")}
    return sorted(ours | {e.name for e in entry_points(group=f"genpercept.{kind}")})


@overload
def find(kind: Literal["codecs"], name: str) -> CodecPlugin: ...
@overload
def find(kind: Literal["backbones"], name: str) -> BackbonePlugin: ...
@overload
def find(kind: Literal["heads"], name: str) -> HeadPlugin: ...
@overload
def find(kind: Literal["paradigms"], name: str) -> Paradigm: ...
@overload
def find(kind: Literal["tasks"], name: str) -> Task: ...
@overload
def find(kind: Literal["losses"], name: str) -> Loss: ...
@overload
def find(kind: Literal["datasets"], name: str) -> Dataset: ...
@overload
def find(kind: Literal["metrics"], name: str) -> MetricPlugin: ...
@overload
def find(kind: Literal["detectors"], name: str) -> DetectorPlugin: ...
@overload
def find(kind: Literal["families"], name: str) -> Family: ...


def find(kind: str, name: str) -> Any:
    """The plugin `name` of `kind`. Raises ValueError with the names there are when it does not exist."""
    package = _package(kind)
    choose(_SINGULAR.get(kind, kind[:-1]), name, names(kind))
    if any(m.name == name for m in pkgutil.iter_modules(package.__path__)):
        return importlib.import_module(f"{package.__name__}.{name}").PLUGIN
    return next(e for e in entry_points(group=f"genpercept.{kind}") if e.name == name).load()


def _package(kind: str) -> Any:
    if kind not in KINDS:
        raise ValueError(f"unknown plugin kind {kind!r}: choose one of {', '.join(KINDS)}")
    return importlib.import_module(f"genpercept.{kind}")
