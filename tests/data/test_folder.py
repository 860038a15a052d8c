"""Your own data: folders and manifests are read as documented, and what is broken is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from genpercept.commands.cli import cli
from genpercept.commands.data import check
from genpercept.data.folder import PLUGIN
from genpercept.training.recipe import DataSet, Loader
from genpercept.training.samples.sources import open_source

NORMAL = np.array([0.6, 0.0, 0.8], np.float32)


def sample(root: Path, name: str, size: tuple[int, int] = (6, 8)) -> None:
    """An image with depth (16 bits, millimetres; a corner unknown) and normals (8 bits)."""
    h, w = size
    for kind in ("images", "depth", "normals"):
        (root / kind / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((h, w, 3), 51, np.uint8)).save(root / "images" / f"{name}.png")
    depth = np.full((h, w), 2500, np.uint16)
    depth[0, 0] = 0
    Image.fromarray(depth).save(root / "depth" / f"{name}.png")
    painted = np.broadcast_to(((NORMAL + 1) * 127.5).round().astype(np.uint8), (h, w, 3)).copy()
    painted[0, 1] = 0
    Image.fromarray(painted).save(root / "normals" / f"{name}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a", "b", "sub/c"):
        sample(tmp_path, name)
    return tmp_path


def test_a_folder(root: Path) -> None:
    entries = PLUGIN.index(root, "all")
    assert [e.name for e in entries] == ["a", "b", "sub/c"]
    s = PLUGIN.load(entries[2])
    assert s.depth is not None and s.valid is not None and s.normals is not None and s.intrinsics is None
    assert float(s.image[0, 0, 0]) == pytest.approx(0.2)
    assert float(s.depth[3, 3]) == 2.5 and not s.valid[0, 0] and int(s.valid.sum()) == 47
    np.testing.assert_allclose(s.normals[:, 3, 3], NORMAL, atol=0.01)
    assert s.normals[:, 0, 1].tolist() == [0, 0, 0] and float(s.normals[:, 3, 3].norm()) == pytest.approx(1)


def test_settings_of_the_folder_and_of_the_recipe(root: Path) -> None:
    (root / "dataset.toml").write_text('depth_scale = 500\nnormals_axes = "opencv"\nintrinsics = [10, 11, 4, 3]\n')
    s = PLUGIN.load(PLUGIN.index(root, "all")[0])
    assert s.depth is not None and s.normals is not None and s.intrinsics is not None
    assert float(s.depth[3, 3]) == 5.0 and float(s.normals[2, 3, 3]) == pytest.approx(-0.8, abs=0.01)
    assert s.intrinsics.tolist() == [[10, 0, 4], [0, 11, 3], [0, 0, 1]]
    again = PLUGIN.with_options(depth_scale=250.0)
    depth = again.load(again.index(root, "all")[0]).depth
    assert depth is not None and float(depth[3, 3]) == 10.0


def test_splits(tmp_path: Path) -> None:
    for i in range(41):
        sample(tmp_path, f"{i:02}", (2, 2))
    assert [e.name for e in PLUGIN.index(tmp_path, "val")] == ["19", "39"]
    assert len(PLUGIN.index(tmp_path, "train")) == 39
    with pytest.raises(ValueError, match="no samples of split 'test'; there are train, val, all"):
        PLUGIN.index(tmp_path, "test")
    (tmp_path / "train.txt").write_text("03\n05\n")
    (tmp_path / "test.txt").write_text("07\n")
    assert [e.name for e in PLUGIN.index(tmp_path, "train")] == ["03", "05"]
    assert [e.name for e in PLUGIN.index(tmp_path, "test")] == ["07"]
    (tmp_path / "test.txt").write_text("77\n")
    with pytest.raises(ValueError, match=r"test.txt, line 1: lists '77'"):
        PLUGIN.index(tmp_path, "all")


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_manifests(root: Path, kind: str) -> None:
    path = root / f"list.{kind}"
    if kind == "csv":
        text = (
            "image,depth,intrinsics,split,caption\nimages/a.png,depth/b.png,9 9 4 3,train,a wall\nimages/b.png,,,val,\n"
        )
    else:
        rows: list[dict[str, Any]] = [
            {"image": "images/a.png", "depth": "depth/b.png", "intrinsics": [9, 9, 4, 3], "caption": "a wall"},
            {"image": "images/b.png", "split": "val"},
        ]
        text = "\n".join(json.dumps(row) for row in rows) + "\n"
    path.write_text(text)
    (train,), (val,) = PLUGIN.index(path, "train"), PLUGIN.index(path, "val")
    s = PLUGIN.load(train)
    assert s.depth is not None and s.intrinsics is not None and s.caption == "a wall" and s.normals is None
    assert float(s.intrinsics[0, 0]) == 9 and PLUGIN.load(val).depth is None
    path.rename(root / f"manifest.{kind}")
    assert len(PLUGIN.index(root, "all")) == 2


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"image": "images/a.png", "dept": "x"}, "unknown key 'dept'; did you mean 'depth'?"),
        ({"depth": "x"}, "names no image"),
        ({"image": "/images/a.png"}, "relative to the manifest"),
        ({"image": "images/a.png", "split": "training"}, "split 'training'"),
        ({"image": "images/a.png", "intrinsics": [1, 2]}, "four numbers"),
    ],
)
def test_wrong_manifests_name_their_line(root: Path, row: dict[str, Any], says: str) -> None:
    (root / "m.jsonl").write_text("\n" + json.dumps(row))
    with pytest.raises(ValueError) as error:
        PLUGIN.index(root / "m.jsonl", "all")
    assert says in str(error.value) and "m.jsonl, line 2" in str(error.value)


def damage(path: Path, how: str) -> Path:
    match how:
        case "cut":
            path.write_bytes(path.read_bytes()[:40])
        case "missing":
            path.unlink()
            return path.with_suffix(".*")
        case "small":
            Image.fromarray(np.full((3, 4), 9, np.uint16)).save(path)
        case "8 bits":
            Image.fromarray(np.full((6, 8), 9, np.uint8)).save(path)
        case "empty":
            Image.fromarray(np.zeros((6, 8), np.uint16)).save(path)
        case "pickle":
            path.unlink()
            path = path.with_suffix(".npy")
            np.save(path, np.array([{}]), allow_pickle=True)
    return path


HOW = ("cut", "missing", "small", "8 bits", "empty", "pickle")


@pytest.mark.parametrize("how", HOW)
def test_a_broken_label_is_named(root: Path, how: str) -> None:
    path = damage(root / "depth" / "b.png", how)
    with pytest.raises(ValueError) as error:
        PLUGIN.load(PLUGIN.index(root, "all")[1])
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_broken_sample_is_an_error_or_a_counted_skip(root: Path) -> None:
    damage(root / "depth" / "b.png", "cut")
    data = DataSet(name="folder", root=root, split="all")
    said: list[str] = []
    with pytest.raises(ValueError, match=r"depth/b.png"):
        open_source(data, Loader(), said.append)[1]
    source = open_source(data.model_copy(update={"skip_bad": True}), Loader(), said.append)
    names = [[source[i]["name"] for i in range(3)] for _ in range(2)]
    assert names == [["a", "sub/c", "sub/c"]] * 2  # the same each time
    assert len(said) == 1 and "1 of 3" in said[0] and "depth/b.png" in said[0]
    for name in ("a", "sub/c"):
        damage(root / "depth" / f"{name}.png", "empty")
    with pytest.raises(ValueError, match="none of the 3 samples"):
        source[0]


def test_a_fraction_of_the_samples(tmp_path: Path) -> None:
    for i in range(10):
        sample(tmp_path, str(i), (2, 2))

    def chosen(seed: int) -> list[str]:
        data = DataSet(name="folder", root=tmp_path, split="all", fraction=0.3, seed=seed)
        source = open_source(data, Loader())
        return [source[i]["name"] for i in range(len(source))]

    assert len(set(chosen(0))) == 3 and chosen(0) == chosen(0) and chosen(0) != chosen(1)


def test_check(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample(root, "d", (10, 4))
    assert check.main(root, root / "out") == 0
    out = capsys.readouterr().out
    assert "readable    4, broken 0" in out
    assert "1 10x4, 3 6x8" in out and "4 depth, 4 normals" in out
    assert "depth [m]   2.5 to 2.5, median 2.5; known on 97" in out
    sheet = Image.open(root / "out" / "contact_sheet.png")
    assert sheet.height == 4 * 124 and sheet.width == 3 * (160 + 4)
    damage(root / "depth" / "b.png", "cut")
    assert check.main(root) == 1
    assert "broken 1" in (out := capsys.readouterr().out) and "depth/b.png" in out


def test_the_command(root: Path) -> None:
    result = CliRunner().invoke(
        cli, ["data", "check", str(root), "--depth-scale", "500", "--out", str(root / "out")], standalone_mode=False
    )
    assert result.return_value == 0 and "depth [m]   5 to 5" in result.output
    assert (root / "out" / "contact_sheet.png").is_file()


def test_check_advises(root: Path) -> None:
    report, _ = check.check(root, {"depth_scale": 1.0, "normals_axes": "opencv"})
    assert any("depth_scale" in line for line in report.advice) and any("opencv" in line for line in report.advice)
    report, _ = check.check(root, {})
    assert not report.advice


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda p: None, "neither images/ nor manifest"),
        (lambda p: (p / "images").mkdir(), "no images in it"),
        (lambda p: (p / "dataset.toml").write_text("depth_scal = 3"), "did you mean 'depth_scale'?"),
        (lambda p: (p / "dataset.toml").write_text("depth_scale = -3"), "must be positive"),
    ],
)
def test_what_is_no_data_set(tmp_path: Path, prepare: Any, says: str) -> None:
    prepare(tmp_path)
    with pytest.raises(ValueError) as error:
        PLUGIN.index(tmp_path, "train")
    assert says in str(error.value)


def test_two_images_of_one_name(root: Path) -> None:
    Image.new("RGB", (8, 6)).save(root / "images" / "a.jpg")
    with pytest.raises(ValueError, match="has the same name"):
        PLUGIN.index(root, "all")


def test_a_count_that_is_drawn(tmp_path: Path) -> None:
    """Not the first ones, others for another seed, in their order; and no more than there are."""
    for i in range(10):
        sample(tmp_path, str(i), (2, 2))
    chosen = {}
    for seed in (0, 1):
        data = DataSet(name="folder", root=tmp_path, split="all", count=4, drawn=True, seed=seed)
        source = open_source(data, Loader())
        chosen[seed] = [int(source[i]["name"]) for i in range(len(source))]
        assert len(chosen[seed]) == 4 and chosen[seed] == sorted(set(chosen[seed]))
    assert chosen[0] != chosen[1] and [0, 1, 2, 3] not in chosen.values()
    data = DataSet(name="folder", root=tmp_path, split="all", count=40, drawn=True)
    assert len(open_source(data, Loader())) == 10
    with pytest.raises(ValueError, match=r"data\.drawn: the synthetic world has no end"):
        open_source(DataSet(count=4, drawn=True), Loader())
