"""Adapters of published data sets on miniature trees in their layouts, with values worked out by hand; and on real files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from genpercept.core import classes
from genpercept.data import DATASETS, composition1k
from tests.support.other_trees import DRAW, cityscapes, coco, load, mhp, photo, put, taskonomy

# Taskonomy ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "taskonomy"])
def test_taskonomy(tmp_path: Path, below: str) -> None:
    for view in (10, 2):
        taskonomy(tmp_path, "allensville", view, below)
    one, _ = load("taskonomy", tmp_path, "all")
    assert one.name == "allensville/point_3_view_2" and one.domain == "allensville"
    depth, valid, normals = one.label("depth"), one.label("valid"), one.label("normals")
    assert depth[0].tolist() == [1, 2, 0, 0, 1 / 512, 65534 / 512] and valid[0].tolist() == [1, 1, 0, 0, 1, 1]
    # right stays right, down (green) becomes up's opposite, towards the camera stays; mid-grey is no normal
    for row, axis in enumerate([(1, 0, 0), (0, -1, 0), (0, 0, 1)]):
        torch.testing.assert_close(normals[:, row, 0], torch.tensor(axis).float(), atol=0.01, rtol=0)
    assert (
        normals[:, 3].abs().max() == 0 and normals[:, 0, 2].abs().max() == 0 and "2D-3D-S" in one.meta["normals_axes"]
    )


def test_taskonomy_splits_mask_and_camera(tmp_path: Path) -> None:
    for building in ("allensville", "beechwood"):
        taskonomy(tmp_path, building, 0)
    (tmp_path / "s.csv").write_text("id,train,val,test\nallensville,1,0,0\nbeechwood,0,1,0\nelsewhere,1,0,0\n")
    mask = tmp_path / "mask_valid/beechwood/point_3_view_0_domain_depth_zbuffer.png"
    put(mask, np.array([[0, 255, 255, 255, 255, 255]] * 4, np.uint8))
    camera = tmp_path / "point_info/beechwood/point_3_view_0_domain_point_info.json"
    camera.parent.mkdir(parents=True)
    camera.write_text(json.dumps({"field_of_view_rads": math.pi / 2}))
    (tmp_path / "mask_valid/allensville").mkdir()  # a building without a mask is an error, not a guess
    only = load("taskonomy", tmp_path, "val", splits_file=str(tmp_path / "s.csv"))
    assert [s.domain for s in only] == ["beechwood"] and only[0].label("valid")[0].tolist() == [0, 1, 0, 0, 1, 1]
    torch.testing.assert_close(only[0].label("intrinsics"), torch.tensor([[3.0, 0, 3], [0, 3, 2], [0, 0, 1]]))
    with pytest.raises(ValueError, match=r"allensville.*no such file"):
        load("taskonomy", tmp_path, "train", splits_file=str(tmp_path / "s.csv"))
    with pytest.raises(ValueError, match="needs the option splits_file"):
        load("taskonomy", tmp_path, "train")
    with pytest.raises(ValueError, match="none of its 2 buildings"):
        load("taskonomy", tmp_path, "test", splits_file=str(tmp_path / "s.csv"))


# Cityscapes ---------------------------------------------------------------------------------------------------------------


def test_cityscapes(tmp_path: Path) -> None:
    cityscapes(tmp_path)
    (s,) = load("cityscapes", tmp_path, "val")
    assert s.label("class_ids")[:2].tolist() == [[-1, 0, 1, 2, 18, -1], [10, 11, 16, -1, -1, 13]]
    assert s.domain == "bonn" and s.meta["classes"] == "cityscapes19" and s.meta["camera"].endswith("_camera.json")
    assert s.label("valid")[0].tolist() == [0, 0, 1, 1, 1, 0]
    np.testing.assert_allclose(s.label("depth")[0], [0, 0, 400, 40, 4, 0], rtol=1e-6)  # 0.2 * 2000 / 1, / 10, / 100
    assert s.label("intrinsics")[0].tolist() == [2000, 0, 1000]
    (s,) = load("cityscapes", tmp_path, "val", labels=["class_ids"])
    assert s.depth is None and s.valid is None and s.class_ids is not None


def test_cityscapes_without_a_camera_or_with_train_ids(tmp_path: Path) -> None:
    cityscapes(tmp_path, camera=False)
    label = next((tmp_path / "gtFine/val/bonn").iterdir())
    label.unlink()
    put(
        label.with_name(label.name.replace("labelIds", "labelTrainIds")),
        np.array([[0, 18, 255, 1, 2, 3]] * 4, np.uint8),
    )
    (s,) = load("cityscapes", tmp_path, "val")
    assert s.label("class_ids")[0].tolist() == [0, 18, -1, 1, 2, 3] and "default" in s.meta["camera"]
    np.testing.assert_allclose(s.label("depth")[0, 2], 0.209313 * 2262.52, rtol=1e-6)
    with pytest.raises(ValueError, match="did you mean 'class_ids'"):
        load("cityscapes", tmp_path, "val", labels=["class_id"])


def test_cityscapes_sequences(tmp_path: Path) -> None:
    """Frames of a snippet have the calibration of its annotated frame, the twentieth; another snippet's has none here."""
    cityscapes(tmp_path)
    for frame in (0, 29, 30):
        stem = f"val/bonn/bonn_000001_{frame:06d}"
        photo(tmp_path / f"leftImg8bit_sequence/{stem}_leftImg8bit.png")
        put(tmp_path / f"disparity_sequence/{stem}_disparity.png", np.full((4, 6), 257, np.uint16))
    first, last, other = load("cityscapes", tmp_path, "val", sequences=True)
    for s in (first, last):
        assert s.meta["camera"].endswith("bonn_000001_000019_camera.json") and s.class_ids is None
        np.testing.assert_allclose(s.label("depth"), 400, rtol=1e-6)
    assert other.name == "val/bonn/bonn_000001_000030" and "default" in other.meta["camera"]
    with pytest.raises(ValueError, match="no class_ids"):
        load("cityscapes", tmp_path, "val", sequences=True, labels=["class_ids"])


# ADE20K -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "ADEChallengeData2016"])
def test_ade20k_benchmark(tmp_path: Path, below: str) -> None:
    home = tmp_path / below
    photo(home / "images/training/ADE_train_00000001.jpg")
    put(home / "annotations/training/ADE_train_00000001.png", np.array([[0, 1, 20, 31, 64, 150]] * 4, np.uint8))
    (home / "sceneCategories.txt").write_text("ADE_train_00000001 bedroom\n")
    (s,) = load("ade20k", tmp_path, "train")
    assert s.label("class_ids")[0].tolist() == [-1, 0, 19, 30, 63, 149] and s.domain == "bedroom"
    (s,) = load("ade20k", tmp_path, "train", classes="shared")
    names = classes.find("nyu40").names
    assert [names[i] if i >= 0 else "" for i in s.label("class_ids")[0]] == ["", "wall", "chair", "chair", "blinds", ""]
    assert s.meta["classes"] == "nyu40"
    with pytest.raises(ValueError, match="for classes 'full'"):
        load("ade20k", tmp_path, "train", classes="full")
    put(home / "annotations/training/ADE_train_00000001.png", np.full((4, 6), 151, np.uint8))
    with pytest.raises(ValueError, match=r"ADE_train_00000001.png: the value 151"):
        load("ade20k", tmp_path, "train")


def test_ade20k_full(tmp_path: Path) -> None:
    folder = tmp_path / "ADE20K_2021_17_01/images/ADE/validation/urban/street"
    photo(folder / "ADE_val_00000001.jpg")
    seg = np.zeros((4, 6, 3), np.uint8)
    for column, index in enumerate((0, 312, 783, 774, 461)):  # none, building, double door, door, central reservation
        seg[:, column, :2] = index // 256 * 10, index % 256
    put(folder / "ADE_val_00000001_seg.png", seg)
    rows = [{"name": "building, edifice", "name_ndx": 312}, {"name": "sky", "name_ndx": 2420}]
    (folder / "ADE_val_00000001.json").write_text(json.dumps({"annotation": {"object": rows}}))
    (s,) = load("ade20k", tmp_path, "val")
    assert s.label("class_ids")[0].tolist() == [-1, 1, 14, 14, -1, -1] and s.domain == "street"
    (s,) = load("ade20k", tmp_path, "val", classes="full")
    assert s.label("class_ids")[0].tolist() == [-1, 311, 782, 773, 460, -1] and s.meta["class_names"] == {
        311: "building"
    }


# Masks, mattes, defects ---------------------------------------------------------------------------------------------------


def test_dis5k(tmp_path: Path) -> None:
    for folder in ("DIS-TR", "DIS-TE1", "DIS-TE2", "DIS-TE3", "DIS-TE4"):
        name = "3#Aquatic#1#Lobster#27_o"
        photo(tmp_path / "DIS5K" / folder / "im" / f"{name}.jpg")
        put(tmp_path / "DIS5K" / folder / "gt" / f"{name}.png", np.array([[0, 127, 128, 129, 200, 255]] * 4, np.uint8))
    (s,) = load("dis5k", tmp_path, "train")
    assert s.label("mask")[0].tolist() == [0, 0, 0, 1, 1, 1] and s.domain == "Aquatic"
    assert s.name == "DIS-TR/3#Aquatic#1#Lobster#27_o"
    assert [s.name[:7] for s in load("dis5k", tmp_path / "DIS5K", "test")] == [f"DIS-TE{i}" for i in range(1, 5)]
    with pytest.raises(ValueError, match=r"expected DIS-VD/im/\*.jpg.*found DIS-TE1/, DIS-TE2/.*Layout"):
        load("dis5k", tmp_path, "val")


def test_p3m10k(tmp_path: Path) -> None:
    places = [("train", "blurred_image"), ("validation/P3M-500-P", "blurred_image")]
    for place, folder in (*places, ("validation/P3M-500-NP", "original_image")):
        photo(tmp_path / place / folder / "p_1.jpg")
        put(tmp_path / place / "mask/p_1.png", np.array([[0, 51, 102, 153, 204, 255]] * 4, np.uint8))
        if place != "train":
            put(tmp_path / place / "trimap/p_1.png", np.array([[0, 0, 102, 128, 255, 255]] * 4, np.uint8))
    (s,) = load("p3m10k", tmp_path, "train")
    np.testing.assert_allclose(s.label("alpha")[0], [0, 0.2, 0.4, 0.6, 0.8, 1], atol=1e-7)
    assert s.trimap is None
    for split in ("test_p", "test_np"):
        (s,) = load("p3m10k", tmp_path, split)
        assert s.label("trimap")[0].tolist() == [0, 0, 128, 128, 255, 255] and s.label("trimap").dtype == torch.uint8


def adobe(root: Path, part: str, names: list[str], suffix: str) -> dict[str, np.ndarray]:
    found = {}
    for name in names:
        place = root / "Combined_Dataset" / part / "Adobe-licensed images"
        found[name] = put(place / "fg" / f"{name}.png", DRAW.integers(0, 256, (6, 8, 3), np.uint8))
        found[f"{name} a"] = put(place / "alpha" / f"{name}{suffix}", DRAW.integers(0, 256, (6, 8), np.uint8))
    return found


def test_composition1k_on_the_fly(tmp_path: Path) -> None:
    made = adobe(tmp_path, "Test_set", ["cat 1", "dog"], ".png")
    base = tmp_path / "Combined_Dataset/Test_set"
    put(base / "Adobe-licensed images/trimaps/dog_1.png", np.full((6, 8), 77, np.uint8))
    put(base / "Adobe-licensed images/trimaps/dog_0.png", np.zeros((6, 8), np.uint8))
    for i in range(2):
        put(base / f"Adobe-licensed images/trimaps/cat 1_{i}.png", np.full((6, 8), 255, np.uint8))
    backs = {f"b{i}.png": photo(tmp_path / f"voc/b{i}.png", 7, 9) for i in range(3)}
    backs["small.png"] = photo(tmp_path / "voc/small.png", 3, 2)
    (base / "test_fg_names.txt").write_text("dog.png\ncat 1.png\n")
    (base / "test_bg_names.txt").write_text("b2.png\nb0.png\nb1.png\nsmall.png\n")
    samples = load("composition1k", tmp_path, "test", backgrounds=str(tmp_path / "voc"), per_foreground=2)
    # foregrounds and backgrounds as listed
    assert [s.name for s in samples] == ["dog_0", "dog_1", "cat 1_0", "cat 1_1"]
    for s, back in zip(samples[:3], ("b2.png", "b0.png", "b1.png"), strict=True):
        alpha = made[f"{s.name[:-2]} a"][..., None] / 255
        want = alpha * made[s.name[:-2]] + (1 - alpha) * backs[back][:6, :8]
        np.testing.assert_allclose(s.image.permute(1, 2, 0) * 255, want, atol=1e-3)  # not rounded
        np.testing.assert_array_equal(s.label("alpha"), alpha[..., 0].astype(np.float32))
    assert samples[1].label("trimap").unique().tolist() == [128] and samples[0].label("trimap").unique().tolist() == [0]
    # 3 x 2 is enlarged by 4, the larger ratio, to 12 x 8, and its top left is taken
    large = np.asarray(Image.fromarray(backs["small.png"]).resize((8, 12), Image.Resampling.BICUBIC))[:6]
    alpha = made["cat 1 a"][..., None] / 255
    np.testing.assert_allclose(
        samples[3].image.permute(1, 2, 0) * 255, alpha * made["cat 1"] + (1 - alpha) * large, atol=1e-3
    )
    with pytest.raises(ValueError, match="4 backgrounds for 2 foregrounds, but 20 are wanted"):
        load("composition1k", tmp_path, "test", backgrounds=str(tmp_path / "voc"))


def test_composition1k_seeded(tmp_path: Path) -> None:
    adobe(tmp_path, "Training_set", ["a", "b"], ".jpg")
    for i in range(8):
        photo(tmp_path / f"coco/{i}.png", 6, 8)

    def chosen(**options: Any) -> list[str]:
        plugin = composition1k.PLUGIN.with_options(backgrounds=str(tmp_path / "coco"), per_foreground=5, **options)
        return [e.background.name for e in plugin.index(tmp_path, "train") if e.background is not None]

    assert len(chosen()) == 10 and chosen() == chosen() != chosen(seed=1)
    assert len(set(chosen()[:5])) == 5 and chosen()[:5] != chosen()[5:]
    plugin = composition1k.PLUGIN.with_options(backgrounds=str(tmp_path / "coco"))
    assert len(plugin.index(tmp_path, "train")) == 200
    with pytest.raises(ValueError, match=r"set the option backgrounds.*COCO train2014"):
        composition1k.PLUGIN.index(tmp_path, "train")


def test_composition1k_composited(tmp_path: Path) -> None:
    for name in ("x_0.png", "x_1.png", "y.png"):
        photo(tmp_path / "Test_set/merged" / name)
    for i, name in enumerate(("x.png", "y.png")):
        put(tmp_path / "Test_set/alpha" / name, np.full((4, 6), 51 * (i + 1), np.uint8))
    samples = load("composition1k", tmp_path, "test")
    assert [(s.name, round(float(s.label("alpha")[0, 0]), 6)) for s in samples] == [
        ("x_0", 0.2),
        ("x_1", 0.2),
        ("y", 0.4),
    ]


def test_mvtec_ad(tmp_path: Path) -> None:
    for category in ("bottle", "screw"):
        for kind in ("train/good", "test/good", "test/cut"):
            photo(tmp_path / category / kind / "000.png")
        put(tmp_path / category / "ground_truth/cut/000_mask.png", np.array([[0, 255, 1, 0, 0, 0]] * 4, np.uint8))
    samples = load("mvtec_ad", tmp_path, "test")
    assert [s.name for s in samples[:2]] == ["bottle/test/cut/000", "bottle/test/good/000"] and len(samples) == 4
    assert [(s.domain, s.meta["kind"]) for s in samples[2:]] == [("screw", "cut"), ("screw", "good")]
    assert samples[0].label("defect")[0].tolist() == [0, 1, 1, 0, 0, 0] and not samples[1].label("defect").any()
    (one,) = load("mvtec_ad", tmp_path, "train", category="screw")
    assert one.domain == "screw" and one.label("defect").dtype == torch.bool and not one.label("defect").any()
    assert [s.name for s in load("mvtec_ad", tmp_path / "screw", "train")] == [one.name]  # the root is a category
    with pytest.raises(ValueError, match="did you mean 'screw'"):
        load("mvtec_ad", tmp_path, "train", category="screws")
    (tmp_path / "screw/ground_truth/cut/000_mask.png").unlink()
    with pytest.raises(ValueError, match=r"000_mask.png: no such file"):
        load("mvtec_ad", tmp_path, "test")


# COCO ---------------------------------------------------------------------------------------------------------------------


def test_coco_keypoints(tmp_path: Path) -> None:
    coco(tmp_path)
    empty, s = load("coco_keypoints", tmp_path, "val")
    assert empty.label("keypoints").shape == (0, 17, 3) and empty.label("boxes").shape == (0, 4)
    assert s.name == "val2017/000000000007" and s.meta["image_id"] == 7 and "detections" not in s.meta
    assert s.label("keypoints").shape == (3, 17, 3) and s.label("keypoints")[0, :2].tolist() == [[2, 1, 2], [3, 2, 1]]
    assert s.label("boxes").tolist() == [[1, 0, 4, 3]] * 3 and s.meta["ids"] == [11, 12, 13]
    assert s.meta["iscrowd"] == [0, 0, 1] and s.meta["num_keypoints"] == [2, 0, 0] and s.meta["areas"] == [9.5] * 3
    options = {"boxes_file": str(tmp_path / "boxes.json"), "people_only": True, "min_score": 0.5}
    (s,) = load("coco_keypoints", tmp_path, "val", **options)
    assert s.meta["detections"] == [[0, 0, 5, 4, 0.9]]
    (tmp_path / "boxes.json").write_text("{}x")
    with pytest.raises(ValueError, match=r"boxes.json: not JSON"):
        load("coco_keypoints", tmp_path, "val", **options)
    photo(tmp_path / "val2017/000000000007.jpg", 4, 5)
    with pytest.raises(ValueError, match=r"000000000007.jpg: 4 x 5 pixels, but its annotation has 4 x 6"):
        load("coco_keypoints", tmp_path, "val")


def test_coco_by_person(tmp_path: Path) -> None:
    """Of two photographs with three annotations one is a person with joints; an epoch of training sees that one."""
    coco(tmp_path)
    (s,) = load("coco_keypoints", tmp_path, "val", per_person=True)
    assert s.name == "val2017/000000000007#11" and s.meta["ids"] == [11] and s.label("keypoints").shape == (1, 17, 3)


# LV-MHP -------------------------------------------------------------------------------------------------------------------


def test_mhp(tmp_path: Path) -> None:
    mhp(tmp_path / "LV-MHP-v2")
    alone, s = load("mhp", tmp_path, "val")
    assert (alone.name, s.name) == ("val/9", "val/10") and s.meta["image_id"] == 10 and s.meta["ids"] == [0, 1]
    points = s.label("keypoints")
    assert points[1, 9].tolist() == [2, 1, 2] and points[1, 10].tolist() == [3, 2, 1]  # COCO: left wrist, right wrist
    assert points[1].count_nonzero() == 6 and not points[0].any() and s.meta["num_keypoints"] == [0, 2]
    assert s.label("boxes").tolist() == [[1, 0, 4, 3]] * 2 and "areas" not in s.meta
    (s,) = load("mhp", tmp_path / "LV-MHP-v2", "val", per_person=True)
    assert s.name == "val/10#1" and s.meta["ids"] == [1]
    (tmp_path / "LV-MHP-v2/list/val.txt").unlink()
    assert [s.name for s in load("mhp", tmp_path, "val")] == ["val/9", "val/10"]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"person_0": np.zeros((16, 3))}, r"9.mat: .*person_0 has the shape \[16, 3\]"),
        ({"person_0": np.full((20, 3), 7.0)}, "person_0, row 0: visibility 7 is none of 0, 1, 2"),
        ({"person_0": np.zeros((20, 3))}, "person_0: a box from 0, 0 to 0, 0"),
    ],
)
def test_poses_that_are_not_mhps(tmp_path: Path, table: dict[str, Any], says: str) -> None:
    mhp(tmp_path)
    savemat(tmp_path / "val/pose_annos/9.mat", table)
    with pytest.raises(ValueError, match=says):
        load("mhp", tmp_path, "val")


def test_mvtec_holds_good_images_out(tmp_path: Path) -> None:
    """Evenly spaced, by category; all of them are trained on where nothing is held out."""
    for category in ("a", "b"):
        for i in range(10):
            photo(tmp_path / category / f"train/good/{i:03d}.png")
    mvtec = DATASETS.find("mvtec_ad")
    part = mvtec.with_options(held_out=0.2)
    held = [e.name for e in part.index(tmp_path, "val")]
    assert held == [f"{c}/train/good/{i:03d}" for c in "ab" for i in (0, 5)]
    left = [e.name for e in part.index(tmp_path, "train")]
    assert len(left) == 16 and sorted(left + held) == [e.name for e in mvtec.index(tmp_path, "train")]
    with pytest.raises(ValueError, match='no split "val" of its own: set the option held_out'):
        mvtec.index(tmp_path, "val")
    with pytest.raises(ValueError, match="held_out=1 of mvtec_ad: must be a share from 0 to below 1"):
        mvtec.with_options(held_out=1)
