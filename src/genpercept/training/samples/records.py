"""A record: one labelled image as numpy arrays (HWC), the form in which data is cached, cropped and augmented.

Fields: image (H, W, 3) uint8; the labels that a data set has, as their rows of LABELS say, maps (H, W) or (H, W, C);
keypoints also (17, 3), one figure's; caption, domain, name: str; meta: plain values.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genpercept.core.labels import BESIDE, LABELS, VALID, Label
from genpercept.core.values import Sample

Record = dict[str, Any]

TEXTS = ("caption", "domain", "name")


def labels_of(record: Record) -> Iterator[tuple[str, Label, np.ndarray]]:
    """Name, row and array of each label that a record has. ValueError for one that no row of LABELS knows."""
    for name, value in record.items():
        if value is not None and name not in BESIDE:
            yield name, LABELS.find(name), value


def to_sample(record: Record) -> Sample:
    """The record in the types the tasks take: image (3, H, W) float32 in [0, 1], channels first."""
    labels: dict[str, Tensor] = {}
    for name, row, value in labels_of(record):
        arranged = row.arrange(value) if row.arrange else value
        array = np.require(
            arranged, row.dtype, ("C", "W")
        )  # a copy only where it must: torch takes no read-only memory
        labels[name] = torch.from_numpy(np.ascontiguousarray(row.first(array)))
    sample = Sample(name=str(record.get("name", "")), image=image_tensor(record["image"]))
    sample.meta = dict(record.get("meta", {}))
    sample.caption, sample.domain = str(record.get("caption", "")), str(record.get("domain", ""))
    return sample.with_labels(labels)


def image_tensor(image_HWC: np.ndarray) -> Tensor:
    """uint8 (H, W, 3) -> float32 (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image_HWC.transpose(2, 0, 1))).float() / 255


def from_sample(sample: Sample) -> Record:
    """A data set's sample as a record; the image is rounded to 8 bits."""
    record: Record = {key: getattr(sample, key) for key in TEXTS}
    record["meta"] = sample.meta
    record["image"] = (sample.image * 255).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()
    return record | {name: LABELS.find(name).last(value.numpy()) for name, value in sample.labels().items()}


def cut_off(record: Record, far: float) -> Record:
    """Labels in metres of at most `far`, the sky (infinite) included and valid; 0 leaves the record as it is.

    Labels are scaled by quantiles of their depth: without a cut-off, a street's far end leaves its near part no range.
    """
    if not far:
        return record
    for name, row, value in labels_of(record):
        if row.unit == "m":
            depth = np.asarray(value, np.float32)
            known = np.asarray(record[VALID]) if VALID in record else np.isfinite(depth)
            record = record | {name: np.minimum(depth, far), VALID: known | np.isposinf(depth)}
    return record
