"""`genpercept score`: figures of predictions against ground truth in files, as JSON."""

from __future__ import annotations

import inspect
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from genpercept import _score_files as files
from genpercept.metrics import METRICS, Metric, _arrays
from genpercept.metrics.anomaly import AnomalyMetric
from genpercept.metrics.pose import PoseMetric, read_annotations, read_results

_SCALED = ("depth", "disparity")  # whose integers have units


def main(
    task: str,
    pred: Path | str,
    gt: Path | str,
    valid: Path | str | None = None,
    protocol: str | None = None,
    *,
    trimap: Path | str | None = None,
    skeleton: Path | str | None = None,
    pred_scale: float | None = None,
    gt_scale: float | None = None,
    per_image: bool = False,
    details: bool = False,
    **options: Any,
) -> int:
    """Score files, or folders matched by stem, and print one JSON object: the figures, `images`, `empty`, `task`.

    npy, npz and png. depth, disparity: `pred_scale`, `gt_scale` are what a stored integer is divided by to be metres
    (256: KITTI, 1000: millimetres). normals: PNG is (n + 1) / 2, black where there is none. segmentation: class ids,
    palettes by index. dis, matting: 8 or 16 bits; trimap, skeleton: files or folders beside. anomaly: folders in MVTec's
    layout, see `match_tree`. pose: COCO's JSON for both, or a folder of npy or npz by the images' names for pred.
    `per_image` adds the figures of each sample, `details` what a metric knows besides (per class, per category, recall).
    `options` as in `genpercept.metrics.score`; those that are None are left to the protocol. Raises ValueError for files
    without a partner, unreadable ones, shapes that differ, unknown tasks, protocols and options.
    """
    chosen = {key: value for key, value in options.items() if value is not None}
    make = METRICS.find(task)
    metric = make(protocol=protocol, **chosen)  # names are checked before any file is read
    if task not in _SCALED and (pred_scale is not None or gt_scale is not None):
        raise ValueError(f"{task} has no --pred-scale and --gt-scale: they are of {' and '.join(_SCALED)}")
    beside = {"valid": valid, "trimap": trimap, "skeleton": skeleton}
    beside = {key: Path(path) for key, path in beside.items() if path is not None}
    _require_taken(task, metric, beside)
    if isinstance(metric, PoseMetric):
        _add_people(metric, Path(pred), Path(gt))
    elif isinstance(metric, AnomalyMetric):
        _add_anomalies(metric, Path(pred), Path(gt))
    else:
        pairs = files.match(Path(pred), Path(gt), beside)
        kinds = {kind for pair in pairs if (kind := files.stored_kind(pair.pred))}
        chosen = _arrays.options_for(task, kinds, chosen)
        metric = make(protocol=protocol, **chosen)
        if pred_scale is None and chosen.get("align") != "none":
            pred_scale = 65535  # any would do: the alignment takes it out
        for pair in pairs:
            _add(task, metric, pair, pred_scale, gt_scale)
    print(to_json(task, protocol, chosen, metric, per_image, details))
    return 0


def _require_taken(task: str, metric: Metric, beside: dict[str, Path]) -> None:
    taken = [] if task in ("pose", "anomaly") else inspect.signature(metric.update).parameters
    for key in beside:
        if key not in taken:
            raise ValueError(f"{task} takes no --{key}")


def _add(task: str, metric: Metric, pair: files.Pair, pred_scale: float | None, gt_scale: float | None) -> None:
    assert pair.gt is not None  # `match` leaves none out
    mask = None if pair.valid is None else files.read_mask(pair.valid)
    if task == "segmentation":
        pred, truth = files.read_ids(pair.pred), files.read_ids(pair.gt)
    elif task in ("dis", "matting"):
        pred, truth = files.read_unit(pair.pred), files.read_unit(pair.gt)
    else:
        pred = files.read_values(task, pair.pred, pred_scale, "pred_scale")
        truth = files.read_values(task, pair.gt, gt_scale, "gt_scale")
    if task == "normals" and pair.gt.suffix.lower() == ".png":
        # Black decodes to (-1, -1, -1), which is no zero vector any more; DSINE masks on the PNG, and so do we.
        truth[(truth <= -1).all(-1)] = 0
    extras: dict[str, Any] = {
        key: files.read_mask(path) if key == "skeleton" else files.read_unit(path) for key, path in pair.extras.items()
    }
    metric.update(pred, truth, mask, name=pair.name, **extras)


def _add_anomalies(metric: AnomalyMetric, pred: Path, gt: Path) -> None:
    pairs = files.match_tree(pred, gt)
    _arrays.options_for("anomaly", {kind for pair in pairs if (kind := files.stored_kind(pair.pred))}, {})
    for pair in pairs:
        scores = files.read_scores(pair.pred)
        truth = np.zeros(scores.shape, bool) if pair.gt is None else files.read_mask(pair.gt)
        metric.update(scores, truth, name=pair.name, category=pair.category)


def _add_people(metric: PoseMetric, pred: Path, gt: Path) -> None:
    for what, path in {"prediction": pred, "ground truth": gt}.items():
        if not path.exists():
            raise ValueError(f"{path}: no such {what} file or folder")
    if gt.is_dir():
        raise ValueError(f"{gt}: is a folder: the ground truth of pose is COCO's JSON file of annotations")
    truth = read_annotations(gt)
    if not pred.is_dir():
        metric.add_coco(truth, read_results(pred))
        return
    found = files.by_stem(pred)
    metric.add_predictions(truth, {stem: files.read_points(path) for stem, path in found.items()})


def to_json(
    task: str, protocol: str | None, options: dict[str, Any], metric: Metric, per_image: bool, details: bool = False
) -> str:
    """The figures at the top level, what they were made with beside them. NaN is null: JSON has none."""
    result: dict[str, Any] = {
        **metric.compute(),
        "images": len(metric.rows),
        "empty": sorted(_empty(metric)),
        "task": task,
        "protocol": protocol,
        "options": options,
    }
    if details:
        result["details"] = getattr(metric, "details", dict)()
    if per_image:
        result["per_image"] = metric.rows
    return json.dumps(_without_nan(result), indent=2, default=str)


def _empty(metric: Metric) -> set[str]:
    """Samples that had nothing to compare. A metric knows best: a picture without defects has no figures of its own."""
    nothing = {name for name, row in metric.rows.items() if all(math.isnan(v) for v in row.values())}
    return getattr(metric, "empty", nothing)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
