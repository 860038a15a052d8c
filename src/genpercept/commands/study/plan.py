"""A study, written down: one recipe, the settings in which each arm differs from it, and how the arms are compared.

A run is an arm with a number of labels and a seed. `main` trains and measures every run and writes NAME.md, NAME.json and
NAME.png; what is finished is not done again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from genpercept.commands import terminal
from genpercept.commands.evaluate import suites
from genpercept.commands.study import execute, report
from genpercept.commands.study.execute import Job
from genpercept.commands.study.measure import HeldOut, Inference, check_tests
from genpercept.commands.study.shipped import Scale, find
from genpercept.core import locks, said
from genpercept.core.names import choose
from genpercept.metrics import METRICS
from genpercept.models.paradigms import PARADIGMS
from genpercept.tasks import TASKS
from genpercept.training import recipe as recipes
from genpercept.training import recipe_names
from genpercept.training.recipe import Recipe, Section


class Arm(Section):
    name: str = Field(min_length=1)
    base: Path = Path()  # a recipe of its own: a file, from the study's folder, or a name; default: the study's
    set: dict[str, Any] = Field(default_factory=dict)  # "a.b" -> value, as --set has them
    labels: tuple[int, ...] = ()  # numbers of labels it is run with; default: the study's
    inference: tuple[Inference, ...] = Field(default=(Inference(),), min_length=1)
    cost: float = Field(default=1.0, gt=0)  # time per training image, relative to an arm of 1; for the estimate only

    @model_validator(mode="after")
    def _distinct(self) -> Arm:
        _all_different([way.title for way in self.inference], f"arm {self.name!r}: two inferences are called")
        return self


class Rates(Section):
    """For --dry-run's estimate of the time, on the machine the study is meant for."""

    images: float = Field(default=0.0, ge=0)  # training images/s of an arm of cost 1; 0: unknown
    passes: float = Field(default=0.0, ge=0)  # calls of the denoiser per second when measuring, images one by one


class Suite(Section):
    """Sets of a suite of `genpercept evaluate` as tests, with the splits, options and protocols that it says.

    A study has it as a table, as the suite's name alone, or as a .toml file beside it that other studies share.
    """

    name: str
    sets: tuple[str, ...] = ()  # ids or data sets; default: all
    root: Path = Path("data")  # has a folder for each data set
    roots: dict[str, Path] = Field(default_factory=dict)  # id or data set -> another folder
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)  # id or data set -> options beside the suite's


class Study(Section):
    """A study's TOML file."""

    name: str
    about: str = ""  # a paragraph for the report
    base: Path  # a recipe: a file, from the study's folder, or one of the package's by its name
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    set: dict[str, Any] = Field(default_factory=dict)  # for all arms
    labels: tuple[int, ...] = ()  # numbers of labels (data.0.count); none: as the recipe has it
    arm: tuple[Arm, ...] = Field(min_length=1)
    reference: str = ""  # arm that the others are compared with, in its first inference; default: the first
    # figures of the task's metric, the first of which is drawn; default: the first two of its table
    metrics: tuple[str, ...] = ()
    test: tuple[HeldOut, ...] = ()
    suite: Suite | None = None  # its sets come before those of test
    keep_models: bool = True  # False: they are removed once they are measured
    rates: Rates = Rates()

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        names = [arm.name for arm in self.arm]
        _all_different(names, "arm: two arms are called")
        _all_different([slug(name) for name in names], "arm: two arms have the folder name")
        _all_different([data.label for data in self.test], "test: two sets are called")
        if self.reference and self.reference not in names:
            raise ValueError(f"reference: {self.reference!r} is no arm; choose from {', '.join(names)}")
        if any(count < 1 for count in (*self.labels, *(n for arm in self.arm for n in arm.labels))):
            raise ValueError("labels: must be at least 1")
        return self

    @property
    def reference_arm(self) -> str:
        return self.reference or self.arm[0].name


def _all_different(names: Sequence[str], what: str) -> None:
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{what} {', '.join(repeated)}")


def main(
    name: str,
    out: Path,
    scale: Scale = "mini",
    resume: bool = False,
    arms: str = "",
    seeds: str = "",
    overrides: Sequence[str] = (),
    at_once: int = 1,
    dry_run: bool = False,
) -> int:
    """Run the study called `name` (or in that file) into folder `out`. Exit status: 0 done, 1 some runs failed, 2 all did;
    of a dry run 3 where this machine lacks something.

    arms, seeds: comma-separated, those to run now; default: all. overrides: `key=value` for the recipe of every arm, or
    `study.key=value` for the study itself. at_once: runs side by side. ValueError for settings that cannot be run, and
    for a folder with runs of other settings.
    """
    study = load(find(name, scale), overrides)
    jobs = plan(study, [text for text in overrides if not text.startswith(_OWN)])
    chosen = select(study, jobs, arms, seeds)
    if not study.test:
        raise ValueError(
            f"study {study.name!r}: names no [suite] and no [[test]] sets, so there is nothing to measure the arms on"
        )
    check_tests(study.test, {job.recipe.task for job in jobs}, study.metrics)
    if dry_run:
        planned = execute.summary(chosen, study.rates.images, study.rates.passes, at_once, out)
        said.result(
            {"runs": [job.folder for job in chosen], "plan": str(planned).splitlines(), "exit_code": planned.code}
        )
        print(planned)
        return planned.code
    metric = TASKS.find(jobs[0].recipe.task).metric
    with locks.own(out, "study"):
        execute.claim(out, jobs, resume)
        failed = execute.execute(out, chosen, at_once, study.rates.images, study.rates.passes)
        settings = study.model_dump(mode="json", exclude={"arm", "base", "rates", "suite"})
        result = report.collect(out, jobs, settings | {"reference": study.reference_arm}, failed)
        try:
            written = report.write(out, result, metric)
        except OSError as error:
            raise ValueError(
                f"{out}: the report could not be written ({error.strerror}); all runs are as they are: --resume writes it"
            ) from None
    code = 0 if not failed else 1 if len(failed) < len(chosen) else 2
    said.result(result | {"written": [str(path) for path in written], "exit_code": code})
    terminal.show(*report.tables(result, metric))
    print()
    for path in written:
        print(path)
    return code


# ---- reading ---------------------------------------------------------------------------------------------------------

_OWN = "study."  # how an override of the study's own keys begins


def load(path: Path, overrides: Sequence[str] = ()) -> Study:
    """The study in a TOML file, its bases made absolute, its suite's sets among its tests. Of the overrides those of the
    study's own keys count.

    ValueError in one line names file and key.
    """
    table = recipes.read_table(path)
    if isinstance(suite := table.get("suite"), str):
        table["suite"] = recipes.read_table(path.parent / suite) if suite.endswith(".toml") else {"name": suite}
    for text in overrides:
        if text.startswith(_OWN):
            recipes.override(table, text.removeprefix(_OWN))
    study = recipes.validate(Study, table, str(path))
    arms = tuple(arm.model_copy(update={"base": _placed(path, study, arm)}) for arm in study.arm)
    study = study.model_copy(update={"base": _base(path, study.base), "arm": arms})
    if study.suite:
        study = study.model_copy(update={"test": (*_sets(study, study.suite), *study.test)})
        _all_different([data.label for data in study.test], f"{path}: test: two sets are called")
    return study if study.metrics else study.model_copy(update={"metrics": _first_figures(study)})


def _placed(path: Path, study: Study, arm: Arm) -> Path:
    return _base(path, study.base if arm.base == Path() else arm.base)


def _base(path: Path, base: Path) -> Path:
    try:
        return recipe_names.find(base, path.parent).resolve()
    except ValueError as error:
        raise ValueError(f"{path}: base: {error}") from None


def _sets(study: Study, suite: Suite) -> list[HeldOut]:
    """The suite's sets, as tests. ValueError for a suite, or sets of it, that there are not."""
    chosen = suites.load(suite.name)
    choose(f"task of suite {suite.name!r}", _task(study), chosen.tasks)
    called = [name for part in chosen.set for name in (part.id, part.dataset)]
    for name in (*suite.options, *suite.roots):
        choose(f"set of suite {suite.name!r}", name, called)
    options = [f"{name}.{key}={toml(value)}" for name, table in suite.options.items() for key, value in table.items()]
    roots = [str(suite.root), *(f"{name}={root}" for name, root in suite.roots.items())]
    return [
        HeldOut(
            name=spec.dataset,
            title=spec.title,
            root=spec.root,
            split=spec.split or "",
            protocol=spec.protocol or "",
            options=dict(spec.options),
        )
        for spec in suites.specs(chosen, suite.sets, roots, options, None)
    ]


def _task(study: Study) -> str:
    return study.set.get("task") or recipes.read_table(study.base).get("task") or Recipe.model_fields["task"].default


def _first_figures(study: Study) -> tuple[str, ...]:
    """Two figures that the metric of the recipe's task declares. ValueError where it declares none."""
    plugin = METRICS.find(TASKS.find(_task(study)).metric)
    if not plugin.columns:
        raise ValueError(f"study {study.name!r}: metric {plugin.name!r} declares no columns; say metrics = [...]")
    return tuple(column.key for column in plugin.columns[:2])


def arms(study: Study) -> dict[str, Recipe]:
    """The recipe of each arm, by its name, with the first seed. ValueError names the arm whose settings do not fit."""
    return {arm.name: _recipe(study, arm, settings(study, arm, study.seeds[0])) for arm in study.arm}


def settings(study: Study, arm: Arm, seed: int, labels: int | None = None) -> dict[str, Any]:
    """What a run sets in the base recipe, "a.b" -> value, in this order."""
    counts = {} if labels is None else {"data.0.count": labels}
    return {"seed": seed, **study.set, **arm.set, **counts}


def _recipe(study: Study, arm: Arm, values: dict[str, Any]) -> Recipe:
    source = f"study {study.name!r}, arm {arm.name!r}"
    table = recipes.read_table(arm.base)
    for key, value in values.items():
        recipes.assign(table, key, value, source)
    return recipes.parse(table, source)


# ---- the runs --------------------------------------------------------------------------------------------------------


def plan(study: Study, overrides: Sequence[str] = ()) -> list[Job]:
    """Every run: by number of labels as the study lists them, then by arm, then by seed. ValueError names a wrong arm."""
    arms(study)
    counts: tuple[int | None, ...] = study.labels or (None,)
    found: list[Job] = []
    for count in counts:
        for arm in study.arm:
            if arm.labels and count not in arm.labels:
                continue
            found += [_job(study, arm, seed, count, overrides) for seed in study.seeds]
    if missing := [arm.name for arm in study.arm if not any(job.arm == arm.name for job in found)]:
        raise ValueError(f"study {study.name!r}: {', '.join(missing)}: none of its labels is among the study's")
    return found


def _job(study: Study, arm: Arm, seed: int, labels: int | None, overrides: Sequence[str]) -> Job:
    sets = [f"{key}={toml(value)}" for key, value in settings(study, arm, seed, labels).items()]
    sets += overrides
    settled = recipes.load(arm.base, sets)
    paradigm = PARADIGMS.find(settled.paradigm).with_options(**settled.paradigm_options)
    for way in arm.inference:
        changed = paradigm.with_options(**way.options)
        changed.check_steps(way.steps or changed.default_steps)
        if way.ensemble_size > 1 and not changed.stochastic:
            raise ValueError(
                f"arm {arm.name!r}: an ensemble of {way.ensemble_size}, but {paradigm.name} draws no noise"
            )
    parts = (slug(arm.name), *([] if labels is None else [f"{labels}-labels"]), f"seed-{seed}")
    return Job(
        folder="_".join(parts),
        arm=arm.name,
        labels=labels,
        seed=seed,
        base=arm.base,
        overrides=tuple(sets),
        recipe=settled,
        inference=arm.inference,
        default_steps=paradigm.default_steps,
        test=study.test,
        metrics=study.metrics,
        keep_models=study.keep_models,
        cost=arm.cost,
    )


def select(study: Study, jobs: Sequence[Job], arms: str, seeds: str) -> list[Job]:
    """The jobs of some arms and seeds, given with commas between them. An arm goes by its name or by its folder's."""
    names = {key: arm.name for arm in study.arm for key in (arm.name, slug(arm.name))}
    wanted = [arms] if arms in names else [text.strip() for text in arms.split(",") if text.strip()]
    if unknown := [text for text in wanted if text not in names]:
        known = ", ".join(slug(arm.name) for arm in study.arm)
        raise ValueError(f"--arms: no arm {', '.join(unknown)}; there are {known}")
    numbers = [text.strip() for text in seeds.split(",") if text.strip()]
    if unknown := [text for text in numbers if text not in map(str, study.seeds)]:
        raise ValueError(
            f"--seeds: the study has no seed {', '.join(unknown)}, only {', '.join(map(str, study.seeds))}"
        )
    chosen = {names[text] for text in wanted}
    return [j for j in jobs if (not chosen or j.arm in chosen) and (not numbers or str(j.seed) in numbers)]


def slug(name: str) -> str:
    """A name as part of a folder's: `RGB blending (1, 1)` -> `rgb-blending-1-1`."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")


def toml(value: Any) -> str:
    """A value as TOML, on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    return json.dumps(value)
