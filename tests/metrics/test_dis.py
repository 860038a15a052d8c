"""Figures of dichotomous segmentation: PySODMetrics' and the DIS authors' answers, and every edge that is defined."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import py_sod_metrics
import pytest
import torch
from scipy import ndimage
from skimage.morphology import skeletonize

from genpercept.data import DATASETS
from genpercept.metrics import score
from genpercept.metrics._hce import correction_effort, thin
from genpercept.metrics.dis import KEYS, PLUGIN
from tests.support.paths import GOLDEN

CASES: dict[str, Any] = json.loads((GOLDEN / "metrics_dis.json").read_text())["cases"]
PYSOD = {"max_f": "maxF", "weighted_f": "wF", "mae": "MAE", "s_measure": "S", "e_measure": "meanE"}


def arrays(case: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prediction and ground truth (H, W) uint8, and the skeleton bool."""
    with np.load(GOLDEN / "metrics_dis.npz") as file:
        pred, gt, bits = (file[f"{case}/{key}"] for key in ("pred", "gt", "skeleton"))
    return pred, gt, np.unpackbits(bits)[: gt.size].reshape(gt.shape).astype(bool)


def blobs(rng: np.random.Generator, largest: int = 90) -> np.ndarray:
    """Smooth shapes of any coarseness and area; now and then nothing, or everything."""
    noise = ndimage.gaussian_filter(rng.random(rng.integers(2, largest, 2)), rng.uniform(0, 6))
    return noise > np.quantile(noise, np.clip(rng.uniform(-0.05, 1.05), 0, 1))


def disc(size: int, centre: tuple[int, int], radius: float) -> np.ndarray:
    y, x = np.ogrid[:size, :size]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2


@pytest.mark.parametrize("case", CASES)
def test_figures_equal_pysodmetrics(case: str):
    pred, gt, _ = arrays(case)
    metric = PLUGIN()
    row = metric.update(pred, gt)
    assert tuple(row) == KEYS and metric.compute() == row
    for ours, theirs in PYSOD.items():
        tolerance = 1e-3 if ours == "weighted_f" else 1e-6  # ties for the nearest foreground pixel
        assert row[ours] == pytest.approx(CASES[case]["pysodmetrics"][theirs], abs=tolerance), ours


@pytest.mark.parametrize("case", CASES)
def test_correction_effort_equals_the_authors(case: str):
    pred, gt, skeleton = arrays(case)
    official = CASES[case]["dis_official"]
    parts = correction_effort(pred > 128, gt > 128)
    assert list(parts) == official["HCE_parts_FPpts_FPindep_FNpts_FNindep"]
    assert PLUGIN().update(pred, gt)["hce"] == official["HCE"]
    assert PLUGIN().update(pred, gt, skeleton=skeleton)["hce"] == official["HCE"]
    assert np.array_equal(thin(gt > 128), skeleton)
    assert PLUGIN(protocol="pysodmetrics").update(pred, gt)["hce"] == CASES[case]["pysodmetrics"]["HCE"]


def test_correction_effort_equals_pysodmetrics_on_any_masks():
    rng = np.random.default_rng(7)
    oracle, total = py_sod_metrics.HumanCorrectionEffortMeasure(), 0
    for _ in range(150):
        gt = blobs(rng)
        pred = np.roll(gt, rng.integers(-12, 12, 2), (0, 1)) ^ (rng.random(gt.shape) < rng.choice([0, 0.001, 0.1]))
        wrong = pred ^ gt
        if wrong.all():  # there PySODMetrics counts a region more than the authors
            continue
        ours = correction_effort(pred, gt)
        assert sum(ours) == oracle.cal_hce(pred.astype(float), gt)
        total += sum(ours)
    assert total > 5000


def test_thinning_equals_scikit_image():
    rng = np.random.default_rng(8)
    for _ in range(150):
        mask = blobs(rng)
        assert np.array_equal(thin(mask), skeletonize(mask))
    noise = rng.random((120, 130)) < 0.7
    assert np.array_equal(thin(noise), skeletonize(noise))
    assert not thin(np.zeros((4, 5), bool)).any()


def test_correction_effort_counts_clicks():
    gt = disc(200, (100, 60), 40)
    far, thin_rim = disc(200, (100, 160), 25), disc(200, (100, 60), 43)
    assert correction_effort(gt, gt) == (0, 0, 0, 0)
    assert correction_effort(gt | far, gt) == (0, 1, 0, 0)  # something extra, far from all: one click removes it
    assert correction_effort(thin_rim, gt) == (0, 0, 0, 0)  # within the relaxation
    points = correction_effort(gt, gt | far).missing_points  # an outline to draw
    assert 8 <= points <= 40
    assert correction_effort(gt, gt | far, epsilon=0.5).missing_points > points
    line = gt.copy()
    line[100, 90:190] = True
    assert correction_effort(gt, line).missing_points >= 2  # thin structures of the truth always count
    assert correction_effort(gt, line, skeleton=np.zeros_like(gt)) == (0, 0, 0, 0)


def test_relaxation_forgives_wider_errors():
    gt = disc(160, (80, 80), 40)
    wider = disc(160, (80, 80), 56)
    costs = [sum(correction_effort(wider, gt, relax=r)) for r in (1, 5, 30)]
    assert costs[0] > 0 and costs[-1] == 0
    assert PLUGIN(relax=30).update(wider, gt)["hce"] == 0


def test_one_wrong_region_over_the_whole_image_counts_nothing_as_in_the_authors_code():
    full, empty = np.ones((30, 40), bool), np.zeros((30, 40), bool)
    assert correction_effort(full, empty) == (0, 0, 0, 0) == correction_effort(empty, full)


def test_a_set_takes_the_maximum_of_the_mean_curve():
    samples = [arrays(case)[:2] for case in CASES]
    metric = PLUGIN()
    with pytest.warns(UserWarning, match="FmeasureV2"):
        oracle = py_sod_metrics.Fmeasure(beta=0.3)
    for name, (pred, gt) in zip(CASES, samples, strict=True):
        metric.update(pred, gt, name=name)
        oracle.step(pred, gt)
    got = metric.compute()
    assert got["max_f"] == pytest.approx(oracle.get_results()["fm"]["curve"].max(), abs=1e-9)
    assert got["max_f"] < np.mean([row["max_f"] for row in metric.rows.values()]) - 0.01
    for key in KEYS[1:]:
        assert got[key] == pytest.approx(np.mean([row[key] for row in metric.rows.values()]))
    scored = score("dis", [p for p, _ in samples], [g for _, g in samples])
    assert scored == pytest.approx(got)


def test_maps_are_taken_at_eight_bits_however_they_are_stored():
    pred, gt, _ = arrays("gt_soft_antialiased")
    expected = PLUGIN().update(pred, gt)
    for p, g in (
        (pred / 255, gt / 255),
        ((pred / 255).astype(np.float32), (gt / 255).astype(np.float32)),
        (torch.from_numpy(pred).double() / 255, torch.from_numpy(gt)[None]),
        (pred.astype(np.int64), gt > 128),
        (pred / 255 + 0.3 / 255 * (pred < 255), gt),
    ):
        assert PLUGIN().update(p, g) == expected


def test_constant_predictions_are_not_stretched():
    gt = disc(60, (30, 30), 15)
    share = gt.mean()
    black, white = (PLUGIN().update(np.full(gt.shape, v), gt) for v in (0.0, 1.0))
    assert black["mae"] == pytest.approx(share) and white["mae"] == pytest.approx(1 - share)
    assert PLUGIN().update(np.full(gt.shape, 0.4), gt)["mae"] == pytest.approx(0.4 + 0.2 * share)
    assert black["hce"] > 0


def test_empty_and_full_truths():
    shape = (20, 30)
    some = np.linspace(0, 1, 600).reshape(shape)
    empty = PLUGIN().update(some, np.zeros(shape, bool))
    assert empty["max_f"] == empty["weighted_f"] == 0 and empty["s_measure"] == pytest.approx(0.5, abs=1e-2)
    full = PLUGIN().update(some, np.ones(shape, bool))
    assert full["max_f"] == 1 and full["mae"] == pytest.approx(0.5, abs=1e-2)
    for row in (empty, full):
        assert np.isfinite(list(row.values())).all()
    perfect = PLUGIN().update(np.ones(shape), np.ones(shape, bool))
    assert (perfect["mae"], perfect["weighted_f"], perfect["hce"]) == (0, 1, 0)


def test_what_cannot_be_scored_is_refused_by_name():
    gt = disc(20, (10, 10), 5)
    nan = np.where(gt, np.nan, 0.0)
    for pred, truth, kwargs, message in (
        (nan, gt, {}, f"'chair': prediction has {gt.sum()} NaN or infinite values"),
        (np.where(gt, np.inf, 0), gt, {}, "'chair': prediction has .* NaN or infinite"),
        (gt[:-1], gt, {}, r"'chair': prediction has shape \(19, 20\), ground truth \(20, 20\)"),
        (gt * 255.0, gt, {}, r"'chair': prediction runs from 0 to 255: expected \[0, 1\]"),
        (gt * 300, gt, {}, "'chair': prediction runs from 0 to 300: expected 0 to 255"),
        (gt, gt.astype(np.uint8), {}, "'chair': ground truth is 0 and 1 in whole numbers: give it as bool"),
        (gt, nan, {}, "'chair': ground truth has .* NaN"),
        (gt, gt, {"valid": gt}, f"'chair': valid leaves out {(~gt).sum()} pixels: dis scores whole images"),
        (gt, gt, {"skeleton": gt[:, 1:]}, r"'chair': skeleton has shape \(20, 19\)"),
        (gt[:0], gt[:0], {}, "'chair': prediction is empty"),
        (gt[:1, :1], gt[:1, :1], {}, "'chair': one pixel"),
        (np.zeros((2, 3, 4, 5)), gt, {}, r"'chair': prediction has shape \(2, 3, 4, 5\): expected \(height, width\)"),
    ):
        metric = PLUGIN()
        with pytest.raises(ValueError, match=message):
            metric.update(pred, truth, name="chair", **kwargs)
        assert not metric.rows and np.isnan(metric.compute()["max_f"])
    assert PLUGIN().update(gt, gt, np.ones_like(gt))["mae"] == 0
    metric = PLUGIN()
    metric.update(gt, gt, name="chair")
    with pytest.raises(ValueError, match="'chair' was given twice"):
        metric.update(gt, gt, name="chair")


def test_options():
    gt = disc(20, (10, 10), 5)
    metric = PLUGIN(hce=False)
    assert tuple(metric.update(gt, gt)) == KEYS[:-1] == tuple(metric.compute())
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"protocol": "dis5"}, "unknown protocol 'dis5': did you mean 'dis5k'"),
        ({"hec": False}, "unknown option 'hec': did you mean 'hce'"),
        ({"hce_map": "rawer"}, "unknown map for the HCE 'rawer'"),
        ({"relax": 0}, "relax 0: must be at least 1"),
        ({"epsilon": -1.0}, "epsilon -1.0"),
    )
    for options, message in refused:
        with pytest.raises(ValueError, match=message):
            PLUGIN(**options)


def test_other_metrics_do_not_need_these_packages():
    heavy = "{'cv2', 'py_sod_metrics', 'skimage', 'torch'}"
    code = f"import sys; import genpercept.metrics, genpercept.metrics.matting; print({heavy} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def by_hand(pred: np.ndarray, gt: np.ndarray) -> dict[str, float]:
    """F (beta^2 = 0.3) and MAE of the map in [0, 1] as it stands: 256 thresholds, counted one by one."""
    levels = np.rint(pred * 255)
    best = 0.0
    for threshold in range(256):
        above = levels >= threshold
        hits = int((above & gt).sum())
        precision, recall = hits / max(int(above.sum()), 1), hits / int(gt.sum())
        best = max(best, 1.3 * precision * recall / max(0.3 * precision + recall, 1e-12))
    return {"max_f": best, "mae": float(np.abs(pred - gt).mean())}


@pytest.mark.parametrize("how", ["none", "min_max", "threshold"])
def test_post_processing_against_counting_by_hand(how: str):
    """A soft disc that runs from 0.2 to 0.7: as it is, stretched, and the paper's: stretched, 1 from 0.5 on."""
    y, x = np.ogrid[:80, :90]
    soft = np.clip((34 - np.hypot(y - 40, x - 47)) / 12, 0, 1)
    pred, gt = np.rint((0.2 + 0.5 * soft) * 255) / 255, disc(80, (40, 40), 30)
    gt = np.pad(gt, ((0, 0), (0, 10)))
    stretched = (pred - pred.min()) / (pred.max() - pred.min())
    shown = {"none": pred, "min_max": stretched, "threshold": (stretched >= 0.5).astype(float)}[how]
    row = PLUGIN(post_processing=how).update(pred, gt)
    for key, value in by_hand(shown, gt).items():
        assert row[key] == pytest.approx(value, abs=1e-12 if how != "min_max" else 2e-3), key
    oracles = {"s_measure": py_sod_metrics.Smeasure(), "weighted_f": py_sod_metrics.WeightedFmeasure()}
    for key, oracle in oracles.items():
        oracle.step(shown, gt, normalize=False)
        assert row[key] == pytest.approx(next(iter(oracle.get_results().values())), abs=1e-12), key
    cut = pred > 128 / 255 if how != "threshold" else stretched >= 0.5
    assert row["hce"] == sum(correction_effort(cut, gt))


@pytest.mark.parametrize("case", [c for c in CASES if c != "gt_soft_antialiased"])  # whose truth they leave soft
def test_maps_as_they_are_have_the_authors_error(case: str):
    pred, gt, _ = arrays(case)
    row = PLUGIN(post_processing="none").update(pred, gt)
    assert row["mae"] == pytest.approx(CASES[case]["dis_official"]["MAE_without_minmax"], abs=1e-6)


def test_the_papers_protocol_thresholds_and_says_so():
    gt = disc(40, (20, 20), 12)
    soft = 0.3 + 0.3 * gt  # every pixel on the right side of the middle
    paper, field = PLUGIN(protocol="genpercept"), PLUGIN()
    assert paper.update(soft, gt)["mae"] == 0 and paper.update(~gt * 0.9, gt, name="inverse")["mae"] == 1
    assert field.update(0.3 + 0.3 * gt + 0.1 * disc(40, (20, 20), 4), gt)["mae"] > 0.01
    middle = np.where(gt, 0.5, np.where(disc(40, (20, 20), 13), 1.0, 0.0))  # from 0.5 on, 0.5 too
    assert paper.update(middle, disc(40, (20, 20), 13), name="middle")["mae"] == 0
    assert paper.post_processing == "min-max, then 1 from 0.5 on and 0 below"
    assert (field.post_processing, PLUGIN(post_processing="none").post_processing) == ("min-max", "none")
    assert DATASETS.find("dis5k").about.protocols == {"dis": "genpercept"}  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="unknown post_processing 'half'"):
        PLUGIN(post_processing="half")
