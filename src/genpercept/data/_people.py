"""What the data sets of people share: someone with a box and 17 joints, and the sample that some of them make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genpercept.core.values import Sample

JOINTS = 17


@dataclass(frozen=True)
class Person:
    """One annotation. box: x, y, width, height. keypoints: 17 times x, y, visibility. area: in pixels; None: unknown."""

    id: int
    box: tuple[float, ...]
    area: float | None
    crowd: int
    num_keypoints: int
    keypoints: tuple[float, ...]

    @property
    def labelled(self) -> bool:
        """Counted by the metric; a crowd, or someone without a joint, is a region that it passes over."""
        return not self.crowd and self.num_keypoints > 0


def people_sample(name: str, image: Tensor, image_id: int, people: Sequence[Person]) -> Sample:
    """keypoints (N, 17, 3) and boxes (N, 4) of these people. meta: image_id, and of each ids, iscrowd, num_keypoints and,
    where all are known, areas."""
    points = np.array([p.keypoints for p in people], np.float32).reshape(-1, JOINTS, 3)
    boxes = np.array([p.box for p in people], np.float32).reshape(-1, 4)
    meta = {
        "image_id": image_id,
        "ids": [p.id for p in people],
        "iscrowd": [p.crowd for p in people],
        "num_keypoints": [p.num_keypoints for p in people],
    }
    if all(p.area is not None for p in people):
        meta["areas"] = [p.area for p in people]
    return Sample(name, image, keypoints=torch.from_numpy(points), boxes=torch.from_numpy(boxes), meta=meta)
