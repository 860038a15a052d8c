"""COCO's keypoint AP: pycocotools' answers, an evaluation written out by hand, and every edge that is defined."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genpercept.imaging.prediction import Prediction
from genpercept.metrics import METRICS, pose, score
from genpercept.metrics.pose import KEYS, PoseMetric
from tests.support.paths import REFERENCE

METRICS_REFERENCE = REFERENCE / "metrics"
NAMES = dict(zip(KEYS, ("AP", "AP50", "AP75", "APm", "APl"), strict=True))
RECALLS = dict(zip(("ar", "ar50", "ar75", "ar_m", "ar_l"), ("AR", "AR50", "AR75", "ARm", "ARl"), strict=True))
SIGMAS = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000
SIZES = {"all": (0, 1e10), "m": (32**2, 96**2), "l": (96**2, 1e10)}
THRESHOLDS = np.linspace(0.5, 0.95, 10)

Scene = list[dict[str, Any]]


def make_scene(seed: int, images: int = 3) -> Scene:
    """Images with people of all sizes, crowds, people without joints, misses, doubles, strangers, more than 20 finds."""
    rng = np.random.default_rng(seed)
    scene = []
    for image in range(images):
        count = int(rng.integers(0, 6))
        size = np.exp(rng.uniform(np.log(15), np.log(200), count))
        gt = np.zeros((count, 17, 3))
        gt[..., :2] = rng.uniform(0, 500, (count, 1, 2)) + rng.uniform(0, 1, (count, 17, 2)) * size[:, None, None]
        gt[..., 2] = rng.choice([0, 1, 2], (count, 17), p=[0.3, 0.2, 0.5])
        gt[rng.random(count) < 0.15, :, 2] = 0
        found = [g for g in gt for _ in range(rng.choice([0, 1, 1, 1, 2]))]
        found += [rng.uniform(0, 500, (17, 3)) for _ in range(rng.choice([0, 1, 24]))]
        pred = np.array(found).reshape(-1, 17, 3)
        pred[..., :2] += rng.normal(0, rng.choice([0.5, 3, 9]), pred[..., :2].shape)
        boxes = np.concatenate([gt[..., :2].min(1), np.ptp(gt[..., :2], axis=1)], -1)
        scores = rng.integers(0, 8, len(pred)) / 8  # with ties
        meta = {
            "areas": size**2 * rng.uniform(0.4, 0.8, count),
            "boxes": boxes,
            "iscrowd": rng.random(count) < 0.15,
            "image_id": 3 * image,
        }
        scene.append({"pred": pred, "gt": gt, "scores": scores, "meta": meta})
    return scene


def filled(scene: Scene) -> PoseMetric:
    metric = pose.PLUGIN()
    for sample in scene:
        metric.update(sample["pred"], sample["gt"], meta=sample["meta"], scores=sample["scores"])
    return metric


def as_coco(scene: Scene) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    annotations, results = [], []
    for sample in scene:
        meta = sample["meta"]
        for i, person in enumerate(sample["gt"]):
            annotations.append(
                {
                    "id": len(annotations),  # from 0, which pycocotools takes for no match
                    "image_id": meta["image_id"],
                    "category_id": 1,
                    "keypoints": person.ravel().tolist(),
                    "num_keypoints": int((person[:, 2] > 0).sum()),
                    "area": float(meta["areas"][i]),
                    "bbox": meta["boxes"][i].tolist(),
                    "iscrowd": int(meta["iscrowd"][i]),
                }
            )
        for person, sure in zip(sample["pred"], sample["scores"], strict=True):
            entry = {"image_id": meta["image_id"], "category_id": 1, "keypoints": person.ravel().tolist()}
            results.append({**entry, "score": float(sure)})
    images = [
        {"id": s["meta"]["image_id"], "file_name": f"{s['meta']['image_id']:012d}.jpg", "height": 500, "width": 500}
        for s in scene
    ]
    truth = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    return truth, results


def test_parts_give_what_the_whole_gives():
    scene = make_scene(11, images=4)
    for numbered in (True, False):
        for sample in scene:
            sample["meta"] = {k: v for k, v in sample["meta"].items() if numbered or k != "image_id"}
        whole, joined = pose.PLUGIN(), pose.PLUGIN()
        for i, sample in enumerate(scene):
            arguments = {"meta": sample["meta"], "scores": sample["scores"], "name": f"image {i}"}
            part = pose.PLUGIN()
            for metric in (whole, part):
                metric.update(sample["pred"], sample["gt"], **arguments)
            joined.merge(part)
        assert joined.compute() == pytest.approx(whole.compute(), nan_ok=True, abs=0)
        assert joined.results == whole.results and list(joined.rows) == list(whole.rows)
        with pytest.raises(ValueError, match="sample 'image 3' was given twice"):
            joined.merge(part)


# ---- COCO's rules written out, person by person


def similarity(person: np.ndarray, truth: np.ndarray, area: float, box: np.ndarray) -> float:
    seen = truth[:, 2] > 0
    if seen.any():
        squares = ((person[:, :2] - truth[:, :2]) ** 2).sum(-1)
    else:  # how far outside of thrice the box
        low, high = box[:2] - box[2:], box[:2] + 2 * box[2:]
        outside = np.maximum(0, low - person[:, :2]) + np.maximum(0, person[:, :2] - high)
        squares, seen = (outside**2).sum(-1), ~seen
    return float(np.exp(-squares / (2 * SIGMAS) ** 2 / (area + np.spacing(1)) / 2)[seen].mean())


def matched(sample: dict[str, Any], threshold: float, size: str) -> tuple[list[tuple[float, str]], int]:
    """(score, "right" | "wrong" | "ignored") of each found person, and how many there were to find."""
    meta, (low, high) = sample["meta"], SIZES[size]
    truths = [
        (g, a, b, bool(c), bool(c) or not (g[:, 2] > 0).any() or not low <= a <= high)
        for g, a, b, c in zip(sample["gt"], meta["areas"], meta["boxes"], meta["iscrowd"], strict=True)
    ]
    truths.sort(key=lambda t: t[-1])
    taken = [False] * len(truths)
    verdicts = []
    for i in sorted(range(len(sample["pred"])), key=lambda i: -sample["scores"][i])[:20]:
        person = sample["pred"][i]
        best, match = min(threshold, 1 - 1e-10), None
        for j, (truth, area, box, crowd, ignored) in enumerate(truths):
            if taken[j] and not crowd:
                continue
            if match is not None and not truths[match][-1] and ignored:
                break
            alike = similarity(person, truth, area, box)
            if alike >= best:
                best, match = alike, j
        area = float(np.prod(np.ptp(person[:, :2], axis=0)))
        if match is None:
            verdict = "wrong" if low <= area <= high else "ignored"
        else:
            taken[match] = True
            verdict = "ignored" if truths[match][-1] else "right"
        verdicts.append((float(sample["scores"][i]), verdict))
    return verdicts, sum(not t[-1] for t in truths)


def average_precision(scene: Scene, threshold: float, size: str) -> float:
    each = [matched(sample, threshold, size) for sample in sorted(scene, key=lambda s: s["meta"]["image_id"])]
    total = sum(count for _, count in each)
    if total == 0:
        return float("nan")
    verdicts = sorted((v for found, _ in each for v in found), key=lambda v: -v[0])
    right = np.cumsum([v == "right" for _, v in verdicts])
    wrong = np.cumsum([v == "wrong" for _, v in verdicts])
    recall = right / total
    precision = right / np.maximum(right + wrong, np.spacing(1))
    points = [precision[recall >= r].max(initial=0) for r in np.linspace(0, 1, 101)]
    return float(np.mean(points))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 100_000))
def test_equal_to_the_rules_written_out(seed: int):
    scene = make_scene(seed)
    got = filled(scene).compute()
    curves = {size: [average_precision(scene, t, size) for t in THRESHOLDS] for size in SIZES}
    wanted = {
        "ap": np.mean(curves["all"]),
        "ap50": curves["all"][0],
        "ap75": curves["all"][5],
        "ap_m": np.mean(curves["m"]),
        "ap_l": np.mean(curves["l"]),
    }
    assert tuple(got) == KEYS
    assert got == pytest.approx(wanted, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("case", ["real_perfect", "real_noise_2pct", "real_noise_6pct", "real_noise_15pct"])
@pytest.mark.skipif(
    not (METRICS_REFERENCE / "pose.json").is_file(), reason="the reference lies beside the repository only"
)
def test_equal_to_pycocotools_on_coco(case: str):
    truth = pose.read_annotations(METRICS_REFERENCE / "pose_gt_coco4.json")
    results = json.loads((METRICS_REFERENCE / "pose_dt.json").read_text())[case]
    expected = json.loads((METRICS_REFERENCE / "pose.json").read_text())["cases"][case]
    files = pose.PLUGIN()
    files.add_coco(truth, results)
    arrays = pose.PLUGIN()
    for image in truth["images"]:
        people = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
        found = [r for r in results if r["image_id"] == image["id"]]
        arrays.update(
            np.array([r["keypoints"] for r in found]).reshape(-1, 17, 3),
            np.array([a["keypoints"] for a in people]).reshape(-1, 17, 3),
            meta={
                "areas": [a["area"] for a in people],
                "boxes": [a["bbox"] for a in people],
                "iscrowd": [a["iscrowd"] for a in people],
                "image_id": image["id"],
            },
            scores=[r["score"] for r in found],
        )
    for metric in (files, arrays):
        got = {**metric.compute(), **metric.details()}
        for ours, theirs in {**NAMES, **RECALLS}.items():
            assert got[ours] == pytest.approx(expected[theirs], abs=1e-12), ours


def test_files_and_arrays_give_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    scene = make_scene(5, images=4)
    truth, results = as_coco(scene)
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    pose.write_results(tmp_path / "dt.json", results)
    metric = pose.PLUGIN()
    metric.add_coco(pose.read_annotations(tmp_path / "gt.json"), pose.read_results(tmp_path / "dt.json"))
    arrays = filled(scene)
    assert metric.compute() == pytest.approx(arrays.compute(), nan_ok=True, abs=0)
    assert metric.details() == pytest.approx(arrays.details(), nan_ok=True, abs=0)
    assert list(metric.rows) == [f"{i:012d}" for i in (0, 3, 6, 9)]
    for ours, theirs in zip(metric.rows.values(), arrays.rows.values(), strict=True):
        assert ours == pytest.approx(theirs, nan_ok=True, abs=0)
    assert arrays.results == results
    assert capsys.readouterr().out == ""  # pycocotools prints


def test_boxes_in_results_say_how_large_a_wrong_person_is():
    person = np.concatenate([np.linspace(0, 300, 34).reshape(17, 2), np.ones((17, 1))], -1)
    truth, results = as_coco(
        [{"gt": person[None], "pred": person[None] + [1000, 0, 0], "scores": [0.9], "meta": _meta()}]
    )
    right = {**results[0], "keypoints": person.ravel().tolist(), "score": 0.8}
    large = pose.PLUGIN()
    large.add_coco(truth, [results[0], right])
    boxed = pose.PLUGIN()
    boxed.add_coco(truth, [{**r, "bbox": [0, 0, 40, 40]} for r in (results[0], right)])
    assert large.compute()["ap_l"] == pytest.approx(0.5) and boxed.compute()["ap_l"] == pytest.approx(1)
    assert large.compute()["ap"] == boxed.compute()["ap"] == pytest.approx(0.5)


def _meta() -> dict[str, Any]:
    return {"areas": [40_000], "boxes": np.array([[0, 0, 300, 300]]), "iscrowd": [False], "image_id": 7}


@pytest.fixture
def person() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate([rng.uniform(0, 200, (1, 17, 2)), np.full((1, 17, 1), 2.0)], -1)


def test_perfect_nobody_found_and_nobody_there(person: np.ndarray):
    nobody = np.zeros((0, 17, 3))
    assert score("pose", person, person, meta={"areas": [2000]}) == pytest.approx(
        {"ap": 1, "ap50": 1, "ap75": 1, "ap_m": 1, "ap_l": np.nan}, nan_ok=True
    )
    assert score("pose", nobody, person)["ap"] == 0
    assert all(np.isnan(v) for v in score("pose", person, nobody).values())
    assert all(np.isnan(v) for v in score("pose", nobody, nobody).values())
    assert all(np.isnan(v) for v in score("pose", [], []).values())
    # A stranger in another image costs precision, once it is surer than the right one.
    sure = {"scores": [[0.9], [0.5]], "meta": [{"areas": []}, {"areas": [2000]}]}
    assert score("pose", [person, person], [nobody, person], **sure)["ap"] == pytest.approx(0.5)


def test_what_a_person_scores(person: np.ndarray):
    people = np.repeat(person, 3, 0)
    people[..., 2] = 0.1
    people[0, :5, 2], people[1, :, 2] = 0.6, np.linspace(0.2, 1, 17)
    sure = pose.instance_scores(people)
    assert sure == pytest.approx([0.6, np.linspace(0.2, 1, 17)[1:].mean(), 0])  # 0.2 itself is not above 0.2
    assert pose.instance_scores(people, box_scores=[0.5, 1, 1])[0] == pytest.approx(0.3)
    assert pose.instance_scores(people, scores=[3, 2, 1], box_scores=[9, 9, 9]).tolist() == [3, 2, 1]
    nobody = np.zeros((0, 17, 3))
    two, truth = [person, person + np.array([3, 0, 0])], [nobody, person]
    meta = [{"areas": []}, {"areas": [2000]}]
    low = [np.concatenate([p[..., :2], np.full((1, 17, 1), s)], -1) for p, s in zip(two, (0.3, 0.9), strict=True)]
    assert score("pose", low, truth, meta=meta)["ap50"] == pytest.approx(1)
    assert score("pose", low, truth, meta=meta, box_scores=[[1.0], [0.1]])["ap50"] == pytest.approx(0.5)
    said = [Prediction(p, "keypoints", meta={"box_scores": b}) for p, b in zip(low, ([1.0], [0.1]), strict=True)]
    assert score("pose", said, truth, meta=meta)["ap50"] == pytest.approx(0.5)


def test_areas_come_from_boxes_and_those_from_joints(person: np.ndarray):
    width, height = np.ptp(person[0, :, :2], axis=0)
    near = person + np.array([5, 0, 0])
    box = [[0, 0, width, height]]
    by_area = score("pose", near, person, meta={"areas": [0.53 * width * height], "boxes": box})
    assert score("pose", near, person) == pytest.approx(by_area, nan_ok=True)
    assert score("pose", near, person, meta={"boxes": box}) == pytest.approx(by_area, nan_ok=True)
    assert score("pose", near, person, meta={"areas": [50.0]})["ap"] < by_area["ap"]


def test_people_that_do_not_count(person: np.ndarray):
    people = np.concatenate([person, person + np.array([900, 0, 0])])
    assert score("pose", person, people)["ap"] < 0.6
    for kept in (
        score("pose", person, people, np.array([True, False])),
        score("pose", person, people, meta={"iscrowd": [0, 1]}),
        score("pose", person, people * np.array([1, 0])[:, None, None] ** [0, 0, 1]),
    ):
        assert kept["ap"] == pytest.approx(1)
    hidden = person.copy()
    hidden[0, 3:, 2] = 0
    wrong_there = person.copy()
    wrong_there[0, 3:, :2] += 500
    assert score("pose", wrong_there, hidden, meta={"areas": [2000]})["ap"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pred": np.zeros((1, 16, 3))}, r"sample 'x': prediction has shape \(1, 16, 3\): expected \(1, 17, 3\)"),
        ({"pred": np.full((1, 17, 3), np.nan)}, "sample 'x': prediction has 51 NaN or infinite values"),
        ({"gt": np.full((1, 17, 3), np.inf)}, "sample 'x': ground truth has 51 NaN"),
        ({"meta": {"areas": [1, 2]}}, r"sample 'x': areas has shape \(2,\): expected \(1,\)"),
        ({"meta": {"area": [1]}}, "meta has 'area': did you mean 'areas'"),
        ({"scores": [0.5, 0.5]}, r"scores has shape \(2,\)"),
        ({"box_scores": [np.nan]}, "box_scores has 1 NaN"),
        ({"valid": np.ones(3, bool)}, r"valid has shape \(3,\): expected \(1,\)"),
    ],
)
def test_mistakes_are_named(person: np.ndarray, change: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message) as error:
        pose.PLUGIN().update(**{"pred": person, "gt": person, "name": "x", **change})
    assert "\n" not in str(error.value)


def test_mistakes_of_calls(person: np.ndarray):
    with pytest.raises(ValueError, match="unknown option 'sigmas'"):
        METRICS.find("pose")(sigmas=1)
    with pytest.raises(ValueError, match="unknown protocol 'cocoa': did you mean 'coco'"):
        METRICS.find("pose")(protocol="cocoa")
    metric = pose.PLUGIN()
    metric.update(person, person, name="a", meta={"image_id": 4})
    with pytest.raises(ValueError, match="sample 'b': image_id 4 is that of 'a' already"):
        metric.update(person, person, name="b", meta={"image_id": 4})
    with pytest.raises(ValueError, match="kind 'depth_affine' cannot be scored as 'pose'"):
        score("pose", SimpleNamespace(values=person, kind="depth_affine"), person)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("{}", "holds a JSON object: a COCO result file is a list"),
        ('[{"image_id": 0, "keypoints": []}]', "entry 0 has no score"),
        ('[{"image_id": 0, "keypoints": [1, 2], "score": 1}]', "entry 0 needs keypoints of 17 x 3"),
        (json.dumps([{"image_id": 0, "keypoints": [1] * 51, "score": float("nan")}]), "entry 0 has the score nan"),
        (json.dumps([{"image_id": 0, "keypoints": [None] * 51, "score": 1}]), "keypoints that are no finite numbers"),
        (json.dumps([{"image_id": 5, "keypoints": [1] * 51, "score": 1}]), "result 0 is of image 5"),
    ],
)
def test_files_that_are_no_results(tmp_path: Path, text: str, message: str):
    path = tmp_path / "dt.json"
    path.write_text(text)
    truth, _ = as_coco(make_scene(1))
    with pytest.raises(ValueError, match=message) as error:
        pose.PLUGIN().add_coco(truth, pose.read_results(path))
    assert "\n" not in str(error.value)


def test_files_that_are_no_ground_truth(tmp_path: Path):
    path = tmp_path / "gt.json"
    with pytest.raises(ValueError, match=r"gt.json: cannot be read: No such file"):
        pose.read_annotations(path)
    truth, _ = as_coco(make_scene(3))
    for content, message in (
        ([], "holds a JSON list: COCO ground truth is an object"),
        (
            {**truth, "annotations": [{"keypoints": [1] * 51, "image_id": 1}]},
            "annotation 0 has no category_id, area, bbox",
        ),
        ({**truth, "images": [{"file_name": "a.jpg"}]}, "images without a whole number as id"),
    ):
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=message):
            pose.read_annotations(path)
    with pytest.raises(ValueError, match="annotation 0 is of image"):
        pose.PLUGIN().add_coco({**truth, "images": [{"id": 77}]}, [])
