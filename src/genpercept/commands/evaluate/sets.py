"""What is evaluated on what: the command's words as data sets with their entries, checked before a network runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genpercept.core import classes
from genpercept.core.texts import toml_value
from genpercept.core.values import Sample
from genpercept.data import DATASETS, Dataset
from genpercept.metrics import METRICS
from genpercept.tasks import ClassTask, Task

_SPLITS = ("test", "val", "all")  # the first of these that a data set has is its default
_ON_FAILURE = (ValueError, OSError)


@dataclass(frozen=True)
class Reported:
    """Figures of a paper for one set, in our keys and units. main False: of an ablation."""

    method: str
    source: str
    figures: Mapping[str, float]
    main: bool = True


@dataclass(frozen=True)
class SetSpec:
    """A data set as it was asked for. protocol None: the data set's own. title: what tables call it."""

    dataset: str
    title: str
    root: Path | None = None
    split: str | None = None
    protocol: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    reported: tuple[Reported, ...] = ()


@dataclass(frozen=True)
class EvalSet:
    """A data set opened: `entries` are those that are scored, `names` theirs, all different."""

    spec: SetSpec
    dataset: Dataset
    split: str
    entries: tuple[Any, ...]
    names: tuple[str, ...]

    @property
    def title(self) -> str:
        return self.spec.title

    def protocol(self, task: Task) -> str | None:
        """The named protocol: the one asked for, else the data set's own for this task; None where it names none."""
        if self.spec.protocol is not None:
            return self.spec.protocol
        about = self.dataset.about
        return (about.protocols.get(task.name) or None) if about else None

    def record(self) -> dict[str, Any]:
        """What decides which images and labels these are, as plain values."""
        spec = self.spec
        root = None if spec.root is None else str(spec.root.expanduser().absolute())
        return {"dataset": spec.dataset, "root": root, "split": self.split, "options": dict(spec.options)}


def open_set(spec: SetSpec, count: int | None = None) -> EvalSet:
    """The set with its first `count` entries (None: all). ValueError for an unknown name, option, split or layout."""
    dataset = DATASETS.find(spec.dataset).with_options(**spec.options)
    split = spec.split or _default_split(spec.dataset, dataset)
    entries = tuple(dataset.index(spec.root, split))[:count]
    if not entries:
        raise ValueError(f"data set {spec.dataset!r}: split {split!r} is empty; choose another --split")
    return EvalSet(spec, dataset, split, entries, _distinct([_name(e, i) for i, e in enumerate(entries)]))


def _default_split(name: str, dataset: Dataset) -> str:
    about = dataset.about
    if about is None:
        return "all"
    for split in _SPLITS:
        if split in about.splits:
            return split
    raise ValueError(f"data set {name!r}: say which --split: {', '.join(about.splits)}")


def _name(entry: Any, index: int) -> str:
    return str(getattr(entry, "name", "") or f"{index:06d}")


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The names; those that occur again get their number, so that no two samples share a row."""
    seen: dict[str, int] = {}
    out = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return tuple(out)


def unfit(spec: SetSpec, task: Task) -> str:
    """Why no model of this task can be scored on the set, as far as that shows without its files; "" where it can."""
    dataset = DATASETS.find(spec.dataset).with_options(**spec.options)
    about = dataset.about
    if about is not None and (missing := [label for label in task.labels if label not in about.provides]):
        return f"has no {', '.join(missing)}"
    if isinstance(task, ClassTask) and about is not None:
        declared = classes_of(dataset)
        if declared not in classes.names() or classes.find(declared).names != task.table.names:
            return f"labels the classes of {declared}"
    return ""


# ---- what goes with what ---------------------------------------------------------------------------------------------


def check(data: EvalSet, task: Task, model: str) -> None:
    """ValueError where the set's samples lack what the task needs, or name other classes than the model's."""
    about = data.dataset.about
    has = set(about.provides if about else _first(data).labels())
    if missing := [f for f in task.labels if f not in has]:
        what = f"it provides {', '.join(about.provides)}" if about else "its first sample has none"
        raise ValueError(
            f"{model} does {task.name}, which needs {', '.join(missing)}; data set {data.spec.dataset!r} has none: {what}"
        )
    if isinstance(task, ClassTask) and about is not None:
        _check_classes(data, about.classes, task, model)
    METRICS.find(task.metric)(protocol=data.protocol(task), **task.metric_options())


def _check_classes(data: EvalSet, usual: str | None, task: ClassTask, model: str) -> None:
    declared, wanted = classes_of(data.dataset, usual), task.table
    known = classes.find(declared).names if declared in classes.names() else None
    if known != wanted.names:
        raise ValueError(
            f"{model} predicts the classes of {wanted.name!r} ({len(wanted)}), data set {data.spec.dataset!r} labels those of "
            f"{declared!r}: choose a model or a data set option (--option classes=...) so that they are the same"
        )


def classes_of(dataset: Dataset, usual: str | None = None) -> Any:
    """What the data set calls the classes of its labels: the name of a table, or its contents."""
    about = dataset.about
    declared = getattr(dataset, "classes", None) or usual or (about.classes if about else None)
    return "nyu40" if declared == "shared" else declared  # ADE20K's: ids of nyu40


def _first(data: EvalSet) -> Sample:
    """The first sample that can be read, for data sets that do not say what they provide."""
    problem: Exception | None = None
    for entry in data.entries[:8]:
        try:
            return data.dataset.load(entry)
        except _ON_FAILURE as error:
            problem = problem or error
    raise ValueError(str(problem))


# ---- the command's words ---------------------------------------------------------------------------------------------


def specs(
    datasets: Sequence[str],
    roots: Sequence[str],
    options: Sequence[str],
    split: str | None,
    protocol: str | None,
) -> list[SetSpec]:
    """NAME or NAME=ROOT, DIR or NAME=DIR, k=v or NAME.k=v -> one spec per data set. ValueError for what fits nothing.

    A root without a name is the data set's own folder; for several data sets, the one that holds a folder NAME for each.
    """
    given = dict(_pair(text) for text in datasets)
    if len(given) != len(datasets):
        raise ValueError("a data set is named twice: give each once, or evaluate into two folders")
    for name in given:
        DATASETS.find(name)
    where = placed(roots, tuple(given), single=len(given) == 1)
    chosen = options_of(options, tuple(given))
    return [
        SetSpec(name, name, own or where.get(name), split, protocol, chosen.get(name, {}))
        for name, own in given.items()
    ]


def _pair(text: str) -> tuple[str, Path | None]:
    name, separator, root = text.partition("=")
    return name.strip(), Path(root) if separator and root else None


def placed(roots: Sequence[str], names: Sequence[str], single: bool) -> dict[str, Path]:
    """Folder of each name: NAME=DIR for one; DIR for all, itself (`single`) or the folder NAME in it."""
    found: dict[str, Path] = {}
    common: Path | None = None
    for text in roots:
        name, separator, path = text.partition("=")
        if separator and name in names:
            found[name] = Path(path)
        elif common is not None:
            raise ValueError(f"--root {text}: a second folder for all data sets; write NAME={text} for one of them")
        else:
            common = Path(text)
    if common is not None:
        for name in names:
            found.setdefault(name, common if single else common / name)
    return found


def options_of(texts: Sequence[str], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """k=v (for all data sets) and NAME.k=v (for one); values are TOML where they can be, else text."""
    found: dict[str, dict[str, Any]] = {name: {} for name in names}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key.strip():
            raise ValueError(f"--option {text!r}: write key=value, or DATASET.key=value for one of several")
        parsed = toml_value(value)
        name, dot, inner = key.strip().partition(".")
        if dot and name not in names:
            raise ValueError(f"--option {text!r}: {name!r} is none of the data sets ({', '.join(names)})")
        for target in [name] if dot else names:
            found[target][inner if dot else name] = parsed
    return found


def describe(error: Exception, name: str) -> str:
    """One line about a sample that cannot be used; errors of files name them already, others get the sample's name."""
    text = " ".join(str(error).split()) or type(error).__name__
    begin = text.partition(":")[0]
    return text if "/" in begin or begin.startswith("sample ") else f"sample {name!r}: {text}"
