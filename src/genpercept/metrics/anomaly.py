"""Anomaly maps against masks of defects: AUROC over pixels and over images, and AUPRO (MVTec AD)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genpercept.imaging.colour import colourise
from genpercept.imaging.encode import value_words
from genpercept.imaging.prediction import Prediction
from genpercept.metrics import _arrays, _aupro, _baselines, _files, _panels
from genpercept.metrics._arrays import BoolArray, FloatArray
from genpercept.metrics._metric import Baseline, Breakdown, Metric, MetricPlugin, up

KEYS = ("pixel_auroc", "image_auroc", "aupro")
_SEEN = 0.003  # of an image's pixels: what a defect has at least to be seen on a page


@dataclass
class Category:
    """What one kind of object has so far: scores of pixels, split by the truth, and of images."""

    normal: list[FloatArray] = field(default_factory=list)
    anomalous: list[FloatArray] = field(default_factory=list)
    weights: list[NDArray[np.float64]] = field(default_factory=list)  # of the anomalous pixels: 1 / size of the region
    images: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))  # normal, anomalous

    def add(self, scores: FloatArray, defect: BoolArray, mask: BoolArray, image_score: float) -> None:
        defect = defect & mask
        self.normal.append(scores[mask & ~defect])
        self.anomalous.append(scores[defect])
        self.weights.append(_aupro.region_weights(defect)[defect])
        self.images[int(defect.any())].append(image_score)

    def extend(self, other: Category) -> None:
        self.normal += other.normal
        self.anomalous += other.anomalous
        self.weights += other.weights
        for mine, more in zip(self.images, other.images, strict=True):
            mine += more

    def figures(self, fpr_limit: float) -> dict[str, float]:
        normal, anomalous, weights = (np.concatenate(x) for x in (self.normal, self.anomalous, self.weights))
        normal, order = np.sort(normal), np.argsort(anomalous)
        anomalous, weights = anomalous[order], weights[order]
        good, bad = (np.sort(np.asarray(x)) for x in self.images)
        values = (
            _aupro.auroc(normal, anomalous),
            _aupro.auroc(good, bad),
            _aupro.aupro(normal, anomalous, weights, fpr_limit),
        )
        return dict(zip(KEYS, values, strict=True))


class AnomalyMetric(Metric):
    """pixel_auroc image_auroc aupro, fractions, each over all images of a category, then averaged over categories.

    AUROC as scikit-learn's roc_auc_score. An image is anomalous where its mask has a pixel. AUPRO: 8-connected regions,
    all thresholds, up to a false positive rate of `fpr_limit` and divided by it, as the official MVTec code (`_aupro`).
    A figure is NaN where a category has normal or anomalous ones alone, and such a category does not count in its mean.
    A constant map has AUROC 0.5 and AUPRO 0. Keeps 4 bytes per pixel of float32 maps until it is dropped.
    """

    merges = True

    def __init__(self, fpr_limit: float = 0.3) -> None:
        super().__init__()
        if not 0 < fpr_limit <= 1:
            raise ValueError(f"fpr_limit {fpr_limit}: must be above 0 and at most 1")
        self.fpr_limit = fpr_limit
        self._categories: dict[str, Category] = {}

    def update(
        self,
        pred: Any,
        gt: Any,
        valid: Any = None,
        name: str = "",
        *,
        category: str | None = None,
        image_score: float | None = None,
    ) -> dict[str, float]:
        """Add one image: pred (H, W), higher is stranger; gt (H, W), above 0 where defective; valid (H, W) bool.

        category: None takes what stands before the first / of the name, if there is one. image_score: None takes the
        map's maximum over valid pixels. Returns the image's own figures, which for a good image, and always for
        image_auroc, are NaN.
        """
        if category is None:
            category = name.partition("/")[0] if "/" in name else ""
        elif category and name and not name.startswith(category + "/"):
            name = f"{category}/{name}"
        name = _arrays.unique_name(name, self.rows)
        scores = _arrays.squeezed(_arrays.to_numpy(pred), "prediction", name)
        scores = scores if scores.dtype in (np.float32, np.float64) else scores.astype(np.float64)
        truth = _arrays.as_map(gt, "ground truth", name)
        _arrays.same_shape(scores.shape, truth.shape, "prediction", name)
        mask = _arrays.as_mask(valid, truth.shape, name)
        _arrays.require_finite(scores[mask], name)
        if not np.isfinite(truth[mask]).all():
            raise ValueError(f"{_arrays.label(name)}ground truth has NaN or infinite values at valid pixels")
        if not mask.any():
            self.empty.add(name)
            self.rows[name] = dict.fromkeys(KEYS, float("nan"))
            return self.rows[name]
        image_score = float(scores[mask].max() if image_score is None else image_score)
        if not np.isfinite(image_score):
            raise ValueError(f"{_arrays.label(name)}image_score is {image_score}: must be finite")
        image = Category()
        for part in (image, self._categories.setdefault(category, Category())):
            part.add(scores, truth > 0, mask, image_score)
        self.rows[name] = image.figures(self.fpr_limit)
        return self.rows[name]

    def merge(self, part: AnomalyMetric) -> None:
        """Add the images of another metric of the same options. ValueError for an image that both have."""
        _arrays.join_rows(self, part)
        for name, category in part._categories.items():
            self._categories.setdefault(name, Category()).extend(category)

    def compute(self) -> dict[str, float]:
        """The mean over the categories that have the figure."""
        rows = list(self.categories.values())
        return {key: _mean([row[key] for row in rows]) for key in KEYS}

    @property
    def categories(self) -> dict[str, dict[str, float]]:
        """The figures of each category."""
        return {name: part.figures(self.fpr_limit) for name, part in sorted(self._categories.items())}

    def details(self) -> dict[str, Any]:
        """The figures of each category, where there are several."""
        return {"categories": self.categories} if len(self._categories) > 1 else {}


def _mean(values: list[float]) -> float:
    there = [v for v in values if not np.isnan(v)]
    return float(np.mean(there)) if there else float("nan")


class Anomaly(MetricPlugin[AnomalyMetric]):
    """pred (H, W), higher is stranger; gt (H, W), above 0 where defective.

    Figures: pixel_auroc image_auroc aupro (fractions). The option is fpr_limit, of AUPRO. protocol: mvtec, the only one.
    """

    name = "anomaly"
    metric = AnomalyMetric
    protocols: Mapping[str, Mapping[str, Any]] = {"mvtec": {}}
    columns = (
        up("pixel_auroc", "pixel AUROC", "Pixel AUROC"),
        up("image_auroc", "image AUROC", "Image AUROC"),
        up("aupro", "AUPRO"),
    )
    note = "Fractions, over all images of a category, then averaged over categories."
    kinds = ("anomaly",)
    ndim = 2
    extras: Mapping[str, str] = {
        "category": "which kind of object this is",
        "image_score": "how strange the whole image is, instead of its strangest pixel",
    }
    baselines = (
        Baseline("nothing strange", lambda task, known, sample: _baselines.filled(_baselines.size_of(sample), 0.0)),
    )
    tree = True
    beside: Mapping[str, Any] = {}
    photographs = False  # what a defect is, a model learns of one kind of object

    def breakdown(self, details: Mapping[str, Any], task: Any) -> Breakdown | None:
        """The figures of each category, where there are several."""
        found = details.get("categories", {})
        rows = {name: {k: math.nan if v is None else v for k, v in row.items()} for name, row in found.items()}
        return Breakdown("category", self.columns, rows) if rows else None

    def panels(
        self, prediction: Prediction, truth: Mapping[str, Any], image: Any, metric: AnomalyMetric, name: str
    ) -> _panels.Panels:
        gt, values = np.asarray(truth["gt"], np.float32), prediction.values
        unit = (values - values.min()) / max(float(values.max() - values.min()), 1e-12)
        return [
            (prediction.colourise(), "prediction, bright: strange"),
            (colourise(gt, "mask"), "truth"),
            (_panels.error(np.abs(unit - gt), 1), "difference of the stretched map and the truth"),
        ]

    def showable(self, truth: Mapping[str, Any]) -> bool:
        return bool(np.mean(truth["gt"]) > _SEEN)

    def read_pred(self, path: Path, scale: float | None = None) -> Any:
        """(H, W) scores: as stored, or by the encoding that `predict` wrote into the PNG."""
        stored = _files.read(path, ("values", "anomaly", "map", "pred"))
        array, code = _files.grey(stored), value_words(stored.words)
        return array if code is None else code[0] + array / 65535 * code[1]

    def read_gt(self, path: Path, scale: float | None = None) -> Any:
        return _files.read_mask(path)

    def add(
        self, metric: AnomalyMetric, pair: _files.Pair, pred_scale: float | None = None, gt_scale: float | None = None
    ) -> None:
        """A picture without a mask is a good one."""
        scores = self.read_pred(pair.pred)
        truth = np.zeros(scores.shape, bool) if pair.gt is None else self.read_gt(pair.gt)
        metric.update(scores, truth, name=pair.name, category=pair.category)


PLUGIN = Anomaly()
