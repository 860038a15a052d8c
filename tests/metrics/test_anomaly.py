"""Pixel and image AUROC and AUPRO: scikit-learn's and the official code's answers, and every edge that is defined."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from genpercept.metrics import METRICS, _aupro, score
from genpercept.metrics.anomaly import KEYS
from tests.support.paths import GOLDEN

CASES = json.loads((GOLDEN / "metrics_anomaly.json").read_text())["cases"]


def arrays(case: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    with np.load(GOLDEN / "metrics_anomaly.npz") as file:
        return list(file[f"{case}/map"]), list(file[f"{case}/mask"])


@pytest.mark.parametrize("case", CASES)
def test_equal_to_scikit_learn_and_to_the_official_curve(case: str):
    expected = CASES[case]
    got = score("anomaly", *arrays(case))
    assert tuple(got) == KEYS
    pixel, image = float(expected["sklearn_pixel_auroc"]), float(expected["sklearn_image_auroc_max_score"])
    assert got["pixel_auroc"] == pytest.approx(pixel, abs=1e-12, nan_ok=True)
    assert got["image_auroc"] == pytest.approx(image, abs=1e-12, nan_ok=True)
    official = expected["aupro_mvtec_official_all_thr"]
    if isinstance(official, dict):  # it raised: no region
        assert np.isnan(got["aupro"])
    else:
        assert got["aupro"] == pytest.approx(official, abs=1e-9)  # with ties, too


def test_another_limit():
    pred, gt = arrays("basic_4_images")
    official = CASES["basic_4_images"]["aupro_mvtec_official_5000thr_limit0.05"]  # its thresholds are 5000 of 10 617
    assert score("anomaly", pred, gt, fpr_limit=0.05)["aupro"] == pytest.approx(official, abs=1e-3)
    with pytest.raises(ValueError, match=r"fpr_limit 0: must be above 0"):
        score("anomaly", pred, gt, fpr_limit=0)


def curve_by_definition(pred: np.ndarray, gt: np.ndarray, limit: float) -> float:
    """AUPRO, threshold by threshold: every normal score is one, and a pixel is found when it lies above it."""
    regions = []
    for p, g in zip(pred, gt, strict=True):
        labels: np.ndarray = np.zeros(g.shape, int)
        count = int(ndimage.label(g, np.ones((3, 3)), output=labels))  # type: ignore[arg-type]
        regions += [p[labels == k] for k in range(1, count + 1)]
    normal = np.sort(pred[gt == 0])
    points = [(1.0, 1.0)]
    for position, threshold in enumerate(normal):
        points.append((1 - (position + 1) / normal.size, float(np.mean([(r > threshold).mean() for r in regions]))))
    x, y = np.array(points[::-1]).T
    grid = np.concatenate([x[x < limit], [limit]])
    height = np.interp(grid, x, y)
    return float((np.diff(grid) * (height[1:] + height[:-1])).sum() / 2 / limit)


@settings(deadline=None, max_examples=15)
@given(
    st.integers(0, 10_000), st.sampled_from([3, 9, 10_000]), st.floats(0.05, 1.0), st.sampled_from([0.02, 0.2, 0.95])
)
def test_equal_to_the_definitions_on_any_scene(seed: int, levels: int, limit: float, share: float):
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(seed)
    gt = rng.random((3, 11, 13)) < share
    gt[0, 0, 0], gt[0, -1, -1], gt[1] = True, False, False
    pred = rng.integers(0, levels, gt.shape) / levels + 0.2 * gt
    got = score("anomaly", list(pred), list(gt), fpr_limit=limit)
    assert got["pixel_auroc"] == pytest.approx(roc_auc_score(gt.ravel(), pred.ravel()), abs=1e-9)
    assert got["image_auroc"] == pytest.approx(roc_auc_score(gt.any((1, 2)), pred.max((1, 2))), abs=1e-9)
    assert got["aupro"] == pytest.approx(curve_by_definition(pred, gt, limit), abs=1e-9)


def test_regions_touch_at_corners_and_weigh_the_same():
    mask = np.zeros((6, 6), bool)
    mask[0, 0] = mask[1, 1] = mask[4:, 4:] = True
    weights = _aupro.region_weights(mask)
    assert weights[0, 0] == weights[1, 1] == 1 / 2 and weights[5, 5] == 1 / 4 and weights[3, 3] == 0
    found = np.where(mask, 0.0, 0.5)
    found[4:, 4:] = 1  # the one region whole, the other not at all
    assert score("anomaly", found, mask, fpr_limit=0.3)["aupro"] == pytest.approx(0.5)


def test_one_class_alone_is_nan_and_a_constant_map_is_chance():
    rng = np.random.default_rng(0)
    noise, nothing = rng.normal(size=(8, 8)), np.zeros((8, 8))
    assert all(np.isnan(v) for v in score("anomaly", [noise, noise], [nothing, nothing]).values())
    full = score("anomaly", noise, nothing + 1)
    assert all(np.isnan(v) for v in full.values())
    half = np.zeros((8, 8))
    half[:4] = 1
    constant = score("anomaly", [nothing, nothing], [half, nothing])
    assert constant == {"pixel_auroc": 0.5, "image_auroc": 0.5, "aupro": 0}
    assert np.isnan(list(score("anomaly", [], []).values())).all()


def test_only_the_order_of_scores_matters_and_float64_is_not_rounded():
    pred, gt = arrays("basic_4_images")
    wanted = score("anomaly", pred, gt)
    assert score("anomaly", [np.exp(3 * p.astype(np.float64)) for p in pred], gt) == pytest.approx(wanted)
    close = 1 + 1e-12 * np.argsort(np.argsort(pred[0].ravel())).reshape(pred[0].shape)  # equal in float32
    assert score("anomaly", close, gt[0])["pixel_auroc"] == pytest.approx(
        score("anomaly", pred[0], gt[0])["pixel_auroc"], abs=1e-4
    )


def test_the_score_of_an_image_may_be_given():
    pred, gt = arrays("basic_4_images")
    labels = [bool(g.any()) for g in gt]
    inverted = score("anomaly", pred, gt, image_score=[0.0 if bad else 1.0 for bad in labels])
    assert inverted["image_auroc"] == 0 and inverted["aupro"] == score("anomaly", pred, gt)["aupro"]
    with pytest.raises(ValueError, match="image_score is nan: must be finite"):
        score("anomaly", pred[0], gt[0], image_score=float("nan"))
    with pytest.raises(ValueError, match="image_score= has 2 entries for 4 samples"):
        score("anomaly", pred, gt, image_score=[1.0, 2.0])


def test_categories_are_pooled_one_by_one_and_averaged():
    pred, gt = arrays("basic_4_images")
    shifted = [p + 100 for p in pred]  # another category may have scores of another size
    one, other = score("anomaly", pred, gt), score("anomaly", [-p for p in shifted], gt)
    names = ["nut/crack/0", "nut/crack/1", "nut/hole/0", "nut/good/0", "pill/a/0", "pill/a/1", "pill/b/0", "pill/b/1"]
    wanted = {k: (one[k] + other[k]) / 2 for k in KEYS}
    every = [*pred, *[-p for p in shifted]], [*gt, *gt]
    assert score("anomaly", *every, names=names) == pytest.approx(wanted)
    given = ["nut"] * 4 + ["pill"] * 4
    assert score("anomaly", *every, category=given) == pytest.approx(wanted)
    assert score("anomaly", *every, names=names, category="all") != pytest.approx(wanted)
    metric = METRICS.find("anomaly")()
    for p, g, c in zip(*every, given, strict=True):
        metric.update(p, g, category=c, name="000" if len(metric.rows) in (0, 4) else "")
    assert metric.details()["categories"]["pill"] == pytest.approx(other)  # type: ignore[attr-defined]
    assert {"nut/000", "pill/000"} <= set(metric.rows)


def test_parts_give_what_the_whole_gives():
    pred, gt = arrays("many_ties_9_levels")
    whole, joined = METRICS.find("anomaly")(), METRICS.find("anomaly")()
    for i, (p, g) in enumerate(zip(pred, gt, strict=True)):
        part = METRICS.find("anomaly")()
        for metric in (whole, part):
            metric.update(p, g, name=f"{'ab'[i % 2]}/{i}")
        joined.merge(part)  # type: ignore[attr-defined]
    assert (
        joined.compute() == pytest.approx(whole.compute(), abs=0, nan_ok=True)
        and joined.rows.keys() == whole.rows.keys()
    )
    with pytest.raises(ValueError, match="sample 'b/3' was given twice"):
        joined.merge(part)  # type: ignore[attr-defined]


def test_a_category_without_defects_does_not_spoil_the_mean():
    pred, gt = arrays("basic_4_images")
    names = [*(f"a/{i}" for i in range(4)), *(f"b/{i}" for i in range(4))]
    got = score("anomaly", pred * 2, [*gt, *[g * 0 for g in gt]], names=names)
    assert got == pytest.approx(score("anomaly", pred, gt))


def test_masked_pixels_do_not_count():
    pred, gt = arrays("basic_4_images")
    valid = [np.indices(p.shape)[1] >= 9 for p in pred]
    spoiled = [np.where(v, p, np.nan) for p, v in zip(pred, valid, strict=True)]
    cut = score("anomaly", [p[:, 9:] for p in pred], [g[:, 9:] for g in gt])
    assert score("anomaly", spoiled, gt, valid) == pytest.approx(cut)
    metric = METRICS.find("anomaly")()
    metric.update(pred[0], gt[0], valid[0] & False, name="nothing")
    assert metric.empty == {"nothing"} and np.isnan(metric.compute()["aupro"])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("pred", "gt", "options", "message"),
    [
        (np.full((4, 4), np.nan), np.eye(4), {}, "sample 'x': prediction has 16 NaN or infinite values"),
        (np.where(np.eye(4), np.inf, 0), np.eye(4), {}, "sample 'x': prediction has 4 NaN or infinite values"),
        (np.eye(4), np.full((4, 4), np.nan), {}, "sample 'x': ground truth has NaN"),
        (np.zeros((4, 5)), np.eye(4), {}, r"prediction has shape \(4, 5\), ground truth \(4, 4\)"),
        (np.zeros((4, 4)), np.eye(4), {"limit": 0.3}, "unknown option 'limit'"),
        (np.zeros((4, 4)), np.eye(4), {"protocol": "mvtek"}, "did you mean 'mvtec'"),
    ],
)
def test_mistakes_are_named(pred: Any, gt: Any, options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        score("anomaly", [pred], [gt], names=["x"], **options)
    with pytest.raises(ValueError, match="kind 'anomaly' cannot be scored as 'dis'"):
        score("dis", SimpleNamespace(values=np.eye(4), kind="anomaly"), np.eye(4))
