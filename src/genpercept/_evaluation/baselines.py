"""Trivial answers by task, scored like a model's: what a model must beat.

Those that need to know something (a mean, a majority) are fitted to the very labels they are scored on, which flatters them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from genpercept.core import files
from genpercept.metrics import _baselines
from genpercept.prediction import Prediction
from genpercept.tasks import Task
from genpercept.types import Sample

_GRID = 64  # cells per edge of what is known by position
_JOINTS = 17
Known = Mapping[str, np.ndarray]

TITLES: dict[str, tuple[str, ...]] = {
    "depth": ("constant", "vertical ramp"),
    "disparity": ("constant", "vertical ramp"),
    "normals": ("facing the viewer", "mean normal"),
    "segmentation": ("most frequent class", "majority by position"),
    "dis": ("all foreground", "mean mask"),
    "matting": ("all foreground", "mean alpha"),
    "pose": ("mean pose in the box",),
    "anomaly": ("nothing strange",),
}
_FITTED = (
    "mean normal",
    "most frequent class",
    "majority by position",
    "mean mask",
    "mean alpha",
    "mean pose in the box",
)


def titles(task: str) -> tuple[str, ...]:
    """The baselines of a task; none for a third party's."""
    return TITLES.get(task, ())


def fitted(task: str) -> bool:
    """Whether one of the task's baselines must see the labels first."""
    return any(title in _FITTED for title in titles(task))


# ---- learning --------------------------------------------------------------------------------------------------------


def observe(task: Task, sample: Sample) -> Known:
    """What one sample adds to what baselines know: arrays that are summed over the set."""
    return _OBSERVERS[task.name](task, sample) if task.name in _OBSERVERS else {}


def fit(path: Path, observed: Iterable[Known]) -> None:
    """Sum up and write, atomically, as .npz."""
    known: dict[str, np.ndarray] = {}
    for one in observed:
        for name, value in one.items():
            known[name] = known[name] + value if name in known else value
    files.write_arrays(path, known)


def _normals(task: Task, sample: Sample) -> Known:
    truth = task.truth(sample)
    return {"sum": truth["gt"][truth["valid"]].sum(0, dtype=np.float64)}


def _classes(task: Any, sample: Sample) -> Known:
    ids, classes = task.truth(sample)["gt"], len(task.table)
    known = (ids >= 0) & (ids < classes)
    rows, columns = (np.arange(_GRID) * n // _GRID for n in ids.shape)
    cells = ids[rows][:, columns]
    by_cell = np.zeros((_GRID, _GRID, classes), np.int64)
    where = np.nonzero((cells >= 0) & (cells < classes))
    by_cell[(*where, cells[where])] = 1
    return {"count": np.bincount(ids[known], minlength=classes), "cells": by_cell}


def _maps(task: Task, sample: Sample) -> Known:
    return {"sum": _baselines.gathered(task.truth(sample)["gt"], _GRID), "count": np.array(1)}


def _pose(task: Task, sample: Sample) -> Known:
    points, boxes = sample.label("keypoints").numpy().astype(np.float64), _boxes(sample)
    total, count = np.zeros((_JOINTS, 2)), np.zeros((_JOINTS, 1))
    for person, box in zip(points, boxes, strict=True) if len(points) == len(boxes) else ():
        seen = (person[:, 2:] > 0) & (box[2] > 0) & (box[3] > 0)
        at = (person[:, :2] - box[:2]) / np.maximum(box[2:4], 1e-9)
        total, count = total + np.where(seen, at, 0), count + seen
    return {"sum": total, "count": count}


_OBSERVERS: Mapping[str, Callable[[Any, Sample], Known]] = {
    "normals": _normals,
    "segmentation": _classes,
    "dis": _maps,
    "matting": _maps,
    "pose": _pose,
}


# ---- answering -------------------------------------------------------------------------------------------------------


def predict(task: Task, title: str, path: Path, sample: Sample) -> Prediction:
    """The baseline's answer for a sample; `path`: what `fit` wrote."""
    known = _known(path) if title in _FITTED else {}
    shape = (int(sample.image.shape[-2]), int(sample.image.shape[-1]))
    return Prediction(_ANSWERS[title](task, known, shape, sample), task.kind)


@lru_cache(maxsize=2)
def _known(path: Path) -> Known:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _constant(task: Task, known: Known, shape: tuple[int, int], sample: Sample) -> np.ndarray:
    return _baselines.constant(shape) if task.name == "depth" else _baselines.filled(shape, 1.0)


def _ramp(task: Task, known: Known, shape: tuple[int, int], sample: Sample) -> np.ndarray:
    return _baselines.vertical_ramp(shape) if task.name == "depth" else _baselines.disparity_ramp(shape)


def _mean_normal(task: Task, known: Known, shape: tuple[int, int], sample: Sample) -> np.ndarray:
    x, y, z = known["sum"] if np.linalg.norm(known["sum"]) > 0 else (0.0, 0.0, 1.0)
    return _baselines.facing(shape, (float(x), float(y), float(z)))


def _most_frequent(task: Task, known: Known, shape: tuple[int, int], sample: Sample) -> np.ndarray:
    return np.full(shape, int(known["count"].argmax()), np.int32)


def _majority(task: Task, known: Known, shape: tuple[int, int], sample: Sample) -> np.ndarray:
    cells = known["cells"]
    ids = np.where(cells.any(-1), cells.argmax(-1), known["count"].argmax())
    return _baselines.spread(ids.astype(np.int32), shape)


def _mean_map(task: Task, known: Known, shape: tuple[int, int], sample: Sample) -> np.ndarray:
    return _baselines.spread((known["sum"] / known["count"]).astype(np.float32), shape)


def _mean_pose(task: Task, known: Known, shape: tuple[int, int], sample: Sample) -> np.ndarray:
    return _baselines.in_boxes(known["sum"] / np.maximum(known["count"], 1), boxes_of(sample))


_ANSWERS: Mapping[str, Callable[[Task, Known, tuple[int, int], Sample], np.ndarray]] = {
    "constant": _constant,
    "vertical ramp": _ramp,
    "facing the viewer": lambda task, known, shape, sample: _baselines.facing(shape),
    "mean normal": _mean_normal,
    "most frequent class": _most_frequent,
    "majority by position": _majority,
    "all foreground": lambda task, known, shape, sample: _baselines.filled(shape, 1.0),
    "mean mask": _mean_map,
    "mean alpha": _mean_map,
    "mean pose in the box": _mean_pose,
    "nothing strange": lambda task, known, shape, sample: _baselines.filled(shape, 0.0),
}


def boxes_of(sample: Sample) -> np.ndarray:
    """(N, 4 or 5) x, y, width, height and, of a detector, its score: the detections where a set has them, else the labels'."""
    if "detections" in sample.meta:
        return np.asarray(sample.meta["detections"], np.float64).reshape(-1, 5)
    return _boxes(sample)


def _boxes(sample: Sample) -> np.ndarray:
    if sample.boxes is None:
        return np.zeros((0, 4))
    return sample.boxes.numpy().astype(np.float64).reshape(-1, 4)
