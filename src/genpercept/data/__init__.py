"""Data sets: each module's PLUGIN lists entries of a split and loads one as a Sample in physical units."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from genpercept.core.registry import Registry
from genpercept.core.values import Sample


class Dataset(Protocol):
    name: str
    licence: str

    def index(self, root: Path | None, split: str) -> Sequence[Any]:
        """Entries of `split` under `root`, cheap to make and to pickle. ValueError when the layout is not as published."""
        ...

    def load(self, entry: Any) -> Sample:
        """The labelled image behind an entry. ValueError that names the file when it cannot be read."""
        ...


DATASETS = Registry[Dataset](__name__, "data set", "genpercept.data")
find = DATASETS.find
