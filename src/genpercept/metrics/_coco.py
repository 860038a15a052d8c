"""COCO's keypoint evaluation over plain dicts, and its JSON files. Needs pycocotools (the extra `evaluate`)."""

from __future__ import annotations

import copy
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from genpercept.core.texts import read_json

JOINTS = 17
AP_KEYS = ("ap", "ap50", "ap75", "ap_m", "ap_l")
AR_KEYS = ("ar", "ar50", "ar75", "ar_m", "ar_l")
PERSON = {"id": 1, "name": "person"}

Record = dict[str, Any]


def evaluate(
    image_ids: Sequence[int],
    annotations: Iterable[Mapping[str, Any]],
    results: Iterable[Mapping[str, Any]],
    categories: Sequence[Mapping[str, Any]] = (PERSON,),
) -> dict[str, float]:
    """AP_KEYS and AR_KEYS of `results` against `annotations`, dicts as in COCO's files, over the images `image_ids`.

    pycocotools' COCOeval("keypoints"): OKS with the annotation's area, the 20 surest people of an image, thresholds .5
    to .95, 101 points of recall. NaN where the ground truth has nobody of that size (pycocotools says -1).
    """
    from pycocotools.cocoeval import COCOeval

    truth = _numbered(annotations)
    found = _numbered(results)
    boxed = all(r.get("bbox") for r in found)  # as pycocotools: areas of boxes where there are boxes
    for record in found:
        record["area"] = _box_area(record["bbox"]) if boxed else _extent(record["keypoints"])
    with redirect_stdout(io.StringIO()):
        coco = [_index(image_ids, records, categories) for records in (truth, found)]
        run = COCOeval(coco[0], coco[1], "keypoints")
        run.evaluate()
        run.accumulate()
        run.summarize()
    values = [float(v) if v >= 0 else float("nan") for v in run.stats]
    return dict(zip((*AP_KEYS, *AR_KEYS), values, strict=True))


def _numbered(records: Iterable[Mapping[str, Any]]) -> list[Record]:
    """Copies with ids from 1: to pycocotools a match with an id of 0 is none, and equal ids are one person."""
    return [{**record, "id": i} for i, record in enumerate(records, start=1)]


def _index(image_ids: Sequence[int], records: list[Record], categories: Sequence[Mapping[str, Any]]) -> Any:
    from pycocotools.coco import COCO

    coco: Any = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": i} for i in image_ids],
        "categories": copy.deepcopy(list(categories)),
        "annotations": records,
    }
    coco.createIndex()
    return coco


def _box_area(box: Sequence[float]) -> float:
    return box[2] * box[3]


def _extent(keypoints: Sequence[float]) -> float:
    x, y = keypoints[0::3], keypoints[1::3]
    return (max(x) - min(x)) * (max(y) - min(y))


def result(image_id: int, keypoints: Any, score: float, category_id: int = 1) -> Record:
    """One person as COCO's result files hold it: keypoints (17, 3) x, y in pixels, score; score of the person."""
    return {
        "image_id": image_id,
        "category_id": category_id,
        "keypoints": [float(v) for row in keypoints for v in row],
        "score": float(score),
    }


def write_results(path: Path | str, results: Iterable[Mapping[str, Any]]) -> None:
    """The file that COCO's server and pycocotools read: a JSON list of `result`s."""
    Path(path).write_text(json.dumps(list(results), allow_nan=False) + "\n", encoding="utf-8")


def read_results(path: Path | str) -> list[Record]:
    """The people of a COCO result file. ValueError naming the file and the entry for anything else."""
    path = Path(path)
    records = read_json(path)
    if not isinstance(records, list):
        raise ValueError(f"{path}: holds a JSON {_kind(records)}: a COCO result file is a list of people")
    for i, record in enumerate(records):
        _check(record, ("image_id", "keypoints", "score"), f"{path}: entry {i}")
        record.setdefault("category_id", 1)
        if not _number(record["score"]):
            raise ValueError(f"{path}: entry {i} has the score {record['score']!r}: must be a finite number")
    return records


def read_annotations(path: Path | str) -> dict[str, list[Record]]:
    """What a COCO ground truth file has: images, annotations (those with keypoints), categories. ValueError if not one."""
    path = Path(path)
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
        raise ValueError(f"{path}: holds a JSON {_kind(content)}: COCO ground truth is an object with annotations")
    kept = [a for a in content["annotations"] if isinstance(a, dict) and "keypoints" in a]
    for i, record in enumerate(kept):
        _check(record, ("image_id", "category_id", "keypoints", "area", "bbox"), f"{path}: annotation {i}")
        record.setdefault("iscrowd", 0)
        record.setdefault("num_keypoints", sum(v > 0 for v in record["keypoints"][2::3]))
    images = content.get("images") or [{"id": i} for i in dict.fromkeys(a["image_id"] for a in kept)]
    if not all(isinstance(image, dict) and isinstance(image.get("id"), int) for image in images):
        raise ValueError(f"{path}: holds images without a whole number as id: not COCO ground truth")
    categories = content.get("categories") or [PERSON]
    return {"images": images, "annotations": kept, "categories": categories}


def _check(record: Any, keys: tuple[str, ...], where: str) -> None:
    missing = [key for key in keys if key not in record] if isinstance(record, dict) else list(keys)
    if missing:
        raise ValueError(f"{where} has no {', '.join(missing)}: not COCO keypoints")
    joints = record["keypoints"]
    if not isinstance(joints, list) or len(joints) != 3 * JOINTS:
        raise ValueError(f"{where} needs keypoints of {JOINTS} x 3 numbers")
    if not all(_number(v) for v in joints):
        raise ValueError(f"{where} has keypoints that are no finite numbers")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _kind(value: Any) -> str:
    return {"dict": "object", "list": "list", "str": "text"}.get(type(value).__name__, type(value).__name__)
