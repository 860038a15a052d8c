"""Metrics: one module per task, and `score`, which runs one of them over arrays.

score("depth", pred, gt)                            one image, or a list of them (a set)
score("depth", pred, gt, protocol="nyu")            a named evaluation protocol, see `_protocols.py`
score("normals", pred, gt, aggregate="images")      single options, which also override a named protocol
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Metric(Protocol):
    @property
    def rows(self) -> Mapping[str, dict[str, float]]:
        """The figures of each sample so far, by its name."""
        ...

    def update(self, pred: Any, gt: Any, valid: Any = None, name: str = "") -> dict[str, float]:
        """Add one sample; returns its own figures. ValueError that names it for NaN or infinite predictions."""
        ...

    def compute(self) -> dict[str, float]:
        """The figures over all samples so far, under the protocol's rule (mean per image, or pooled)."""
        ...


class MetricPlugin(Protocol):
    def __call__(self, **protocol: Any) -> Metric:
        """A fresh metric. `protocol=NAME` picks a named one, other keywords are its options. ValueError if unknown."""
        ...


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

    depth, disparity: (H, W); gt is depth in metres for both, pred in any unit that the alignment takes out. normals:
    (H, W, 3), any length. valid: bool (H, W), or a list of them; None leaves it to the protocol. Keys and units:
    depth and disparity abs_rel sq_rel rmse rmse_log log10 delta1 delta2 delta3 (fractions) i_rmse (1/m) silog (x 100);
    normals mean median rmse (degrees) a5 a7_5 a11_25 a22_5 a30 (percent). A sample without a valid pixel gives NaN and
    does not count in a mean over several. Raises ValueError for shapes that differ, NaN or infinite predictions at
    valid pixels, unknown tasks, protocols and options.
    """
    from genpercept.metrics import _arrays
    from genpercept.plugins import find

    preds, gts, valids = _arrays.as_set(task, pred, gt, valid)
    options = _arrays.options_for(task, {p.kind for p in preds if hasattr(p, "kind")}, options)
    metric = find("metrics", task)(protocol=protocol, **options)
    for i, (p, g, v) in enumerate(zip(preds, gts, valids, strict=True)):
        metric.update(p, g, v, name=names[i] if names is not None else str(i))
    return metric.compute()
