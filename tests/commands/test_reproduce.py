"""docs/reproduce.md: every table and figure of the texts, every recipe and study, and commands that are commands."""

from __future__ import annotations

import itertools
import re
import shlex
from typing import Any

import click
import pytest

from genpercept.commands.cli import cli
from genpercept.commands.evaluate import suites
from genpercept.commands.study import plan
from genpercept.training import dry_run
from genpercept.training import recipe as recipes
from tests.support.paths import RECIPES, ROOT
from tools import paper_places

PAGE = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
ROWS = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if re.match(r"\| (v1|supplement|ICLR) ", line)]
COMMANDS = sorted({text for row in ROWS for text in re.findall(r"`((?:genpercept|python) [^`]*)`", row[2])})
PAPER = ROOT.parent / "shared" / "paper"
# What the texts name, and the two figures of v1's web version that nothing names; `tools/paper_places.py` finds the others
PLACES = {
    *(("v1", "Table", number) for number in range(1, 16)),
    *(("v1", "Fig.", number) for number in range(1, 18)),
    *(("supplement", "Table", number) for number in range(1, 5)),
    *(("supplement", "Fig.", number) for number in range(1, 15)),
}


def test_every_table_and_figure_has_a_row() -> None:
    assert paper_places.rows(PAGE) == PLACES
    assert all(len(row) == 6 and all(cell.strip() for cell in row) for row in ROWS)
    names = [row[0] for row in ROWS]
    assert len(set(names)) == len(names)


@pytest.mark.skipif(not PAPER.is_dir(), reason="no texts of the paper beside this checkout")
def test_the_texts_name_no_other() -> None:
    assert PLACES - paper_places.places(PAPER) == {("v1", "Fig.", 12), ("v1", "Fig.", 16)}
    assert paper_places.places(PAPER) - PLACES == set()


def test_every_recipe_and_study_is_on_the_page() -> None:
    for path in (RECIPES / "paper").glob("*.toml"):
        assert re.search(rf"\bpaper/{path.stem}\b", PAGE), path.stem
    for path in (RECIPES / "studies").glob("*.toml"):
        assert f"genpercept study {path.stem} " in PAGE


def parsed(words: list[str]) -> tuple[click.Command, dict[str, Any]]:
    """The command that is meant and its arguments, checked by click, but not run."""
    command: click.Command = cli
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    return command, command.make_context(str(command.name), words).params


def models_made() -> set[str]:
    """Folders of models that the page's commands leave."""
    found = set()
    for text in COMMANDS:
        words = shlex.split(text)
        if words[:2] == ["genpercept", "train"]:
            found.add(f"{parsed(words[1:])[1]['out']}/model")
        if words[:2] == ["genpercept", "study"]:
            values = parsed(words[1:])[1]
            jobs = plan.plan(plan.load(plan.find(values["name"], "full")))
            found |= {f"{values['out']}/{job.folder}/model" for job in jobs}
    return found


def test_models_are_made_before_they_are_used() -> None:
    made = models_made()
    for text in COMMANDS:
        words = shlex.split(text)
        assert {b for a, b in itertools.pairwise(words) if a == "--model"} <= made, text
    starts = {recipes.load(p).model.base for p in (RECIPES / "paper").glob("*.toml")}
    assert {base for base in starts if base.startswith("runs/")} <= made


@pytest.mark.parametrize("text", COMMANDS)
def test_commands(text: str) -> None:
    """click takes each; recipes, studies and suites resolve, but for files and weights that are not here."""
    words = shlex.split(text)
    if words[0] == "python":
        script = (ROOT / words[1]).read_text(encoding="utf-8")
        assert all(f'"{word}"' in script for word in words[2:] if word.startswith("--"))
        return
    _, values = parsed(words[1:])
    if words[1] == "train":
        assert dry_run.plan(recipes.load(values["recipe"], values.get("overrides", ())))
    elif words[1] == "study":
        study = plan.load(plan.find(values["name"], "full"))
        assert plan.select(study, plan.plan(study), values["arms"], values["seeds"])
    elif words[1] == "evaluate" and values["suite"]:
        suite = suites.load(values["suite"])
        specs = suites.specs(suite, values["datasets"], values["roots"], values["options"], values["protocol"])
        assert specs and all(spec.root for spec in specs)


def test_hours_are_those_of_the_count() -> None:
    """A row's hours are the sum over what its commands train, as benchmarks/speed/recipes.md has them."""
    page = (ROOT / "benchmarks/speed/recipes.md").read_text(encoding="utf-8")
    counted = {
        name: int(hours)
        for name, hours in re.findall(r"^\| ((?:paper|studies)/\w+) \|.*?\| (\d+) \|(?: \d+ \|)?$", page, re.M)
    }
    assert len(counted) > 40
    for row in ROWS:
        trained = [name for name in re.findall(r"(?:train|--recipe) (paper/\w+)", row[2]) if name in counted]
        trained += [f"studies/{name}" for name in re.findall(r"genpercept study (\w+)", row[2])]
        if trained:
            assert row[3].startswith(f"{sum(counted[name] for name in trained):,} GPU h"), row[0]
