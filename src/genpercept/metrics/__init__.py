"""Metrics: one module per task."""

from __future__ import annotations

from typing import Any, Protocol


class Metric(Protocol):
    def update(self, pred: Any, gt: Any, valid: Any = None, name: str = "") -> dict[str, float]:
        """Add one sample; returns its own figures. ValueError that names it for NaN or infinite predictions."""
        ...

    def compute(self) -> dict[str, float]:
        """The figures over all samples so far, under the protocol's rule (mean per image, or pooled)."""
        ...


class MetricPlugin(Protocol):
    def __call__(self, **protocol: Any) -> Metric: ...
