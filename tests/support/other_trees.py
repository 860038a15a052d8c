"""Miniatures of the data sets of classes, masks and people, in their published layouts. Tests build them in tmp_path."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.io import savemat

from genpercept.core.values import Sample
from genpercept.data import DATASETS, files_of, prepared
from tests.support.opened import opened
from tests.support.same import assert_same

DRAW = np.random.default_rng(0)


def put(path: Path, array: np.ndarray, **how: Any) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **how)
    return array


def photo(path: Path, h: int = 4, w: int = 6) -> np.ndarray:
    return put(path, DRAW.integers(0, 256, (h, w, 3), np.uint8))


def load(name: str, root: Path, split: str, **options: Any) -> list[Sample]:
    """Every sample of the split, from entries that went through pickle as a worker's do, that name all files they read."""
    plugin: Any = DATASETS.find(name)
    plugin = plugin.with_options(**options) if options else plugin
    entries = pickle.loads(pickle.dumps(list(plugin.index(root, split))))
    samples = []
    for entry in entries:
        with opened(root) as read:
            samples.append(plugin.load(entry))
        (root / "packed").write_bytes(prepared.pack(samples[-1]))
        assert_same(samples[-1], prepared.load(prepared.PreparedEntry(entry.name, root / "packed")))
        (root / "packed").unlink()
        assert read and read <= set(files_of(entry))
    assert [e.name for e in entries] == [s.name for s in samples]
    for s in samples:
        assert s.image.dtype == torch.float32 and s.image.shape[0] == 3 and 0 <= s.image.min() <= s.image.max() <= 1
    return samples


def taskonomy(root: Path, building: str, view: int, below: str = "", label: bool = True) -> None:
    stem = f"point_3_view_{view}_domain_"
    photo(root / "rgb" / below / building / f"{stem}rgb.png")
    if label:
        depth = np.array([[512, 1024, 65535, 0, 1, 65534]] * 4, np.uint16)
        put(root / "depth_zbuffer" / below / building / f"{stem}depth_zbuffer.png", depth)
        stored = np.full((4, 6, 3), 127, np.uint8)
        stored[0], stored[1], stored[2] = (255, 128, 128), (128, 255, 128), (128, 128, 255)
        put(root / "normal" / below / building / f"{stem}normal.png", stored)


def cityscapes(root: Path, camera: bool = True) -> None:
    stem = "val/bonn/bonn_000001_000019"
    photo(root / f"leftImg8bit/{stem}_leftImg8bit.png")
    ids = np.array([[0, 7, 8, 11, 33, 255], [23, 24, 31, 18, 29, 26]] * 2, np.uint8)
    put(root / f"gtFine/{stem}_gtFine_labelIds.png", ids)
    put(root / f"disparity/{stem}_disparity.png", np.array([[0, 1, 257, 2561, 25601, 0]] * 4, np.uint16))
    if camera:
        path = root / f"camera/{stem}_camera.json"
        path.parent.mkdir(parents=True)
        intrinsic = {"fx": 2000.0, "fy": 2001.0, "u0": 1000.0, "v0": 500.0}
        path.write_text(json.dumps({"extrinsic": {"baseline": 0.2, "x": 1.7}, "intrinsic": intrinsic}))


def coco(root: Path) -> None:
    for i in (7, 3):
        photo(root / f"val2017/{i:012d}.jpg")
    points = [0] * 51
    points[:6] = [2, 1, 2, 3, 2, 1]
    row = {"image_id": 7, "category_id": 1, "bbox": [1, 0, 4, 3], "area": 9.5, "iscrowd": 0, "num_keypoints": 2}
    people = [row | {"id": 11, "keypoints": points}, row | {"id": 12, "keypoints": [0] * 51, "num_keypoints": 0}]
    people += [
        row | {"id": 13, "keypoints": [0] * 51, "num_keypoints": 0, "iscrowd": 1},
        row | {"id": 14, "category_id": 2},
    ]
    images = [{"id": i, "file_name": f"{i:012d}.jpg", "height": 4, "width": 6} for i in (7, 3)]
    (root / "annotations").mkdir()
    file = root / "annotations/person_keypoints_val2017.json"
    file.write_text(json.dumps({"images": images, "annotations": people}))
    found = [{"image_id": 7, "category_id": 1, "bbox": [0, 0, 5, 4], "score": s} for s in (0.9, 0.1)]
    (root / "boxes.json").write_text(json.dumps(found))


def mhp(root: Path) -> None:
    """Two photographs: one person with a left wrist seen and a right one hidden; one person with no joint at all."""
    for number in (9, 10):
        photo(root / f"val/images/{number}.jpg")
    (root / "val/pose_annos").mkdir()
    nobody = np.tile(np.float32([-1, -1, 2]), (20, 1))
    nobody[18:] = [[1, 0, 0], [5, 3, 0]]
    someone = nobody.copy()
    someone[15], someone[10], someone[9] = (2, 1, 0), (3, 2, 1), (4, 3, 0)  # the head's top is none of COCO's
    savemat(root / "val/pose_annos/9.mat", {"person_0": nobody})
    savemat(root / "val/pose_annos/10.mat", {"person_1": someone, "person_0": nobody})
    (root / "list").mkdir()
    (root / "list/val.txt").write_text("10\n9\n")
