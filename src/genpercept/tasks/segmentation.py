"""Semantic segmentation. Painted (stage 1): one colour per class, decoded to the nearest. Classified (stage 2): logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from genpercept.core.classes import IGNORED, ClassTable, find, names
from genpercept.core.values import Geometry, Sample, Target, resize
from genpercept.imaging.prediction import Prediction
from genpercept.tasks._task import TaskOptions, on_host


@dataclass(frozen=True)
class Segmentation(TaskOptions):
    """classes: the name of a class table (nyu40, ade20k150, cityscapes19, synthetic), a file with one, or its contents."""

    classes: Any = "nyu40"

    name = "segmentation"
    kind = "class_ids"
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
        colours = self._colours()[ids.clamp_min(0)].permute(2, 0, 1)
        return Target(torch.where(valid, colours, 0.0)[None], valid[None, None], space)

    def decode(self, raw: Tensor, geometry: Geometry) -> Prediction:
        """Colours: the nearest class's id. Logits: the largest one's. Compared at the image's size, class by class."""
        score = self._nearness(raw.float()) if raw.shape[1] == 3 else lambda i: raw[:, i : i + 1].float()
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

    def _colours(self) -> Tensor:
        """(C, 3) in [-1, 1]."""
        return torch.tensor(self.table.colours, dtype=torch.float32) / 127.5 - 1

    def _nearness(self, raw_1CHW: Tensor) -> Callable[[int], Tensor]:
        colours = self._colours().to(raw_1CHW.device)
        return lambda i: -(raw_1CHW - colours[i].view(1, 3, 1, 1)).square().sum(1, keepdim=True)


def _best(score: Callable[[int], Tensor], classes: int, geometry: Geometry) -> Tensor:
    """The class of the highest score per pixel of the image, (H, W) int32; one class in memory at a time."""
    h, w = geometry.resized
    best = ids = None
    for i in range(classes):
        value = resize(score(i)[..., :h, :w], geometry.original)[0, 0]
        if best is None or ids is None:
            best, ids = value, torch.zeros_like(value, dtype=torch.int32)
            continue
        better = value > best
        best, ids = torch.where(better, value, best), ids.masked_fill(better, i)
    assert ids is not None
    return ids


PLUGIN = Segmentation()
