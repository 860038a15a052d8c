"""Labels painted as 3-channel images in [-1, 1], for the autoencoder: what it will have to carry later."""

from __future__ import annotations

import torch
from torch import Tensor

from genpercept._training.records import Record, to_sample
from genpercept.tasks import TASKS


def paint(kind: str, record: Record) -> Tensor:
    """(3, H, W) float32 in [-1, 1]. "image" is the photograph; masks and class ids need no task; others are tasks."""
    sample = to_sample(record)
    match kind:
        case "image":
            return sample.image * 2 - 1
        case "mask" | "defect" | "alpha":
            return (sample.label(kind).float() * 2 - 1).expand(3, -1, -1)
        case "class_ids":
            return _palette(sample.label(kind))
        case _:
            return TASKS.find(kind).encode(sample).map[0]


def _palette(ids_HW: Tensor) -> Tensor:
    """Well-separated colours: the bits of the id, spread over the channels (as PASCAL VOC's colour map)."""
    value = torch.zeros(3, *ids_HW.shape)
    for bit in range(6):
        for channel in range(3):
            value[channel] += ((ids_HW >> (3 * bit + channel)) & 1).float() * 2.0 ** (7 - bit)
    return value / 127.5 - 1
