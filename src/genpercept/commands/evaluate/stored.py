"""Predictions in files, joined with the samples of a data set by the paths of their images.

A prediction belongs to the sample whose image, or name, ends as the prediction's own path in its folder: crack/000_anomaly.png
to .../hazelnut/test/crack/000.png. The longest such path counts, and no file may be the prediction of two samples: stems alone
do not say which (MVTec AD has a 000 in every folder, KITTI and ScanNet a frame of each number in every drive and scene).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, cast

from genpercept.commands.evaluate.sets import EvalSet, classes_of
from genpercept.core import files
from genpercept.core.names import choose
from genpercept.core.texts import listed
from genpercept.imaging.prediction import Prediction
from genpercept.imaging.read import shown
from genpercept.imaging.stored import ASIDE
from genpercept.metrics import METRICS, options_for
from genpercept.metrics._files import EXTENSIONS
from genpercept.tasks import TASKS, ClassTask, Task


def opened(folder: Path, task: str | None) -> tuple[Task, dict[str, Path]]:
    """(task, files by their path in the folder without _TASK and ending). task None: the one that their names end in.

    ValueError for a folder without predictions, or with those of several tasks.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        raise ValueError(f"{shown(folder)}: no such folder of predictions")
    every = sorted(p for p in folder.rglob("*") if p.suffix.lower() in EXTENSIONS and not p.stem.endswith(ASIDE))
    if task is None:
        ends = {name for name in TASKS.names() if any(p.stem.endswith(f"_{name}") for p in every)}
        if len(ends) != 1:
            what = f"those of {', '.join(sorted(ends))}" if ends else "none whose name ends in _TASK"
            raise ValueError(f"{shown(folder)}: which predictions? It has {what}: say --task")
        (task,) = ends
    choose("task", task, TASKS.names())
    found: dict[str, Path] = {}
    for ending in reversed(EXTENSIONS):  # of several formats the first counts
        for path in (p for p in every if p.suffix.lower() == ending):
            name = path.relative_to(folder).with_name(path.stem.removesuffix(f"_{task}")).as_posix()
            found[name] = path
    if not found:
        raise ValueError(f"{shown(folder)}: no {', '.join(EXTENSIONS)} files in it")
    return TASKS.find(task), found


def joined(found: Mapping[str, Path], folder: Path, data: EvalSet) -> list[Path | None]:
    """The file of each sample of the set; None where there is none. ValueError where one is that of two samples."""
    paths = [next((found[name] for name in names(entry) if name in found), None) for entry in data.entries]
    owner: dict[Path, str] = {}
    for name, path in zip(data.names, paths, strict=True):
        if path is not None and (other := owner.setdefault(path, name)) != name:
            raise ValueError(
                f"{shown(path)}: the prediction of {other!r} or of {name!r}? Name predictions by their images' paths, "
                "folders and all, as genpercept predict does"
            )
    if not owner:
        raise ValueError(
            f"{shown(folder)}: no prediction of data set {data.spec.dataset!r}, such as {data.names[0]}; it has "
            f"{listed(sorted(found), 3)}"
        )
    return paths


def names(entry: Any) -> Iterator[str]:
    """What a sample's prediction may be called, the longest first: ends of its image's path, then of its name."""
    image = getattr(entry, "image", None)
    for whole in (image, PurePath(entry.name + ".")):
        if isinstance(whole, PurePath):
            folders: Sequence[str] = [p for p in whole.parts[:-1] if p != whole.anchor]
            for i in range(len(folders) + 1):
                yield from ("/".join((*folders[i:], stem)) for stem in (whole.stem, f"{whole.stem}_{whole.suffix[1:]}"))


def missing(folder: Path, name: str) -> str:
    """The line about a sample without a prediction."""
    return f"sample {name!r}: no prediction of it in {shown(folder)}"


def with_classes(task: Task, data: EvalSet) -> Task:
    """The task with the classes that the data set labels: files do not say which theirs are."""
    return task.with_options(classes=classes_of(data.dataset)) if isinstance(task, ClassTask) else task


def post_processing(path: Path) -> str:
    """What the program that made a prediction says it did to it, in the file or beside it; "" where nothing is said."""
    return _said(path, lambda found: found["meta"]["post_processing"])


def kind_of(path: Path) -> str:
    """The kind of a prediction, by the file itself or the one beside it; "" where nothing is said."""
    return _said(path, lambda found: found["kind"])


def _said(path: Path, what: Callable[[dict[str, Any]], Any]) -> str:
    try:
        if path.suffix == ".npz":
            found = Prediction.load(path)
            return str(what({"kind": found.kind, "meta": found.meta}))
        return str(what(files.read_json(path.with_suffix(".json"))))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""  # some other program's


def read(task: Task, path: Path | None) -> Prediction:
    """A file as a Prediction of the task's kind. ValueError that names it."""
    assert path is not None  # whoever asks has scored it
    plugin = METRICS.find(task.metric)
    if path.suffix.lower() == ".npz":
        try:
            found = Prediction.load(path)
        except ValueError:
            pass  # some other program's, or a damaged one, which the metric's reader tells
        else:
            options_for(plugin, {found.kind}, {})  # refuses another task's
            return found
    try:
        return Prediction(cast("Any", plugin.read_pred(path)), task.kind)
    except ValueError as error:
        raise ValueError(error if str(path) in str(error) else f"{shown(path)}: {error}") from None
