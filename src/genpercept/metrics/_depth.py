"""Depth against depth, whether the prediction is a depth or a disparity."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from genpercept.core.label_rules import NO_DEPTH
from genpercept.core.notes import note
from genpercept.imaging.colour import colourise
from genpercept.imaging.encode import value_words
from genpercept.imaging.kinds import KINDS, Distance
from genpercept.imaging.prediction import Prediction
from genpercept.metrics import _affine, _arrays, _files, _panels
from genpercept.metrics._arrays import BoolArray, FloatArray
from genpercept.metrics._metric import Averaged, MetricPlugin, down, up
from genpercept.metrics._protocols import DEPTH_PROTOCOLS, DepthProtocol, crop_mask, resolve

KEYS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "delta1", "delta2", "delta3", "i_rmse", "silog")
_MIN_DISPARITY = 1e-3  # 1 / m; an aligned disparity at or below 0 has no depth
# The space in which a prediction is aligned, by how the values of its kind tell the distance
_SPACES: dict[Distance, str] = {
    "depth": "depth",
    "inverse depth": "disparity",
    "root of inverse depth": "root_disparity",
}
_RELATIVE = 0.3  # of the true depth: errors that are as bright as a picture's get


class DepthMetric(Averaged):
    """Figures per image, averaged over the images; each image is aligned on its own (Marigold's evaluation).

    abs_rel, sq_rel (m), rmse (m), rmse_log, log10, delta1..3 (share of pixels with max(p/g, g/p) < 1.25^k, strictly),
    i_rmse (1/m), silog (x 100).
    """

    keys = KEYS

    def __init__(self, protocol: DepthProtocol) -> None:
        super().__init__()
        self.protocol = protocol

    def update(self, pred: Any, gt: Any, valid: Any = None, name: str = "") -> dict[str, float]:
        """Add one image: pred (H, W) depth, disparity or its root, gt (H, W) metres, valid (H, W) bool. Returns its figures."""
        name = _arrays.unique_name(name, self.rows)
        depth, truth, mask = self.aligned(pred, gt, valid, name)
        if not mask.any():
            self.empty.add(name)
        self.rows[name] = figures(depth[mask], truth[mask])
        return self.rows[name]

    def aligned(
        self, pred: Any, gt: Any, valid: Any = None, name: str = ""
    ) -> tuple[FloatArray, FloatArray, BoolArray]:
        """(depth, truth, mask), each (H, W): the prediction in metres as the figures see it, and where they look."""
        rule = self.protocol
        values, truth = _arrays.as_map(pred, "prediction", name), _arrays.as_map(gt, "ground truth", name)
        _arrays.same_shape(values.shape, truth.shape, "prediction", name)
        mask = valid_mask(rule, truth, valid, name)
        _arrays.require_finite(values[mask], name)
        if not mask.any():
            return np.full_like(truth, np.nan), truth, mask
        scale, shift = fit(rule, values, truth, mask, name)
        depth = scale * values + shift
        if rule.space != "depth":
            disparity = depth**2 if rule.space == "root_disparity" else depth
            depth = 1 / np.maximum(disparity, _MIN_DISPARITY)
        return np.maximum(np.clip(depth, rule.min_depth, rule.max_depth), 1e-6), truth, mask


def valid_mask(rule: DepthProtocol, truth: FloatArray, valid: Any, name: str = "") -> BoolArray:
    """(H, W) bool: the given mask, the crop, and ground truth strictly inside the range.

    Under `mask_only` the given mask alone decides; a ground truth in it that is no depth then makes the figures NaN,
    as in the public evaluation, with a warning that names the sample.
    """
    mask = _arrays.as_mask(valid, truth.shape, name) & crop_mask(rule.crop, truth.shape[:2], name)
    usable = np.isfinite(truth) & (truth > 0)
    if rule.mask_only and valid is not None:
        bad = int(np.count_nonzero(mask & ~usable))
        if bad:
            warnings.warn(f"{_arrays.label(name)}{bad} pixels inside the mask have no ground truth", stacklevel=3)
        return mask
    with np.errstate(invalid="ignore"):
        return mask & usable & (truth > rule.min_depth) & (truth < rule.max_depth)


def fit(rule: DepthProtocol, values: FloatArray, truth: FloatArray, mask: BoolArray, name: str) -> tuple[float, float]:
    """(scale, shift) of the protocol's alignment, in its space."""
    columns = _affine.width_subsample(truth.shape[:2], rule.max_res)
    values, truth, mask = values[:, columns], truth[:, columns], mask[:, columns]
    if rule.space != "depth":
        mask = mask & (values > 0)  # such pixels do not guide the fit, yet they are evaluated
        if not mask.any():
            return 0.0, 0.0
        disparity = 1 / truth[mask]
        target = np.sqrt(disparity) if rule.space == "root_disparity" else disparity
        return _affine.fit(rule.align, values[mask], target, name)
    return _affine.fit(rule.align, values[mask], truth[mask], name)


def figures(p: FloatArray, g: FloatArray) -> dict[str, float]:
    """The figures over predicted and true depths (N,) in metres; NaN when N = 0."""
    if p.size == 0:
        return dict.fromkeys(KEYS, float("nan"))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.maximum(p / g, g / p)
        log = np.log(p) - np.log(g)
        error = np.abs(p - g)
        values = {
            "abs_rel": np.mean(error / g),
            "sq_rel": np.mean(error**2 / g),
            "rmse": np.sqrt(np.mean(error**2)),
            "rmse_log": np.sqrt(np.mean(log**2)),
            "log10": np.mean(np.abs(log)) / np.log(10),
            **{f"delta{k}": np.mean(ratio < 1.25**k) for k in (1, 2, 3)},
            "i_rmse": np.sqrt(np.mean((1 / p - 1 / g) ** 2)),
            "silog": 100 * np.sqrt(np.maximum(np.mean(log**2) - np.mean(log) ** 2, 0)),
        }
    return {k: float(v) for k, v in values.items()}


class DepthPlugin(MetricPlugin[DepthMetric]):
    """What scoring depth and scoring disparity have in common. Subclasses say in which `space` arrays of numbers are."""

    space: str
    metric = DepthMetric
    columns = (
        down("abs_rel", "AbsRel", words="AbsRel"),
        up("delta1", "δ1", r"$\delta_1$", words="δ1"),
        up("delta2", "δ2", r"$\delta_2$"),
        up("delta3", "δ3", r"$\delta_3$"),
        down("rmse", "RMSE", words="RMSE"),
        down("log10", "log10", r"$\log_{10}$"),
        down("silog", "SILog", digits=2),
    )
    others = (
        down("sq_rel", "SqRel"),
        down("rmse_log", "RMSE log"),
        down("i_rmse", "iRMSE"),
    )
    watched = ("abs_rel", "delta1", "rmse")
    note = "Each image is aligned to its truth as the protocol says. RMSE in metres; SILog x 100."
    ndim = 2
    scaled = True

    def __call__(self, *, protocol: str | None = None, **options: Any) -> DepthMetric:
        options = {"space": self.space, **options}  # no named protocol says it
        return DepthMetric(resolve(DEPTH_PROTOCOLS, DepthProtocol(), protocol, options))

    def options_for(self, kinds: Collection[str], options: Mapping[str, Any]) -> dict[str, Any]:
        """A prediction is aligned in the space of its kind. ValueError for several kinds, which no one space fits."""
        if len(kinds) > 1:
            raise ValueError(f"predictions of different kinds in one set: {', '.join(sorted(kinds))}")
        spaces = {_SPACES[distance] for kind in kinds if (distance := KINDS[kind].distance)} - {self.space}
        return {**{"space": space for space in spaces}, **options}

    def panels(
        self, prediction: Prediction, truth: Mapping[str, Any], image: np.ndarray, metric: DepthMetric, name: str
    ) -> _panels.Panels:
        """Prediction, aligned, and truth in the same colours; the error relative to the true depth."""
        depth, true, mask = metric.aligned(prediction, truth["gt"], truth.get("valid"), name)
        if not mask.any():
            return [(prediction.colourise(), "prediction"), (_panels.error(mask * 0.0, 1, mask), "no valid pixel")]
        scale = _scale(true[mask])
        low, high = scale.low, scale.high

        def painted(metres: np.ndarray, valid: np.ndarray | None) -> Image.Image:
            unit = np.clip((np.nan_to_num(metres, posinf=high) - low) / (high - low), 0, 1).astype(np.float32)
            return colourise(unit, scale.kind, valid)

        relative = np.abs(depth - true) / np.where(mask, true, 1)
        return [
            (painted(depth, None), f"prediction, aligned, {low:.1f} m red to {high:.1f} m blue"),
            (painted(true, mask), "truth, the same colours"),
            (_panels.error(relative, _RELATIVE, mask), f"relative error, bright: {100 * _RELATIVE:.0f} % and more"),
        ]

    def scale(self, truth: Mapping[str, Any], metric: DepthMetric, name: str) -> _panels.Scale | None:
        true = np.asarray(truth["gt"], np.float64)
        mask = valid_mask(metric.protocol, true, truth.get("valid"), name)
        return _scale(true[mask]) if mask.any() else None

    def read_pred(self, path: Path, scale: float | None = None) -> Any:
        """(H, W): floating point as stored, integers divided by `scale`."""
        return self._read(path, scale, "pred_scale")

    def read_gt(self, path: Path, scale: float | None = None) -> Any:
        """(H, W) in metres: floating point as stored, integers divided by `scale` (256: KITTI, 1000: millimetres)."""
        return self._read(path, scale, "gt_scale")

    def add(
        self, metric: DepthMetric, pair: _files.Pair, pred_scale: float | None = None, gt_scale: float | None = None
    ) -> None:
        if pred_scale is None and metric.protocol.align != "none":
            pred_scale = 65535  # any would do: the alignment takes it out
        super().add(metric, pair, pred_scale, gt_scale)

    def _read(self, path: Path, scale: float | None, scale_name: str) -> Any:
        array, words = _files.read_array(path, ("values", self.name, "pred", "gt", "depth"))
        if array.dtype.kind not in "uif":
            raise ValueError(f"{path}: holds {array.dtype} values: expected numbers")
        if array.dtype.kind == "f":
            return array
        if array.ndim != 2:
            raise ValueError(f"{path}: has {array.shape[-1]} channels: expected a single-channel map, not a picture")
        if scale is None:
            option = "--" + scale_name.replace("_", "-")
            raise ValueError(f"{path}: holds integers; say with {option} how many make a metre (1000: mm, 256: KITTI)")
        if not scale > 0:
            raise ValueError(f"{scale_name} {scale}: must be positive")
        if (
            scale_name == "gt_scale"
            and array.dtype == np.uint16
            and value_words(words) is None
            and (array == NO_DEPTH).any()
        ):
            note("65535, the largest 16-bit value, is taken for no depth")
            array = np.where(array == NO_DEPTH, 0, array)
        return array / float(scale)


def _scale(metres: np.ndarray) -> _panels.Scale:
    """Of true depths (N,), without the few that would take all of the colours."""
    low, high = map(float, np.percentile(metres, (2, 98)))
    return _panels.Scale("depth_affine", low, max(high, low + 1e-6), "m")
