"""Parts of a metric, each updated in a process of its own, joined into the one that saw all samples."""

from __future__ import annotations

from typing import Any

# What adds up over samples, in metrics without a `merge` of their own: attributes of numbers, arrays and dicts of numbers.
# Starting from 0 and added in the samples' order they give the very bits of one metric that saw all samples.
_SUMS: dict[str, tuple[str, ...]] = {
    "genpercept.metrics._depth.DepthMetric": (),
    "genpercept.metrics.normals.NormalsMetric": ("_histogram", "_sum", "_squares", "_count", "_under"),
    "genpercept.metrics.dis.DisMetric": ("_curves",),
    "genpercept.metrics.matting.MattingMetric": (),
}


def can_merge(metric: Any) -> bool:
    """Whether a metric over all samples can be had from metrics over one each. Others need all updates in one object."""
    return hasattr(metric, "merge") or _name(metric) in _SUMS


def merge(total: Any, part: Any) -> None:
    """Add to `total` what `part`, of the same options, saw. ValueError for a sample that both have."""
    if hasattr(total, "merge"):
        total.merge(part)
        return
    for name in part.rows:
        if name in total.rows:
            raise ValueError(f"sample {name!r} was given twice")
    for attribute in _SUMS[_name(total)]:
        setattr(total, attribute, _added(getattr(total, attribute), getattr(part, attribute)))
    total.rows.update(part.rows)
    if hasattr(total, "empty"):
        total.empty |= part.empty


def _added(a: Any, b: Any) -> Any:
    return {key: a[key] + b[key] for key in a} if isinstance(a, dict) else a + b


def _name(metric: Any) -> str:
    return f"{type(metric).__module__}.{type(metric).__qualname__}"
