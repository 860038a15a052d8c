"""A sample as pictures: the image, what the model said, what is true, and where the two differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from genpercept.imaging import write
from genpercept.imaging.colour import colourise
from genpercept.metrics.normals import angles_deg
from genpercept.prediction import Prediction
from genpercept.tasks import Task
from genpercept.types import Sample

Panels = list[tuple[Image.Image, str]]

_MOST = 640  # pixels: what a page shows
_ANGLE = 60.0  # degrees that are as bright as errors of normals get
_RELATIVE = 0.3  # of the true depth, likewise


def panels(task: Task, sample: Sample, prediction: Prediction, metric: Any) -> Panels:
    """(picture, words) of the image, the prediction, the truth and the error; `metric`, a fresh one, aligns depth."""
    image = np.rint(sample.image.permute(1, 2, 0).numpy() * 255).clip(0, 255).astype(np.uint8)
    height, width = image.shape[:2]
    first = (Image.fromarray(image), f"image, {width} x {height}")
    rest = _PANELS[task.metric](sample, prediction, task.truth(sample), metric, image) if task.metric in _PANELS else []
    return [(_small(picture), words) for picture, words in [first, *rest]]


def _small(picture: Image.Image) -> Image.Image:
    picture = picture.convert("RGB")
    if max(picture.size) > _MOST:
        picture.thumbnail((_MOST, _MOST), Image.Resampling.LANCZOS)
    return picture


def _error(values: np.ndarray, most: float, valid: np.ndarray | None = None) -> Image.Image:
    """Dark (none) to bright (`most` and more); grey where there is no truth."""
    share = np.clip(np.nan_to_num(values), 0, most) / max(most, 1e-6)
    return colourise(share.astype(np.float32), "anomaly", valid)


def _depth(sample: Sample, prediction: Prediction, truth: Mapping[str, Any], metric: Any, image: np.ndarray) -> Panels:
    depth, true, mask = metric.aligned(prediction, truth["gt"], truth.get("valid"), sample.name)
    if not mask.any():
        return [(prediction.colourise(), "prediction"), (_error(mask * 0.0, 1, mask), "no valid pixel")]
    low, high = np.percentile(true[mask], (2, 98))
    spread = max(float(high - low), 1e-6)

    def painted(metres: np.ndarray, valid: np.ndarray | None) -> Image.Image:
        unit = np.clip((np.nan_to_num(metres, posinf=high) - low) / spread, 0, 1).astype(np.float32)
        return colourise(unit, "depth_affine", valid)

    relative = np.abs(depth - true) / np.where(mask, true, 1)
    return [
        (painted(depth, None), f"prediction, aligned, {low:.1f} m red to {high:.1f} m blue"),
        (painted(true, mask), "truth, the same colours"),
        (_error(relative, _RELATIVE, mask), f"relative error, bright: {100 * _RELATIVE:.0f} % and more"),
    ]


def _normals(
    sample: Sample, prediction: Prediction, truth: Mapping[str, Any], metric: Any, image: np.ndarray
) -> Panels:
    gt, valid = truth["gt"], truth["valid"]
    angles = np.zeros(valid.shape, np.float32)
    angles[valid] = angles_deg(prediction.values[valid], gt[valid])
    return [
        (prediction.colourise(), "prediction"),
        (colourise(gt, "normals", valid), "truth"),
        (_error(angles, _ANGLE, valid), f"angle, bright: {_ANGLE:.0f}° and more"),
    ]


def _classes(
    sample: Sample, prediction: Prediction, truth: Mapping[str, Any], metric: Any, image: np.ndarray
) -> Panels:
    gt = truth["gt"]
    valid = (gt >= 0) & (gt != 255)
    legend = prediction.meta.get(write.legend("class_ids"))
    return [
        (prediction.colourise(), "prediction"),
        (colourise(np.where(valid, gt, 0), "class_ids", valid, None, legend), "truth, the same colours"),
        (_error((prediction.values != gt) * 1.0, 1, valid), "bright: wrong"),
    ]


def _maps(sample: Sample, prediction: Prediction, truth: Mapping[str, Any], metric: Any, image: np.ndarray) -> Panels:
    gt = np.asarray(truth["gt"], np.float32)
    return [
        (prediction.colourise(), "prediction"),
        (colourise(gt, "mask"), "truth"),
        (_error(np.abs(prediction.values - gt), 1), "absolute error"),
    ]


def _defects(
    sample: Sample, prediction: Prediction, truth: Mapping[str, Any], metric: Any, image: np.ndarray
) -> Panels:
    gt = np.asarray(truth["gt"], np.float32)
    values = prediction.values
    unit = (values - values.min()) / max(float(values.max() - values.min()), 1e-12)
    words = "difference of the stretched map and the truth"
    return [
        (prediction.colourise(), "prediction, bright: strange"),
        (colourise(gt, "mask"), "truth"),
        (_error(np.abs(unit - gt), 1), words),
    ]


def _pose(sample: Sample, prediction: Prediction, truth: Mapping[str, Any], metric: Any, image: np.ndarray) -> Panels:
    people = np.array(truth["gt"], np.float32)
    people[..., 2] = people[..., 2] > 0
    both = _overlaid(prediction.values, people, image)
    return [
        (prediction.colourise(image), f"prediction, {len(prediction.values)} people"),
        (colourise(people, "keypoints", image=image), f"truth, {len(people)} people"),
        (both, "distance of joints: red lines from the truth to the nearest person's joint"),
    ]


def _overlaid(found: np.ndarray, people: np.ndarray, image: np.ndarray) -> Image.Image:
    """Each visible true joint joined to that joint of the predicted person who is nearest on the whole."""
    from PIL import ImageDraw

    canvas = Image.fromarray(image // 2)
    draw = ImageDraw.Draw(canvas)
    width = max(1, round(max(canvas.size) / 250))
    for person in people:
        seen = person[:, 2] > 0
        if not seen.any() or not len(found):
            continue
        distance = np.linalg.norm(found[:, seen, :2] - person[None, seen, :2], axis=-1).mean(-1)
        for at, to in zip(person[seen, :2], found[int(distance.argmin()), seen, :2], strict=True):
            draw.line([*map(float, at), *map(float, to)], (255, 60, 60), width)
            r = width * 1.2
            draw.ellipse([at[0] - r, at[1] - r, at[0] + r, at[1] + r], fill=(255, 255, 255))
    return canvas


_PANELS: Mapping[str, Callable[[Sample, Prediction, Mapping[str, Any], Any, np.ndarray], Panels]] = {
    "depth": _depth,
    "disparity": _depth,
    "normals": _normals,
    "segmentation": _classes,
    "dis": _maps,
    "matting": _maps,
    "anomaly": _defects,
    "pose": _pose,
}
