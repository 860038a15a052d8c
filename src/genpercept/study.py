"""A sweep, written down: one recipe and the settings in which each arm differs from it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from genpercept import recipe as recipes
from genpercept.recipe import Recipe, Section


class Arm(Section):
    name: str = Field(min_length=1)
    set: dict[str, Any] = Field(default_factory=dict)  # "a.b" -> value, as --set has them


class Study(Section):
    """A TOML file of `recipes/studies/`."""

    name: str
    base: Path  # a recipe, relative to the study's file
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    set: dict[str, Any] = Field(default_factory=dict)  # for all arms
    arm: tuple[Arm, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> Study:
        names = [arm.name for arm in self.arm]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"arm: two arms are called {', '.join(repeated)}")
        return self


def load(path: Path) -> Study:
    """The study in a TOML file, its base made absolute. ValueError in one line names file and key."""
    study = recipes.validate(Study, recipes.read_table(path), str(path))
    return study.model_copy(update={"base": (path.parent / study.base).resolve()})


def arms(study: Study) -> dict[str, Recipe]:
    """The recipe of each arm, by its name, with the first seed. ValueError names the arm whose settings do not fit."""
    base = recipes.read_table(study.base)
    found: dict[str, Recipe] = {}
    for arm in study.arm:
        source = f"study {study.name!r}, arm {arm.name!r}"
        table = copy.deepcopy(base)
        for key, value in {"seed": study.seeds[0], **study.set, **arm.set}.items():
            recipes.assign(table, key, value, source)
        found[arm.name] = recipes.parse(table, source)
    return found
