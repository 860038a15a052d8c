"""Where a run's records come from: cached or freshly rendered scenes, or any data set plugin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from genpercept import plugins
from genpercept._training import cache
from genpercept._training.records import ARRAYS, TEXTS, Record, from_sample
from genpercept.recipe import DataSet, Loader


class Source(Protocol):
    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...


class Rendered:
    """Synthetic scenes made when they are asked for. The world needs no disk, but a scene is paid for each time."""

    def __init__(self, data: DataSet) -> None:
        self._data = data

    def __len__(self) -> int:
        return self._data.count

    def __getitem__(self, index: int) -> Record:
        from genpercept.datasets import synthetic

        data = self._data
        scenes = synthetic.render([index], domain=data.domain, split=data.split, size=data.size, seed=data.seed)
        record: Record = {name: np.asarray(getattr(scenes, name))[0] for name in ARRAYS}
        return record | {name: str(getattr(scenes, name)[0]) for name in TEXTS}


class Files:
    """The entries of a data set plugin, read each time."""

    def __init__(self, data: DataSet) -> None:
        self._plugin = plugins.find("datasets", data.name)
        entries: Sequence[Any] = self._plugin.index(data.root, data.split)
        self._entries = entries[: data.count] if data.count else entries
        if not self._entries:
            raise ValueError(f"data set {data.name!r}, split {data.split!r} under {data.root}: no entries")

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Record:
        return from_sample(self._plugin.load(self._entries[index]))


def open_source(data: DataSet, loader: Loader, report: Callable[[str], None] = print) -> Source:
    """The records of one set of a recipe. ValueError when there are none."""
    if data.name != "synthetic":
        return Files(data)
    if data.count == 0:
        raise ValueError("data.count: the synthetic world has no end; say how many scenes the set has")
    return cache.scenes(loader.cache_dir, data, loader.workers, report) if loader.cache else Rendered(data)
