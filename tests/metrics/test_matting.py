"""Figures of alpha mattes: the answers of P3M's evaluation, mmagic and Deep Image Matting, and every edge."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from genpercept.metrics import score
from genpercept.metrics.matting import KEYS, PLUGIN
from tests.support.paths import GOLDEN

CASES: dict[str, Any] = json.loads((GOLDEN / "metrics_matting.json").read_text())["cases"]
MMAGIC = {"sad": "SAD", "mse": "MattingMSE", "grad": "GradientError", "conn": "ConnectivityError"}
MATLAB = {"sad": "SAD", "mse": "MSE", "grad": "GRAD", "conn": "CONN"}
SINGLE_PRECISION = {"soft_edge": 0.025, "trimap_all_unknown": 0.025, "level_153_is_0p6": 0.25}  # share, CONN in MATLAB


def arrays(case: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prediction, ground truth and trimap, (H, W) uint8."""
    with np.load(GOLDEN / "metrics_matting.npz") as file:
        return file[f"{case}/pred"], file[f"{case}/gt"], file[f"{case}/trimap"]


@pytest.fixture
def mattes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prediction and truth in [0, 1], and a trimap whose known pixels are known rightly."""
    y, x = np.mgrid[:60, :70]
    gt = np.clip((25 - np.hypot(y - 30, x - 33)) / 8, 0, 1)
    pred = np.clip(gt + np.random.default_rng(5).normal(0, 0.08, gt.shape), 0, 1)
    return pred, gt, np.where(gt == 0, 0, np.where(gt == 1, 255, 128)).astype(np.uint8)


@pytest.mark.parametrize("case", CASES)
def test_whole_image_equals_p3m(case: str):
    pred, gt, _ = arrays(case)
    metric = PLUGIN()
    row = metric.update(pred, gt)
    assert tuple(row) == KEYS and metric.compute() == row
    p3m = CASES[case]["p3m_whole_and_trimap"]
    for key in ("sad", "mad", "mse"):
        assert row[key] == pytest.approx(p3m[key.upper()], abs=1e-9), key
    assert row["grad"] == pytest.approx(p3m["GRAD"], rel=1e-4)
    assert row["conn"] == pytest.approx(p3m["CONN"], abs=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_trimap_region_equals_p3m(case: str):
    pred, gt, trimap = arrays(case)
    row = PLUGIN(protocol="p3m_trimap").update(pred, gt, trimap=trimap)
    p3m = CASES[case]["p3m_whole_and_trimap"]
    for key in ("sad", "mad", "mse"):
        assert row[key] == pytest.approx(p3m[f"{key.upper()}_trimap"], abs=1e-9), key
    assert (row["grad"], row["conn"]) == (pytest.approx(p3m["GRAD"], rel=1e-4), pytest.approx(p3m["CONN"], abs=1e-9))


@pytest.mark.parametrize("case", CASES)
def test_unknown_region_equals_mmagic_and_deep_image_matting(case: str):
    pred, gt, trimap = arrays(case)
    metric = PLUGIN(protocol="dim")
    row = metric.update(pred, gt, trimap=trimap)
    assert tuple(row) == KEYS and metric.compute() == row
    mmagic, matlab = CASES[case]["mmagic_masked_pred"], CASES[case]["dim_matlab_via_octave_masked_pred"]
    for ours, theirs in MMAGIC.items():
        assert row[ours] == pytest.approx(mmagic[theirs], abs=1e-9), ours
        single = SINGLE_PRECISION.get(case, 1e-6) if ours == "conn" else 1e-6
        assert row[ours] == pytest.approx(matlab[MATLAB[ours]], rel=single), ours
    assert row["mad"] == pytest.approx(1000 * row["sad"] / CASES[case]["unknown_px"])


def test_low_contrast_is_stretched_away_by_deep_image_matting_alone(mattes: Any):
    _, gt, _ = mattes
    flat = 0.4 + 0.1 * gt
    whole = {"protocol": "dim", "region": "all"}
    assert PLUGIN(**whole).update(flat, gt)["grad"] == pytest.approx(0, abs=1e-20)
    assert PLUGIN().update(flat, gt)["grad"] > 0.1


def test_nothing_in_common_is_connected_for_p3m_alone():
    gt, pred = np.zeros((12, 15)), np.full((12, 15), 0.5)
    assert PLUGIN().update(pred, gt)["conn"] == 0
    dim = PLUGIN(protocol="dim", region="all").update(pred, gt)
    assert dim["conn"] == pytest.approx(0.5 * gt.size / 1000)
    assert dim["grad"] == 0 and np.isfinite(list(dim.values())).all()


def test_connectivity_goes_by_edges_not_corners():
    gt = np.zeros((30, 30))
    gt[2:15, 2:15], gt[15:20, 15:20] = 1, 0.62  # they touch at a corner
    pred = gt.copy()
    pred[15:20, 15:20] = 0.52
    alone = PLUGIN().update(pred, gt)["conn"]
    gt[14, 15:20] = pred[14, 15:20] = 1  # a bridge
    assert PLUGIN().update(pred, gt)["conn"] == 0 < alone == pytest.approx(25 * 0.1 / 1000)


def test_alpha_of_153_is_below_the_level_of_six_tenths():
    gt = np.full((10, 10), 153, np.uint8)
    gt[5:] = 255
    pred = gt.copy()
    pred[0] = 255  # connected up to 0.5: 0.5 too much against 0.1, which is too little to count
    assert PLUGIN(protocol="dim", region="all").update(pred, gt)["conn"] == pytest.approx(10 * 0.5 / 1000)


def test_errors_of_known_size():
    gt = np.zeros((20, 25))
    gt[:, 10:] = 1
    pred = np.abs(gt - 0.2)
    row = PLUGIN().update(pred, gt)
    assert row["sad"] == pytest.approx(0.1) and row["mad"] == pytest.approx(0.2) and row["mse"] == pytest.approx(0.04)
    trimap = np.full(gt.shape, 128)
    trimap[:, :5], trimap[:, 15:] = 0, 255
    row = PLUGIN(protocol="dim").update(pred, gt, trimap=trimap)
    assert row["sad"] == pytest.approx(0.04) and row["mad"] == pytest.approx(0.2) and row["mse"] == pytest.approx(0.04)
    slope = np.tile(np.linspace(0, 1, 101), (40, 1))
    grad = PLUGIN().update(0.5 * slope, slope)["grad"]
    assert grad == pytest.approx(slope.size * (0.01 / 2) ** 2 / 10, rel=0.1)  # but for the mirrored border


def test_a_mask_stands_in_for_the_trimap(mattes: Any):
    pred, gt, trimap = mattes
    for protocol in ("dim", "p3m_trimap"):
        expected = PLUGIN(protocol=protocol).update(pred, gt, trimap=trimap)
        assert PLUGIN(protocol=protocol).update(pred, gt, trimap == 128) == pytest.approx(expected)
        both = PLUGIN(protocol=protocol).update(pred, gt, trimap == 128, trimap=trimap)
        assert both == expected == PLUGIN(protocol=protocol).update(pred, gt, np.ones_like(gt), trimap=trimap)
    assert score("matting", pred, gt, trimap == 128, protocol="dim") == PLUGIN(protocol="dim").update(
        pred, gt, trimap == 128
    )


def test_known_pixels_do_not_matter_under_dim(mattes: Any):
    pred, gt, trimap = mattes
    spoilt = np.where(trimap == 128, pred, 1 - gt)
    expected = PLUGIN(protocol="dim").update(pred, gt, trimap=trimap)
    assert PLUGIN(protocol="dim").update(spoilt, gt, trimap=trimap) == expected
    assert PLUGIN().update(spoilt, gt)["sad"] > 1


def test_storage_does_not_matter():
    pred, gt, trimap = arrays("soft_edge")
    expected = PLUGIN(protocol="dim").update(pred, gt, trimap=trimap)
    for p, g in (
        (pred / 255, gt / 255),
        (torch.from_numpy(pred)[None], torch.from_numpy(gt.astype(np.int64))),
        ((pred / 255).astype(np.float32), (gt / 255).astype(np.float32)),
    ):
        got = PLUGIN(protocol="dim").update(p, g, trimap=torch.from_numpy(trimap))
        assert got == pytest.approx(expected, rel=1e-5)


def test_mirrored_images_have_the_same_errors(mattes: Any):
    pred, gt, trimap = mattes
    pred = ndimage.gaussian_filter(pred, 1)
    for protocol in ("p3m", "dim"):
        given = None if protocol == "p3m" else trimap
        expected = PLUGIN(protocol=protocol).update(pred, gt, trimap=given)
        for flip in (np.fliplr, np.flipud, np.transpose):
            turned = None if given is None else flip(given)
            got = PLUGIN(protocol=protocol).update(flip(pred), flip(gt), trimap=turned)
            assert got == pytest.approx(expected, rel=1e-9)


def test_images_are_averaged_and_those_without_an_unknown_pixel_left_out(mattes: Any):
    pred, gt, trimap = mattes
    metric = PLUGIN(protocol="dim")
    rows = [metric.update(p, gt, trimap=trimap, name=n) for p, n in ((pred, "a"), (gt, "b"))]
    none = metric.update(pred, gt, trimap=np.zeros_like(trimap), name="none")
    assert np.isnan(list(none.values())).all() and metric.empty == {"none"}
    assert metric.compute() == {k: pytest.approx((rows[0][k] + rows[1][k]) / 2) for k in KEYS}
    assert all(v == 0 for v in rows[1].values())
    assert np.isnan(PLUGIN().compute()["sad"])


def test_the_smallest_images():
    one = np.array([[0.5]])
    for protocol in ("p3m", "dim"):
        row = PLUGIN(protocol=protocol).update(one, np.array([[1.0]]), trimap=np.array([[128]]))
        assert row["mad"] == 0.5 and np.isfinite(list(row.values())).all()


def test_what_cannot_be_scored_is_refused_by_name(mattes: Any):
    pred, gt, trimap = mattes
    nan = np.where(gt == 1, np.nan, pred)
    shifted = np.roll(trimap, 3) == 128
    for protocol, p, g, kwargs, message in (
        ("p3m", nan, gt, {}, f"'hair': prediction has {(gt == 1).sum()} NaN or infinite values"),
        ("dim", nan, gt, {"trimap": trimap}, "'hair': prediction has"),
        ("p3m", pred, nan, {}, "'hair': ground truth has"),
        ("p3m", pred[:, 1:], gt, {}, r"'hair': prediction has shape \(60, 69\), ground truth \(60, 70\)"),
        ("p3m", 255 * pred, gt, {}, r"'hair': prediction runs from 0 to 255: expected \[0, 1\]"),
        ("p3m", pred, (gt > 0.5).astype(int), {}, "'hair': ground truth is 0 and 1 in whole numbers"),
        ("p3m", pred, gt, {"valid": trimap == 128}, "'hair': valid leaves out .*choose region 'trimap'"),
        ("dim", pred, gt, {}, "'hair': no trimap: region 'trimap' needs one"),
        ("dim", pred, gt, {"trimap": trimap[1:]}, r"'hair': trimap has shape \(59, 70\)"),
        ("dim", pred, gt, {"trimap": trimap // 2}, "'hair': trimap holds 0, 64, 127: expected 0, 128"),
        ("dim", pred, gt, {"valid": trimap}, "'hair': valid holds 128: give a trimap as trimap="),
        ("dim", pred, gt, {"valid": shifted, "trimap": trimap}, "'hair': valid and trimap disagree"),
    ):
        metric = PLUGIN(protocol=protocol)
        with pytest.raises(ValueError, match=message):
            metric.update(p, g, name="hair", **kwargs)
        assert not metric.rows


def test_options():
    assert PLUGIN(rules="dim", region="trimap").protocol == PLUGIN(protocol="dim").protocol
    for options, message in (
        ({"protocol": "p3n"}, "unknown protocol 'p3n': did you mean 'p3m'"),
        ({"regoin": "all"}, "unknown option 'regoin': did you mean 'region'"),
        ({"region": "unknown"}, "unknown region 'unknown': choose one of all, trimap"),
        ({"rules": "gca"}, "unknown rules 'gca'"),
    ):
        with pytest.raises(ValueError, match=message):
            PLUGIN(**options)


def test_post_processing_of_the_paper_against_sums_by_hand(mattes: Any):
    """Min-max, above 0.95 to 1, below 0.1 to 0 (v1); the three sums counted by hand, the other two as of that matte."""
    pred, gt, _ = mattes
    dim = 0.05 + 0.8 * pred
    unit = (dim - dim.min()) / (dim.max() - dim.min())
    done = unit.copy()
    done[unit > 0.95], done[unit < 0.1] = 1, 0
    assert ((done != unit) & (done == 1)).sum() > 100 and ((done != unit) & (done == 0)).sum() > 100
    metric = PLUGIN(protocol="genpercept")
    row, error = metric.update(dim, gt), done - gt
    assert row["sad"] == pytest.approx(np.abs(error).sum() / 1000, rel=1e-9)
    assert row["mad"] == pytest.approx(np.abs(error).mean(), rel=1e-9)
    assert row["mse"] == pytest.approx((error**2).mean(), rel=1e-9)
    raw = PLUGIN().update(done, gt)
    assert (row["grad"], row["conn"]) == pytest.approx((raw["grad"], raw["conn"]), rel=1e-9)
    stretched = PLUGIN(post_processing="min_max").update(dim, gt)
    assert stretched["mad"] == pytest.approx(np.abs(unit - gt).mean(), rel=1e-9)
    assert row["mad"] < stretched["mad"] < PLUGIN().update(dim, gt)["mad"]
    assert metric.post_processing == "min-max, then 1 above 0.95 and 0 below 0.1"
    assert PLUGIN().post_processing == "none"
