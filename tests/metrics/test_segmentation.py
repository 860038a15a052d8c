"""mIoU and accuracies: mmsegmentation's answers, and every edge that is defined."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from genpercept.core import classes
from genpercept.data import DATASETS
from genpercept.metrics import METRICS, score
from genpercept.metrics.segmentation import KEYS
from tests.support.paths import GOLDEN

CASES = json.loads((GOLDEN / "metrics_seg.json").read_text())["cases"]
RNG = np.random.default_rng(2)


def arrays(case: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    with np.load(GOLDEN / "metrics_seg.npz") as file:
        count = CASES[case]["n_images"]
        return [file[f"{case}/pred{i}"] for i in range(count)], [file[f"{case}/gt{i}"] for i in range(count)]


def numbers(values: Any) -> np.ndarray:
    return np.asarray([float(v) for v in values])


@pytest.mark.parametrize("number", ["given", "inferred"])
@pytest.mark.parametrize("case", CASES)
def test_equal_to_mmsegmentation(case: str, number: str):
    expected = CASES[case]["mmseg"]
    metric = METRICS.find("segmentation")(num_classes=CASES[case]["num_classes"] if number == "given" else None)
    for pred, gt in zip(*arrays(case), strict=True):
        metric.update(pred, gt)
    got = metric.compute()
    assert tuple(got) == KEYS
    for ours, theirs in {"miou": "mIoU_nanmean", "macc": "mAcc_nanmean", "aacc": "aAcc"}.items():
        assert got[ours] == pytest.approx(float(expected[theirs]), abs=1e-7, nan_ok=True), ours
    details = metric.details()  # type: ignore[attr-defined]
    for ours, theirs in {"iou_per_class": "IoU_per_class", "acc_per_class": "Acc_per_class"}.items():
        wanted = numbers(expected[theirs])
        there = numbers(details[ours])
        assert np.isnan(wanted[len(there) :]).all()  # inferred: the classes after the last that occurs
        np.testing.assert_allclose(there, wanted[: len(there)], atol=1e-7)


def test_the_set_is_accumulated_and_not_averaged():
    pred, gt = arrays("class_only_in_gt_1px")
    assert score("segmentation", pred, gt)["miou"] == pytest.approx(0.6720733, abs=1e-6)
    rows = [score("segmentation", p, g)["miou"] for p, g in zip(pred, gt, strict=True)]
    assert np.mean(rows) == pytest.approx(0.7800934, abs=1e-6)


def test_by_hand():
    gt = np.array([[0, 0, 1, 1], [2, 255, -1, 1]])
    pred = np.array([[0, 1, 1, 1], [7, 0, 0, 255]])
    # 0: 1 of 2 + 0; 1: 2 of 3 + 1; 2: missed. 7 and 255 are predicted where something else is.
    got = score("segmentation", pred, gt, num_classes=3)
    assert got == pytest.approx({"miou": (1 / 2 + 2 / 4 + 0) / 3, "macc": (1 / 2 + 2 / 3 + 0) / 3, "aacc": 3 / 6})
    # Inferred, 7 is a class that is only predicted: IoU 0, no recall; 3 to 6 do not occur.
    got = score("segmentation", pred, gt)
    assert got == pytest.approx({"miou": (1 / 2 + 2 / 4 + 0 + 0) / 4, "macc": (1 / 2 + 2 / 3 + 0) / 3, "aacc": 3 / 6})


def test_masks_and_ignored_ids():
    gt = RNG.integers(0, 4, (9, 11))
    pred = np.where(RNG.random(gt.shape) < 0.3, RNG.integers(0, 4, gt.shape), gt)
    valid = RNG.random(gt.shape) < 0.6
    hidden = np.where(valid, gt, 255)
    assert score("segmentation", pred, gt, valid) == score("segmentation", pred, hidden)
    less = np.where(gt == 3, -1, gt)
    assert score("segmentation", pred, gt, ignore_index=3, num_classes=4) == score("segmentation", pred, less)
    only = np.where(pred == 3, 255, pred)  # inferred: 3 is ignored, hence no class, even where it is predicted
    assert score("segmentation", pred, gt, ignore_index=(3, 255)) == score("segmentation", only, less)
    nothing = score("segmentation", pred, gt, valid & False)
    assert tuple(nothing) == KEYS and np.isnan(list(nothing.values())).all()
    with_empty = score("segmentation", [pred, pred], [gt, gt], [valid, valid & False])
    assert with_empty == score("segmentation", pred, gt, valid)


def test_perfect_constant_and_wrong_everywhere():
    gt = RNG.integers(0, 5, (20, 20))
    assert score("segmentation", gt, gt) == {"miou": 1, "macc": 1, "aacc": 1}
    assert score("segmentation", (gt + 1) % 5, gt) == {"miou": 0, "macc": 0, "aacc": 0}
    share = float((gt == 2).mean())
    assert score("segmentation", gt * 0 + 2, gt) == pytest.approx({"miou": share / 5, "macc": 1 / 5, "aacc": share})


def test_types_that_hold_ids():
    gt = RNG.integers(0, 5, (6, 7))
    pred = (gt + (RNG.random(gt.shape) < 0.2)) % 5
    wanted = score("segmentation", pred, gt)
    prediction = SimpleNamespace(values=pred.astype(np.int32), kind="class_ids")
    for given in (pred.astype(np.uint8), pred.astype(np.float32), pred[None], torch.from_numpy(pred), prediction):
        assert score("segmentation", given, torch.from_numpy(gt)) == wanted
    assert score("segmentation", np.stack([pred, pred]), np.stack([gt, gt])) == wanted


def test_large_and_growing_ids():
    metric = METRICS.find("segmentation")()
    metric.update(np.full((3, 3), 2), np.full((3, 3), 2), name="a")
    metric.update(np.full((3, 3), 40000), np.full((3, 3), 40000), name="b")
    metric.update(np.zeros((3, 3)), np.full((3, 3), 7), name="c")
    assert metric.compute() == pytest.approx({"miou": 2 / 4, "macc": 2 / 3, "aacc": 2 / 3})
    assert list(metric.rows) == ["a", "b", "c"] and metric.rows["c"]["aacc"] == 0


def test_parts_give_what_the_whole_gives():
    whole, joined = METRICS.find("segmentation")(), METRICS.find("segmentation")()
    for name, ids in {"a": 3, "b": 9, "c": 5}.items():
        gt = RNG.integers(0, ids, (8, 8))
        part = METRICS.find("segmentation")()
        for metric in (whole, part):
            metric.update(gt * (gt != 1), gt, gt != 2, name=name)
        joined.merge(part)  # type: ignore[attr-defined]
    assert joined.compute() == whole.compute() and joined.rows == whole.rows
    with pytest.raises(ValueError, match="sample 'c' was given twice"):
        joined.merge(part)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("pred", "gt", "options", "message"),
    [
        (np.full((2, 2), 0.5), np.zeros((2, 2)), {}, "sample 'x': prediction has 4 values that are no whole numbers"),
        (np.full((2, 2), np.nan), np.zeros((2, 2)), {}, "sample 'x': prediction has 4 values that are no whole"),
        (np.zeros((2, 2)), np.full((2, 2), np.inf), {}, "sample 'x': ground truth has 4 values that are no whole"),
        (np.zeros((2, 2)), np.full((2, 2), 6), {"num_classes": 6}, "ground truth holds 6, classes are 0 to 5"),
        (np.zeros((2, 2)), np.full((2, 2), -3), {}, "ground truth holds -3"),
        (np.zeros((2, 3)), np.zeros((2, 2)), {}, r"prediction has shape \(2, 3\), ground truth \(2, 2\)"),
        (np.zeros((2, 2, 3)), np.zeros((2, 2)), {}, r"shape \(2, 2, 3\): expected \(height, width\)"),
        (np.array([["a"]]), np.zeros((1, 1)), {}, "holds <U1 values: class ids are expected"),
        (np.zeros((2, 2)), np.zeros((2, 2)), {"num_classes": 0}, "num_classes 0: must be 1 to 65536"),
        (np.zeros((2, 2)), np.zeros((2, 2)), {"classes": 3}, "unknown option 'classes': did you mean 'num_classes'"),
        (np.zeros((2, 2)), np.zeros((2, 2)), {"protocol": "mmsegm"}, "did you mean 'mmseg'"),
        (np.zeros((2, 2)), np.zeros((2, 2)), {"trimap": [1]}, "this metric takes no trimap=: it takes the mask valid="),
    ],
)
def test_mistakes_are_named(pred: Any, gt: Any, options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message) as error:
        score("segmentation", [pred], [gt], names=["x"], **options)
    assert "\n" not in str(error.value)


def test_predictions_of_another_kind_are_refused():
    mask = SimpleNamespace(values=np.zeros((2, 2)), kind="mask")
    with pytest.raises(ValueError, match="kind 'mask' cannot be scored as 'segmentation': 'dis' can"):
        score("segmentation", mask, np.zeros((2, 2)))


def iou_by_counting(pred: np.ndarray, gt: np.ndarray, counted: set[int]) -> float:
    """Pixel by pixel: a class's right ones over those where it is true or, on a labelled pixel, predicted."""
    right, wrong = dict.fromkeys(counted, 0), dict.fromkeys(counted, 0)
    for p, g in zip(pred.ravel().tolist(), gt.ravel().tolist(), strict=True):
        if g < 0:
            continue
        if p == g:
            right[g] += 1
            continue
        wrong[g] += 1
        if p in counted:
            wrong[p] += 1
    there = [c for c in counted if right[c] + wrong[c]]
    return sum(right[c] / (right[c] + wrong[c]) for c in there) / len(there)


def test_classes_that_the_truth_cannot_hold_do_not_count():
    """Seven stray pixels of 4,800, one of each nyu40 class that ADE20K lacks, cost seven pixels of the three true classes."""
    shared = set(classes.shared())
    strange = sorted(set(range(40)) - shared)
    assert len(shared) == 33 and len(strange) == 7
    gt = np.repeat([0, 1, 21], 1600).reshape(60, 80)
    pred = gt.copy()
    pred.ravel()[np.arange(7) * 650] = strange
    before = score("segmentation", pred, gt, num_classes=40)
    assert before["miou"] == pytest.approx(0.2994, abs=1e-3), "each stray class once was one of IoU 0"
    got = score("segmentation", pred, gt, num_classes=40, protocol="shared")
    assert got["miou"] == pytest.approx(iou_by_counting(pred, gt, shared), abs=1e-12)
    assert got["miou"] > 0.998
    assert got["macc"] == pytest.approx(got["miou"]) and got["aacc"] == pytest.approx(4793 / 4800)
    assert score("segmentation", gt, gt, num_classes=40, protocol="shared")["miou"] == 1

    noisy = np.where(RNG.random(gt.shape) < 0.4, RNG.integers(-1, 40, gt.shape), gt)
    holes = np.where(RNG.random(gt.shape) < 0.1, -1, gt)
    metric = METRICS.find("segmentation")(num_classes=40, protocol="shared")
    metric.update(noisy, holes)
    assert metric.compute()["miou"] == pytest.approx(iou_by_counting(noisy, holes, shared), abs=1e-12)
    per_class = metric.details()["iou_per_class"]
    assert np.isnan([per_class[i] for i in strange]).all() and per_class[2] == 0, "predicted, but never true: as mmseg"


def test_a_truth_of_a_class_that_does_not_count_is_an_error():
    metric = METRICS.find("segmentation")(num_classes=40, protocol="shared")
    with pytest.raises(ValueError, match="'a': ground truth holds 39, which is not among the 33 classes that count"):
        metric.update(np.zeros((2, 2), int), np.full((2, 2), 39), name="a")
    with pytest.raises(ValueError, match=r"counted \[3\]: not all are ids of 3 classes"):
        METRICS.find("segmentation")(num_classes=3, counted=[3])


def test_shared_labels_are_scored_over_the_shared_classes():
    ade = DATASETS.find("ade20k")
    about = ade.with_options(classes="shared").about
    assert about is not None and (about.protocols, about.classes) == ({"segmentation": "shared"}, "nyu40")
    again = ade.with_options(classes="shared").with_options(classes="ade20k150").about
    assert again is not None and (again.protocols, again.classes) == ({"segmentation": ""}, "ade20k150")
