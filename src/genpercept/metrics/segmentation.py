"""Class ids against class ids, accumulated over the set as mmsegmentation's IoUMetric does."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from genpercept.core import classes
from genpercept.imaging.colour import colourise
from genpercept.imaging.prediction import Prediction
from genpercept.metrics import _arrays, _baselines, _files, _panels
from genpercept.metrics._baselines import GRID, Known, size_of
from genpercept.metrics._metric import Baseline, Breakdown, Metric, MetricPlugin, up

if TYPE_CHECKING:
    from genpercept.core.values import Sample
    from genpercept.tasks import ClassTask, Task

KEYS = ("miou", "macc", "aacc")
IGNORED = (-1, 255)  # ours, and the one of most data sets
_MOST = 65536  # classes; what sixteen bits can hold


class SegmentationMetric(Metric):
    """miou, macc: mean over classes of IoU and of recall; aacc: share of pixels that are right. All fractions.

    Intersections and areas are summed over the set before they are divided. A class that occurs neither in the ground
    truth nor in the predictions has no IoU (NaN) and does not count in the mean; one that is only predicted has IoU 0
    and no recall. Pixels whose ground truth is in `ignore_index` do not count; a prediction outside `num_classes` on a
    pixel that counts is a miss.

    num_classes None: every id that occurs is a class, except those of `ignore_index`, which are a miss when predicted.
    That gives the same figures unless a prediction holds other ids that are none. All three are NaN where no pixel counts.

    counted: the classes that the means run over; None: all. For ground truth that comes out of a mapping and cannot hold
    the others: predicted there, they are a miss of the true class and no class of their own, whose IoU could only be 0.
    A ground truth of another class is an error.
    """

    merges = True

    def __init__(
        self,
        num_classes: int | None = None,
        ignore_index: int | Iterable[int] = IGNORED,
        counted: Iterable[int] | None = None,
    ) -> None:
        super().__init__()
        if num_classes is not None and not 1 <= num_classes <= _MOST:
            raise ValueError(f"num_classes {num_classes}: must be 1 to {_MOST}, or None to take what occurs")
        self.num_classes = num_classes
        self.ignore_index = (ignore_index,) if isinstance(ignore_index, int) else tuple(ignore_index)
        self.counted = None if counted is None else frozenset(counted)
        if self.counted is not None and not all(0 <= i < (num_classes or _MOST) for i in self.counted):
            raise ValueError(
                f"counted {sorted(self.counted)}: not all are ids of {num_classes or _MOST} classes, 0 to "
                f"{(num_classes or _MOST) - 1}; raise num_classes, or leave those out"
            )
        self._areas = np.zeros((3, num_classes or 0), dtype=np.int64)

    def update(self, pred: Any, gt: Any, valid: Any = None, name: str = "") -> dict[str, float]:
        """Add one image: pred, gt (H, W) whole numbers, valid (H, W) bool. Returns its own figures.

        ValueError naming the sample for numbers that are not whole, and for a ground truth outside `num_classes`.
        """
        name = _arrays.unique_name(name, self.rows)
        p, g = _arrays.as_ids(pred, "prediction", name), _arrays.as_ids(gt, "ground truth", name)
        _arrays.same_shape(p.shape, g.shape, "prediction", name)
        mask = _arrays.as_mask(valid, g.shape, name)
        for ignored in self.ignore_index:
            mask = mask & (g != ignored)
        if not mask.any():
            self.empty.add(name)
        areas = self._count(p[mask], g[mask], name)
        self._areas = _sum(self._areas, areas)
        self.rows[name] = figures(areas)
        return self.rows[name]

    def merge(self, part: SegmentationMetric) -> None:
        """Add the images of another metric of the same options. ValueError for an image that both have."""
        _arrays.join_rows(self, part)
        self._areas = _sum(self._areas, part._areas)

    def compute(self) -> dict[str, float]:
        """The figures over all images so far."""
        return figures(self._areas)

    @property
    def iou(self) -> NDArray[np.float64]:
        """(C,) IoU of each class over the set; NaN where the class does not occur."""
        return per_class(self._areas)[0]

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """(C,) recall of each class over the set; NaN where the ground truth has none of it."""
        return per_class(self._areas)[1]

    def details(self) -> dict[str, Any]:
        """IoU and recall of each class over the set, NaN for those that do not occur or do not count."""
        return {"iou_per_class": self.iou.tolist(), "acc_per_class": self.accuracy.tolist()}

    def _count(self, p: NDArray[np.int64], g: NDArray[np.int64], name: str) -> NDArray[np.int64]:
        """(3, C): pixels of each class that are right, in the ground truth, in the prediction."""
        most = self.num_classes or _MOST
        if g.min(initial=0) < 0 or g.max(initial=0) >= most:
            wrong = g[(g < 0) | (g >= most)][0]
            raise ValueError(
                f"{_arrays.label(name)}ground truth holds {wrong}, classes are 0 to {most - 1}: "
                "add it to ignore_index, or raise num_classes"
            )
        predicted = np.bincount(p[(p >= 0) & (p < most)])
        if self.num_classes is None:
            predicted[[i for i in self.ignore_index if 0 <= i < predicted.size]] = 0
        true = np.bincount(g)
        if self.counted is not None:
            if strange := [int(i) for i in np.flatnonzero(true) if i not in self.counted]:
                raise ValueError(
                    f"{_arrays.label(name)}ground truth holds {strange[0]}, which is not among the {len(self.counted)} "
                    "classes that count: map it to one that is ignored, or score by another protocol"
                )
            predicted[[i for i in np.flatnonzero(predicted) if i not in self.counted]] = 0
        width = self.num_classes or max(true.size, int(np.flatnonzero(predicted).max(initial=-1)) + 1)
        counts = np.bincount(g[p == g]), true, predicted[:width]
        return np.stack([np.pad(c, (0, width - c.size)) for c in counts])


def figures(areas: NDArray[np.int64]) -> dict[str, float]:
    """miou, macc, aacc of areas (3, C): right, in the ground truth, in the prediction."""
    iou, accuracy = per_class(areas)
    right, true = int(areas[0].sum()), int(areas[1].sum())
    if true == 0:
        return dict.fromkeys(KEYS, float("nan"))
    return {"miou": _nanmean(iou), "macc": _nanmean(accuracy), "aacc": right / true}


def per_class(areas: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """IoU and recall (C,), NaN where they are 0 / 0."""
    right, true, predicted = areas
    with np.errstate(invalid="ignore"):
        return right / (true + predicted - right), right / true


def _nanmean(values: NDArray[np.float64]) -> float:
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if kept.size else float("nan")


def _sum(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of areas (3, C) and (3, D): (3, max(C, D))."""
    width = max(a.shape[1], b.shape[1])
    a, b = (np.pad(x, ((0, 0), (0, width - x.shape[1]))) for x in (a, b))
    return a + b


def _most_frequent(task: Task, known: Known, sample: Sample) -> np.ndarray:
    return np.full(size_of(sample), int(known["count"].argmax()), np.int32)


def _majority(task: Task, known: Known, sample: Sample) -> np.ndarray:
    cells = known["cells"]
    ids = np.where(cells.any(-1), cells.argmax(-1), known["count"].argmax())
    return _baselines.spread(ids.astype(np.int32), size_of(sample))


class Segmentation(MetricPlugin[SegmentationMetric]):
    """pred and gt (H, W) class ids; gt -1 and 255 do not count. Figures: miou macc aacc (fractions).

    See `SegmentationMetric` for the options, num_classes, ignore_index and counted. protocol: mmseg (the default), shared
    (ids of nyu40, of which those count that ADE20K has, too).
    """

    name = "segmentation"
    metric = SegmentationMetric
    protocols: Mapping[str, Mapping[str, Any]] = {"mmseg": {}, "shared": {"counted": classes.shared()}}
    columns = (up("miou", "mIoU"), up("macc", "mAcc"), up("aacc", "aAcc"))
    watched = ("miou",)
    note = "Fractions; intersections and unions are summed over the set."
    kinds = ("class_ids",)
    ndim = 2
    baselines = (
        Baseline("most frequent class", _most_frequent, fitted=True),
        Baseline("majority by position", _majority, fitted=True),
    )

    def breakdown(self, details: Mapping[str, Any], task: Task) -> Breakdown | None:
        """IoU and recall of each class, by name; NaN of those that do not occur."""
        names = cast("ClassTask", task).table.names
        each = zip(names, details["iou_per_class"], details["acc_per_class"], strict=True)
        rows = {n: {k: math.nan if v is None else v for k, v in (("iou", i), ("acc", a))} for n, i, a in each}
        return Breakdown("class", (up("iou", "IoU"), up("acc", "recall")), rows)

    def observe(self, task: Task, sample: Sample) -> Known:
        """Pixels of each class, and in each cell of a grid how many samples have it in the middle. `task` has a table."""
        ids, most = task.truth(sample)["gt"], len(cast("ClassTask", task).table)
        known = (ids >= 0) & (ids < most)
        rows, columns = (np.arange(GRID) * n // GRID for n in ids.shape)
        cells = ids[rows][:, columns]
        by_cell = np.zeros((GRID, GRID, most), np.int64)
        where = np.nonzero((cells >= 0) & (cells < most))
        by_cell[(*where, cells[where])] = 1
        return {"count": np.bincount(ids[known], minlength=most), "cells": by_cell}

    def panels(
        self, prediction: Prediction, truth: Mapping[str, Any], image: np.ndarray, metric: SegmentationMetric, name: str
    ) -> _panels.Panels:
        gt = truth["gt"]
        valid = (gt >= 0) & (gt != 255)
        legend = prediction.meta.get("colours")
        return [
            (prediction.colourise(), "prediction"),
            (colourise(np.where(valid, gt, 0), "class_ids", valid, None, legend), "truth, the same colours"),
            (_panels.error((prediction.values != gt) * 1.0, 1, valid), "bright: wrong"),
        ]

    def read_pred(self, path: Path, scale: float | None = None) -> Any:
        return _files.read_ids(path)


PLUGIN = Segmentation()
