"""Dichotomous segmentation: a mask against a binary one (DIS5K), by PySODMetrics and the DIS authors' HCE.

The field scores soft masks, stretched to [0, 1] (the default). The paper scores binary ones: "we normalize predicted pixel
values to [0, 1] using max-min normalization. Values below 0.5 are set to 0; and others are set to 1" (v1, on dichotomous
segmentation), protocol "genpercept".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from py_sod_metrics import MAE, Emeasure, FmeasureHandler, FmeasureV2, Smeasure, WeightedFmeasure

from genpercept.core.names import choose
from genpercept.metrics import _arrays, _baselines, _files, _unit
from genpercept.metrics._arrays import BoolArray
from genpercept.metrics._hce import correction_effort
from genpercept.metrics._metric import Baseline, Metric, down, up
from genpercept.metrics._protocols import resolve

KEYS = ("max_f", "weighted_f", "mae", "s_measure", "e_measure", "hce")
HCE_MAPS = ("raw", "normalised")
_HALF = 0.5
_WORDS = {"none": "none", "min_max": "min-max", "threshold": "min-max, then 1 from 0.5 on and 0 below"}


@dataclass(frozen=True)
class DisProtocol:
    """How masks are compared.

    post_processing: of each prediction before the first five figures: "none", "min_max" (stretched to its own [0, 1],
    PySODMetrics) or "threshold" (stretched, then 1 from 0.5 on and 0 below, the paper), which the HCE sees, too.
    hce: False leaves it out. hce_map: what its binary prediction comes from otherwise, "raw" (above 128 of 255, the
    authors) or "normalised" (above half of the stretched map, PySODMetrics). relax: erosions, gamma in the paper.
    epsilon: tolerance of an outline in pixels.
    """

    post_processing: str = "min_max"
    hce: bool = True
    hce_map: str = "raw"
    relax: int = 5
    epsilon: float = 2.0

    def __post_init__(self) -> None:
        choose("post_processing", self.post_processing, _unit.POST)
        choose("map for the HCE", self.hce_map, HCE_MAPS)
        if self.relax < 1:
            raise ValueError(f"relax {self.relax}: must be at least 1 erosion")
        if not 0 <= self.epsilon < float("inf"):
            raise ValueError(f"epsilon {self.epsilon}: must be a number of pixels, 0 or more")


DIS_PROTOCOLS = {
    "dis5k": DisProtocol(),
    "pysodmetrics": DisProtocol(hce_map="normalised"),
    "genpercept": DisProtocol("threshold"),
}


class DisMetric(Metric):
    """max_f (beta^2 = 0.3), weighted_f (beta^2 = 1), mae, s_measure (alpha = 0.5), e_measure (mean over thresholds; up
    to N / (N - 1) for N pixels) are fractions; hce is a number of clicks.

    Averaged over images, except max_f: the highest point of the mean curve of the set, over 256 thresholds. A row has
    the highest point of its own curve. Maps are taken at 8 bits, as saved ones are; truth is what lies above 128 there.
    """

    merges = True

    def __init__(self, protocol: DisProtocol) -> None:
        super().__init__()
        self.protocol = protocol
        self._curves = np.zeros(256)  # F at each threshold, summed over the images

    def update(self, pred: Any, gt: Any, valid: Any = None, name: str = "", skeleton: Any = None) -> dict[str, float]:
        """Add one image: pred (H, W) in [0, 1] or 0..255, gt (H, W) bool, in [0, 1] or 0..255. Returns its figures.

        skeleton: (H, W) bool of gt where a data set brings one; thinned from gt otherwise. A constant prediction is not
        stretched (with "threshold" it is all 1 or all 0). With an empty gt max_f and weighted_f are 0. The protocol has
        no mask: ValueError when valid leaves pixels out.
        """
        name = _arrays.unique_name(name, self.rows)
        unit, truth = _unit.pair(pred, gt, name)
        if self.protocol.post_processing == "threshold":
            unit = (_unit.stretched(unit) >= _HALF).astype(np.float64)
        p, g = _eight_bits(unit), _eight_bits(truth)
        if g.size < 2:
            raise ValueError(f"{_arrays.label(name)}one pixel: the E-measure is not defined for fewer than two")
        _unit.whole(valid, g.shape, name, "dis scores whole images and has no mask")
        if skeleton is not None:
            _arrays.same_shape(_arrays.to_numpy(skeleton).shape, g.shape, "skeleton", name)
            skeleton = _arrays.as_mask(skeleton, g.shape, name)
        row, curve = figures(p, g, self.protocol.post_processing != "none")
        if self.protocol.hce:
            row["hce"] = float(sum(self._effort(p, g > 128, skeleton)))
        self._curves += curve
        self.rows[name] = row
        return row

    def merge(self, part: DisMetric) -> None:
        """Add what another metric of the same options saw. ValueError for a sample that both have."""
        _arrays.join_rows(self, part)
        self._curves += part._curves

    def compute(self) -> dict[str, float]:
        """Means over the images so far, and the maximum of their mean F curve; NaN when there are none."""
        keys = KEYS if self.protocol.hce else KEYS[:-1]
        means = _arrays.mean_over_images(keys, self.rows, self.empty)
        if self.rows:
            means["max_f"] = float(self._curves.max() / len(self.rows))
        return means

    @property
    def post_processing(self) -> str:
        return _WORDS[self.protocol.post_processing]

    def _effort(self, p: NDArray[np.uint8], g: BoolArray, skeleton: BoolArray | None) -> tuple[int, ...]:
        rule = self.protocol
        above = p > 128 if rule.hce_map == "raw" else _unit.stretched(p / 255) > _HALF
        return correction_effort(above, g, skeleton, rule.relax, rule.epsilon)


def _eight_bits(unit: Any) -> NDArray[np.uint8]:
    return np.rint(255 * unit).astype(np.uint8)


def figures(
    p: NDArray[np.uint8], g: NDArray[np.uint8], stretch: bool = True
) -> tuple[dict[str, float], NDArray[np.float64]]:
    """The figures but for the HCE, and F at the thresholds 255 ... 0 (256,). stretch: the prediction to [0, 1] first."""
    f = FmeasureV2({"f": FmeasureHandler(with_dynamic=True, with_adaptive=False, beta=0.3)})
    measures = {"weighted_f": WeightedFmeasure(), "mae": MAE(), "s_measure": Smeasure(), "e_measure": Emeasure()}
    shown, truth = p / 255, g > 128
    shown = _unit.stretched(shown) if stretch else shown
    for measure in (f, *measures.values()):
        measure.step(shown, truth, normalize=False)
    curve = np.asarray(f.get_results()["f"]["dynamic"], np.float64)
    row = {"max_f": float(curve.max())}
    for key, measure in measures.items():
        row[key] = _number(measure.get_results())
    return row, curve


def _number(results: Mapping[str, Any]) -> float:
    """The one figure of a measure; of the E-measure, the mean of its curve."""
    (value,) = results.values()
    return float(np.mean(value["curve"]) if isinstance(value, dict) else value)


class Dis(_unit.ForegroundPlugin[DisMetric]):
    """pred and gt (H, W) in [0, 1] or 8 bits. Figures: max_f weighted_f mae s_measure e_measure (fractions) hce (points).

    See `DisProtocol` for the options. protocol: dis5k (the default), pysodmetrics, genpercept (the paper's: thresholded).
    """

    name = "dis"
    metric = DisMetric
    columns = (
        up("weighted_f", "Fw", r"$F_\beta^w$"),
        up("max_f", "max F", r"$\max F_\beta$"),
        down("mae", "MAE", "$M$"),
        up("s_measure", "S", r"$S_\alpha$"),
        up("e_measure", "E", r"$E_\phi^m$"),
        down("hce", "HCE", r"$HCE_\gamma$", 0),
    )
    watched = ("max_f", "mae")
    note = "Fractions, but for the HCE, which counts clicks."
    kinds = ("mask",)
    extras: Mapping[str, str] = {"skeleton": "(H, W) bool, of the ground truth, where a data set brings one"}
    baselines = (
        Baseline("all foreground", _baselines.all_foreground),
        Baseline("mean mask", _baselines.mean_map, fitted=True),
    )
    beside: Mapping[str, Any] = {"valid": _files.read_mask, "skeleton": _files.read_mask}

    def __call__(self, *, protocol: str | None = None, **options: Any) -> DisMetric:
        return DisMetric(resolve(DIS_PROTOCOLS, DisProtocol(), protocol, options))


PLUGIN = Dis()
