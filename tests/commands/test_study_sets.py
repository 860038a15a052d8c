"""What the arms of a study are scored on: the sets of a suite, from their published layouts to the table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from genpercept.commands.evaluate import run, suites
from genpercept.commands.study import plan as study
from genpercept.tasks import TASKS
from genpercept.training.run import held_out
from tests.support.paths import RECIPES
from tests.support.planes import planes
from tests.support.studies import RECIPE
from tests.support.zero_shot import zero_shot

STUDY = """
name = "sets"
base = "recipe.toml"
[suite]
name = "depth-zero-shot"
root = "DATA/sets"
[[arm]]
name = "one step"
[[arm]]
name = "another rate"
base = "other.toml"
"""
FULL = sorted((RECIPES / "studies").glob("*.toml"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    planes(tmp_path / "data", 6, (16, 16))
    recipe = RECIPE.replace("DATA", str(tmp_path / "data")).replace("steps = 2", "steps = 1\nresolution = 32")
    (tmp_path / "recipe.toml").write_text(recipe)
    (tmp_path / "other.toml").write_text(recipe + "[optim]\nlr = 3e-4\n")
    (tmp_path / "sets.toml").write_text(STUDY.replace("DATA", str(tmp_path)))
    return tmp_path / "sets.toml"


def test_the_sets_of_a_suite(file: Path) -> None:
    found = study.load(file, ['study.suite.options={kitti={split_list="eigen.txt"}}'])
    parts = suites.load("depth-zero-shot").set
    assert [(t.label, t.name, t.split) for t in found.test] == [(p.title, p.dataset, p.split) for p in parts]
    assert [t.root for t in found.test] == [file.parent / "sets" / p.dataset for p in parts]
    assert found.test[0].options["split_list"] == "eigen.txt"
    depth = TASKS.find("depth")
    kinds = [held_out.protocol_of(t, depth) for t in found.test]
    assert kinds == ["kitti", "nyu", "scannet", "diode", "eth3d"]  # as `evaluate` scores them
    moved = study.load(file, ['study.suite.roots={diode="elsewhere"}'])
    assert [t.root for t in moved.test][3:] == [Path("elsewhere"), file.parent / "sets" / "eth3d"]
    few = study.load(file, ['study.suite.sets=["eth3d", "nyuv2"]'])
    assert [t.name for t in few.test] == ["nyuv2", "eth3d"]


def test_an_arm_has_a_recipe_of_its_own(file: Path) -> None:
    ours, other = study.plan(study.load(file))
    assert (ours.base.name, other.base.name) == ("recipe.toml", "other.toml") and other.recipe.optim.lr == 3e-4


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ('suite={name = "depth-zero"}', "suite 'depth-zero': did you mean 'depth-zero-shot'"),
        ('suite.sets=["kiti"]', "did you mean 'kitti'"),
        ("suite.options={kiti = {}}", "did you mean 'kitti'"),
        ('suite.roots={kiti = "x"}', "did you mean 'kitti'"),
        ("suite.options={kitti = {split_lists = 1}}", "did you mean 'split_list'"),
        ('suite={name = "normals"}', "task of suite 'normals'"),
        ('metrics=["abs_rell"]', "did you mean 'abs_rel'"),
        ('test=[{name = "kitti", title = "K", split = "tset"}]', "test 'K': split of data set 'kitti' 'tset'"),
        ('test=[{name = "dis5k", title = "masks"}]', "has no depth, which task 'depth' needs"),
        ('test=[{name = "kitti", title = "KITTI"}]', "two sets are called KITTI"),
        ('test=[{name = "kitti", title = "x", protocol = "kiti"}]', "did you mean 'kitti'"),
    ],
)
def test_what_can_never_be_scored_is_refused_by_the_dry_run(file: Path, change: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        study.main(str(file), tmp_path / "out", overrides=[f"study.{change}"], dry_run=True)
    assert says in str(error.value).replace("unknown ", "") and "\n" not in str(error.value)


def test_a_study_without_sets_is_refused(file: Path, tmp_path: Path) -> None:
    text = file.read_text()
    file.write_text(text.replace(text[text.index("[suite]") : text.index("[[arm]]")], ""))
    with pytest.raises(ValueError, match=r"names no \[suite\] and no \[\[test\]\] sets"):
        study.main(str(file), tmp_path / "out", dry_run=True)


@pytest.mark.parametrize("path", FULL, ids=lambda p: p.stem)
def test_the_studies_of_the_paper_can_be_scored(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every arm's recipe and every test set of them resolves, but for what is not on this machine."""
    assert study.main(str(path), Path("unused"), "full", dry_run=True) in (0, 3)  # 3: something is not here
    assert "scored on " in capsys.readouterr().out


@pytest.mark.slow
def test_a_study_runs_to_its_table(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two frames of each of the five sets; the figures are those that `evaluate` gives the arm's model."""
    zero_shot(tmp_path / "sets")
    out = tmp_path / "out"
    assert study.main(str(file), out, at_once=2) == 0
    text = (out / "sets.md").read_text()
    assert "| arm | KITTI (2) | NYUv2 (2) | ScanNet (2) | DIODE (2) | ETH3D (2) |" in text
    assert "**AbsRel ↓**" in text and "**δ1 ↑**" in text
    model = run.ModelSpec(str(out / "one-step_seed-0" / "model"))
    specs = suites.specs(suites.load("depth-zero-shot"), [], [str(tmp_path / "sets")], [], None)
    assert run.run([model], specs, run.Machinery(tmp_path / "evaluated", workers=0, pictures=False)) == 0
    evaluated = json.loads((tmp_path / "evaluated/results.json").read_text())
    theirs = {row["set"]: row["figures"] for row in evaluated["results"]}
    row = json.loads((out / "sets.json").read_text())["rows"][0]
    for name, cells in row["figures"].items():
        for key in ("abs_rel", "delta1"):
            assert cells[key]["mean"]["value"] == pytest.approx(theirs[name][key], abs=1e-5)
