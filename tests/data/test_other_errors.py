"""What the adapters of published data sets say of a wrong root, a damaged file, and labels that cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genpercept.data import DATASETS, coco_keypoints
from tests.support.other_trees import cityscapes, coco, load, mhp, photo, put, taskonomy

NAMES = (
    *("taskonomy", "cityscapes", "ade20k", "dis5k", "p3m10k", "composition1k", "coco_keypoints", "mhp", "mvtec_ad"),
)

# without which a split of theirs is refused before any folder is looked at
OPTIONS: dict[str, dict[str, Any]] = {"taskonomy": {"splits_file": "x"}, "mvtec_ad": {"held_out": 0.1}}


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_root_says_what_was_expected(name: str, tmp_path: Path) -> None:
    (tmp_path / "holiday.d").mkdir()
    plugin: Any = DATASETS.find(name).with_options(**OPTIONS.get(name, {}))
    for split in plugin.about.splits:
        with pytest.raises(ValueError) as error:
            plugin.index(tmp_path, split)
        said = str(error.value)
        assert "expected" in said and "found holiday.d/" in said and plugin.about.layout[0] in said and "\n" not in said
    with pytest.raises(ValueError, match="no such folder"):
        plugin.index(tmp_path / "nowhere", plugin.about.splits[0])
    with pytest.raises(ValueError, match=rf"split 'trian': choose one of {plugin.about.splits[0]}"):
        plugin.index(tmp_path, "trian")
    with pytest.raises(ValueError, match=r"needs its folder: set root"):
        plugin.index(None, plugin.about.splits[0])
    with pytest.raises(ValueError, match="nonsense"):
        plugin.with_options(nonsense=1)


def _damage(root: Path, pattern: str) -> Path:
    path = next(iter(sorted(root.rglob(pattern))))
    path.write_bytes(path.read_bytes()[:40])
    return path


@pytest.mark.parametrize(
    ("name", "make", "split", "pattern"),
    [
        ("taskonomy", lambda r: taskonomy(r, "a", 0), "all", "*depth_zbuffer.png"),
        ("taskonomy", lambda r: taskonomy(r, "a", 0), "all", "*normal.png"),
        ("cityscapes", cityscapes, "val", "*labelIds.png"),
        ("cityscapes", cityscapes, "val", "*disparity.png"),
        ("cityscapes", cityscapes, "val", "*camera.json"),
        ("coco_keypoints", coco, "val", "*keypoints_val2017.json"),
        ("coco_keypoints", coco, "val", "*.jpg"),
        ("mhp", mhp, "val", "*.mat"),
        ("mhp", mhp, "val", "*.jpg"),
    ],
)
def test_a_damaged_file_is_named(
    tmp_path: Path, name: str, make: Callable[[Path], None], split: str, pattern: str
) -> None:
    make(tmp_path)
    path = _damage(tmp_path, pattern)
    with pytest.raises(ValueError) as error:
        load(name, tmp_path, split)
    assert path.name in str(error.value) and "\n" not in str(error.value)


def test_a_damaged_mask_or_one_of_another_size_is_named(tmp_path: Path) -> None:
    photo(tmp_path / "DIS-TR/im/a.jpg")
    put(tmp_path / "DIS-TR/gt/a.png", np.zeros((4, 5), np.uint8))
    with pytest.raises(ValueError, match=r"a.png: 4 x 5 pixels, but its image has 4 x 6"):
        load("dis5k", tmp_path, "train")
    put(tmp_path / "DIS-TR/gt/a.png", np.zeros((4, 6), np.uint16))
    with pytest.raises(ValueError, match=r"a.png: stored with uint16 values"):
        load("dis5k", tmp_path, "train")
    _damage(tmp_path, "a.png")
    with pytest.raises(ValueError, match=r"a.png: not an image, or a damaged file"):
        load("dis5k", tmp_path, "train")
    (tmp_path / "DIS-TR/gt/a.png").unlink()
    with pytest.raises(ValueError, match=r"a.png: no such file"):
        load("dis5k", tmp_path, "train")


def test_the_row_of_a_person_that_is_not_coco(tmp_path: Path) -> None:
    coco(tmp_path)
    file = tmp_path / "annotations/person_keypoints_val2017.json"
    table = json.loads(file.read_text())
    table["annotations"][0]["keypoints"] = [1, 2, 2]
    file.write_text(json.dumps(table))
    with pytest.raises(ValueError, match="annotation 11 has 3 keypoint values"):
        coco_keypoints.PLUGIN.index(tmp_path, "val")
    file.write_text(json.dumps({"images": []}))
    with pytest.raises(ValueError, match="not a file of COCO keypoints: 'annotations'"):
        coco_keypoints.PLUGIN.index(tmp_path, "val")
