"""Recipes by name: those of the package, files of one's own, and what is said of a name that there is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from genpercept.commands.study import plan, shipped
from genpercept.training import recipe, recipe_names
from tests.support.commands import Call
from tests.support.paths import RECIPES


def test_every_recipe_of_the_package_has_a_name_and_is_about_something() -> None:
    names = recipe_names.names()
    files = {p.relative_to(RECIPES).with_suffix("").as_posix() for p in RECIPES.rglob("*.toml")}
    assert set(names) == {name for name in files if not name.startswith("studies/")} and "mini/depth" in names
    assert all(len(text) > 15 for _, text in recipe_names.listing(RECIPES, names))
    assert recipe_names.about(RECIPES / "studies" / "betas_normals.toml").endswith("shows pictures alone), ten steps")


def test_names_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert recipe.load("mini/depth") == recipe.load(RECIPES / "mini" / "depth.toml")
    (tmp_path / "mini" / "depth").mkdir(parents=True)  # a folder of the name is no recipe
    assert recipe_names.find("mini/depth") == RECIPES / "mini" / "depth.toml"
    (tmp_path / "mine.toml").write_text('stage = "autoencoder"\n')
    assert recipe.load("mine.toml").stage == "autoencoder"
    assert recipe_names.find("mine.toml", tmp_path) == tmp_path / "mine.toml"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("recipes/mini/depth.toml", "it is part of the package, and its name is mini/depth"),
        ("mini/depth.toml", "it is part of the package, and its name is mini/depth"),
        ("mini/dept", "did you mean 'mini/depth'?; `genpercept train --list` has all"),
        ("depth", "did you mean mini/depth or paper/depth?; `genpercept train --list` has all"),
        ("mine.toml", "name a file, or one of `genpercept train --list`"),
    ],
)
def test_a_name_that_there_is_not(given: str, says: str, call: Call) -> None:
    code, _, err = call("train", given, "--dry-run")
    assert (code, err) == (2, f"genpercept: error: {given}: no such recipe; {says}\n")


def test_list_and_show(call: Call) -> None:
    code, listed, _ = call("train", "--list")
    assert code == 0 and "mini/depth " in listed and len(listed.splitlines()) == len(recipe_names.names())
    assert call("train", "paper/depth", "--show")[1] == (RECIPES / "paper" / "depth.toml").read_text()
    studies = call("study", "--list")[1]
    assert "\nparadigms --scale full " in studies
    assert len(studies.splitlines()) == len(shipped.names("mini")) + len(shipped.names("full"))
    assert call("study", "betas", "--scale", "full", "--show")[1].startswith("# RGB blending")


def test_a_study_of_ones_own_names_its_recipe(tmp_path: Path) -> None:
    text = 'name = "own"\nbase = "BASE"\n[[arm]]\nname = "a"\n'
    (tmp_path / "named.toml").write_text(text.replace("BASE", "mini/depth"))
    assert plan.load(tmp_path / "named.toml").base == RECIPES / "mini" / "depth.toml"
    (tmp_path / "lost.toml").write_text(text.replace("BASE", "mini/dept"))
    with pytest.raises(ValueError, match=r"lost\.toml: base: mini/dept: no such recipe; did you mean 'mini/depth'"):
        plan.load(tmp_path / "lost.toml")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("betas", "no study 'betas' of scale mini: there is one of --scale full; `genpercept study --list` has all"),
        ("paradigm", "no study 'paradigm' of scale mini: did you mean 'paradigms'?; `genpercept study --list` has all"),
        (
            "recipes/studies/betas.toml",
            "recipes/studies/betas.toml: no such study; it is part of the package: `genpercept study betas --scale full`",
        ),
    ],
)
def test_a_study_that_there_is_not(name: str, says: str, call: Call) -> None:
    code, _, err = call("study", name, "--out", "x")
    assert (code, err) == (2, f"genpercept: error: {says}\n")


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("runs/base/model", "mini/base"),
        ("runs/paper/depth/model", "paper/depth"),
        ("runs/segmentation_stage1/model", "paper/segmentation_stage1"),
        ("runs/depth_more2/model", "mini/depth_more"),
        ("runs/nothing/model", ""),
        ("stable-diffusion-2-1", ""),
    ],
)
def test_which_recipe_makes_a_model(model: str, name: str) -> None:
    assert recipe_names.maker(model) == name
