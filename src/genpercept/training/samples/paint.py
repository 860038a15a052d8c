"""Labels painted as 3-channel images in [-1, 1], for the autoencoder: what it will have to carry later."""

from __future__ import annotations

import torch
from torch import Tensor

from genpercept.core.labels import LABELS
from genpercept.core.names import choose
from genpercept.tasks import TASKS
from genpercept.training.samples.records import Record, to_sample


def paint(kind: str, record: Record) -> Tensor:
    """(3, H, W) float32 in [-1, 1]. "image": the photograph; a task: what it teaches; else a label by its limits or classes.

    ValueError for another kind, and for a sample without the label.
    """
    sample = to_sample(record)
    if kind == "image":
        return sample.image * 2 - 1
    if check_kind(kind) in TASKS.names():
        return TASKS.find(kind).encode(sample).map[0]
    row, label = LABELS[kind], sample.label(kind)
    if row.limits is None:
        return _palette(label)
    low, high = row.limits
    return ((label.float() - low) / (high - low) * 2 - 1).expand(3, -1, -1)


def check_kind(kind: str) -> str:
    """The kind, if `paint` knows it. ValueError with those there are."""
    return choose("label to paint", kind, dict.fromkeys(["image", *TASKS.names(), *_paintable()]))


def _paintable() -> list[str]:
    """Labels that fit on three channels without a task."""
    return [name for name, row in LABELS.items() if row.channels in (1, 3) and (row.limits or row.classes)]


def _palette(ids_HW: Tensor) -> Tensor:
    """Well-separated colours: the bits of the id, spread over the channels (as PASCAL VOC's colour map)."""
    value = torch.zeros(3, *ids_HW.shape)
    for bit in range(6):
        for channel in range(3):
            value[channel] += ((ids_HW >> (3 * bit + channel)) & 1).float() * 2.0 ** (7 - bit)
    return value / 127.5 - 1
