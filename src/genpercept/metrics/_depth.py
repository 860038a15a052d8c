"""Depth against depth, whether the prediction is a depth or a disparity."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from genpercept.metrics import _affine, _arrays
from genpercept.metrics._arrays import BoolArray, FloatArray
from genpercept.metrics._protocols import DEPTH_PROTOCOLS, DepthProtocol, crop_mask, resolve

KEYS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "delta1", "delta2", "delta3", "i_rmse", "silog")
_MIN_DISPARITY = 1e-3  # 1 / m; an aligned disparity at or below 0 has no depth


class DepthMetric:
    """Figures per image, averaged over the images; each image is aligned on its own (Marigold's evaluation).

    abs_rel, sq_rel (m), rmse (m), rmse_log, log10, delta1..3 (share of pixels with max(p/g, g/p) < 1.25^k, strictly),
    i_rmse (1/m), silog (x 100).
    """

    def __init__(self, protocol: DepthProtocol) -> None:
        self.protocol = protocol
        self.rows: dict[str, dict[str, float]] = {}
        self.empty: set[str] = set()  # samples without a valid pixel

    def update(self, pred: Any, gt: Any, valid: Any = None, name: str = "") -> dict[str, float]:
        """Add one image: pred (H, W) depth or disparity, gt (H, W) metres, valid (H, W) bool. Returns its figures."""
        name = _arrays.unique_name(name, self.rows)
        depth, truth, mask = self.aligned(pred, gt, valid, name)
        if not mask.any():
            self.empty.add(name)
        self.rows[name] = figures(depth[mask], truth[mask])
        return self.rows[name]

    def merge(self, part: DepthMetric) -> None:
        """Add what another metric of the same options saw. ValueError for a sample that both have."""
        _arrays.join_rows(self, part)

    def compute(self) -> dict[str, float]:
        """Mean of the images that had a valid pixel."""
        return _arrays.mean_over_images(KEYS, self.rows, self.empty)

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
        if rule.space == "disparity":
            depth = 1 / np.maximum(depth, _MIN_DISPARITY)
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
    if rule.space == "disparity":
        mask = mask & (values > 0)  # such pixels do not guide the fit, yet they are evaluated
        if not mask.any():
            return 0.0, 0.0
        return _affine.fit(rule.align, values[mask], 1 / truth[mask], name)
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


def make(default: DepthProtocol, protocol: str | None, options: dict[str, Any]) -> DepthMetric:
    """A metric under a named protocol, single options replaced; the space is `default`'s unless an option says it."""
    options = {"space": default.space, **options}
    return DepthMetric(resolve(DEPTH_PROTOCOLS, default, protocol, options))
