"""Semantic segmentation. Painted (stage 1): one colour per class, decoded to the nearest. Classified (stage 2): logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from genpercept.core import arrays
from genpercept.core.classes import IGNORED, ClassTable, find, names
from genpercept.core.values import Geometry, Sample, Target, resize
from genpercept.imaging.prediction import Prediction
from genpercept.tasks._task import TaskOptions, on_host

if TYPE_CHECKING:
    from genpercept.core.arrays import Map


@dataclass(frozen=True)
class Segmentation(TaskOptions):
    """classes: the name of a class table (nyu40, ade20k150, cityscapes19, synthetic), a file with one, or its contents."""

    classes: Any = "nyu40"

    name = "segmentation"
    kind = "class_ids"
    takes_arrays = True
    spaces = ("image", "classes")
    labels = ("class_ids",)
    head = "vae"
    losses: ClassVar[Mapping[str, Mapping[str, float]]] = {"image": {"mse": 1.0}, "classes": {"cross_entropy": 1.0}}
    metric = "segmentation"

    def __post_init__(self) -> None:
        _ = self.table  # refuses an unknown one

    @cached_property
    def table(self) -> ClassTable:
        if isinstance(self.classes, Mapping):
            own = self.classes
            return ClassTable(str(own["name"]), tuple(own["names"]), np.asarray(own["colours"], np.uint8))
        return find(self.classes)

    @property
    def options(self) -> dict[str, Any]:
        """Named tables by name; others in full, so that a saved model needs no file beside it."""
        if self.classes in names():
            return {"classes": self.classes}
        table = self.table
        own = {"name": table.name, "names": list(table.names), "colours": table.colours.tolist()}
        return {"classes": own}

    def outputs(self, space: str) -> int:
        return 3 if space == "image" else len(self.table)

    def encode(self, sample: Sample, space: str = "image") -> Target:
        """Class ids (H, W) -> their colours (1, 3, H, W) in [-1, 1], or ("classes") the ids (1, 1, H, W); -1: not valid."""
        ids = self._ids(sample)
        valid = ids >= 0
        if space == "classes":
            return Target(torch.where(valid, ids, 0).float()[None, None], valid[None, None], space)
        colours = torch.from_numpy(self._colours())[ids.clamp_min(0)].permute(2, 0, 1)
        return Target(torch.where(valid, colours, 0.0)[None], valid[None, None], space)

    def decode(self, raw: Map, geometry: Geometry) -> Prediction:
        """Colours: the nearest class's id. Logits: the largest one's. Compared at the image's size, class by class."""
        scores = arrays.floats(raw)
        score = self._nearness(scores) if raw.shape[1] == 3 else lambda i: scores[:, i : i + 1]
        ids, raw_CHW = on_host(_best(score, len(self.table), geometry), raw)
        meta = {"classes": list(self.table.names), "colours": self.table.colours.tolist()}
        return Prediction(ids, self.kind, raw=raw_CHW, meta=meta)

    def truth(self, sample: Sample) -> dict[str, Any]:
        return {"gt": self._ids(sample).numpy()}

    def metric_options(self) -> dict[str, Any]:
        return {"num_classes": len(self.table)}

    def _ids(self, sample: Sample) -> Tensor:
        ids = sample.label("class_ids").long()
        if int(ids.max()) >= len(self.table):
            raise ValueError(
                f"sample {sample.name!r}: class {int(ids.max())}, but {self.table.name} has {len(self.table)} classes; "
                "set task_options.classes to the data set's own"
            )
        return torch.where(ids < 0, IGNORED, ids)

    def _colours(self) -> np.ndarray:
        """(C, 3) in [-1, 1]."""
        return self.table.colours.astype(np.float32) / np.float32(127.5) - 1

    def _nearness(self, raw_1CHW: Map) -> Callable[[int], Map]:
        colours, square = arrays.like(raw_1CHW, self._colours()), arrays.space(raw_1CHW).square
        return lambda i: -square(raw_1CHW - colours[i].reshape(1, 3, 1, 1)).sum(1)[:, None]


def _best(score: Callable[[int], Map], classes: int, geometry: Geometry) -> Map:
    """The class of the highest score per pixel of the image, (H, W) int32; one class in memory at a time."""
    h, w = geometry.resized
    best = ids = None
    for i in range(classes):
        value = resize(score(i)[..., :h, :w], geometry.original)[0, 0]
        xp = arrays.space(value)
        if best is None or ids is None:
            best, ids = value, xp.zeros_like(value, dtype=xp.int32)
            continue
        better = value > best
        best, ids = xp.where(better, value, best), xp.where(better, i, ids)
    assert ids is not None
    return ids


PLUGIN = Segmentation()
