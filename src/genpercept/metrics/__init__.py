"""Metrics: one module per metric, and `score`, which runs one of them over arrays.

score("depth", pred, gt)                            one image, or a list of them (a set)
score("depth", pred, gt, protocol="nyu")            a named evaluation protocol, see `_protocols.py`
score("normals", pred, gt, aggregate="images")      single options, which also override a named protocol
score("matting", pred, gt, trimap=t)                what else a sample brings, for the metrics that take it

What a metric takes and gives, it says itself: `help(find("depth"))`. How to write one: see `_metric.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import EntryPoint
from typing import Any

from genpercept.core.registry import Registry
from genpercept.metrics import _arrays
from genpercept.metrics._metric import (
    AnnotatedPlugin,
    Averaged,
    Baseline,
    Breakdown,
    Column,
    Metric,
    MetricPlugin,
    PerPixel,
    down,
    up,
)
from genpercept.metrics._panels import Scale

__all__ = [
    "METRICS",
    "AnnotatedPlugin",
    "Averaged",
    "Baseline",
    "Breakdown",
    "Column",
    "Metric",
    "MetricPlugin",
    "PerPixel",
    "Scale",
    "down",
    "find",
    "of_task",
    "options_for",
    "score",
    "up",
]

# What samples of one metric or another bring besides; refused by that name where a metric does not take it.
_EXTRAS = ("trimap", "skeleton", "meta", "scores", "box_scores", "category", "image_score")


class _Metrics(Registry[MetricPlugin[Any]]):
    def whole(self, plugin: MetricPlugin[Any], entry: EntryPoint) -> MetricPlugin[Any]:
        """ValueError for one that declares nothing, too."""
        if not isinstance(plugin, MetricPlugin):
            raise ValueError(
                f"metric {entry.name!r}: its plugin is a {type(plugin).__name__}; make it an instance of a subclass of "
                "genpercept.metrics.MetricPlugin"
            )
        return super().whole(plugin, entry)


METRICS = _Metrics(__name__, "metric", "genpercept.metrics", MetricPlugin)
find = METRICS.find


def of_task(name: str) -> MetricPlugin[Any]:
    """The metric of this name, or that of the task of this name. ValueError where neither is there."""
    if name not in METRICS.names():
        from genpercept.tasks import TASKS  # which need torch; arrays are scored without it

        if name in TASKS.names() and (metric := TASKS.find(name).metric):
            return METRICS.find(metric)
    return METRICS.find(name)


def score(
    task: str,
    pred: Any,
    gt: Any,
    valid: Any = None,
    *,
    protocol: str | None = None,
    names: Sequence[str] | None = None,
    **options: Any,
) -> dict[str, float]:
    """Figures of `pred` against `gt` by the metric `task`, or the task's: arrays or `Prediction`s, or lists of them (a set).

    Shapes, units and figures are the metric's own: `help(genpercept.metrics.find("depth"))`. valid: bool (H, W) (of poses
    (M,)), or a list of them; None leaves it to the protocol. options: those of the metric, and what it takes with a sample
    (its `extras`), lists of that for a set. A sample without a valid pixel gives NaN and does not count in a mean over
    several. Raises ValueError for shapes that differ, NaN or infinite predictions at valid pixels, unknown metrics,
    protocols and options.
    """
    plugin = of_task(task)
    preds, gts, valids = _arrays.as_set(plugin.ndim, pred, gt, valid)
    extras = {key: options.pop(key) for key in dict.fromkeys((*plugin.extras, *_EXTRAS)) if key in options}
    options = options_for(plugin, {p.kind for p in preds if hasattr(p, "kind")}, options)
    metric = plugin(protocol=protocol, **options)
    one = len(preds) == 1 and not isinstance(pred, list | tuple)
    each = _arrays.extras_for(plugin.extras, extras, one, len(preds))
    for i, (p, g, v) in enumerate(zip(preds, gts, valids, strict=True)):
        metric.update(p, g, v, name=names[i] if names is not None else str(i), **each[i])
    return metric.compute()


def options_for(plugin: MetricPlugin[Any], kinds: Collection[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with which predictions of these kinds are scored. ValueError for a kind that the metric does not score."""
    for kind in sorted(kinds):
        if plugin.kinds and kind not in plugin.kinds:
            raise ValueError(f"a prediction of kind {kind!r} cannot be scored as {plugin.name!r}{_which_can(kind)}")
    return plugin.options_for(kinds, options)


def _which_can(kind: str) -> str:
    """The metric of the task that gives such predictions, in words."""
    from genpercept.tasks import TASKS  # which need torch; arrays are scored without it

    metric = next((task.metric for task in TASKS.all().values() if task.kind == kind and task.metric), "")
    return f": {metric!r} can" if metric else ""
