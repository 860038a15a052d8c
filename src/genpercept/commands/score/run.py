"""`genpercept score`: figures of predictions against ground truth in files, as JSON."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from genpercept.commands.score.files import Matcher, stored_kind
from genpercept.core import notes, said
from genpercept.metrics import METRICS, AnnotatedPlugin, Metric, of_task, options_for


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
    """Score files, or folders matched by stem, by the metric `task`, or the task's; print one JSON object.

    Folders that hold only folders are matched by path, so that equal stems in several of them stay apart.

    In it: figures, `images`, `empty`, and what they were made with.

    Files are npy, npz, exr, png and tif, read as the metric reads them (`help(genpercept.metrics.find(task).read_gt)`).
    `pred_scale`, `gt_scale`: what a stored integer is divided by to be metres (256: KITTI, 1000: millimetres). valid,
    trimap, skeleton: further files or folders, for the metrics that take them; what else a metric takes beside is an option
    of that name. What readers notice of files is told as `notes`.
    Folders of anomaly maps are matched in MVTec's layout; poses are COCO's JSON for both, or a folder of npy or npz by the
    images' names for pred. `per_image` adds the figures of each sample, `details` what a metric knows besides (per class,
    per category, recall). `options` as in `genpercept.metrics.score`; those that are None are left to the protocol. Raises
    ValueError for files without a partner, unreadable ones, shapes that differ, unknown metrics, protocols and options.
    """
    plugin = of_task(task)
    beside = {"valid": valid, "trimap": trimap, "skeleton": skeleton}
    beside |= {key: options.pop(key) for key in plugin.beside if key in options}
    further = {key: Path(path) for key, path in beside.items() if path is not None}
    chosen = {key: value for key, value in options.items() if value is not None}
    metric = plugin(protocol=protocol, **chosen)  # names are checked before any file is read
    if not plugin.scaled and (pred_scale is not None or gt_scale is not None):
        raise ValueError(f"{task} has no --pred-scale and --gt-scale: they are of {_scaled()}")
    for key in further:
        if key not in plugin.beside:
            raise ValueError(f"{task} takes no --{key}")
    matcher, noticed = Matcher(plugin), list[tuple[str, str]]()
    if isinstance(plugin, AnnotatedPlugin):
        _add_annotated(plugin, metric, matcher, Path(pred), Path(gt))
    else:
        pairs = matcher.match(Path(pred), Path(gt), further)
        kinds = {kind for pair in pairs if (kind := stored_kind(pair.pred))}
        chosen = options_for(plugin, kinds, chosen)
        metric = plugin(protocol=protocol, **chosen)
        with notes.heard() as noticed:
            for pair in pairs:
                plugin.add(metric, pair, pred_scale, gt_scale)
    text = to_json(task, protocol, chosen, metric, per_image, details, noticed)
    said.result(json.loads(text))
    print(text)
    return 0


def _scaled() -> str:
    """The metrics whose integers have a unit, in words; of those whose packages are installed."""
    found = []
    for name in METRICS.names():
        with suppress(ImportError, ValueError):
            found += [name] if METRICS.find(name).scaled else []
    return " and ".join(found)


def _add_annotated(plugin: AnnotatedPlugin[Any], metric: Metric, matcher: Matcher, pred: Path, gt: Path) -> None:
    for what, path in {"prediction": pred, "ground truth": gt}.items():
        if not path.exists():
            raise ValueError(f"{path}: no such {what} file or folder")
    truth = plugin.read_annotations(gt)
    if not pred.is_dir():
        plugin.add_results(metric, truth, plugin.read_results(pred))
        return
    found = matcher.by_stem(pred)
    plugin.add_folder(metric, truth, {stem: plugin.read_pred(path) for stem, path in found.items()})


def to_json(
    task: str,
    protocol: str | None,
    options: dict[str, Any],
    metric: Metric,
    per_image: bool,
    details: bool = False,
    noticed: Sequence[tuple[str, str]] = (),
) -> str:
    """The figures at the top level, what they were made with beside them. NaN is null: JSON has none.

    noticed: what readers said of files; how many of them is told as `notes`.
    """
    result: dict[str, Any] = {
        **metric.compute(),
        "images": len(metric.rows),
        "empty": sorted(metric.empty),
        "task": task,
        "protocol": protocol,
        "options": options,
    }
    if noticed:
        result["notes"] = dict(Counter(text for text, _ in noticed))
    if details:
        result["details"] = metric.details()
    if per_image:
        result["per_image"] = metric.rows
    return json.dumps(_without_nan(result), indent=2, default=str)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
