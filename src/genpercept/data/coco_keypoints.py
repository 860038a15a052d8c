"""COCO keypoints: people with 17 joints in photographs (Lin et al., ECCV 2014; the 2017 split)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from genpercept.core.values import Sample
from genpercept.data._files import About, FileDataset, need, read_json, read_rgb
from genpercept.data._people import JOINTS, Person, people_sample
from genpercept.imaging.read import shown

_PERSON = 1  # category


@dataclass(frozen=True)
class Entry:
    name: str
    image: Path
    image_id: int
    size: tuple[int, int]  # height, width
    people: tuple[Person, ...]
    detections: tuple[tuple[float, ...], ...] | None = None  # x, y, width, height, score


@dataclass(frozen=True)
class CocoKeypoints(FileDataset):
    """boxes_file: detections of people, a COCO results file of bounding boxes, which land in meta. people_only: leave out
    images in which nobody has a joint. per_person: an entry is a person with a joint, not an image, so that an epoch of
    training sees everyone once. min_score: of the detections that are kept."""

    name = "coco_keypoints"
    about = About(
        title="COCO keypoints 2017",
        url="https://cocodataset.org/#download",
        obtain="images.cocodataset.org: zips/train2017.zip, zips/val2017.zip, annotations/annotations_trainval2017.zip; the "
        "person detections of Simple Baseline (COCO_val2017_detections_AP_H_56_person.json) from its repository.",
        licence="annotations CC BY 4.0; images under their Flickr licences",
        layout=(
            "annotations/person_keypoints_train2017.json and person_keypoints_val2017.json",
            "train2017/000000000009.jpg ... and val2017/ (or both in images/)",
        ),
        provides=("keypoints", "boxes"),
        splits=("train", "val"),
        protocols={"pose": ""},
        reference="Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014",
    )

    boxes_file: str = ""
    people_only: bool = False
    per_person: bool = False
    min_score: float = 0.0

    def index(self, root: Path | None, split: str) -> Sequence[Entry]:
        """Every image of the split by id, also those without people, as the metric takes them; or every labelled person."""
        root = self.folder(root, split)
        path = root / "annotations" / f"person_keypoints_{split}2017.json"
        folder = next((p for p in (root / f"{split}2017", root / "images" / f"{split}2017") if p.is_dir()), None)
        if not path.is_file() or folder is None:
            self.wrong_layout(root, f"annotations/{path.name} and {split}2017/")
        table = read_json(path)
        people: defaultdict[int, list[Person]] = defaultdict(list)
        try:
            for row in table["annotations"]:
                if row.get("category_id", _PERSON) == _PERSON:
                    people[int(row["image_id"])].append(_person(row, path))
            images = sorted(
                (int(r["id"]), str(r["file_name"]), int(r["height"]), int(r["width"])) for r in table["images"]
            )
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{shown(path)}: not a file of COCO keypoints: {error} is missing or of a wrong type"
            ) from None
        found = self._detections() if self.boxes_file else None
        entries = [
            Entry(
                name=f"{split}2017/{Path(name).stem}",
                image=folder / name,
                image_id=number,
                size=(height, width),
                people=tuple(people[number]),
                detections=None if found is None else tuple(found.get(number, ())),
            )
            for number, name, height, width in images
        ]
        if self.per_person:
            return [_of_one(e, p) for e in entries for p in e.people if p.labelled]
        return [e for e in entries if any(p.labelled for p in e.people)] if self.people_only else entries

    def load(self, entry: Entry) -> Sample:
        """keypoints and boxes of all annotated people. meta: image_id, and of the same people ids, areas, iscrowd and
        num_keypoints (a crowd, and someone without a joint, is a region that the metric passes over); detections
        [x, y, width, height, score] where boxes_file is set."""
        image = read_rgb(entry.image)
        if tuple(image.shape[-2:]) != entry.size:
            (h, w), (ih, iw) = entry.size, image.shape[-2:]
            raise ValueError(f"{shown(entry.image)}: {ih} x {iw} pixels, but its annotation has {h} x {w}")
        sample = people_sample(entry.name, image, entry.image_id, entry.people)
        if entry.detections is not None:
            sample.meta["detections"] = [list(d) for d in entry.detections]
        return sample

    def _detections(self) -> dict[int, list[tuple[float, ...]]]:
        path = need(Path(self.boxes_file).expanduser())
        rows = read_json(path)
        found: defaultdict[int, list[tuple[float, ...]]] = defaultdict(list)
        try:
            for row in rows:
                if row.get("category_id", _PERSON) == _PERSON and float(row["score"]) >= self.min_score:
                    found[int(row["image_id"])].append((*map(float, row["bbox"]), float(row["score"])))
        except (KeyError, TypeError, AttributeError):
            raise ValueError(
                f"{shown(path)}: not a COCO results file: a list of {{image_id, category_id, bbox, score}}"
            ) from None
        return found


def _of_one(entry: Entry, person: Person) -> Entry:
    return replace(entry, name=f"{entry.name}#{person.id}", people=(person,), detections=None)


def _person(row: Mapping[str, Any], path: Path) -> Person:
    points, box = tuple(map(float, row.get("keypoints") or ())), tuple(map(float, row["bbox"]))
    if len(box) != 4 or len(points) not in (0, 3 * JOINTS):
        raise ValueError(
            f"{shown(path)}: annotation {row.get('id')} has {len(points)} keypoint values and {len(box)} of a box; "
            f"COCO has {3 * JOINTS} and 4"
        )
    labelled = int(row.get("num_keypoints", sum(v > 0 for v in points[2::3])))
    points = points or (0.0,) * (3 * JOINTS)
    return Person(int(row["id"]), box, float(row["area"]), int(row.get("iscrowd", 0)), labelled, points)


PLUGIN = CocoKeypoints()
