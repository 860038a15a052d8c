"""Models that answer several tasks at once: their rows in genpercept.json, and one pass through the network read by each task.

`info["joint"]` has a row for each task, in the order of their latents in what the denoiser gives:

    {"depth": {"task_options": {"stretch": true}, "ensembling": {"solver": "min_max"}}, "normals": {"axes": [...], ...}}

What a row says holds for its task; the keys of the chosen one, `info["task"]`, stand at the top, where every model has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from genpercept.core.values import Features
from genpercept.tasks import TASKS

KEY = "joint"
# What a row may say, with what holds where it does not.
ROW: dict[str, Any] = {
    "task_options": {},
    "axes": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "ensembling": {},
    "official_size": {},
}


def tasks_of(info: Mapping[str, Any]) -> tuple[str, ...]:
    """The tasks that a model of these settings answers at once: of most models its one."""
    return tuple(info.get(KEY) or (info["task"],))


def settings(rows: Mapping[str, Mapping[str, Any]], task: str) -> dict[str, Any]:
    """Settings of a model with these rows that is asked for `task`: all that a row may say, and the rows."""
    whole = ROW | dict(rows[task])
    options = TASKS.find(task).with_options(**whole["task_options"]).options
    return whole | {"task": task, "task_options": options, KEY: {name: dict(row) for name, row in rows.items()}}


def info_for(info: Mapping[str, Any], task: str) -> dict[str, Any]:
    """The settings of the same model, asked for `task`. ValueError for one that it does not answer."""
    if task not in tasks_of(info):
        raise ValueError(f"{info.get('model')}: answers {', '.join(tasks_of(info))}, not {task}: choose one of these")
    return dict(info) if task == info["task"] else {**info, **settings(info[KEY], task)}


def part(features: Features, info: Mapping[str, Any], task: str) -> Features:
    """Of what the denoiser gives for all tasks the latent of this one; all of it, where there is but one."""
    tasks = tasks_of(info)
    if len(tasks) == 1:
        return features
    return features.with_latent(features.require_latent().chunk(len(tasks), dim=1)[tasks.index(task)])


class Tape:
    """Raw maps of all tasks, kept in the order of the network's calls, so that each task after the first reads them again.

    Every task makes the same calls, since only what comes after the network differs.
    """

    def __init__(self) -> None:
        self._maps: list[dict[str, Any]] = []
        self._at = 0

    def rewind(self) -> None:
        self._at = 0

    def of(self, task: str, compute: Callable[[], dict[str, Any]]) -> Any:
        """The next call's map of `task`, which goes from the tape; `compute` gives those of all, where none are kept yet."""
        if self._at == len(self._maps):
            self._maps.append(compute())
        self._at += 1
        return self._maps[self._at - 1].pop(task)


def by_task(found: Mapping[str, Any], single: bool) -> Any:
    """{task: Predictions of all images} -> {task: Prediction} of each image; of the one, if `single`."""
    if single:
        return dict(found)
    return [dict(zip(found, each, strict=True)) for each in zip(*found.values(), strict=True)]


def asked(tasks: Sequence[str], info: Mapping[str, Any]) -> tuple[str, ...]:
    """These tasks, all where none are named, each once. ValueError for what the model does not answer."""
    chosen = tuple(dict.fromkeys(tasks or tasks_of(info)))
    for task in chosen:
        info_for(info, task)
    return chosen
