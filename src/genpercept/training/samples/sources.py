"""Where a run's records come from: cached or freshly rendered scenes, or any data set plugin."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from genpercept.core.labels import LABELS
from genpercept.core.names import choose
from genpercept.core.rng import generator
from genpercept.data import DATASETS, NoSamples, files_of, lacking, said_by
from genpercept.data._files import FileDataset
from genpercept.tasks import Task
from genpercept.training.recipe import DataSet, Loader, Recipe
from genpercept.training.samples import identity, shard_cache
from genpercept.training.samples.records import TEXTS, Record, from_sample

# beside a data set's own module: what makes a label of a file
_READERS = ("genpercept.imaging.stored", "genpercept.core.label_rules", "genpercept.core.labels")


class Source(Protocol):
    """Pickled, it is a worker process's own."""

    @property
    def key(self) -> str:
        """What the records depend on: settings, options and code; not which there are, nor files."""
        ...

    def content(self, rows: range) -> str:
        """A digest of what else these records are made from; "" where the key says all."""
        ...

    def left_out(self) -> Mapping[int, str]:
        """Entries that could not be read so far, and why; the next ones took their place."""
        ...

    def leave_out(self, number: int, problem: str) -> None:
        """Say so of an entry, once."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...


class Rendered(shard_cache.Whole):
    """Synthetic scenes made when they are asked for. The world needs no disk, but a scene is paid for each time."""

    def __init__(self, data: DataSet) -> None:
        self._data = data

    @property
    def key(self) -> str:
        data = self._data
        return f"{data.domain} {data.split} {data.size} {data.seed}, world {shard_cache.world_version()}"

    def __len__(self) -> int:
        return self._data.count

    def __getitem__(self, index: int) -> Record:
        from genpercept.data import synthetic

        data = self._data
        scenes = synthetic.render([index], domain=data.domain, split=data.split, size=data.size, seed=data.seed)
        record: Record = {name: np.asarray(getattr(scenes, name))[0] for name in synthetic.RECORDED}
        return record | {name: str(getattr(scenes, name)[0]) for name in TEXTS}


class Files:
    """The entries of a data set plugin, read each time. labels: that every sample must have; without, it cannot be read.

    ValueError for entries that say that they lack one; with skip_bad they are left out.
    """

    def __init__(
        self, data: DataSet, cache_dir: Path, report: Callable[[str], None], labels: Sequence[str] = ()
    ) -> None:
        plugin = DATASETS.find(data.name).with_options(**data.options)
        self._plugin, self._skip, self._report = plugin, data.skip_bad, report
        self._cache_dir, self._tokens = cache_dir, tuple[str, ...]()
        entries: Sequence[Any] = plugin.index(data.root, data.split)
        if data.count:
            entries = _drawn(entries, data.count, data.seed) if data.drawn else entries[: data.count]
        if data.fraction < 1:
            entries = _drawn(entries, max(1, round(len(entries) * data.fraction)), data.seed)
        self._entries, self._labels = entries, tuple(labels)
        self._bad: dict[int, str] = {}
        if not self._entries:
            raise ValueError(f"data set {data.name!r}, split {data.split!r} under {data.root}: no entries")
        self._name_absent(f"data set {data.name!r} under {data.root}, split {data.split!r}")

    def _name_absent(self, where: str) -> None:
        """Labels that are not there, before the first step."""
        absent = {i: names for i, e in enumerate(self._entries) if (names := lacking(e, self._labels))}
        if not self._skip:
            if absent:
                number, names = next(iter(absent.items()))
                raise ValueError(
                    f"{where}: {len(absent)} of {len(self)} samples lack a label, such as {self._entries[number].name} "
                    f"({', '.join(names)}): add it, take them out, or set skip_bad = true to go without them"
                )
            return
        for number, names in absent.items():
            self.leave_out(number, f"sample {self._entries[number].name!r} has no {', '.join(names)}")
        if len(absent) == len(self):
            raise ValueError(f"{where}: none of the {len(self)} samples has all of {', '.join(self._labels)}")

    @property
    def key(self) -> str:
        code = identity.code(type(self._plugin).__module__, *_READERS)
        return f"{self._plugin!r} {self._skip} {code}"

    def content(self, rows: range) -> str:
        """Of these rows' entries and the files that they name. With skip_bad, of all: any may take a bad one's place."""
        if not self._tokens:
            files = [files_of(entry) for entry in self._entries]
            digests = identity.Contents(self._cache_dir, self._report).of(list(dict.fromkeys(chain(*files))))
            self._tokens = tuple(
                identity.token([said_by(entry), [digests[path] for path in mine]])
                for entry, mine in zip(self._entries, files, strict=True)
            )
        return identity.token(self._tokens if self._skip else self._tokens[rows.start : rows.stop])

    def left_out(self) -> Mapping[int, str]:
        return self._bad

    def leave_out(self, number: int, problem: str) -> None:
        if number not in self._bad:
            self._bad[number] = problem
            self._report(f"left out ({len(self._bad)} of {len(self)} so far): {problem}")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_report": shard_cache.silent}  # a worker's parent says it

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Record:
        """The entry's record. With skip_bad, that of the next one that can be read: a function of the index still."""
        for number in (*range(index, len(self)), *range(index)):
            if number in self._bad:
                continue
            try:
                return self._with_labels(from_sample(self._plugin.load(self._entries[number])))
            except ValueError as error:
                if not self._skip:
                    raise
                self.leave_out(number, str(error))
        first = next(iter(self._bad.values()), "")
        raise ValueError(f"none of the {len(self)} samples of the data set can be read, such as: {first}")

    def _with_labels(self, record: Record) -> Record:
        for label in self._labels:
            if record.get(label) is None:
                raise ValueError(f"sample {record.get('name')!r} has no {label}: choose a data set that provides it")
        return record


def _drawn(entries: Sequence[Any], count: int, seed: int) -> list[Any]:
    """So many of them, in their order."""
    order = generator(seed, 0, 0, "data").permutation(len(entries))
    return [entries[i] for i in sorted(order[:count])]


def check_declared(data: DataSet, splits: Sequence[str], task: Task | None, where: str = "") -> None:
    """ValueError for a data set, or an option or split of it, that there is not, and for one without the task's labels.

    Of data sets that say what they have; what the others' files hold, a run finds out. No file is looked for. where: how the
    line begins.
    """
    plugin = DATASETS.find(data.name).with_options(**data.options)
    about = plugin.about
    if about is None:
        return
    for split in splits:
        choose(f"split of data set {data.name!r}", split, about.splits, where)
        if isinstance(plugin, FileDataset):
            plugin.check(split)
    if missing := [label for label in (task.labels if task else ()) if label not in about.provides]:
        assert task is not None
        raise ValueError(
            f"{where}data set {data.name!r} has no {', '.join(missing)}, which task {task.name!r} needs; it provides "
            f"{', '.join(about.provides)}"
        )


def open_source(
    data: DataSet, loader: Loader, report: Callable[[str], None] = print, labels: Sequence[str] = ()
) -> Source:
    """The records of one set of a recipe. labels: that each must have. ValueError when there are none."""
    if data.name != "synthetic":
        return Files(data, loader.cache_dir, report, labels)
    if data.fraction < 1:
        raise ValueError("data.fraction: the synthetic world has no end to take a share of; set data.count")
    if data.drawn:
        raise ValueError("data.drawn: the synthetic world has no end to draw from; leave it out")
    if data.count == 0:
        raise ValueError("data.count: the synthetic world has no end; say how many scenes the set has")
    if not loader.cache:
        if data.having:
            raise ValueError("data.having: scenes are chosen among cached ones; set loader.cache = true")
        return Rendered(data)
    if data.having and data.having not in _recorded():
        raise ValueError(
            f"data.having: the synthetic world has no {data.having}; leave it out, or choose another label"
        )
    shards = shard_cache.scenes(loader.cache_dir, data, loader.render_workers, report)
    return Chosen(shards, data.having) if data.having else shards


def open_held_out(recipe: Recipe, report: Callable[[str], None] = print, labels: Sequence[str] = ()) -> Source:
    """What validation scores, of the first data set. Where your own data has nothing for it, what is trained on stands in."""
    data = recipe.held_out()
    try:
        return open_source(data, recipe.loader, report, labels)
    except NoSamples as error:
        if data.split != "val":  # which was asked for
            raise
        report(f"{error}: validation scores samples that are trained on, which says nothing of new images")
        return open_source(data.model_copy(update={"split": recipe.data[0].split}), recipe.loader, report, labels)


def _recorded() -> tuple[str, ...]:
    from genpercept.data import synthetic

    return synthetic.RECORDED


class Chosen(shard_cache.Whole):
    """The cached scenes that have a label of note; see recipe.DataSet.having."""

    def __init__(self, shards: shard_cache.Shards, having: str) -> None:
        self._shards, self._having = shards, having
        enough = LABELS.find(having).enough
        assert enough is not None  # recipe.DataSet sees to it
        self._indices = [i for i in range(len(shards)) if enough(shards.column(having, i))]
        if not self._indices:
            raise ValueError(f"data.having: none of the {len(shards)} scenes has {having}")

    @property
    def key(self) -> str:
        return f"{self._shards.key}#{self._having} {identity.code('genpercept.core.labels')}"

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Record:
        return self._shards[self._indices[index]]
