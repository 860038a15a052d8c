"""Folders of the user's own that a study reads: those of options such as --frames, for roots that begin with {frames}."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from genpercept.commands.study.measure import Test
from genpercept.commands.study.schema import FOLDERS, Pretraining, Study, slug
from genpercept.core.names import choose
from genpercept.data import DATASETS

Given = Mapping[str, Path]  # name of the folder -> where it is


def needed(root: Path | None) -> str:
    """The name of the folder that a root begins with; "" for a root that is one itself. ValueError for an unknown name."""
    first = root.parts[0] if root and root.parts else ""
    if not (first.startswith("{") and first.endswith("}")):
        return ""
    return choose("folder", first[1:-1], FOLDERS, f"root {root}: ")


def placed(root: Path, folders: Given) -> Path:
    """The root with the folder that it begins with in its place, where that is given."""
    name = needed(root)
    return folders[name].expanduser().resolve().joinpath(*root.parts[1:]) if name in folders else root


def place(study: Study, folders: Given) -> tuple[Study, list[str]]:
    """The study over these folders, without the tests whose folder is not given or not there; a line for each of those.

    What is pretrained on a folder that is not given keeps its root as it is written: see `require`. ValueError for a folder
    that is given and not there, or that the study has no use for, and for one without a sample.
    """
    for name, folder in folders.items():
        if not folder.expanduser().is_dir():
            raise ValueError(f"--{name} {folder}: no such folder")
    roots = [data.root for data in (*study.test, *(d for part in study.part for d in part.test))]
    roots += [base.data.root for base in study.pretraining if base.data]
    wanted = {needed(root) for root in roots}
    if unused := [name for name in folders if name not in wanted]:
        raise ValueError(f"--{unused[0]}: study {study.name!r} reads none; leave it out")
    lines: dict[str, None] = {}
    parts = tuple(part.model_copy(update={"test": _tests(part.test, folders, lines)}) for part in study.part)
    bases = tuple(_pretraining(base, folders) for base in study.pretraining)
    changes = {"test": _tests(study.test, folders, lines), "part": parts, "pretraining": bases}
    return study.model_copy(update=changes), list(lines)


def _tests(tests: tuple[Test, ...], folders: Given, lines: dict[str, None]) -> tuple[Test, ...]:
    found = []
    for test in tests:
        name = needed(test.root)
        if test.root is None or not name:
            found.append(test)
        elif name not in folders:
            lines[f"without {test.label}: no --{name} FOLDER is given"] = None
        elif not (root := placed(test.root, folders)).is_dir():
            lines[f"without {test.label}: no folder {root}"] = None
        else:
            DATASETS.find(test.name).with_options(**test.options).index(root, test.split)
            found.append(test.model_copy(update={"root": root}))
    return tuple(found)


def _pretraining(base: Pretraining, folders: Given) -> Pretraining:
    if base.data is None or base.data.root is None or not needed(base.data.root):
        return base
    data = base.data.model_copy(update={"root": placed(base.data.root, folders)})
    if not needed(data.root):
        DATASETS.find(data.name).with_options(**data.options).index(data.root, data.split)
    return base.model_copy(update={"data": data})


def require(study: Study, arms: set[str]) -> None:
    """ValueError where one of these arms starts from a base whose folder was not given, with what to do."""
    without = {base.name: needed(base.data.root) for base in study.pretraining if base.data}
    lacking = {arm.name: without.get(arm.pretrained, "") for arm in study.arm}
    if not (short := [arm for arm in lacking if arm in arms and lacking[arm]]):
        return
    name = lacking[short[0]]
    others = ",".join(slug(arm) for arm in lacking if not lacking[arm])
    raise ValueError(
        f"study {study.name!r}: {', '.join(short)} are pretrained on {name}: give --{name} FOLDER, in the layout of the data "
        f"set folder, or go without with --arms {others}"
    )
