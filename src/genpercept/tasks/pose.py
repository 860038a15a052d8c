"""Top-down human pose: each person's box is cropped, its 17 COCO keypoints come as heatmaps (Simple Baselines, ViTPose)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from genpercept.core import arrays
from genpercept.core.label_rules import MIRRORED_JOINTS
from genpercept.core.options import check_integer, check_number
from genpercept.core.values import Geometry, Region, Sample, Target
from genpercept.imaging.prediction import Prediction
from genpercept.tasks import _keypoints
from genpercept.tasks._keypoints import JOINTS
from genpercept.tasks._task import TaskOptions

if TYPE_CHECKING:
    from genpercept.core.arrays import Map

_PADDING = 1.25  # of a person's box, as in Simple Baselines
_SPACE = "heatmaps"


@dataclass(frozen=True)
class Pose(TaskOptions):
    """height, width: of the crops, in pixels; a box is widened or heightened to their aspect.

    sigma: standard deviation of the joints' Gaussians in heatmap pixels; 0: 2 at 64 rows, in proportion below, at least 0.75.
    most_alike: of two people in a detector's boxes with a higher similarity (OKS) only the surer one stays; 1: both.
    """

    height: int = 256
    width: int = 192
    sigma: float = 0.0
    most_alike: float = 0.9

    name = "pose"
    kind = "keypoints"
    takes_arrays = True
    spaces = (_SPACE,)
    labels = ("keypoints",)
    head = "keypoints"
    losses: ClassVar[Mapping[str, Mapping[str, float]]] = {_SPACE: {"heatmap": 1.0}}
    metric = "pose"

    def __post_init__(self) -> None:
        check_integer("height", self.height, 8, 4096)
        check_integer("width", self.width, 8, 4096)
        check_number("sigma", self.sigma, 0, 100)
        check_number("most_alike", self.most_alike, 0, 1)

    def outputs(self, space: str) -> int:
        return JOINTS

    def encode(self, sample: Sample, space: str = _SPACE) -> Target:
        """The first person's joints -> Gaussian heatmaps (1, 17, H / 4, W / 4); unlabelled joints are not valid."""
        size = (sample.image.shape[-2], sample.image.shape[-1])
        people = sample.label("keypoints")
        points = people[0] if len(people) else torch.zeros(JOINTS, 3)
        maps, valid = _keypoints.heatmaps(points, size, self.sigma)
        return Target(maps[None], valid.view(1, JOINTS, 1, 1).expand(1, *maps.shape).contiguous(), space)

    def decode(self, raw: Map, geometry: Geometry) -> Prediction:
        """Heatmaps of one person -> its joints in pixels of the image, refined below a heatmap's pixel."""
        maps = arrays.to_numpy(arrays.floats(raw[0]))  # the only copy from a GPU
        points = _keypoints.locate(maps, geometry.padded)
        scale = [o / r for o, r in zip(geometry.original[::-1], geometry.resized[::-1], strict=True)]
        points[:, :2] *= np.array(scale, np.float32)
        return Prediction(points[None], self.kind, raw=maps)

    def flip(self, map_BCHW: Map) -> Map:
        """Mirrored, left and right joints exchanged."""
        return super().flip(map_BCHW)[:, list(MIRRORED_JOINTS)]

    def truth(self, sample: Sample) -> dict[str, Any]:
        boxes = {} if sample.boxes is None else {"boxes": sample.boxes.numpy()}
        return {"gt": sample.label("keypoints").numpy(), "meta": boxes | sample.meta}

    # ---- regions -------------------------------------------------------------------------------------------------------

    def regions(self, image: Map, boxes: np.ndarray | None) -> list[Region]:
        """A crop for each box (N, 4 or 5): x, y, width, height in pixels, and the detector's score. None: the whole image."""
        h, w = image.shape[-2:]
        rows = np.array([[0, 0, w, h]], np.float64) if boxes is None else np.asarray(boxes, np.float64)
        if rows.ndim != 2 or rows.shape[1] not in (4, 5) or not np.isfinite(rows).all() or (rows[:, 2:4] <= 0).any():
            raise ValueError(
                f"boxes of shape {list(rows.shape)}: must be (N, 4) x, y, width, height in pixels (or 5, with a score), "
                "finite, width and height above 0"
            )
        padding = 1.0 if boxes is None else _PADDING
        return [
            self._crop(image, tuple(row[:4].tolist()), padding, float(row[4]) if len(row) == 5 else None)
            for row in rows
        ]

    def merge(self, predictions: Sequence[Prediction], regions: Sequence[Region]) -> Prediction:
        """Joints of all people, in pixels of the image; `meta` has each one's score: mean joint score times the box's.

        People whom a detector has found twice are there once (OKS-NMS, Simple Baselines).
        """
        people = np.zeros((len(regions), JOINTS, 3), np.float32)
        for i, (prediction, region) in enumerate(zip(predictions, regions, strict=True)):
            people[i] = _keypoints.to_image(prediction.values[0], region)
        sure = [1.0 if region.score is None else region.score for region in regions]
        scores = [_keypoints.person_score(p[:, 2]) * s for p, s in zip(people, sure, strict=True)]
        kept = _keypoints.distinct(people, scores, regions, self.most_alike)
        raw = [one for i in kept if (one := predictions[i].raw) is not None]
        return Prediction(
            people[kept],
            self.kind,
            raw=np.stack(raw) if raw else None,
            meta={"scores": [scores[i] for i in kept], "boxes": [list(regions[i].box) for i in kept]},
        )

    def prepare(self, sample: Sample, rng: np.random.Generator | None) -> Sample:
        """The crop of one labelled person, in training drawn and jittered; the whole image where there is none."""
        people = sample.label("keypoints")
        found = [i for i in range(len(people)) if bool((people[i, :, 2] > 0).any())]
        image = sample.image[None]
        if not found:
            region = self.regions(image, None)[0]
            return _cut(sample, region, torch.zeros(0, JOINTS, 3), sample.meta)
        i = found[0 if rng is None else int(rng.integers(len(found)))]
        box = sample.boxes[i].tolist() if sample.boxes is not None else _keypoints.extent(people[i].numpy())
        region = self._crop(image, _keypoints.jitter(box, rng), _PADDING)
        points = _keypoints.to_region(people[i].numpy(), region)
        area = sample.meta["areas"][i] if "areas" in sample.meta else _keypoints.OF_BOX * box[2] * box[3]
        enlarged = region.image.shape[-1] / region.box[2] * (region.image.shape[-2] / region.box[3])
        return _cut(sample, region, torch.from_numpy(points)[None], {"areas": [area * enlarged]})

    def _crop(self, image: Map, box: tuple[float, ...], padding: float, score: float | None = None) -> Region:
        return _keypoints.crop(image, box, padding, (self.height, self.width), score)


def _cut(sample: Sample, region: Region, keypoints: Tensor, meta: dict[str, Any]) -> Sample:
    """The region as a sample of its own; the sample's other labels belong to the whole image."""
    return Sample(
        sample.name, region.image[0], keypoints=keypoints, caption=sample.caption, domain=sample.domain, meta=meta
    )


PLUGIN = Pose()
