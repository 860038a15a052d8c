"""Metrics: one module per task, and `score`, which runs one of them over arrays.

score("depth", pred, gt)                            one image, or a list of them (a set)
score("depth", pred, gt, protocol="nyu")            a named evaluation protocol, see `_protocols.py`
score("normals", pred, gt, aggregate="images")      single options, which also override a named protocol
score("matting", pred, gt, trimap=t)                what else a sample brings, for the metrics that take it (EXTRAS)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from genpercept.plugins import Registry

EXTRAS = {
    "trimap": "matting: (H, W), 128 where unknown",
    "skeleton": "dis: (H, W) bool, of the ground truth, where a data set brings one",
    "meta": "pose: what the annotation of an image says besides joints, see `pose.PoseMetric.update`",
    "scores": "pose: (N,), how sure each person is, instead of the mean of its joints",
    "box_scores": "pose: (N,), how sure the detector was of each person's box",
    "category": "anomaly: which kind of object this is",
    "image_score": "anomaly: how strange the whole image is, instead of its strangest pixel",
}


class Metric(Protocol):
    """Figures over samples. One with `merge(part)`, which adds what another of its options saw, is evaluated by several
    processes; one without, by one.
    """

    @property
    def rows(self) -> Mapping[str, dict[str, float]]:
        """The figures of each sample so far, by its name."""
        ...

    def update(
        self, pred: Any, gt: Any, valid: Any = None, name: str = "", *args: Any, **extras: Any
    ) -> dict[str, float]:
        """Add one sample; returns its own figures. ValueError that names it for NaN or infinite predictions.

        A metric declares which of EXTRAS it takes as keywords of its own `update`, and may declare none.
        """
        ...

    def compute(self) -> dict[str, float]:
        """The figures over all samples so far, under the protocol's rule (mean per image, or pooled)."""
        ...


class MetricPlugin(Protocol):
    def __call__(self, **protocol: Any) -> Metric:
        """A fresh metric. `protocol=NAME` picks a named one, other keywords are its options. ValueError if unknown."""
        ...


METRICS = Registry[MetricPlugin](__name__, "metric", "genpercept.metrics")
find = METRICS.find


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
    """Figures of `pred` against `gt`: arrays or `Prediction`s, or lists of them (a set).

    | task | pred and gt | figures |
    |---|---|---|
    | depth, disparity | (H, W); gt is depth in metres for both, pred in any unit that the alignment takes out | abs_rel sq_rel rmse rmse_log log10 delta1 delta2 delta3 (fractions) i_rmse (1/m) silog (x 100) |
    | normals | (H, W, 3), any length | mean median rmse (degrees) a5 a7_5 a11_25 a22_5 a30 (percent) |
    | segmentation | (H, W) class ids; gt -1 and 255 do not count | miou macc aacc (fractions) |
    | dis | (H, W) in [0, 1] or 8 bits | max_f weighted_f mae s_measure e_measure (fractions) hce (points) |
    | matting | (H, W) in [0, 1] or 8 bits | sad mad mse grad conn, scaled as the protocol, p3m or dim, does |
    | pose | (N, 17, 3): x, y, score; gt (M, 17, 3): x, y, visibility 0, 1, 2 | ap ap50 ap75 ap_m ap_l (fractions) |
    | anomaly | (H, W), higher is stranger; gt above 0 where defective | pixel_auroc image_auroc aupro (fractions) |

    valid: bool (H, W) (pose: (M,)), or a list of them; None leaves it to the protocol. options: those of the metric's
    module, and EXTRAS, lists of them for a set. A sample without a valid pixel gives NaN and does not count in a mean
    over several. Raises ValueError for shapes that differ, NaN or infinite predictions at valid pixels, unknown tasks,
    protocols and options.
    """  # noqa: E501 (a table)
    from genpercept.metrics import _arrays

    preds, gts, valids = _arrays.as_set(task, pred, gt, valid)
    extras = {key: options.pop(key) for key in EXTRAS if key in options}
    options = _arrays.options_for(task, {p.kind for p in preds if hasattr(p, "kind")}, options)
    metric = METRICS.find(task)(protocol=protocol, **options)
    one = len(preds) == 1 and not isinstance(pred, list | tuple)
    each = _arrays.extras_for(metric, extras, one, len(preds))
    for i, (p, g, v) in enumerate(zip(preds, gts, valids, strict=True)):
        metric.update(p, g, v, name=names[i] if names is not None else str(i), **each[i])
    return metric.compute()
