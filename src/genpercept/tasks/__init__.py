"""Tasks: how a label becomes the network's target, and how its answer becomes a Prediction. One file each.

To write one begin with `TaskOptions`, or with `ScalarTask` where the label is one value per pixel in [0, 1]: docs/extend.md.
A task on regions (pose) also has `regions` before the network and `merge` after it; one that makes its training samples out of
what a data set gives (pose: crops of people; anomaly: defects on good images) has `prepare`. See `RegionTask`, `PreparedTask`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from torch import Tensor

from genpercept.core.classes import ClassTable
from genpercept.core.registry import Registry
from genpercept.core.values import Geometry, Region, Sample, Target
from genpercept.imaging.prediction import Prediction
from genpercept.tasks._task import ScalarTask, TaskOptions, painted, unpainted

__all__ = [
    "DEFAULT",
    "TASKS",
    "ArrayTask",
    "ClassTask",
    "JudgingTask",
    "MergingTask",
    "PostProcessedTask",
    "PreparedTask",
    "RegionTask",
    "ScalarTask",
    "Task",
    "TaskOptions",
    "find",
    "given_boxes",
    "labelled_boxes",
    "listed",
    "painted",
    "title_of",
    "unpainted",
]


class Task(Protocol):
    name: str
    kind: str  # of the Prediction: fixes shape, range and meaning of its values
    spaces: tuple[str, ...]  # of the raw maps that `decode` takes; see genpercept.models.heads
    labels: tuple[str, ...]  # the fields of Sample that `encode` reads
    head: str  # the default head
    losses: Mapping[str, Mapping[str, float]]  # of each space, the default losses and their weights
    metric: str

    @property
    def options(self) -> dict[str, Any]:
        """Every option with its value, as JSON holds it."""
        ...

    def with_options(self, **options: Any) -> Self:
        """The task with these options. ValueError for an unknown one, or for a value it cannot have."""
        ...

    def outputs(self, space: str) -> int:
        """Channels of a raw map of this space."""
        ...

    def encode(self, sample: Sample, space: str = "image") -> Target:
        """The label of one sample, physical units -> Target of batch size 1. ValueError that names a sample without it."""
        ...

    def decode(self, raw: Tensor, geometry: Geometry) -> Prediction:
        """Raw map (1, C, *geometry.padded) of one of `spaces` -> Prediction at the image's own size. See ArrayTask."""
        ...

    def flip(self, map_BCHW: Tensor) -> Tensor:
        """A target or raw map mirrored left to right, with what mirroring does to its values. See ArrayTask."""
        ...

    def truth(self, sample: Sample) -> dict[str, Any]:
        """What the metric's `update` takes beside the prediction: gt, valid and the like. ValueError without a label."""
        ...

    def metric_options(self) -> dict[str, Any]:
        """Options of the metric that the task decides, such as the number of classes."""
        ...


TASKS = Registry[Task](__name__, "task", "genpercept.tasks", Task)
find = TASKS.find

DEFAULT = "depth"  # where nobody says a task
# As pages list them; others come after, sorted. The demo opens with the first two.
_ORDER = ("depth", "normals", "disparity", "segmentation", "dis", "matting", "pose", "anomaly")
_TITLES = {"dis": "Dichotomous segmentation"}


def listed() -> list[str]:
    """Every task, in the order of pages."""
    names = TASKS.names()
    return [*(n for n in _ORDER if n in names), *(n for n in names if n not in _ORDER)]


def title_of(task: str) -> str:
    """What pages call a task."""
    return _TITLES.get(task, task.capitalize())


@runtime_checkable
class RegionTask(Protocol):
    """A task that looks at parts of an image, one by one."""

    def regions(self, image: Tensor, boxes: np.ndarray | None) -> list[Region]:
        """The parts of an image (1, 3, H, W) in [0, 1]; boxes (N, 4): x, y, width, height in pixels; None: all of it."""
        ...

    def merge(self, predictions: Sequence[Prediction], regions: Sequence[Region]) -> Prediction:
        """One Prediction for the image out of one for each region, in the regions' order."""
        ...


@runtime_checkable
class ArrayTask(Protocol):
    """A task whose `decode`, `flip` and `regions` may take NumPy arrays in the place of tensors (see core.arrays).

    Exported models give arrays to those whose `takes_arrays` is True, so that they need no torch, and tensors to all others.
    """

    takes_arrays: bool


@runtime_checkable
class PreparedTask(Protocol):
    """A task that trains on something else than a data set's samples as they are."""

    def prepare(self, sample: Sample, rng: np.random.Generator | None) -> Sample:
        """The sample to train on; without `rng`, the one to validate on, always the same."""
        ...


@runtime_checkable
class JudgingTask(Protocol):
    """A task whose predictions carry a verdict on the whole image, by thresholds that are set on good ones."""

    verdict: tuple[str, ...]  # its options that are these thresholds; values of predictions do not depend on them

    def judge(self, prediction: Prediction) -> dict[str, Any]:
        """What the `meta` of a prediction says of the image as a whole."""
        ...

    def fitted(self, good: Sequence[Prediction], image_rate: float, pixel_rate: float) -> Self:
        """The task with thresholds that at most these shares of good images, and of their pixels, are above."""
        ...


@runtime_checkable
class MergingTask(Protocol):
    """A task that may merge runs itself, where they have to be merged before they are maps of its kind."""

    def merge_runs(self, raw_MCHW: Tensor, geometry: Geometry) -> Prediction | None:
        """One Prediction out of several runs' raw maps, with its uncertainty; None: by the rule of its kind."""
        ...


@runtime_checkable
class PostProcessedTask(Protocol):
    """A task that says what its `decode` does beside scaling values to their range."""

    @property
    def post_processing(self) -> str:
        """In words for tables; "": nothing, and it has no such choice; "none": it was chosen to do nothing."""
        ...


@runtime_checkable
class ClassTask(Protocol):
    """A task whose labels are ids of named classes."""

    @property
    def table(self) -> ClassTable:
        """The classes that it predicts."""
        ...


def given_boxes(sample: Sample) -> np.ndarray:
    """Where a task on regions looks: (N, 4 or 5) x, y, width, height in pixels and, of a detector, its score.

    The detections where a set has them, else the labels' boxes.
    """
    if "detections" in sample.meta:
        return np.asarray(sample.meta["detections"], np.float64).reshape(-1, 5)
    return labelled_boxes(sample)


def labelled_boxes(sample: Sample) -> np.ndarray:
    """(N, 4) x, y, width, height in pixels of what is labelled; (0, 4) where a set gives none."""
    if sample.boxes is None:
        return np.zeros((0, 4))
    return sample.boxes.numpy().astype(np.float64).reshape(-1, 4)
