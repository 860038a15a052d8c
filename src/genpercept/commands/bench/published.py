"""Runtimes that the paper states, for methods that no package offers: quoted, not measured here."""

from __future__ import annotations

from dataclasses import dataclass

SOURCE = "Table 1 of the supplement of Xu et al., GenPercept (ICLR 2025): one RTX 4090, 768 x 768, mean over 100 images"


@dataclass(frozen=True)
class Row:
    name: str
    ensemble: int
    steps: int
    seconds: float
    memory_gb: float
    packaged: bool  # whether diffusers or transformers has it, or its networks, so that it can be measured


ROWS: tuple[Row, ...] = (
    Row("Stochastic multi-step generation (with ensemble)", 10, 10, 5.74, 16, True),
    Row("Stochastic multi-step generation (without ensemble)", 1, 10, 0.79, 6.95, True),
    Row("Deterministic multi-step generation", 1, 10, 0.79, 6.95, True),
    Row("Deterministic one-step inference (GenPercept)", 1, 1, 0.34, 6.95, True),
    Row("Deterministic one-step inference + DPT head (GenPercept)", 1, 1, 0.24, 6.32, True),
    Row("Metric3Dv2", 1, 1, 0.25, 2.63, False),
    Row("DepthAnythingv2", 1, 1, 0.07, 2.82, True),
    Row("DSINE", 1, 1, 0.18, 2.23, False),
    Row("Marigold", 1, 10, 0.79, 6.95, True),
    Row("GeoWizard", 1, 1, 1.32, 6.81, True),
    Row("DepthFM", 1, 2, 0.41, 6.97, True),
)
