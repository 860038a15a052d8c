"""Poses from boxes to files: through the pipeline, the command, box files and detectors; and cut-outs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from genpercept import GenPerceptPipeline
from genpercept.commands.predict.run import Request, run
from genpercept.core.values import Region
from genpercept.imaging.boxes import read_boxes
from genpercept.imaging.cutout import cutout
from genpercept.imaging.prediction import Prediction
from genpercept.models.detectors import DETECTORS
from genpercept.models.heads import HEADS
from genpercept.tasks import _keypoints
from tests.support.paths import GOLDEN


@pytest.fixture(scope="module")
def pose() -> GenPerceptPipeline:
    """A pose model of random weights over the tiny base."""
    torch.manual_seed(0)
    base = GenPerceptPipeline.from_base(GOLDEN / "sd-tiny", "depth", resolution=0)
    sizes = list(reversed(base.unet.pyramid_channels))  # type: ignore[arg-type]
    head = HEADS.find("keypoints").build({"neck_hidden_sizes": sizes, "hidden_size": 16})
    return GenPerceptPipeline.from_parts(
        unet=base.unet,
        vae=base.vae,
        prompt_embeds=base.prompt_embeds,
        task="pose",
        task_options={"height": 64, "width": 48},
        paradigm="direct",
        head="keypoints",
        head_module=head,
    )


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)


BOXES = np.array([[10, 5, 40, 60, 0.9], [70, 20, 45, 60, 0.5]])


def test_people_of_an_image(pose: GenPerceptPipeline, image: np.ndarray) -> None:
    """One pose per box, in the image's pixels; each is what its box alone gives; batches change nothing."""
    both = pose(image, boxes=BOXES, batch_size=2)
    assert both.values.shape == (2, 17, 3) and len(both.meta["scores"]) == 2
    for i in range(2):
        alone = pose(image, boxes=BOXES[i : i + 1])
        np.testing.assert_allclose(alone.values[0], both.values[i], atol=1e-3)
        left, top, w, h = both.meta["boxes"][i]
        x, y = both.values[i, :, 0], both.values[i, :, 1]
        assert (x >= left).all() and (x <= left + w).all() and (y >= top).all() and (y <= top + h).all()
    assert pose(image, boxes=np.zeros((0, 5))).values.shape == (0, 17, 3)
    assert pose(image).values.shape == (1, 17, 3)  # without boxes: the whole image is one person's
    several = pose([image, image[:60]], boxes=[BOXES, None])
    assert [p.values.shape[0] for p in several] == [2, 1]
    np.testing.assert_array_equal(several[0].values, pose(image, boxes=BOXES).values)


def test_people_found_twice_are_there_once(pose: GenPerceptPipeline, image: np.ndarray) -> None:
    """Of a detector's boxes, not of boxes that somebody gave."""
    twice = np.array([[10, 5, 40, 60, 0.5], [70, 20, 45, 60, 0.5], [10, 5, 40, 60, 0.9]])
    once, given = pose(image, boxes=twice), pose(image, boxes=twice[:, :4])
    assert len(given.values) == 3 and len(given.raw) == 3
    np.testing.assert_array_equal(once.values, given.values[1:])
    assert len(once.raw) == len(once.meta["scores"]) == len(once.meta["boxes"]) == 2
    both = pose.task_plugin.with_options(most_alike=1.0)
    regions = both.regions(torch.zeros(1, 3, 90, 120), twice)
    assert len(both.merge([Prediction(person[None], "keypoints") for person in given.values], regions).values) == 3


def test_similarity_is_cocos() -> None:
    """By pycocotools' own sigmas: a joint as far off as its sigma times the root of twice the area is worth exp(-1/4)."""
    pycocotools = pytest.importorskip("pycocotools.cocoeval")
    sigmas = pycocotools.Params(iouType="keypoints").kpt_oks_sigmas
    regions = [Region(torch.zeros(1, 3, 8, 8), (0.0, 0.0, 30.0, 50.0), 0.9)] * 2
    people = np.zeros((2, 17, 3))
    people[1, :, 0] = sigmas * np.sqrt(2 * 30 * 50)
    alike = float(np.exp(-1 / 4))
    assert _keypoints.distinct(people, [0.9, 0.8], regions, alike - 1e-6) == [0]
    assert _keypoints.distinct(people, [0.9, 0.8], regions, alike + 1e-6) == [0, 1]
    assert _keypoints.distinct(people, [0.8, 0.9], regions, alike - 1e-6) == [1]


def test_flip_test_is_symmetric(pose: GenPerceptPipeline, image: np.ndarray) -> None:
    """With it, the mirrored image has the mirrored pose, left and right joints exchanged."""
    from genpercept.core.label_rules import MIRRORED_JOINTS as MIRRORED

    box = np.array([[28.0, 5, 64, 80]])  # in the middle, and no rounding of its crop
    there = pose(image, boxes=box, flip_test=True).values[0]
    back = pose(np.ascontiguousarray(image[:, ::-1]), boxes=box, flip_test=True).values[0]
    np.testing.assert_allclose(120 - back[list(MIRRORED), 0], there[:, 0], atol=1e-2)
    np.testing.assert_allclose(back[list(MIRRORED), 1:], there[:, 1:], atol=1e-2)
    plain = pose(image, boxes=box).values[0]
    assert np.abs(plain - there).max() > 0.1


def test_boxes_that_make_no_sense(pose: GenPerceptPipeline, image: np.ndarray) -> None:
    depth = GenPerceptPipeline.from_base(GOLDEN / "sd-tiny", "depth", resolution=0)
    with pytest.raises(ValueError, match="looks at whole images"):
        depth(image, boxes=BOXES)
    with pytest.raises(ValueError, match="boxes for 1 images, but 2"):
        pose([image, image], boxes=[BOXES])
    with pytest.raises(ValueError, match="boxes of shape"):
        pose(image, boxes=[[1, 2, 3]])


def test_saved_and_loaded(pose: GenPerceptPipeline, image: np.ndarray, tmp_path: Path) -> None:
    pose.save_pretrained(tmp_path / "m")
    again = GenPerceptPipeline.from_pretrained(tmp_path / "m")
    assert again.task_plugin.options == {"height": 64, "width": 48, "sigma": 0.0, "most_alike": 0.9}
    np.testing.assert_array_equal(again(image, boxes=BOXES).values, pose(image, boxes=BOXES).values)


def test_predict_writes_coco_results(pose: GenPerceptPipeline, image: np.ndarray, tmp_path: Path) -> None:
    """The file's boxes, the kind's formats by default, entries that pycocotools reads."""
    for name in ("000000000785.png", "empty.png"):
        Image.fromarray(image).save(tmp_path / name)
    boxes = tmp_path / "boxes.json"
    boxes.write_text(
        json.dumps([{"image_id": 785, "category_id": 1, "bbox": b[:4], "score": b[4]} for b in BOXES.tolist()])
    )
    out = tmp_path / "out"
    request = Request(model="tiny", boxes=str(boxes), box_score=0.6)
    assert run([tmp_path / "000000000785.png", tmp_path / "empty.png"], out, request, load=lambda *a, **k: pose) == 0
    entries = json.loads((out / "000000000785_pose_coco.json").read_text())
    assert len(entries) == 1 and entries[0]["image_id"] == 785 and len(entries[0]["keypoints"]) == 51
    np.testing.assert_allclose(
        np.reshape(entries[0]["keypoints"], (17, 3)), pose(image, boxes=BOXES[:1]).values[0], atol=1e-3
    )
    assert json.loads((out / "empty_pose_coco.json").read_text()) == []
    assert Image.open(out / "000000000785_pose_color.png").size == (120, 90)


@pytest.mark.parametrize(
    ("content", "count"),
    [
        ({"a.jpg": [[1, 2, 3, 4], [5, 6, 7, 8, 0.2]]}, 1),
        ({"images": [{"id": 3, "file_name": "d/a.jpg"}], "annotations": [{"image_id": 3, "bbox": [1, 2, 3, 4]}]}, 1),
        (
            [
                {"file_name": "a.jpg", "bbox": [1, 2, 3, 4], "score": 0.9},
                {"file_name": "a.jpg", "category_id": 3, "bbox": [0]},
            ],
            1,
        ),
    ],
)
def test_box_files(tmp_path: Path, content: Any, count: int) -> None:
    path = tmp_path / "b.json"
    path.write_text(json.dumps(content))
    boxes = read_boxes(path, 0.5)
    assert boxes.of(Path("x/a.jpg")).shape == (count, 5) and boxes.of(Path("b.jpg")).shape == (0, 5)
    np.testing.assert_array_equal(boxes.of(Path("a.jpg"))[0, :4], [1, 2, 3, 4])


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not JSON"), ("3", "neither a table"), ('{"a": [[1, 2, 0, 4]]}', "a: box"), ('{"a": [["x"]]}', "a: box")],
)
def test_bad_box_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "b.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_boxes(path)
    with pytest.raises(ValueError, match="cannot be read"):
        read_boxes(tmp_path / "none.json")


def test_detector(tmp_path: Path, image: np.ndarray) -> None:
    """A tiny YOLOS of random weights: boxes in pixels, best first, those above the threshold; no person, no detector."""
    from transformers import YolosConfig, YolosForObjectDetection

    torch.manual_seed(0)
    sizes: Any = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    sizes |= {"image_size": [64, 64], "patch_size": 16, "num_detection_tokens": 7}
    config = YolosConfig(**sizes, id2label={0: "cat", 1: "person"}, label2id={"cat": 0, "person": 1})
    model = YolosForObjectDetection(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(tmp_path / "d")
    plugin = DETECTORS.find("yolos")
    found = plugin.load(str(tmp_path / "d"), threshold=0.0)(image)
    assert found.shape == (7, 5) and (np.diff(found[:, 4]) <= 0).all() and (found[:, 2] <= 120).all()
    middle = float(np.median(found[:, 4]))
    assert len(plugin.load(str(tmp_path / "d"), threshold=middle)(image)) == 4
    config.id2label = {0: "cat", 1: "dog"}
    YolosForObjectDetection(config).save_pretrained(tmp_path / "e")
    with pytest.raises(ValueError, match="no class 'person'"):
        plugin.load(str(tmp_path / "e"))
    with pytest.raises(ValueError, match="give a folder or hub id"):
        plugin.load(str(tmp_path / "none"))


def test_cutouts_have_the_foregrounds_colours(tmp_path: Path) -> None:
    """Red before blue, half of it mixed: the cut-out is red where it is half transparent, and not violet."""
    alpha = np.clip(np.linspace(1.5, -0.5, 64), 0, 1)[None].repeat(48, 0).astype(np.float32)
    red, blue = np.array([220.0, 20, 20]), np.array([20.0, 30, 220])
    image = np.rint(alpha[..., None] * red + (1 - alpha[..., None]) * blue).astype(np.uint8)
    rgba = cutout(image, alpha)
    mixed = (alpha > 0.3) & (alpha < 0.7)
    assert rgba.shape == (48, 64, 4) and np.abs(rgba[mixed][:, :3] - red).mean() < 20
    assert np.abs(image[mixed] - red).mean() > 50, "the image itself is violet there"
    Prediction(alpha, "alpha").save(tmp_path / "a_matting.json", ["cutout", "mask"], image=image)
    assert Image.open(tmp_path / "a_matting_cutout.png").mode == "RGBA"
    assert set(np.unique(np.asarray(Image.open(tmp_path / "a_matting_mask.png")))) == {0, 255}
    with pytest.raises(ValueError, match="needs the image"):
        Prediction(alpha, "alpha").save(tmp_path / "b.json", ["cutout"])
