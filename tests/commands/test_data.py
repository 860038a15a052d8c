"""genpercept data list, check and preview: what they print, what they draw, and their exit codes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from genpercept.commands.data import check
from genpercept.commands.data.list import BEGIN, END, markdown
from genpercept.commands.data.sheet import pictures, sheet
from genpercept.core import classes
from genpercept.core.values import Sample
from genpercept.data import DATASETS
from tests.support.commands import invoke
from tests.support.other_trees import cityscapes, coco, photo, put
from tests.support.paths import ROOT

DOCS = ROOT / "docs" / "datasets.md"
run = partial(invoke, "data")


def error(*arguments: str | Path) -> str:
    """The message of a call that is refused."""
    result = run(*arguments)
    assert isinstance(result.exception, ValueError), result.output
    return str(result.exception)


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """DIS5K with five training images."""
    for i in range(5):
        photo(tmp_path / f"DIS-TR/im/1#A#{i}.jpg", 8, 12)
        put(tmp_path / f"DIS-TR/gt/1#A#{i}.png", np.repeat([[0, 255, 255, 255]], 8, 0).repeat(3, 1).astype(np.uint8))
    return tmp_path


# list ---------------------------------------------------------------------------------------------------------------------


def test_list() -> None:
    result = run("list")
    assert result.return_value == 0
    lines = result.output.splitlines()
    first = {line.split()[0]: line for line in lines if line and not line.startswith(" ")}
    assert set(DATASETS.names()) <= set(first)  # a line each: nothing is cut or broken in a pipe
    assert "genpercept[data]" in first["hypersim"] and "matting (dim)" in first["composition1k"]
    assert DATASETS.find("ade20k").licence in first["ade20k"] and "yours" in first["folder"]


def test_list_as_json() -> None:
    rows = {row["name"]: row for row in json.loads(run("list", "--json").output)}
    assert list(rows) == DATASETS.names()
    assert rows["dis5k"]["splits"] == ["train", "val", "test1", "test2", "test3", "test4", "test"]
    assert rows["synthetic"]["options"] == {"size": [128, 128], "seed": 0, "having": ""}
    assert rows["synthetic"]["extra"] == "synthetic"
    assert rows["cityscapes"]["classes"] == "cityscapes19" and "labels:" in rows["cityscapes"]["about_options"]
    for row in rows.values():
        if row["name"] == "folder":
            continue
        assert all(
            row[key] for key in ("title", "url", "obtain", "licence", "layout", "provides", "splits", "protocols")
        )
        assert set(row["provides"]) <= set(Sample.__dataclass_fields__)
        assert row["classes"] is None or row["classes"] in classes.names()


def test_the_documentation_is_what_the_data_sets_say() -> None:
    """`python -m genpercept.commands.data.list docs/datasets.md` makes it so."""
    text = DOCS.read_text(encoding="utf-8")
    part = text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip()
    assert part == markdown().strip()


# check --------------------------------------------------------------------------------------------------------------------


def test_check(masks: Path) -> None:
    result = run("check", "dis5k", "--root", masks, "--split", "train", "--out", masks / "out")
    assert result.return_value == 0
    assert "samples     5: 5 train" in result.output and "readable    5, broken 0" in result.output
    assert "sizes       5 8x12" in result.output and "mask        75.0% of the pixels on average" in result.output
    assert Image.open(masks / "out/contact_sheet.png").size == (2 * (180 + 4), 5 * 124)


def test_check_names_the_broken_ones(masks: Path) -> None:
    broken = masks / "DIS-TR/gt/1#A#2.png"
    broken.write_bytes(broken.read_bytes()[:30])
    common = ("check", "dis5k", "--root", masks, "--split", "train")
    result = run(*common)
    assert result.return_value == 1 and f"broken: {broken}" in result.output and "broken 1" in result.output
    assert run(*common, "--skip-bad").return_value == 0
    result = run(*common, "--limit", "2")  # the first and the last
    assert result.return_value == 0 and "samples     2 (of 5, evenly spaced): 2 train" in result.output
    for path in (masks / "DIS-TR/gt").iterdir():
        path.unlink()
    assert run(*common).return_value == run(*common, "--skip-bad").return_value == 2


def test_check_depth_and_classes(tmp_path: Path) -> None:
    cityscapes(tmp_path)
    result = run("check", "cityscapes", "--root", tmp_path, "--split", "val")
    assert "depth [m]   4 to 400, median 40; known on 50.0% of the pixels" in result.output
    assert (
        "classes     8 of the 19 of cityscapes19 on 66.7% of the pixels" in result.output
        and "road 12.5%" in result.output
    )
    result = run("check", "cityscapes", "--root", tmp_path, "--split", "val", "--option", 'labels=["depth"]')
    assert result.return_value == 0 and "class_ids" not in result.output
    result = run("check", "cityscapes", "--root", tmp_path, "--split", "val", "--option", "labels=class_ids")
    assert result.return_value == 0 and "depth" not in result.output


def test_check_people(tmp_path: Path) -> None:
    coco(tmp_path)
    result = run("check", "coco_keypoints", "--root", tmp_path, "--split", "val")
    assert "people      3 annotated, 1 crowds, 1 images without people, 2 joints, 1 with joints" in result.output


def test_a_class_that_the_table_lacks_is_broken() -> None:
    class Wrong:
        name, about = "wrong", None

        def load(self, entry: Any) -> Sample:
            ids = torch.full((4, 4), 40)
            return Sample("one", torch.zeros(3, 4, 4), class_ids=ids, meta={"classes": "nyu40"})

    report, _ = check._examine(Wrong(), [0], "", 0)
    assert report.broken == ["one: class 40, but nyu40 has 40 classes"]


def test_check_of_a_folder_by_path_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo(tmp_path / "dis5k/images/a.png")
    np.save(put_folder(tmp_path / "dis5k/depth") / "a.npy", np.full((4, 6), 2.0, np.float32))
    result = run("check", tmp_path / "dis5k")
    assert result.return_value == 0 and "depth [m]   2 to 2" in result.output
    monkeypatch.chdir(tmp_path)  # a folder here that has a data set's name is what is meant, unless a root is given
    assert "depth [m]   2 to 2" in run("check", "dis5k").output
    assert "not the layout of DIS5K" in error("check", "dis5k", "--root", "dis5k", "--split", "val")
    result = run("check", "folder", "--root", tmp_path / "dis5k", "--split", "all", "--option", "depth_scale=10")
    assert result.return_value == 0 and "1 depth" in result.output


def put_folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["check", "mvtecad"], "'mvtecad' is neither a data set nor a folder: did you mean 'mvtec_ad'?"),
        (["check", "mvtec_ad", "--root", "."], "say which split (--split): train, val, test"),
        (["check", "mvtec_ad", "--root", "nowhere", "--split", "test"], "nowhere: no such folder"),
        (["check", "mvtec_ad", "--split", "test"], "needs its folder"),
        (["check", "mvtec_ad", "--root", ".", "--split", "tests"], "choose one of train, val, test"),
        (["check", "mvtec_ad", "--root", ".", "--split", "test", "--option", "categry=x"], "did you mean 'category'?"),
        (["check", "mvtec_ad", "--root", ".", "--split", "test", "--option", "category"], "write key=value"),
        (["preview", "synthetic", "--split", "test:2", "--out", "x.png"], "write SPLIT"),
        (["preview", "synthetic", "--split", "test/mixed:1", "--out", "x.gif"], "must end in .png or .jpg"),
        (["preview", "sintel", "--split", "test", "--out", "x.png"], "unknown data set 'sintel'"),
    ],
)
def test_mistakes(arguments: Sequence[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert says in error(*arguments) and not list(tmp_path.iterdir())


# preview ------------------------------------------------------------------------------------------------------------------


def test_preview(masks: Path) -> None:
    out = masks / "sheets" / "a.png"
    result = run("preview", "dis5k", "--root", masks, "--split", "train", "--out", out, "--count", "3")
    assert result.return_value == 0 and f"3 samples: {out}" in result.output
    page = np.asarray(Image.open(out))
    assert page.shape == (3 * (120 + 4 + 14), 2 * (180 + 4), 3)
    label = page[14 : 14 + 120, 184 : 184 + 180]
    assert label[:, :44].max() == 0 and label[:, 46:].min() == 255  # a quarter of each mask is background
    (masks / "DIS-TR/gt/1#A#0.png").unlink()
    result = run("preview", "dis5k", "--root", masks, "--split", "train", "--out", out, "--count", "3")
    assert result.return_value == 1 and "broken:" in result.output and "2 samples" in result.output


def test_preview_of_the_synthetic_world(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    out = tmp_path / "world.jpg"
    options = ("--option", "size=[32, 48]", "--option", "seed=2", "--count", "2")
    assert run("preview", "synthetic", "--split", "val/indoor:9", "--out", out, *options).return_value == 0
    assert Image.open(out).size == (8 * (180 + 4), 2 * 138)


def _drawn(sample: Sample, table: str | None = None) -> list[np.ndarray]:
    return [np.asarray(p) for p in pictures(sample, table)]


def test_pictures_of_labels() -> None:
    image = torch.full((3, 60, 80), 0.5)
    ids = torch.zeros(60, 80, dtype=torch.int64)
    ids[:30] = 10
    ids[:, :5] = -1
    _, drawn = _drawn(Sample("a", image, class_ids=ids), "cityscapes19")
    assert drawn[0, 9].tolist() == [70, 130, 180] and drawn[40, 9].tolist() == [128, 64, 128]  # sky, road
    assert drawn[0, 0].tolist() == [128, 128, 128]
    _, drawn = _drawn(Sample("a", image, class_ids=ids, meta={"classes": "nyu40"}), "cityscapes19")
    assert drawn[40, 9].tolist() == [174, 199, 232]  # a sample's own table comes first
    defect = torch.zeros(60, 80, dtype=torch.bool)
    defect[:, 40:] = True
    _, trimap, drawn = _drawn(Sample("a", image, defect=defect, trimap=torch.full((60, 80), 128, dtype=torch.uint8)))
    assert trimap[0, 0].tolist() == [128] * 3
    assert len(set(drawn[0, 0].tolist())) == 1 and drawn[0, 50, 0] > drawn[0, 50, 1] + 50


def test_a_picture_of_people() -> None:
    image = torch.zeros(3, 120, 160)
    points = torch.zeros(2, 17, 3)
    points[0, 5], points[0, 6] = torch.tensor([40.0, 60, 2]), torch.tensor([120.0, 60, 1])  # shoulders
    boxes = torch.tensor([[20.0, 20, 120, 80], [2, 2, 10, 10]])
    sample = Sample("a", image, keypoints=points, boxes=boxes, meta={"iscrowd": [0, 1]})
    _, drawn = _drawn(sample)
    # twice as large as shown; the bone in the middle
    assert drawn.shape == (240, 320, 3) and drawn[120, 160].sum() > 300
    assert drawn[41, 100].tolist() == [0, 0, 0] and drawn[40, 100].tolist() == [255] * 3  # the box's upper edge
    assert drawn[4, 10].tolist() == [128] * 3
    nobody = Sample("b", image, keypoints=torch.zeros(0, 17, 3), boxes=torch.zeros(0, 4))
    assert _drawn(nobody)[1].max() == 0
    assert sheet([sample, nobody], captions=True).height == 2 * 138
