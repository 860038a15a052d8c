"""Whole data sets of classes, masks, mattes, people and defects in miniature, in the layouts that they are published in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.miniature.depth import png, text
from tests.support.miniature.scene import BALL, Scene, scene


def ade20k(root: Path) -> None:
    """The SceneParsing benchmark. The ids are floor, wall, wall, chair, table, sky; 0 is unlabelled."""
    home, scenes = root / "ADEChallengeData2016", []
    for part, frames in (("training", 4), ("validation", 3)):
        for i in range(1, frames + 1):
            s = scene(100 * len(part) + i)
            name = f"ADE_{'train' if part == 'training' else 'val'}_{i:08d}"
            ids = np.array([4, 1, 1, 20, 16, 3], np.uint8)[s.parts]
            ids[:2] = 0
            png(home / f"images/{part}/{name}.jpg", s.image)
            png(home / f"annotations/{part}/{name}.png", ids)
            scenes.append(f"{name} living_room")
    text(home / "sceneCategories.txt", "\n".join(scenes) + "\n")


def dis5k(root: Path) -> None:
    parts = {"DIS-TR": 6, "DIS-VD": 3, **{f"DIS-TE{i}": 2 for i in range(1, 5)}}
    for number, (folder, frames) in enumerate(parts.items()):
        for i in range(frames):
            s = scene(900 + 10 * number + i)
            stem = f"{i + 1}#Accessories#1#Bag#{1000 * number + i}"
            png(root / "DIS5K" / folder / f"im/{stem}.jpg", s.image)
            png(root / "DIS5K" / folder / f"gt/{stem}.png", np.where(s.matte > 128, 255, 0).astype(np.uint8))


def p3m10k(root: Path) -> None:
    places = (
        ("train", "blurred_image", 6, False),
        ("validation/P3M-500-P", "blurred_image", 3, True),
        ("validation/P3M-500-NP", "original_image", 3, True),
    )
    for number, (place, folder, frames, trimaps) in enumerate(places):
        for i in range(frames):
            s, name = scene(1100 + 10 * number + i, (128, 96)), f"p_{number}{i:03d}"
            png(root / "P3M-10k" / place / folder / f"{name}.jpg", s.image)
            png(root / "P3M-10k" / place / f"mask/{name}.png", s.matte)
            if trimaps:
                png(root / "P3M-10k" / place / f"trimap/{name}.png", s.trimap)


def composition1k(root: Path) -> None:
    """Foregrounds, mattes and lists as the authors send them, with a handful of photographs standing for COCO and VOC."""
    home = root / "Combined_Dataset"
    for part, folder, suffix, count, each in (
        ("training", "Training_set", "jpg", 3, 100),
        ("test", "Test_set", "png", 2, 20),
    ):
        backgrounds = [f"{'COCO_train2014' if part == 'training' else '2008'}_{i:06d}.jpg" for i in range(4)]
        for i, name in enumerate(backgrounds):
            png(home / folder / "bg" / name, scene(1200 + i, (70, 90)).image)
        names = []
        for i in range(count):
            group = "Other" if part == "training" and i == count - 1 else "Adobe-licensed images"
            s, name = scene(1250 + len(part) * 10 + i), f"ball {i}"
            png(home / folder / group / f"fg/{name}.{suffix}", s.image)
            png(home / folder / group / f"alpha/{name}.{suffix}", s.matte)
            names.append(f"{name}.{suffix}")
            for j in range(each if part == "test" else 0):
                png(home / folder / group / f"trimaps/{name}_{j}.png", s.trimap)
        text(home / folder / f"{part}_fg_names.txt", "\n".join(names) + "\n")
        chosen = [backgrounds[j % len(backgrounds)] for _ in names for j in range(each)]
        text(home / folder / f"{part}_bg_names.txt", "\n".join(chosen) + "\n")


def coco_keypoints(root: Path) -> None:
    """Photographs with two people, with one, with a crowd and with nobody; and a detector's boxes of val."""
    for split, frames in (("train", 10), ("val", 5)):
        images: list[dict[str, Any]] = []
        people: list[dict[str, Any]] = []
        for i in range(frames):
            number = 10 * i + len(split)
            h, w = (96, 128) if i % 2 else (128, 96)
            png(root / f"{split}2017/{number:012d}.jpg", scene(1300 + number, (h, w)).image)
            images.append({"id": number, "file_name": f"{number:012d}.jpg", "height": h, "width": w})
            for _ in range((2, 1, 0, 1, 3)[i % 5]):
                people.append(_person(len(people) + 1, number, (h, w)))
            if i % 5 == 3:
                crowd = {"keypoints": [0] * 51, "num_keypoints": 0, "iscrowd": 1}
                people.append(_person(len(people) + 1, number, (h, w)) | crowd)
        about = {"images": images, "annotations": people, "categories": [{"id": 1, "name": "person"}]}
        text(root / f"annotations/person_keypoints_{split}2017.json", json.dumps(about))
    keys = ("image_id", "category_id", "bbox")
    found = [{key: person[key] for key in keys} | {"score": 0.9} for person in people if not person["iscrowd"]]
    name = "COCO_val2017_detections_AP_H_56_person.json"
    for path in (root / name, root / "person_detection_results" / name):
        text(path, json.dumps(found))


def _person(number: int, image: int, size: tuple[int, int]) -> dict[str, Any]:
    """17 joints in a box of 60 x 30 pixels; one is hidden, one not labelled."""
    draw = np.random.default_rng(number)
    top, left = draw.integers(2, size[0] - 64), draw.integers(2, size[1] - 34)
    y = top + 60 * np.array([5, 3, 3, 5, 5, 15, 15, 25, 25, 33, 33, 35, 35, 46, 46, 58, 58]) / 60
    x = left + 30 * (0.5 + np.array([0, 1, -1, 2, -2, 6, -6, 8, -8, 9, -9, 5, -5, 5, -5, 5, -5]) / 24)
    seen = np.full(17, 2)
    seen[3], seen[9] = 0, 1
    points = np.where(seen[:, None] > 0, np.stack([x.round(1), y.round(1), seen], -1), 0)
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "bbox": [int(left), int(top), 30, 60],
        "area": 1100.0,
        "iscrowd": 0,
        "num_keypoints": 16,
        "keypoints": points.ravel().tolist(),
    }


def mhp(root: Path) -> None:
    """LV-MHP v2: two people in each photograph; of the 16 joints one is hidden, one not in the picture."""
    from scipy.io import savemat

    for split, frames in (("train", 5), ("val", 3)):
        for i in range(frames):
            number, people = 10 * i + len(split), {}
            png(root / f"LV-MHP-v2/{split}/images/{number}.jpg", scene(1700 + number, (96, 128)).image)
            for j in range(2):
                draw = np.random.default_rng(10 * number + j)
                top, left = draw.integers(2, 30), draw.integers(2, 90)
                points = np.stack([left + draw.uniform(2, 28, 16), top + draw.uniform(2, 58, 16), np.zeros(16)], -1)
                points[4, 2], points[5, 2] = 1, 2
                corners = [[left + 8, top, 0], [left + 22, top + 12, 0], [left, top, 0], [left + 30, top + 60, 0]]
                people[f"person_{j}"] = np.concatenate([points, corners])
            (root / f"LV-MHP-v2/{split}/pose_annos").mkdir(parents=True, exist_ok=True)
            savemat(root / f"LV-MHP-v2/{split}/pose_annos/{number}.mat", people)
        numbers = "\n".join(str(10 * i + len(split)) for i in range(frames))
        text(root / f"LV-MHP-v2/list/{split}.txt", numbers + "\n")


CATEGORIES = ("bottle", "carpet", "hazelnut")


def mvtec_ad(root: Path) -> None:
    """Three categories; of the test images two are good and two have a defect."""
    for number, category in enumerate(CATEGORIES):
        for i in range(4):
            png(root / category / f"train/good/{i:03d}.png", _surface(number, i).image)
        for i in range(2):
            png(root / category / f"test/good/{i:03d}.png", _surface(number, 10 + i).image)
            s = _surface(number, 20 + i)
            defect = s.parts == BALL
            defect[30:40, 20:44] = True
            image = np.where(defect[..., None], 255 - s.image, s.image)
            png(root / category / f"test/crack/{i:03d}.png", image)
            png(root / category / f"ground_truth/crack/{i:03d}_mask.png", defect.astype(np.uint8) * 255)


def _surface(category: int, seed: int) -> Scene:
    return scene(1400 + 100 * category + seed, (96, 96))
