"""LV-MHP v2: photographs of several people with 16 joints each (Zhao et al., ACM Multimedia 2018).

Twelve of the joints are COCO's; pelvis, thorax, neck and the head's top are not, and COCO's five of the face are not here.
Sources: public loaders of the set (layout, order of the joints, an example of a file), mmPose's dataset_info of MHP.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genpercept.core.texts import one_line, read_lines
from genpercept.core.values import Sample
from genpercept.data._files import About, FileDataset, need, read_rgb
from genpercept.data._people import JOINTS, Person, people_sample
from genpercept.imaging.read import shown

# Row of a person's table -> joint of COCO: ankles, knees, hips, wrists, elbows and shoulders, right and left
_AS_COCO = {0: 16, 1: 14, 2: 12, 3: 11, 4: 13, 5: 15, 10: 10, 11: 8, 12: 6, 13: 5, 14: 7, 15: 9}
_BOX = slice(18, 20)  # rows: top left and bottom right of the person
_ROWS = 20
_VISIBILITY = {0: 2.0, 1: 1.0, 2: 0.0}  # theirs (seen, hidden, not in the picture) -> COCO's


@dataclass(frozen=True)
class Entry:
    """person: the key of the one that it is of; "": all."""

    name: str
    image: Path
    pose: Path
    person: str = ""


@dataclass(frozen=True)
class Mhp(FileDataset):
    """per_person: an entry is a person with a joint, not an image, so that an epoch of training sees everyone once."""

    name = "mhp"
    about = About(
        title="LV-MHP v2",
        url="https://lv-mhp.github.io",
        obtain="Fetch LV-MHP-v2.zip from lv-mhp.github.io/dataset (Google Drive or Baidu). LV-MHP v1 has no joints.",
        licence="for non-commercial research, as its page says (not read here)",
        layout=(
            "{train,val}/images/NUMBER.jpg, or all of it in LV-MHP-v2/",
            "{train,val}/pose_annos/NUMBER.mat: person_0, ... of 20 rows x, y, visibility: 16 joints, 2 corners of the "
            "face, 2 of the person",
            "list/train.txt, list/val.txt (optional): the numbers of a split",
        ),
        provides=("keypoints", "boxes"),
        splits=("train", "val"),
        protocols={"pose": ""},
        reference="Zhao et al., Understanding Humans in Crowded Scenes: Deep Nested Adversarial Learning and A New Benchmark "
        "for Multi-Human Parsing, ACM Multimedia 2018",
    )

    per_person: bool = False

    def index(self, root: Path | None, split: str) -> Sequence[Entry]:
        """The images of the split by number, or every person with a joint that COCO has, too."""
        root = self.folder(root, split)
        root = root / "LV-MHP-v2" if (root / "LV-MHP-v2").is_dir() else root
        poses = root / split / "pose_annos"
        if not poses.is_dir():
            self.wrong_layout(root, f"{split}/pose_annos/*.mat and {split}/images/")
        listed = root / "list" / f"{split}.txt"
        numbers = read_lines(listed) if listed.is_file() else [p.stem for p in poses.glob("*.mat")]
        numbers = sorted((n.strip() for n in numbers if n.strip()), key=lambda n: (len(n), n))
        if not numbers:
            self.wrong_layout(root, f"{split}/pose_annos/*.mat")
        entries = [Entry(f"{split}/{n}", root / split / "images" / f"{n}.jpg", poses / f"{n}.mat") for n in numbers]
        return [one for entry in entries for one in _each(entry)] if self.per_person else entries

    def load(self, entry: Entry) -> Sample:
        """keypoints (N, 17, 3), of which five are never labelled, and boxes. meta: image_id, the number; ids."""
        people = [p for key, p in _people(entry.pose) if entry.person in ("", key)]
        return people_sample(entry.name, read_rgb(entry.image), _number(entry.image), people)


def _each(entry: Entry) -> Iterator[Entry]:
    for key, person in _people(entry.pose):
        if person.labelled:
            yield Entry(f"{entry.name}#{key.removeprefix('person_')}", entry.image, entry.pose, key)


def _people(path: Path) -> list[tuple[str, Person]]:
    """Everyone in a file, by number. ValueError that names it."""
    from scipy.io import loadmat

    need(path)
    try:
        tables = {key: np.asarray(value) for key, value in loadmat(path).items() if key.startswith("person_")}
        return [
            (key, _person(key, tables[key])) for key in sorted(tables, key=lambda k: int(k.removeprefix("person_")))
        ]
    except Exception as error:  # noqa: BLE001  SciPy raises whatever the damaged bytes lead to
        raise ValueError(f"{shown(path)}: not a file of poses of LV-MHP v2: {one_line(error)}") from None


def _person(key: str, rows: np.ndarray) -> Person:
    if rows.shape != (_ROWS, 3):
        raise ValueError(f"{key} has the shape {list(rows.shape)}; expected {_ROWS} rows x, y, visibility")
    points = np.zeros((JOINTS, 3), np.float32)
    for row, joint in _AS_COCO.items():
        x, y, visible = rows[row].astype(float)
        if visible not in _VISIBILITY:
            raise ValueError(f"{key}, row {row}: visibility {visible:g} is none of 0, 1, 2")
        if _VISIBILITY[visible] and min(x, y) >= 0:
            points[joint] = x, y, _VISIBILITY[visible]
    (x0, y0), (x1, y1) = rows[_BOX, :2].astype(float)
    if not (x1 > x0 and y1 > y0):
        raise ValueError(f"{key}: a box from {x0:g}, {y0:g} to {x1:g}, {y1:g}")
    found = int((points[:, 2] > 0).sum())
    flat = tuple(float(v) for v in points.ravel())
    return Person(int(key.removeprefix("person_")), (x0, y0, x1 - x0, y1 - y0), None, 0, found, flat)


def _number(image: Path) -> int:
    if not image.stem.isdigit():
        raise ValueError(f"{shown(image)}: images of LV-MHP v2 are called by a number")
    return int(image.stem)


PLUGIN = Mhp()
