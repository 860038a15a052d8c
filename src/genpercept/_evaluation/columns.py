"""Which figures of a metric tables show, what they are called, and which direction is better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A figure. higher: whether more is better (None: unknown)."""

    key: str
    title: str
    latex: str
    digits: int
    higher: bool | None

    @property
    def arrow(self) -> str:
        return {True: "↑", False: "↓", None: ""}[self.higher]

    def shown(self, value: float | None) -> str:
        """The figure as tables print it; a dash where there is none."""
        return "–" if value is None or not math.isfinite(value) else f"{value:.{self.digits}f}"


def _up(key: str, title: str, latex: str, digits: int = 3) -> Column:
    return Column(key, title, latex, digits, True)


def _down(key: str, title: str, latex: str, digits: int = 3) -> Column:
    return Column(key, title, latex, digits, False)


_DEPTH = (
    _down("abs_rel", "AbsRel", "AbsRel"),
    _up("delta1", "δ1", r"$\delta_1$"),
    _up("delta2", "δ2", r"$\delta_2$"),
    _up("delta3", "δ3", r"$\delta_3$"),
    _down("rmse", "RMSE", "RMSE"),
    _down("log10", "log10", r"$\log_{10}$"),
    _down("silog", "SILog", "SILog", 2),
)
# The first column of each is the one that samples are ranked by.
COLUMNS: Mapping[str, tuple[Column, ...]] = {
    "depth": _DEPTH,
    "disparity": _DEPTH,
    "normals": (
        _down("mean", "mean", "Mean", 1),
        _down("median", "median", "Median", 1),
        _down("rmse", "RMSE", "RMSE", 1),
        _up("a11_25", "11.25°", r"$11.25^\circ$", 1),
        _up("a22_5", "22.5°", r"$22.5^\circ$", 1),
        _up("a30", "30°", r"$30^\circ$", 1),
    ),
    "segmentation": (
        _up("miou", "mIoU", "mIoU"),
        _up("macc", "mAcc", "mAcc"),
        _up("aacc", "aAcc", "aAcc"),
    ),
    "dis": (
        _up("weighted_f", "Fw", r"$F_\beta^w$"),
        _up("max_f", "max F", r"$\max F_\beta$"),
        _down("mae", "MAE", "$M$"),
        _up("s_measure", "S", r"$S_\alpha$"),
        _up("e_measure", "E", r"$E_\phi^m$"),
        _down("hce", "HCE", r"$HCE_\gamma$", 0),
    ),
    "matting": (
        _down("sad", "SAD", "SAD", 2),
        _down("mad", "MAD", "MAD", 4),
        _down("mse", "MSE", "MSE", 4),
        _down("grad", "Grad", "Grad", 2),
        _down("conn", "Conn", "Conn", 2),
    ),
    "pose": (
        _up("ap", "AP", "AP"),
        _up("ap50", "AP50", r"AP$_{50}$"),
        _up("ap75", "AP75", r"AP$_{75}$"),
        _up("ap_m", "AP M", r"AP$_M$"),
        _up("ap_l", "AP L", r"AP$_L$"),
    ),
    "anomaly": (
        _up("pixel_auroc", "pixel AUROC", "Pixel AUROC"),
        _up("image_auroc", "image AUROC", "Image AUROC"),
        _up("aupro", "AUPRO", "AUPRO"),
    ),
}


def columns(metric: str, figures: Mapping[str, float]) -> tuple[Column, ...]:
    """Those of a metric; of a third party's, all its figures."""
    known = COLUMNS.get(metric)
    return known or tuple(Column(key, key, key.replace("_", r"\_"), 4, None) for key in figures)


def ranked(metric: str, rows: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Names from best to worst by the metric's first column; samples without that figure are left out."""
    if not rows:
        return []
    first = columns(metric, next(iter(rows.values())))[0]
    found = {name: row[first.key] for name, row in rows.items() if math.isfinite(row.get(first.key, math.nan))}
    sign = -1 if first.higher else 1
    return sorted(found, key=lambda name: (sign * found[name], name))
