"""A prepared tree gives, sample by sample, what the published one gives; and it is made without surprises.

That the samples of all other data sets come back equal is checked where they are read (tests/support/other_trees.py).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from genpercept.commands.data import prepare
from genpercept.core.values import Sample
from genpercept.data import DATASETS, prepared
from genpercept.data.hypersim import SPLIT_CSV
from genpercept.training.recipe import DataSet, Loader
from genpercept.training.samples.sources import open_source
from tests.support.depth_trees import STRAIGHT_FOCAL, TREES, Builder, frame_of_hypersim, hypersim, wall_distance
from tests.support.other_trees import coco, photo, put
from tests.support.same import assert_same, same

every_tree = pytest.mark.parametrize("build", TREES, ids=lambda f: f.__name__)


def checked(name: str, root: Path, split: str, out: Path, **options: Any) -> list[Sample]:
    """The samples of the prepared tree, which are those of the published one."""
    plugin: Any = DATASETS.find(name).with_options(**options)
    assert prepare.main(name, root, out, options, [split], processes=1) == 0
    entries, made = plugin.index(root, split), plugin.index(out, split)
    assert [e.name for e in entries] == [e.name for e in made]
    samples = [plugin.load(entry) for entry in made]
    for entry, sample in zip(entries, samples, strict=True):
        assert_same(plugin.load(entry), sample)
    return samples


@every_tree
def test_depth_and_normals(build: Builder, tmp_path: Path) -> None:
    tree = build(tmp_path / "published")
    options = prepared.changed_options(tree.plugin)
    checked(tree.plugin.name, tree.root, tree.split, tmp_path / "prepared", **options)
    with pytest.raises(ValueError, match="was not prepared; there are"):
        tree.plugin.index(tmp_path / "prepared", "nothing")


def test_people_and_the_folder_and_what_an_entry_says(tmp_path: Path) -> None:
    coco(tmp_path / "coco")
    options = {"boxes_file": str(tmp_path / "coco/boxes.json"), "people_only": True, "min_score": 0.5}
    assert checked("coco_keypoints", tmp_path / "coco", "val", tmp_path / "a", **options)[0].meta["detections"]
    for kind in ("train/good", "test/good", "test/cut"):
        photo(tmp_path / "ad/screw" / kind / "000.png")
    put(tmp_path / "ad/screw/ground_truth/cut/000_mask.png", np.array([[0, 255, 1, 0, 0, 0]] * 4, np.uint8))
    checked("mvtec_ad", tmp_path / "ad", "test", tmp_path / "b")
    assert DATASETS.find("mvtec_ad").index(tmp_path / "b", "test")[0].category == "screw"
    photo(tmp_path / "own/images/x.png")
    (tmp_path / "own/depth").mkdir()
    np.save(tmp_path / "own/depth/x.npy", np.array([[np.nan, np.inf, 0, -0.0, 1e-7, 70000.3]] * 4, np.float32))
    checked("folder", tmp_path / "own", "all", tmp_path / "c", depth_scale=5.0)
    with pytest.raises(ValueError, match="prepared with options"):
        DATASETS.find("folder").index(tmp_path / "c", "all")
    with pytest.raises(ValueError, match="prepared from data set 'folder'; read it by that name"):
        DATASETS.find("dis5k").index(tmp_path / "c", "DIS-TE1")


def test_values_of_every_kind(tmp_path: Path) -> None:
    """Halves, others, NaN, signed zeros, ids of every size, metadata that JSON has no form for."""
    half = torch.tensor([[0.5, float("nan"), float("inf"), -0.0]])
    for depth in (half, half + 1e-4, torch.rand(1, 4) * 1e6):
        for ids in (torch.tensor([[-1, 39, 0, 1]]), torch.tensor([[0, 255, 3, 2]]), torch.tensor([[-1, 2**40, 0, 5]])):
            meta = {"a": (1, [2.5, float("inf")]), "b": {3: "x"}, "c": np.float32(1.25), "d": np.arange(3), "e": None}
            image = torch.randint(0, 256, (3, 1, 4)).float() / 255 if depth is half else torch.rand(3, 1, 4)
            sample = Sample("n/1", image, depth=depth, class_ids=ids, caption="ä", domain="d", meta=meta)
            sample.keypoints, sample.mask = torch.zeros(0, 17, 3), torch.tensor([[True, False, True, True]])
            (tmp_path / "x").write_bytes(prepared.pack(sample))
            assert_same(sample, prepared.load(prepared.PreparedEntry("n/1", tmp_path / "x")))
    (tmp_path / "x").write_bytes(prepared.pack(sample, eight_bits=True))
    rounded = prepared.load(prepared.PreparedEntry("n/1", tmp_path / "x"))
    assert same(rounded.image, (sample.image * 255).round() / 255) and same(rounded.depth, sample.depth)
    (tmp_path / "x").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"x: cannot be read .*prepare it again"):
        prepared.load(prepared.PreparedEntry("n/1", tmp_path / "x"))


def test_broken_frames_and_going_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A frame that cannot be read is named, and is the same error in the prepared tree; what is made stays as it is."""
    tree = hypersim(tmp_path / "published")
    wall = wall_distance(2, STRAIGHT_FOCAL)
    wall[0, 0] = np.nan
    frame_of_hypersim(tree.root / "ai_001_001", 7, wall)
    shutil.move(tree.root / SPLIT_CSV, tmp_path / "aside")  # without it, "all" is every file
    out = tmp_path / "prepared"
    assert prepare.main("hypersim", tree.root, out, splits=["all"], processes=1) == 1
    said = capsys.readouterr().out
    assert "MB each" in said and "free" in said and "broken: " in said and "1 pixels are NaN" in said
    plugin = DATASETS.find("hypersim")
    bad = next(e for e in plugin.index(out, "all") if e.name.endswith("fr0007"))
    original = next(e for e in plugin.index(tree.root, "all") if e.name == bad.name)
    messages = []
    for entry in (original, bad):
        with pytest.raises(ValueError) as error:
            plugin.load(entry)
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    records = [
        open_source(DataSet(name="hypersim", root=root, split="all", skip_bad=True), Loader(cache_dir=tmp_path), print)
        for root in (tree.root, out)
    ]
    for i in range(len(records[0])):
        a, b = records[0][i], records[1][i]
        assert list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    files = sorted((out / "samples").iterdir())
    stamps = [file.stat().st_mtime_ns for file in files]
    files[0].unlink()
    assert prepare.main("hypersim", tree.root, out, splits=["all"], processes=1, skip_bad=True) == 0
    assert [file.stat().st_mtime_ns for file in files[1:]] == stamps[1:] and files[0].exists()
    shutil.move(tmp_path / "aside", tree.root / SPLIT_CSV)
    assert prepare.main("hypersim", tree.root, out, splits=["val"], processes=1, skip_bad=True) == 0  # beside "all"
    assert {"all", "val"} <= set(json.loads((out / "prepared.json").read_text())["splits"])


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = hypersim(tmp_path / "published")
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    for other, says in ((out, "name a new folder"), (out / "thesis.txt", "is a file")):
        with pytest.raises(ValueError, match=says):
            prepare.main("hypersim", tree.root, other)
    assert [p.name for p in out.iterdir()] == ["thesis.txt"]
    made = tmp_path / "made"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 9))  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"are needed, but .* are free"):
        prepare.main("hypersim", tree.root, made, splits=["all"])
    monkeypatch.undo()
    prepare.main("hypersim", tree.root, made, splits=["all"], processes=1)
    with pytest.raises(ValueError, match="was begun with options"):
        prepare.main("hypersim", tree.root, made, {"labels": ("depth",)})
    with pytest.raises(ValueError, match="was begun with eight_bits False, now True"):
        prepare.main("hypersim", tree.root, made, eight_bits=True)
    with pytest.raises(ValueError, match="is a prepared tree already"):
        prepare.main("hypersim", made, tmp_path / "again")
    (made / "prepared.json").write_text("{")
    with pytest.raises(ValueError, match=r"prepared\.json: not readable"):
        DATASETS.find("hypersim").index(made, "all")


def test_the_command_in_several_processes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "own/images").mkdir(parents=True)
    for i in range(4):
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(tmp_path / f"own/images/{i}.png")
    command = [sys.executable, "-m", "genpercept", "data", "prepare", "folder", "--root", str(tmp_path / "own")]
    run = subprocess.run(
        [*command, "--out", str(tmp_path / "out"), "--split", "all", "--processes", "2"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0 and "4 samples (4 of all)" in run.stdout, run.stderr
    plugin = DATASETS.find("folder")
    pairs = zip(plugin.index(tmp_path / "own", "all"), plugin.index(tmp_path / "out", "all"), strict=True)
    for entry, made in pairs:
        assert_same(plugin.load(entry), plugin.load(made))
    assert not list((tmp_path / "out").rglob("*.tmp")) and not (tmp_path / "out/preparing.json").exists()
