"""What `data check` passes, training takes; what it refuses, training refuses before its first step, in the same words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from genpercept.commands.data import check
from genpercept.training import loop
from genpercept.training.lacking import of_recipe
from genpercept.training.recipe import load
from tests.support.own_data import CASES, DEPTH, Case, folder, image, manifest, photo

BY_NAME = {case.name: case for case in CASES}
RECIPE = """
stage = "finetune"
task = "depth"
steps = 2
resolution = 32
precision = "fp32"
[model]
base = "mini/depth"
[learn]
denoiser = "lora"
[[data]]
name = "folder"
root = "{root}"
size = [24, 32]
[loader]
batch_size = 2
cache_dir = "{root}/cache"
[optim]
warmup = 1
[validation]
every = 0
count = 1
[logging]
tensorboard = false
[speed]
threads = 1
"""


def recipe(root: Path, bom: bool = False) -> Path:
    path = root / "recipe.toml"
    path.write_text("\ufeff" * bom + RECIPE.replace("{root}", str(root)).replace("\n", "\r\n" if bom else "\n"))
    return path


def trained(root: Path, *changes: str, bom: bool = False) -> tuple[int, list[str]]:
    """The exit code of a run, and what it logged."""
    out = root / "run"
    code = loop.main(recipe(root, bom), list(changes), out)
    return code, (out / "log.jsonl").read_text().splitlines()


def _everything(root: Path) -> None:
    """Upper case, endings, dotfiles, 65535, EXIF, marks and CR LF, in one folder."""
    folder("depth", image(np.where(DEPTH > 2000, 65535, DEPTH).astype(np.uint16), ".PNG", format="PNG"), "_depth")(root)
    BY_NAME["dotfiles"].build(root)
    photo(root / "images" / "c.jpg", 3)
    image(DEPTH, ".TIF", format="TIFF")(root / "depth" / "c")
    (root / "train.txt").write_text("\ufeffa.jpg\r\nimages\\c.jpg\r\n", newline="")
    (root / "val.txt").write_text("\ufeffb\r\n", newline="")


@pytest.mark.parametrize("case", ["everything", "lists_train_only", "jsonl_labelnull_skipped"])
def test_what_check_passes_is_trained(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = BY_NAME.get(case, Case(case, _everything))
    found.build(tmp_path)
    assert check.main(tmp_path, skip_bad=found.skip_bad, task="depth") == 0
    changes = ["data.0.skip_bad=true"] if found.skip_bad else []
    assert not [
        line for line in of_recipe(load(recipe(tmp_path), changes), ("depth",)) if line.startswith(("data", "val"))
    ]
    code, log = trained(tmp_path, *changes, bom=case == "everything")
    said = "".join(capsys.readouterr())
    assert code == 0 and np.isfinite(json.loads(log[-1])["loss"])
    assert ("validation scores samples that are trained on" in said) == (case == "lists_train_only")
    assert ("left out (1 of 2 so far): sample 'images/b' has no depth" in said) == found.skip_bad


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("jsonl_labelnull", "lack a label, such as images/b (depth)"),
        ("lists_overlap", "val.txt, line 1: 'b' is in train.txt, too"),
        ("lists_without_training", "no samples of split 'train'"),
        ("no_label", "lack a label, such as a (depth)"),
        ("toml_wrong", "dataset.toml: not a TOML file"),
    ],
)
def test_what_check_refuses_is_not_trained(case: str, says: str, tmp_path: Path) -> None:
    BY_NAME[case].build(tmp_path)
    try:
        assert check.main(tmp_path, task="depth") != 0
    except ValueError as error:
        assert says in str(error)
    with pytest.raises(ValueError) as error:
        loop.main(recipe(tmp_path), [], tmp_path / "run")
    assert says in str(error.value)
    assert not (tmp_path / "run" / "log.jsonl").exists()  # no step was made, and nothing validated


def test_a_task_asks_for_its_own_labels_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Masks of some samples are no matter to depth, and a matter where nobody says the task."""
    both = '{"image":"images/a.jpg","depth":"depth/a.png","mask":"mask/a.png"}\n'
    rows = both + '{"image":"images/b.jpg","depth":"depth/b.png"}\n'
    manifest("manifest.jsonl", rows)(tmp_path)
    folder("mask", image(np.where(DEPTH > 2000, 255, 0).astype(np.uint8)))(tmp_path)
    assert check.main(tmp_path, task="depth") == 0
    assert check.main(tmp_path, task="normals") == 2
    assert check.main(tmp_path, task="dis") == check.main(tmp_path) == 1
    said = capsys.readouterr().out
    assert (
        "sample 'images/b' has no mask\n" in said and "sample 'images/b' has no mask, which 1 of 2 samples have" in said
    )
