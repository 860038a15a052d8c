"""Boxes of people, from a file: COCO annotations, COCO detection results, or a plain table by image name."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from genpercept.core.texts import read_json

_PERSON = 1  # COCO's category


class Boxes:
    """`of(path)`: the boxes of an image file (N, 5): x, y, width, height in pixels, score; none where the file lists none."""

    def __init__(self, rows: dict[str, list[list[float]]], source: Path) -> None:
        self._rows, self.source = rows, source

    def of(self, image: Path) -> np.ndarray:
        """By the file's name, or by its stem, or by the number that its stem is (COCO's image ids)."""
        stem = image.stem
        names = (image.name, stem, str(int(stem)) if stem.isdigit() else stem)
        found = next((self._rows[name] for name in names if name in self._rows), [])
        return np.asarray(found, np.float64).reshape(-1, 5)

    def __len__(self) -> int:
        return sum(map(len, self._rows.values()))


def read_boxes(path: Path, least_score: float = 0.0) -> Boxes:
    """The boxes in a JSON file.

    {"a.jpg": [[x, y, width, height], [x, y, width, height, score]]}; COCO annotations (images, annotations); or COCO results
    [{"image_id" or "file_name", "bbox", "score"}]. People only, where there are categories. ValueError with the path, and the
    entry that is wrong.
    """
    path = Path(path).expanduser()
    data = read_json(path, "; give a JSON file of boxes")
    rows: dict[str, list[list[float]]] = defaultdict(list)
    for name, box in _entries(data, path):
        row = _row(box, f"{path}: {name}")
        if row[4] >= least_score:
            rows[name].append(row)
    return Boxes(dict(rows), path)


def _entries(data: Any, path: Path) -> list[tuple[str, Any]]:
    if isinstance(data, dict) and "annotations" in data:
        files = {image["id"]: image["file_name"] for image in data.get("images", ()) if "id" in image}
        return [
            (Path(str(files.get(a.get("image_id"), a.get("image_id")))).name, a.get("bbox"))
            for a in data["annotations"]
            if a.get("category_id", _PERSON) == _PERSON and not a.get("iscrowd")
        ]
    if isinstance(data, dict):
        return [(name, box) for name, boxes in data.items() for box in (boxes if isinstance(boxes, list) else [boxes])]
    if isinstance(data, list) and all(isinstance(entry, dict) for entry in data):
        return [
            (str(e.get("file_name", e.get("image_id"))), [*(e.get("bbox") or []), e.get("score", 1.0)])
            for e in data
            if e.get("category_id", _PERSON) == _PERSON
        ]
    raise ValueError(f"{path}: neither a table of boxes by image, nor COCO annotations, nor COCO results")


def _row(box: Any, where: str) -> list[float]:
    numbers = isinstance(box, list) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in box)
    if not numbers or len(box) not in (4, 5) or not np.isfinite(box).all() or box[2] <= 0 or box[3] <= 0:
        raise ValueError(f"{where}: box {box!r}: must be [x, y, width, height] in pixels, and perhaps a score")
    return [float(v) for v in box] + ([1.0] if len(box) == 4 else [])
