"""A record: one labelled image as numpy arrays (HWC), the form in which data is cached, cropped and augmented.

Fields, those that a data set has: image (H, W, 3) uint8; depth (H, W) float, metres; normals (H, W, 3) float; class_ids
(H, W) integer; mask, defect, valid (H, W) bool; alpha (H, W) float in [0, 1]; keypoints (17, 3) or (N, 17, 3),
boxes (N, 4) until the record is augmented; meta: plain values; intrinsics (3, 3); caption, domain, name: str.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genpercept.types import Sample

Record = dict[str, Any]

MAPS = ("depth", "normals", "class_ids", "mask", "alpha", "defect", "valid")  # beside the image: one value per pixel
ARRAYS = ("image", *MAPS, "keypoints", "intrinsics")
TEXTS = ("caption", "domain", "name")
_DTYPES: Mapping[str, Any] = {
    "depth": np.float32,
    "normals": np.float32,
    "class_ids": np.int64,
    "mask": np.bool_,
    "alpha": np.float32,
    "defect": np.bool_,
    "valid": np.bool_,
    "keypoints": np.float32,
    "boxes": np.float32,
    "intrinsics": np.float32,
}


def to_sample(record: Record) -> Sample:
    """The record in the types the tasks take: image (3, H, W) float32 in [0, 1], channels first."""
    fields: dict[str, Tensor] = {}
    for key, dtype in _DTYPES.items():
        value = record.get(key)
        if value is None:
            continue
        array = np.require(value, dtype, ("C", "W"))  # a copy only where it must: torch takes no read-only memory
        fields[key] = torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)) if key == "normals" else array)
    points = fields.get("keypoints")
    if points is not None and points.ndim == 2:  # one figure, or none
        fields["keypoints"] = points[None][: int(bool((points[:, 2] > 0).any()))]
    sample = Sample(name=str(record.get("name", "")), image=image_tensor(record["image"]))
    sample.meta = dict(record.get("meta", {}))
    sample.caption, sample.domain = str(record.get("caption", "")), str(record.get("domain", ""))
    return replace(sample, **fields)


def image_tensor(image_HWC: np.ndarray) -> Tensor:
    """uint8 (H, W, 3) -> float32 (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image_HWC.transpose(2, 0, 1))).float() / 255


def from_sample(sample: Sample) -> Record:
    """A data set's sample as a record; the image is rounded to 8 bits."""
    record: Record = {key: getattr(sample, key) for key in TEXTS}
    record["meta"] = sample.meta
    record["image"] = (sample.image * 255).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()
    for key in _DTYPES:
        value = getattr(sample, key)
        if value is not None:
            record[key] = value.permute(1, 2, 0).numpy() if key == "normals" else value.numpy()
    return record


def cut_off(record: Record, far: float) -> Record:
    """Depth of at most `far` metres, the sky (infinite) included and valid; 0 leaves the record as it is.

    Labels are scaled by quantiles of their depth: without a cut-off, a street's far end leaves its near part no range.
    """
    if not far or "depth" not in record:
        return record
    depth = np.asarray(record["depth"], np.float32)
    known = np.asarray(record["valid"]) if "valid" in record else np.isfinite(depth)
    return record | {"depth": np.minimum(depth, far), "valid": known | np.isposinf(depth)}
