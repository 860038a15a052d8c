"""Keypoints of people against keypoints of people: COCO's AP over object keypoint similarity."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from genpercept.core.names import choose, hint
from genpercept.core.values import Sample
from genpercept.imaging.colour import colourise
from genpercept.imaging.prediction import Prediction
from genpercept.metrics import _arrays, _baselines, _coco, _files, _panels
from genpercept.metrics._arrays import FloatArray
from genpercept.metrics._baselines import Known
from genpercept.metrics._metric import AnnotatedPlugin, Baseline, Metric, up
from genpercept.tasks import Task, given_boxes, labelled_boxes
from genpercept.tasks._keypoints import OF_BOX

KEYS = _coco.AP_KEYS
_SEEN = 0.2  # joints above it make the score of a person, as in Simple Baseline and ViTPose
_SHOWN = 12  # visible joints that a page's sample has at least
_META = ("image_id", "areas", "boxes", "iscrowd", "ids")


class PoseMetric(Metric):
    """ap ap50 ap75 ap_m ap_l, fractions, over the people of all images: pycocotools' COCOeval("keypoints").

    A figure is NaN where the ground truth has no person of that size with a visible joint (pycocotools says -1), and 0
    where it has and nobody was found. People without a visible joint and crowds are neither to be found nor wrong to
    find. `details` adds the recalls ar ar50 ar75 ar_m ar_l. Needs pycocotools.
    """

    merges = True

    def __init__(self) -> None:
        super().__init__()  # no image is `empty`: whoever is found on one without people is wrong
        self._images: dict[int, str] = {}
        self._running: set[int] = set()  # ids that are ours, of images without one
        self._truth: list[_coco.Record] = []
        self._found: list[_coco.Record] = []
        self._categories: list[_coco.Record] = [_coco.PERSON]

    def update(
        self,
        pred: Any,
        gt: Any,
        valid: Any = None,
        name: str = "",
        *,
        meta: Mapping[str, Any] | None = None,
        scores: Any = None,
        box_scores: Any = None,
    ) -> dict[str, float]:
        """Add one image: pred (N, 17, 3) x, y in pixels, score; gt (M, 17, 3) x, y, visibility. Returns its figures.

        valid (M,) bool: people that count; the others are as crowds. meta, of the M people: areas (M,) in square pixels,
        boxes (M, 4) x, y, width, height, iscrowd (M,); and image_id, a whole number. Without areas they are 0.53 of the
        boxes, without boxes those are the extent of the visible joints. scores (N,): how sure each person is; else
        box_scores (N,), or 1, times the mean score of its joints above 0.2 (Simple Baseline). A Prediction's own
        meta["scores"] and meta["box_scores"] do as well.
        """
        name = _arrays.unique_name(name, self.rows)
        known = dict(meta or {})
        image_id = self._image_id(known.get("image_id"), name)
        truth = _truth(_people(gt, "ground truth", name), known, valid, image_id, name)
        return self._add(name, image_id, truth, _found(pred, image_id, scores, box_scores, name))

    def add_coco(self, annotations: Mapping[str, list[_coco.Record]], results: list[_coco.Record]) -> None:
        """Add all images of COCO dicts, as `read_annotations` and `read_results` give them. ValueError for others."""
        known = {image["id"]: _stem(image) for image in annotations["images"]}
        for what, records in (("result", results), ("annotation", annotations["annotations"])):
            for i, record in enumerate(records):
                if record["image_id"] not in known:
                    raise ValueError(f"{what} {i} is of image {record['image_id']}: the ground truth has no such image")
        self._categories = [dict(c) for c in annotations["categories"]]
        by_image: dict[int, tuple[list[_coco.Record], list[_coco.Record]]] = {i: ([], []) for i in known}
        for side, records in enumerate((annotations["annotations"], results)):
            for record in records:
                by_image[record["image_id"]][side].append(record)
        for image_id, (truth, found) in by_image.items():
            name = _arrays.unique_name(known[image_id], self.rows)
            self._add(name, self._image_id(image_id, name), truth, found)

    def add_predictions(self, annotations: Mapping[str, list[_coco.Record]], people: Mapping[str, Any]) -> None:
        """Add all images of COCO dicts, with Predictions by the stems of their files. ValueError for strange stems."""
        ids = {_stem(image): image["id"] for image in annotations["images"]}
        for these, those, what in (
            (people, ids, "prediction without an image"),
            (ids, people, "image without a prediction"),
        ):
            alone = [stem for stem in these if stem not in those]
            if alone:
                raise ValueError(f"{what}: {', '.join(alone[:3])}{f' and {len(alone) - 3} more' if alone[3:] else ''}")
        self.add_coco(annotations, [r for stem, p in people.items() for r in _found(p, ids[stem], None, None, stem)])

    def merge(self, part: PoseMetric) -> None:
        """Add the images of another metric. ValueError for an image that both have."""
        _arrays.join_rows(self, part)
        ids = {}
        for old, name in part._images.items():
            ids[old] = self._image_id(None if old in part._running else old, name)
            self._images[ids[old]] = name
        self._truth += [{**r, "image_id": ids[r["image_id"]]} for r in part._truth]
        self._found += [{**r, "image_id": ids[r["image_id"]]} for r in part._found]
        self._categories = part._categories if part._images else self._categories

    def compute(self) -> dict[str, float]:
        """The figures over all images so far."""
        return {key: value for key, value in self._all().items() if key in KEYS}

    def details(self) -> dict[str, float]:
        """ar ar50 ar75 ar_m ar_l: the greatest recall, averaged over the thresholds of similarity as AP is."""
        return {key: value for key, value in self._all().items() if key not in KEYS}

    @property
    def results(self) -> list[_coco.Record]:
        """All predicted people so far as COCO's result files hold them, for `write_results`."""
        return self._found

    def _all(self) -> dict[str, float]:
        return _coco.evaluate(list(self._images), self._truth, self._found, self._categories)

    def _add(self, name: str, image_id: int, truth: list[_coco.Record], found: list[_coco.Record]) -> dict[str, float]:
        self._images[image_id] = name
        self._truth += truth
        self._found += found
        row = _coco.evaluate([image_id], truth, found, self._categories)
        self.rows[name] = {key: row[key] for key in KEYS}
        return self.rows[name]

    def _image_id(self, given: Any, name: str) -> int:
        if given is None:
            image_id = max(self._images, default=0) + 1
            self._running.add(image_id)
            return image_id
        image_id = int(given)
        if image_id in self._images:
            raise ValueError(f"{_arrays.label(name)}image_id {image_id} is that of {self._images[image_id]!r} already")
        return image_id


def instance_scores(people: FloatArray, scores: Any = None, box_scores: Any = None, name: str = "") -> FloatArray:
    """(N,): `scores` if given, else the mean score of each person's joints above 0.2 (0 if none), times `box_scores`."""
    if scores is not None:
        return _per_person(scores, len(people), "scores", name)
    joints = people[..., 2]
    seen = joints > _SEEN
    mean = (joints * seen).sum(-1) / np.maximum(seen.sum(-1), 1)
    return mean if box_scores is None else mean * _per_person(box_scores, len(people), "box_scores", name)


def read_results(path: Path | str) -> list[_coco.Record]:
    """COCO's result file: a list of people with image_id, keypoints (51 numbers) and score."""
    return _coco.read_results(path)


def read_annotations(path: Path | str) -> dict[str, list[_coco.Record]]:
    """COCO's ground truth file: images, annotations, categories."""
    return _coco.read_annotations(path)


def write_results(path: Path | str, results: list[_coco.Record]) -> None:
    """Write predicted people (`PoseMetric.results`) as a COCO result file."""
    _coco.write_results(path, results)


def _found(pred: Any, image_id: int, scores: Any, box_scores: Any, name: str) -> list[_coco.Record]:
    """COCO results of people (N, 17, 3), with the scores given or else those that a Prediction's meta has."""
    said = getattr(pred, "meta", {})
    people = _people(pred, "prediction", name)
    scores = said.get("scores") if scores is None else scores
    box_scores = said.get("box_scores") if box_scores is None else box_scores
    sure = instance_scores(people, scores, box_scores, name)
    return [_coco.result(image_id, p, s) for p, s in zip(people, sure, strict=True)]


def _truth(people: FloatArray, meta: Mapping[str, Any], valid: Any, image_id: int, name: str) -> list[_coco.Record]:
    """COCO annotations of people (M, 17, 3) and of what `meta` says about them."""
    unknown = [key for key in ("area", "box", "bbox", "crowd", "is_crowd") if key in meta]
    if unknown:  # a mistyped area would change every figure without a word
        raise ValueError(f"{_arrays.label(name)}meta has {unknown[0]!r}: {hint(unknown[0], _META)}")
    seen = people[..., 2] > 0
    boxes, areas, crowd = (meta.get(key) for key in ("boxes", "areas", "iscrowd"))
    boxes = _boxes(people, seen) if boxes is None else _of_people(boxes, (len(people), 4), "boxes", name)
    areas = OF_BOX * boxes[:, 2] * boxes[:, 3] if areas is None else _per_person(areas, len(people), "areas", name)
    crowd = np.zeros(len(people)) if crowd is None else _per_person(crowd, len(people), "iscrowd", name)
    if valid is not None:
        crowd = np.maximum(crowd, ~_arrays.as_bools(valid, (len(people),), "valid", name))
    return [
        {
            "image_id": image_id,
            "category_id": _coco.PERSON["id"],
            "keypoints": person.ravel().tolist(),
            "num_keypoints": int(visible.sum()),
            "bbox": box.tolist(),
            "area": float(area),
            "iscrowd": int(ignored > 0),
        }
        for person, visible, box, area, ignored in zip(people, seen, boxes, areas, crowd, strict=True)
    ]


def _boxes(people: FloatArray, seen: NDArray[np.bool_]) -> FloatArray:
    """(M, 4) x, y, width, height of the visible joints; zeros where none is visible."""
    low = np.where(seen[..., None], people[..., :2], np.inf).min(1)
    high = np.where(seen[..., None], people[..., :2], -np.inf).max(1)
    return np.where(np.any(seen, axis=-1, keepdims=True), np.concatenate([low, high - low], -1), 0.0)


def _people(value: Any, what: str, name: str) -> FloatArray:
    """(N, 17, 3) float64 out of that or of an empty array; ValueError for other shapes, NaN and infinite numbers."""
    array = _arrays.to_numpy(value)
    if array.size == 0:
        array = np.zeros((0, _coco.JOINTS, 3))
    return _of_people(array, (len(array), _coco.JOINTS, 3), what, name)


def _per_person(value: Any, count: int, what: str, name: str) -> FloatArray:
    return _of_people(value, (count,), what, name)


def _of_people(value: Any, shape: tuple[int, ...], what: str, name: str) -> FloatArray:
    array = _arrays.to_numpy(value)
    if array.size == 0 and 0 in shape:
        array = np.zeros(shape)
    if array.shape != shape:
        raise ValueError(f"{_arrays.label(name)}{what} has shape {array.shape}: expected {shape}")
    array = array.astype(np.float64)
    bad = int(np.count_nonzero(~np.isfinite(array)))
    if bad:
        raise ValueError(f"{_arrays.label(name)}{what} has {bad} NaN or infinite values")
    return array


def _stem(image: Mapping[str, Any]) -> str:
    return Path(str(image["file_name"])).stem if image.get("file_name") else str(image["id"])


def _mean_pose(task: Task, known: Known, sample: Sample) -> np.ndarray:
    return _baselines.in_boxes(known["sum"] / np.maximum(known["count"], 1), given_boxes(sample))


class Pose(AnnotatedPlugin[PoseMetric]):
    """pred (N, 17, 3): x, y, score; gt (M, 17, 3): x, y, visibility 0, 1, 2; valid (M,).

    Figures: ap ap50 ap75 ap_m ap_l (fractions). It has no options. protocol: coco, the only one.
    """

    name = "pose"
    metric = PoseMetric
    protocols: Mapping[str, Mapping[str, Any]] = {"coco": {}}
    columns = (
        up("ap", "AP"),
        up("ap50", "AP50", r"AP$_{50}$"),
        up("ap75", "AP75", r"AP$_{75}$"),
        up("ap_m", "AP M", r"AP$_M$"),
        up("ap_l", "AP L", r"AP$_L$"),
    )
    watched = ("ap", "ap50")
    note = "COCO's average precision, fractions."
    kinds = ("keypoints",)
    ndim = 3
    extras: Mapping[str, str] = {
        "meta": "what the annotation of an image says besides joints, see `PoseMetric.update`",
        "scores": "(N,), how sure each person is, instead of the mean of its joints",
        "box_scores": "(N,), how sure the detector was of each person's box",
    }
    baselines = (Baseline("mean pose in the box", _mean_pose, fitted=True),)
    photographs = False  # nobody has drawn boxes on one

    def __call__(self, *, protocol: str | None = None, **options: Any) -> PoseMetric:
        if protocol is not None:
            choose("protocol", protocol, self.protocols)
        for key in options:
            raise ValueError(f"unknown option {key!r}: COCO's keypoint evaluation has none")
        return PoseMetric()

    def observe(self, task: Task, sample: Sample) -> Known:
        """Places of visible joints in their boxes, and how many there are."""
        points, boxes = np.asarray(task.truth(sample)["gt"], np.float64), labelled_boxes(sample)
        total, count = np.zeros((_coco.JOINTS, 2)), np.zeros((_coco.JOINTS, 1))
        for person, box in zip(points, boxes, strict=True) if len(points) == len(boxes) else ():
            seen = (person[:, 2:] > 0) & (box[2] > 0) & (box[3] > 0)
            at = (person[:, :2] - box[:2]) / np.maximum(box[2:4], 1e-9)
            total, count = total + np.where(seen, at, 0), count + seen
        return {"sum": total, "count": count}

    def panels(
        self, prediction: Prediction, truth: Mapping[str, Any], image: np.ndarray, metric: PoseMetric, name: str
    ) -> _panels.Panels:
        people = np.array(truth["gt"], np.float32)
        people[..., 2] = people[..., 2] > 0
        both = _overlaid(prediction.values, people, image)
        return [
            (prediction.colourise(image), f"prediction, {len(prediction.values)} people"),
            (colourise(people, "keypoints", image=image), f"truth, {len(people)} people"),
            (both, "distance of joints: red lines from the truth to the nearest person's joint"),
        ]

    def showable(self, truth: Mapping[str, Any]) -> bool:
        return bool((truth["gt"][..., 2] > 0).sum() >= _SHOWN)

    # ---- files

    def read_pred(self, path: Path, scale: float | None = None) -> Prediction:
        """(N, 17, 3) keypoints of an image out of npy, or the whole Prediction out of an npz that has one."""
        if path.suffix.lower() == ".npz":
            return Prediction.load(path)
        if path.suffix.lower() != ".npy":
            raise ValueError(f"{path}: keypoints are read from npy and npz")
        array, _ = _files.read_array(path)
        try:
            return Prediction(array, "keypoints")
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def read_annotations(self, path: Path) -> dict[str, list[_coco.Record]]:
        if path.is_dir():
            raise ValueError(f"{path}: is a folder: the ground truth of pose is COCO's JSON file of annotations")
        return read_annotations(path)

    def read_results(self, path: Path) -> list[_coco.Record]:
        return read_results(path)

    def add_results(self, metric: PoseMetric, annotations: Any, results: Any) -> None:
        metric.add_coco(annotations, results)

    def add_folder(self, metric: PoseMetric, annotations: Any, results: Mapping[str, Any]) -> None:
        metric.add_predictions(annotations, results)


def _overlaid(found: np.ndarray, people: np.ndarray, image: np.ndarray) -> Image.Image:
    """Each visible true joint joined to that joint of the predicted person who is nearest on the whole."""
    canvas = Image.fromarray(image // 2)
    draw = ImageDraw.Draw(canvas)
    width = max(1, round(max(canvas.size) / 250))
    for person in people:
        seen = person[:, 2] > 0
        if not seen.any() or not len(found):
            continue
        distance = np.linalg.norm(found[:, seen, :2] - person[None, seen, :2], axis=-1).mean(-1)
        for at, to in zip(person[seen, :2], found[int(distance.argmin()), seen, :2], strict=True):
            draw.line([*map(float, at), *map(float, to)], (255, 60, 60), width)
            r = width * 1.2
            draw.ellipse([at[0] - r, at[1] - r, at[0] + r, at[1] + r], fill=(255, 255, 255))
    return canvas


PLUGIN = Pose()
