"""Depth and normals figures: the public evaluations' answers, protocols, alignments, and every edge that is defined."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genpercept.metrics import METRICS, _affine, score
from genpercept.metrics._depth import KEYS as DEPTH_KEYS
from genpercept.metrics._protocols import DEPTH_PROTOCOLS, crop_mask
from genpercept.metrics.normals import KEYS as NORMAL_KEYS
from tests.support.paths import GOLDEN

DEPTH = json.loads((GOLDEN / "metrics_depth.json").read_text())["cases"]
NORMALS = json.loads((GOLDEN / "metrics_normals.json").read_text())
MARIGOLD = {
    "abs_relative_difference": "abs_rel",
    "squared_relative_difference": "sq_rel",
    "rmse_linear": "rmse",
    "rmse_log": "rmse_log",
    "log10": "log10",
    "delta1_acc": "delta1",
    "delta2_acc": "delta2",
    "delta3_acc": "delta3",
    "i_rmse": "i_rmse",
    "silog_rmse": "silog",
}
DSINE = dict(zip(("mean", "median", "rmse", "a1", "a2", "a3", "a4", "a5"), NORMAL_KEYS, strict=True))
ANGULAR = {
    "mean_angular_error": "mean",
    "median_angular_error": "median",
    "rmse_angular_error": "rmse",
    "sub5_error": "a5",
    "sub7_5_error": "a7_5",
    "sub11_25_error": "a11_25",
    "sub22_5_error": "a22_5",
    "sub30_error": "a30",
}


def arrays(name: str, case: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with np.load(GOLDEN / f"metrics_{name}.npz") as file:
        return file[f"{case}/pred"], file[f"{case}/gt"], file[f"{case}/mask"]


def options(case: dict[str, Any]) -> dict[str, Any]:
    align = "least_squares" if case["alignment"] else "none"
    return {
        "align": align,
        "min_depth": case["min_depth"],
        "max_depth": float(case["max_depth"]),
        "max_res": case["max_res"],
    }


@pytest.fixture
def scene() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    gt = rng.uniform(0.8, 9, (24, 31))
    return (gt - 0.5) / 9 + rng.normal(0, 0.01, gt.shape), gt


@pytest.mark.parametrize("case", [c for c in DEPTH if "exception" not in DEPTH[c]["marigold"] and "keeps_bad" not in c])
def test_depth_equals_the_public_evaluation(case: str):
    pred, gt, mask = arrays("depth", case)
    got = score("depth", pred, gt, mask, mask_only=case.startswith("diode"), **options(DEPTH[case]))
    assert tuple(got) == DEPTH_KEYS
    for theirs, ours in MARIGOLD.items():
        assert got[ours] == pytest.approx(float(DEPTH[case]["marigold"][theirs]), rel=1e-5, abs=5e-6), ours


def test_bad_ground_truth_in_a_mask_that_alone_decides_is_nan_and_warned_about():
    pred, gt, mask = arrays("depth", "diode_mask_keeps_bad_gt")
    with pytest.warns(UserWarning, match="'room': 2 pixels inside the mask have no ground truth"):
        got = score("depth", pred, gt, mask, protocol="diode", names=["room"])
    assert np.isnan(got["abs_rel"]) and got["delta1"] == 0
    assert np.isfinite(list(score("depth", pred, gt, mask, protocol="diode", mask_only=False).values())).all()


def test_nan_prediction_is_refused_by_name_inside_the_mask_only():
    pred, gt, mask = arrays("depth", "pred_nan_inside_mask")
    with pytest.raises(ValueError, match="sample 'kitchen': prediction has 1 NaN or infinite values at valid pixels"):
        score("depth", pred, gt, mask, names=["kitchen"])
    outside = mask & np.isfinite(pred)
    assert score("depth", pred, gt, outside)["delta1"] > 0.8


@pytest.mark.parametrize("case", NORMALS["cases"])
def test_normals_equal_the_public_evaluation(case: str):
    got = score("normals", *arrays("normals", case))
    assert tuple(got) == NORMAL_KEYS
    for theirs, ours in DSINE.items():
        tolerance = 0.1 if ours.startswith("a") else 0.02
        assert got[ours] == pytest.approx(NORMALS["cases"][case]["dsine"][theirs], abs=tolerance), ours


def test_normals_pool_pixels_or_average_images():
    cases = ("noise", "gt_zero_vectors_masked")
    preds, gts, masks = zip(*(arrays("normals", c) for c in cases), strict=True)
    weights = [NORMALS["cases"][c]["n_valid"] for c in cases]
    for key, theirs in (("mean", "mean"), ("a11_25", "a3")):
        each = [NORMALS["cases"][c]["dsine"][theirs] for c in cases]
        pooled = score("normals", list(preds), list(gts), list(masks))
        assert pooled[key] == pytest.approx(np.average(each, weights=weights), abs=1e-4)
        averaged = score("normals", list(preds), list(gts), list(masks), protocol="marigold")
        assert averaged[key] == pytest.approx(np.mean(each), abs=1e-4)
    for theirs, ours in ANGULAR.items():
        each = [NORMALS["cases"][c]["marigold_own_mask_norm_gt_gt_0"][theirs] for c in cases]
        assert averaged[ours] == pytest.approx(np.mean(each), abs=1e-3)


def test_pooled_median_of_a_set_is_the_median_of_all_its_pixels():
    preds, gts, masks = zip(*(arrays("normals", c) for c in ("noise", "gt_zero_vectors_masked")), strict=True)
    metric = METRICS.find("normals")()
    for i, sample in enumerate(zip(preds, gts, masks, strict=True)):
        metric.update(*sample, name=str(i))
    one = score("normals", np.concatenate(preds, 1), np.concatenate(gts, 1), np.concatenate(masks, 0))
    assert metric.compute() == pytest.approx(one, abs=1e-3)


def test_normals_edges():
    gt = np.zeros((2, 2, 3), np.float32)
    gt[..., 2] = 1
    assert score("normals", np.zeros_like(gt), gt)["mean"] == pytest.approx(90)
    assert score("normals", 7 * gt, 3 * gt)["mean"] == 0
    gt[0] = 0
    gt[1, 0] = np.nan
    metric = METRICS.find("normals")()
    assert metric.update(gt.clip(0, 1) + 1, np.zeros_like(gt), name="none")["mean"] != 0
    assert all(np.isnan(v) for v in metric.compute().values())
    ones = np.ones((2, 2, 3), np.float32)
    assert score("normals", ones, gt)["mean"] == pytest.approx(np.degrees(np.arccos(1 / np.sqrt(3))), abs=1e-4)
    ones[1, 1] = np.inf
    with pytest.raises(ValueError, match="sample '0': prediction has 3 NaN or infinite"):
        score("normals", ones, gt)


@pytest.mark.parametrize("align", ["least_squares", "ransac"])
@given(scale=st.floats(0.01, 100), shift=st.floats(-5, 5))
@settings(max_examples=10, deadline=None)
def test_affine_alignment_undoes_any_scale_and_shift(align: str, scale: float, shift: float):
    gt = np.random.default_rng(0).uniform(1, 9, (11, 13))
    got = score("depth", (gt - shift) / scale, gt, align=align)
    assert got["abs_rel"] < 1e-6 and got["delta1"] == 1


def test_other_alignments(scene: tuple[np.ndarray, np.ndarray]):
    pred, gt = scene
    assert score("depth", gt * 3, gt, align="median")["abs_rel"] == pytest.approx(0)
    assert score("depth", gt * 3, gt, align="none")["abs_rel"] == pytest.approx(2)
    assert score("depth", gt, gt, align=None)["abs_rel"] == 0
    with pytest.raises(ValueError, match="sample '0': median alignment needs a positive median"):
        score("depth", gt * 0, gt, align="median")
    spoiled = pred.copy()
    spoiled[::3] = 30  # a third of the pixels are nonsense
    robust = score("depth", spoiled, gt, align="ransac")
    assert robust["delta1"] > 0.6 > 0.5 > score("depth", spoiled, gt)["delta1"]
    assert robust == score("depth", spoiled, gt, align="ransac")  # the same draw every time


def test_constant_prediction_is_fitted_by_the_mean_of_the_truth(scene: tuple[np.ndarray, np.ndarray]):
    _, gt = scene
    for value in (0.0, 0.3, 1.0):
        got = score("depth", np.full_like(gt, value), gt)
        assert got["rmse"] == pytest.approx(gt.std())
    assert _affine.least_squares(np.full(9, 2.0), np.full(9, 5.0)) == pytest.approx((2.0, 1.0))  # the shortest of them
    assert score("depth", np.full_like(gt, 0.3), gt, align="ransac")["rmse"] == pytest.approx(gt.std())


def test_disparity_is_aligned_in_disparity_and_compared_as_depth():
    gt = np.random.default_rng(1).uniform(1, 9, (12, 12))
    disparity = 4 / gt + 0.2
    assert score("disparity", disparity, gt)["abs_rel"] < 1e-9
    assert score("depth", disparity, gt, space="disparity")["abs_rel"] < 1e-9
    assert score("depth", disparity, gt)["abs_rel"] > 0.1
    assert score("disparity", SimpleNamespace(values=disparity, kind="disparity_affine"), gt)["delta1"] == 1
    disparity[0, 0] = -1  # leaves the fit but not the figures
    got = score("disparity", disparity, gt, max_depth=10)
    assert got["delta1"] == pytest.approx(143 / 144)
    # nothing to fit: all at the far end
    assert score("disparity", -disparity[1:], gt[1:], max_depth=10)["abs_rel"] > 0.1


def test_the_root_of_disparity_is_aligned_as_depthmasters_evaluation_aligns_it():
    """Least squares against sqrt(1 / truth) where the prediction is above 0; squared, at least 1e-3, inverted."""
    rng = np.random.default_rng(4)
    gt = rng.uniform(1, 40, (12, 12))
    pred = np.sqrt(1 / gt) * 0.7 - 0.05 + rng.normal(0, 0.02, gt.shape)
    pred[0, 0] = -0.1
    seen = pred > 0
    (scale, shift), *_ = np.linalg.lstsq(np.stack([pred[seen], np.ones(seen.sum())], -1), np.sqrt(1 / gt[seen]))
    depth = 1 / np.maximum((scale * pred + shift) ** 2, 1e-3)
    want = np.abs(depth - gt) / gt
    assert score("disparity", pred, gt, space="root_disparity")["abs_rel"] == pytest.approx(want.mean(), rel=1e-6)
    says = SimpleNamespace(values=pred, kind="root_disparity_affine")
    for name in ("depth", "disparity"):
        assert score(name, says, gt)["abs_rel"] == pytest.approx(want.mean(), rel=1e-6)
    exact = SimpleNamespace(values=np.sqrt(1 / gt) * 3 + 1, kind="root_disparity_affine")
    assert score("depth", exact, gt)["abs_rel"] < 1e-6
    assert score("depth", exact.values, gt, space="disparity")["abs_rel"] > 0.01  # the wrong space is told apart
    with pytest.raises(ValueError, match="different kinds"):
        score("disparity", [says, SimpleNamespace(values=1 / gt, kind="disparity_affine")], [gt, gt])


def test_predictions_say_what_they_are():
    gt = np.random.default_rng(1).uniform(1, 9, (12, 12))
    depth = SimpleNamespace(values=gt.astype(np.float32), kind="depth_affine")
    assert score("depth", [depth, depth], [gt, gt])["abs_rel"] < 1e-6
    disparity = SimpleNamespace(values=1 / gt, kind="disparity_affine")
    assert score("depth", disparity, gt)["abs_rel"] < 1e-6
    with pytest.raises(ValueError, match="kind 'depth_affine' cannot be scored as 'normals'"):
        score("normals", depth, gt)
    with pytest.raises(ValueError, match="different kinds"):
        score("depth", [depth, disparity], [gt, gt])


def test_sets_are_averaged_over_the_images_that_have_a_valid_pixel(scene: tuple[np.ndarray, np.ndarray]):
    pred, gt = scene
    one, two = score("depth", pred, gt)["rmse"], score("depth", pred[:9] ** 2, gt[:9])["rmse"]
    nothing = np.zeros((5, 6), bool)
    got = score("depth", [pred, pred[:9] ** 2, pred[:5, :6]], [gt, gt[:9], gt[:5, :6]], [gt > 0, gt[:9] > 0, nothing])
    assert got["rmse"] == pytest.approx((one + two) / 2)
    assert all(np.isnan(v) for v in score("depth", pred, gt, gt < 0).values())
    assert all(np.isnan(v) for v in score("depth", [], []).values())
    stacked = score("depth", np.stack([pred, pred]), np.stack([gt, gt]), np.stack([gt > 0, gt > 0]))
    assert stacked == pytest.approx(score("depth", torch.from_numpy(pred)[None], torch.from_numpy(gt)[None]))


def test_range_is_strict_and_predictions_are_clipped_to_it():
    gt = np.array([[1.0, 2.0, 4.0, 10.0, 0.0, np.inf, np.nan]])
    metric = METRICS.find("depth")(align="none", min_depth=1.0, max_depth=10.0)
    row = metric.update(np.full_like(gt, 99), gt)
    assert row["abs_rel"] == pytest.approx(((10 - 2) / 2 + (10 - 4) / 4) / 2)


def test_crops():
    nyu = crop_mask("eigen", (480, 640))
    assert nyu.sum() == (471 - 45) * (601 - 41) and nyu[45, 41] and not nyu[44, 41] and not nyu[471, 41]
    kitti = crop_mask("eigen", (352, 1216))
    rows, columns = np.flatnonzero(kitti.any(1)), np.flatnonzero(kitti.any(0))
    assert (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) == (117, 321, 43, 1172)
    frame = crop_mask("kitti_eigen", (375, 1242))
    assert np.array_equal(frame[23:, 13 : 13 + 1216], kitti) and frame.sum() == kitti.sum()
    native = crop_mask("kitti_garg_native", (375, 1242))
    assert (np.flatnonzero(native.any(1))[0], np.flatnonzero(native.any(1))[-1] + 1) == (153, 371)
    assert crop_mask(None, (3, 4)).all() and crop_mask("none", (3, 4)).all()
    with pytest.raises(ValueError, match="'nyu_eigen' is defined for 480 x 640, not for 37 x 53"):
        score("depth", np.ones((37, 53)), np.ones((37, 53)), protocol="nyu")
    with pytest.raises(ValueError, match="KITTI frame"):
        crop_mask("garg", (480, 640))


@pytest.mark.parametrize(("shape", "limit"), [((61, 97), 32), ((97, 61), 40), ((756, 1133), 1024), ((50, 50), 64)])
def test_the_fit_of_large_maps_sees_the_columns_that_torch_would_keep(shape: tuple[int, int], limit: int):
    columns = torch.arange(shape[1], dtype=torch.float32).expand(1, *shape)
    factor = limit / max(shape)
    kept = torch.nn.Upsample(scale_factor=factor, mode="nearest")(columns) if factor < 1 else columns
    ours = np.arange(shape[1])[_affine.width_subsample(shape, limit)]
    assert np.array_equal(ours, kept[0, 0].numpy().astype(int))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"protocol": "nyuv2"}, "unknown protocol 'nyuv2': did you mean 'nyu'"),
        ({"align": "least_square"}, "did you mean 'least_squares'"),
        ({"max_dept": 3}, "unknown option 'max_dept': did you mean 'max_depth'"),
        ({"space": "inverse"}, "unknown alignment space"),
        ({"crop": "centre"}, "unknown crop"),
        ({"min_depth": 5, "max_depth": 1}, "must be 0 <= min_depth < max_depth"),
        ({"max_res": 0}, "max_res 0"),
        ({"valid": np.ones((2, 2), bool)}, r"valid has shape \(2, 2\), ground truth \(4, 5\)"),
    ],
)
def test_mistakes_are_named(call: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        score("depth", np.ones((4, 5)), np.ones((4, 5)), **call)


def test_mistaken_shapes_and_tasks():
    with pytest.raises(ValueError, match=r"prediction has shape \(4, 6\), ground truth \(4, 5\)"):
        score("depth", np.ones((4, 6)), np.ones((4, 5)))
    with pytest.raises(ValueError, match=r"ground truth has shape \(4, 5, 3\): expected \(height, width\)"):
        score("depth", [np.ones((4, 5))], [np.ones((4, 5, 3))])
    with pytest.raises(ValueError, match=r"expected \(height, width, 3\)"):
        score("normals", np.ones((4, 5)), np.ones((4, 5)))
    with pytest.raises(ValueError, match="2 predictions, 1 ground truths"):
        score("depth", [np.ones((4, 5))] * 2, [np.ones((4, 5))])
    with pytest.raises(ValueError, match="'a' was given twice"):
        score("depth", [np.ones((4, 5))] * 2, [np.ones((4, 5))] * 2, names=["a", "a"])
    with pytest.raises(ValueError, match="unknown metric"):
        score("dept", np.ones((4, 5)), np.ones((4, 5)))


@pytest.mark.parametrize("protocol", DEPTH_PROTOCOLS)
def test_every_protocol_gives_every_key(protocol: str):
    rule = DEPTH_PROTOCOLS[protocol]
    shape = {"nyu_eigen": (480, 640), "kitti_eigen": (375, 1242), "kitti_garg": (352, 1216)}.get(
        rule.crop or "", (9, 11)
    )
    gt = np.random.default_rng(0).uniform(1, 9, shape).astype(np.float32)
    for task in ("depth", "disparity"):
        got = score(task, gt / 10, gt, protocol=protocol)
        assert tuple(got) == DEPTH_KEYS and np.isfinite(list(got.values())).all()
