"""Miniatures of what each suite evaluates on: ROOT/DATA_SET in its published layout, every split of the suite. In tmp_path."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from genpercept.data.hypersim import SPLIT_CSV
from tests.support import depth_trees
from tests.support.other_trees import coco, photo, put

SIZE = (24, 32)  # of masks and mattes: small, but with an outline
CATEGORIES = ("bottle", "carpet", "screw")


@contextmanager
def _sized(height: int, width: int) -> Iterator[None]:
    """Trees of depth at this size: protocols with a crop are defined for the frames of their set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(depth_trees, "H", height)
        patch.setattr(depth_trees, "W", width)
        yield


def blob(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A disc somewhere, uint8: 255 inside, soft at its edge."""
    y, x = np.mgrid[: size[0], : size[1]]
    middle, radius = (size[0] * (0.4 + 0.05 * (seed % 4)), size[1] * (0.4 + 0.05 * (seed % 3))), min(size) * 0.3
    return (np.clip(radius - np.hypot(y - middle[0], x - middle[1]), 0, 1) * 255).astype(np.uint8)


def depth(root: Path) -> None:
    with _sized(375, 1242):
        tree = depth_trees.kitti_archive(root / "kitti")
        for path in tree.root.rglob("image_02/data/*.png"):
            photo(path, 375, 1242)
    (root / "nyuv2").mkdir()
    with _sized(480, 640):
        depth_trees.nyuv2_mat(root / "nyuv2")
    for build in (depth_trees.scannet, depth_trees.diode, depth_trees.eth3d):
        build(root / build.__name__)
    street = next((root / "diode").rglob("indoors"))  # the same scan as a street's: a table by kind of scene
    for path in [p for p in street.rglob("*") if p.is_file()]:
        copy = street.with_name("outdoor") / path.relative_to(street)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())


def normals(root: Path) -> None:
    depth_trees.nyuv2_normals(root / "nyuv2")
    depth_trees.scannet_dsine(root / "scannet")


def dis5k(root: Path) -> None:
    for i, part in enumerate(("DIS-VD", "DIS-TE1", "DIS-TE2", "DIS-TE3", "DIS-TE4")):
        name = "3#Aquatic#1#Lobster#27_o"  # the same in each: stems repeat
        photo(root / "dis5k/DIS5K" / part / "im" / f"{name}.jpg", *SIZE)
        put(root / "dis5k/DIS5K" / part / "gt" / f"{name}.png", blob(i))


def segmentation(root: Path) -> None:
    tree = depth_trees.hypersim(root / "hypersim")
    table = tree.root / SPLIT_CSV
    table.write_text(table.read_text().replace(",val\n", ",test\n"))
    home = root / "ade20k/ADEChallengeData2016"
    photo(home / "images/validation/ADE_val_00000001.jpg")
    put(home / "annotations/validation/ADE_val_00000001.png", np.array([[0, 1, 20, 31, 64, 150]] * 4, np.uint8))
    (home / "sceneCategories.txt").write_text("ADE_val_00000001 bedroom\n")


def matting(root: Path) -> None:
    for i in range(2):
        place = root / "p3m10k/validation/P3M-500-NP"
        photo(place / f"original_image/p_{i}.jpg", *SIZE)
        alpha = put(place / f"mask/p_{i}.png", blob(i))
        put(place / f"trimap/p_{i}.png", np.where((alpha > 0) & (alpha < 255), 128, alpha).astype(np.uint8))
    home = root / "composition1k/Combined_Dataset/Test_set"
    place, names = home / "Adobe-licensed images", [f"{i:02d}.png" for i in range(20)]
    photo(place / "fg/dog.png", *SIZE)
    alpha = put(place / "alpha/dog.png", blob(0))
    for i, name in enumerate(names):
        trimap = np.where((alpha > 0) & (alpha < 255), 128, alpha).astype(np.uint8)
        trimap[i % SIZE[0], :] = 128
        put(place / f"trimaps/dog_{i}.png", trimap)
        photo(home / "bg" / name, *SIZE)
    (home / "test_fg_names.txt").write_text("dog.png\n")
    (home / "test_bg_names.txt").write_text("\n".join(names) + "\n")


def pose(root: Path) -> None:
    (root / "coco_keypoints").mkdir(parents=True)
    coco(root / "coco_keypoints")
    file = root / "coco_keypoints/annotations/person_keypoints_val2017.json"
    found = json.loads(file.read_text())
    found["categories"] = [{"id": 1, "name": "person"}]
    file.write_text(json.dumps(found))


def anomaly(root: Path) -> None:
    """Three categories, each with a good image and two kinds of defect; 000.png in every folder, as published."""
    for i, category in enumerate(CATEGORIES):
        home = root / "mvtec_ad" / category
        for kind in ("train/good", "test/good", "test/cut", "test/hole"):
            photo(home / kind / "000.png", *SIZE)
        photo(home / "test/cut/001.png", *SIZE)
        for j, name in enumerate(("cut/000", "cut/001", "hole/000")):
            put(home / f"ground_truth/{name}_mask.png", np.where(blob(i + j) > 127, 255, 0).astype(np.uint8))


TREES: dict[str, Callable[[Path], None]] = {  # by suite
    "anomaly": anomaly,
    "depth-zero-shot": depth,
    "dis5k": dis5k,
    "matting": matting,
    "normals": normals,
    "pose": pose,
    "segmentation": segmentation,
}
