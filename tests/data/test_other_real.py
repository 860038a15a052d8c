"""Adapters on a few real files of each data set, where a checkout has them beside it; the figures are of the raw files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from genpercept.core import classes
from tests.support.other_trees import load
from tests.support.paths import REFERENCE

SAMPLES = REFERENCE / "samples"
pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason="no real samples beside this checkout")


def link(target: Path, at: Path) -> None:
    at.parent.mkdir(parents=True, exist_ok=True)
    at.symlink_to(target)


def test_cityscapes() -> None:
    (s,) = load("cityscapes", SAMPLES / "cityscapes/mmseg_pseudo_cityscapes_dataset", "val")
    count = torch.bincount(s.label("class_ids").flatten() + 1, minlength=20).tolist()
    names = ("no class", *classes.find("cityscapes19").names)
    seen = dict(zip(names, count, strict=True))
    assert (seen["road"], seen["building"], seen["sky"], seen["car"], seen["no class"]) == (
        9740,
        12744,
        581,
        1802,
        3874,
    )
    assert s.name == "val/frankfurt/frankfurt_000000_000294" and s.image.shape == (3, 128, 256)


def test_ade20k_full() -> None:
    day, night = load("ade20k", SAMPLES / "ade20k", "train")
    names = classes.find("ade20k150").names
    counts = [torch.bincount(s.label("class_ids").flatten() + 1, minlength=151).tolist()[1:] for s in (day, night)]
    pixels = [dict(zip(names, c, strict=True)) for c in counts]
    assert [pixels[0][n] for n in ("building", "road", "sky", "person")] == [786669, 1155851, 437203, 17746]
    assert [pixels[1][n] for n in ("building", "road", "sky", "van")] == [795949, 65803, 0, 312136]
    full = load("ade20k", SAMPLES / "ade20k", "train", classes="full")
    assert [int((s.label("class_ids") < 0).sum()) for s in full] == [89604, 378853]
    # the benchmark's table of 150 agrees with the names that the annotators wrote
    for one, all_of_it in ((day, full[0]), (night, full[1])):
        short, full_ids = (x.label("class_ids")[::5, ::5] for x in (one, all_of_it))
        for i, name in all_of_it.meta["class_names"].items():
            found = short[full_ids == i].unique().tolist()
            assert [names[j] for j in found if j >= 0] in ([name], []), name


def test_dis5k(tmp_path: Path) -> None:
    for folder in ("im", "gt"):
        link(SAMPLES / "dis5k/DIS5K-test" / folder, tmp_path / "DIS-TE1" / folder)
    samples = load("dis5k", tmp_path, "test1")
    assert [int(s.label("mask").sum()) for s in samples] == [1916597, 895005, 2753442]
    assert [s.domain for s in samples] == ["Accessories", "Accessories", "Architecture"]


def test_composition1k() -> None:
    (s,) = load("composition1k", SAMPLES / "composition1k/mmagic_matting_dataset", "all")
    alpha, trimap = s.label("alpha"), s.label("trimap")
    assert round(float(alpha.double().sum() * 255)) == 40775542 and alpha[276, 400] == 1
    assert [int((trimap == v).sum()) for v in (0, 128, 255)] == [272504, 19203, 149893]


def test_composition1k_made_of_its_parts_is_the_stored_composite(tmp_path: Path) -> None:
    parts = SAMPLES / "composition1k/mmagic_matting_dataset"
    for folder in ("fg", "alpha"):
        link(parts / folder / "GT05.jpg", tmp_path / "Test_set/Adobe-licensed images" / folder / "GT05.jpg")
    options = {"backgrounds": str(parts / "bg"), "per_foreground": 1}
    (made,) = load("composition1k", tmp_path, "test", **options)
    (stored,) = load("composition1k", parts, "all")
    difference = float((made.image - stored.image).abs().mean()) * 255
    assert made.name == "GT05_0" and abs(difference - 0.164) < 0.005  # the stored one went through JPEG


def test_lemur_as_a_composite(tmp_path: Path) -> None:
    for folder, name in (("merged", "lemur"), ("alpha", "lemur_alpha"), ("trimap", "lemur_trimap")):
        link(SAMPLES / f"matting_pymatting_lemur/{name}.png", tmp_path / folder / "lemur.png")
    (s,) = load("composition1k", tmp_path, "all")
    assert round(float(s.label("alpha").double().sum() * 255)) == 27605272
    assert [int((s.label("trimap") == v).sum()) for v in (0, 128, 255)] == [176326, 38666, 84208]  # stored with 102
    np.testing.assert_allclose(s.image[:, 0, 0] * 255, [18, 34, 6], atol=1e-4)


def test_coco_keypoints(tmp_path: Path) -> None:
    link(SAMPLES / "coco_keypoints/test_coco.json", tmp_path / "annotations/person_keypoints_val2017.json")
    for path in (SAMPLES / "coco_keypoints").glob("*.jpg"):
        link(path, tmp_path / "val2017" / path.name)
    boxes = str(SAMPLES / "coco_keypoints/test_coco_det_AP_H_56.json")
    samples = load("coco_keypoints", tmp_path, "val", boxes_file=boxes)
    assert [len(s.label("boxes")) for s in samples] == [1, 3, 5, 5]
    assert [len(s.meta["detections"]) for s in samples] == [22, 26, 33, 37]
    assert samples[0].label("keypoints")[0, :3].tolist() == [[367, 81, 2], [374, 73, 2], [360, 75, 2]]
    np.testing.assert_allclose(samples[0].label("boxes")[0], [280.79, 44.73, 218.7, 346.68], rtol=1e-6)
    assert samples[0].meta["areas"] == [27789.11055] and samples[1].meta["num_keypoints"] == [14, 15, 0]
    for s in samples:
        joints = (s.label("keypoints")[..., 2] > 0).sum(-1).tolist()
        assert joints == s.meta["num_keypoints"]


def test_mvtec_ad() -> None:
    samples = load("mvtec_ad", SAMPLES / "mvtec_ad", "test", category="hazelnut")
    defects = [(s.meta["kind"], int(s.label("defect").sum())) for s in samples]
    assert defects[:4] == [("crack", 4140), ("crack", 4154), ("cut", 257), ("cut", 1017)]
    assert defects[4:] == [("good", 0), ("good", 0), ("hole", 893), ("hole", 264), ("print", 2476), ("print", 1674)]
    assert len(load("mvtec_ad", SAMPLES / "mvtec_ad/hazelnut", "train")) == 6
