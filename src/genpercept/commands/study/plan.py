"""A study, written down: one recipe, the settings in which each arm differs from it, and how the arms are compared.

A run is an arm with a number of labels and a seed. `main` pretrains what arms start from, trains and measures every run and
writes NAME.md, NAME.json and NAME.png; what is finished is not done again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from genpercept.commands import terminal
from genpercept.commands.evaluate import suites
from genpercept.commands.study import execute, folders, page, report, shape
from genpercept.commands.study.execute import Job
from genpercept.commands.study.folders import Given
from genpercept.commands.study.measure import Test, check_tests
from genpercept.commands.study.schema import Arm, Piece, Pretraining, Study, Suite, all_different, slug
from genpercept.commands.study.shipped import Scale, find
from genpercept.core import locks, said
from genpercept.core.names import choose
from genpercept.metrics import METRICS
from genpercept.models.paradigms import PARADIGMS
from genpercept.tasks import TASKS
from genpercept.training import recipe as recipes
from genpercept.training import recipe_names
from genpercept.training.recipe import Recipe


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
    given: Given = MappingProxyType({}),
) -> int:
    """Run the study called `name` (or in that file) into folder `out`. Exit status: 0 done, 1 some runs failed, 2 all did;
    of a dry run 3 where this machine lacks something.

    arms, seeds: comma-separated, those to run now; default: all. overrides: `key=value` for the recipe of every arm, or
    `study.key=value` for the study itself. at_once: runs side by side. given: the folders of `schema.FOLDERS` that there are.
    ValueError for settings that cannot be run, and for a folder with runs of other settings.
    """
    study, left_out = folders.place(load(find(name, scale), overrides), given)
    pieces, own = _pieces(study), [text for text in overrides if not text.startswith(_OWN)]
    bases = pretrainings(study, own)
    planned = [(piece, plan(piece.study, own, out, piece.title)) for piece in pieces]
    every = [job for _, jobs in planned for job in jobs]
    chosen = select(study, every, arms, seeds)
    folders.require(study, {job.arm for job in chosen})
    for piece, jobs in planned:
        _check(piece.study, jobs)
    first = [base for base in bases if base.folder in {job.pretrained for job in chosen}]
    for line in left_out:
        said.say(line)
    if dry_run:
        summary = execute.summary([*first, *chosen], study.rates.images, study.rates.passes, at_once, out)
        runs = [job.folder for job in (*first, *chosen)]
        said.result({"runs": runs, "plan": str(summary).splitlines(), "exit_code": summary.code})
        print(summary)
        return summary.code
    with locks.own(out, "study"):
        execute.claim(out, [*bases, *every], resume)
        failed = execute.in_order(out, first, chosen, at_once, study.rates.images, study.rates.passes)
        document = report.document(out, study, planned, bases, failed, left_out)
        try:
            written = page.write(out, document)
        except OSError as error:
            raise ValueError(
                f"{out}: the report could not be written ({error.strerror}); all runs are as they are: --resume writes it"
            ) from None
    code = 0 if not failed else 1 if any(job.folder not in failed for job in chosen) else 2
    said.result(document | {"written": [str(path) for path in written], "exit_code": code})
    terminal.show(*page.tables(document))
    print()
    for path in written:
        print(path)
    return code


def _pieces(study: Study) -> list[Piece]:
    """The parts, each with its metrics: without, two of its task's."""
    with_metrics = [(piece, piece.study.metrics or _first_figures(piece.study)) for piece in study.pieces()]
    return [Piece(p.title, p.study.model_copy(update={"metrics": metrics})) for p, metrics in with_metrics]


def _check(study: Study, jobs: Sequence[Job]) -> None:
    """ValueError for a study, or a part of one, that could not be scored."""
    if not study.test:
        raise ValueError(
            f"study {study.name!r}: names no [suite] and no [[test]] sets, so there is nothing to measure the arms on"
        )
    check_tests(study.test, {job.recipe.task for job in jobs}, study.metrics)


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
    bases = tuple(base.model_copy(update={"base": _base(path, base.base)}) for base in study.pretraining)
    study = study.model_copy(update={"base": _base(path, study.base), "arm": arms, "pretraining": bases})
    if study.suite:
        study = study.model_copy(update={"test": (*_sets(study, study.suite), *study.test)})
        all_different([data.label for data in study.test], f"{path}: test: two sets are called")
    return study if study.metrics or study.part else study.model_copy(update={"metrics": _first_figures(study)})


def _placed(path: Path, study: Study, arm: Arm) -> Path:
    return _base(path, study.base if arm.base == Path() else arm.base)


def _base(path: Path, base: Path) -> Path:
    try:
        return recipe_names.find(base, path.parent).resolve()
    except ValueError as error:
        raise ValueError(f"{path}: base: {error}") from None


def _sets(study: Study, suite: Suite) -> list[Test]:
    """The suite's sets, as tests. ValueError for a suite, or sets of it, that there are not."""
    chosen = suites.load(suite.name)
    choose(f"task of suite {suite.name!r}", _task(study), chosen.tasks)
    called = [name for part in chosen.set for name in (part.id, part.dataset)]
    for name in (*suite.options, *suite.roots):
        choose(f"set of suite {suite.name!r}", name, called)
    options = [f"{name}.{key}={toml(value)}" for name, table in suite.options.items() for key, value in table.items()]
    roots = [str(suite.root), *(f"{name}={root}" for name, root in suite.roots.items())]
    return [
        Test(
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
    return {
        arm.name: _recipe(study, f"arm {arm.name!r}", arm.base, settings(study, arm, study.seeds[0]))
        for arm in study.arm
    }


def settings(study: Study, arm: Arm, seed: int, labels: int | None = None, out: Path = Path()) -> dict[str, Any]:
    """What a run sets in the base recipe, "a.b" -> value, in this order. out: the study's folder, where it makes bases."""
    start = {"model.base": str(_model(out, arm.pretrained))} if arm.pretrained else {}
    counts = {} if labels is None else {**study.with_labels.get(labels, {}), "data.0.count": labels}
    return {"seed": seed, **shape.of_arm(study.shape), **study.set, **start, **arm.set, **counts}


def _model(out: Path, pretraining: str) -> Path:
    """Where the study puts the model of a base that it makes."""
    return out.absolute() / _folder(pretraining) / "model"


def _folder(pretraining: str) -> str:
    return f"pretraining_{slug(pretraining)}"


def _recipe(study: Study, what: str, base: Path, values: dict[str, Any]) -> Recipe:
    source = f"study {study.name!r}, {what}"
    table = recipes.read_table(base)
    for key, value in values.items():
        recipes.assign(table, key, value, source)
    return recipes.parse(table, source)


# ---- the runs --------------------------------------------------------------------------------------------------------


def pretrainings(study: Study, overrides: Sequence[str] = ()) -> list[Job]:
    """The runs that make bases, in the study's order. ValueError names one whose settings do not fit.

    overrides: those of the arms' recipes, of which these runs heed what leaves the result as it is.
    """
    return [
        _pretraining(study, base, [text for text in overrides if execute.incidental(text)])
        for base in study.pretraining
    ]


def _pretraining(study: Study, base: Pretraining, overrides: Sequence[str]) -> Job:
    """Every one begins at the same random weights: those of the study's first seed."""
    data = {"data": [base.data.model_dump(mode="json", exclude_defaults=True)]} if base.data else {}
    values = {"seed": study.seeds[0], **shape.of_pretraining(study.shape), **data, **base.set}
    sets = [*(f"{key}={toml(value)}" for key, value in values.items()), *overrides]
    _recipe(study, f"pretraining {base.name!r}", base.base, values)  # whose errors name it
    recipe = recipes.load(base.base, sets)
    if recipe.stage != "denoiser":
        raise ValueError(
            f"study {study.name!r}, pretraining {base.name!r}: {base.base} is a recipe of stage {recipe.stage!r}; name one of "
            "stage 'denoiser'"
        )
    return Job(
        folder=_folder(base.name),
        arm=base.name,
        labels=None,
        seed=recipe.seed,
        base=base.base,
        overrides=tuple(sets),
        recipe=recipe,
        kind="untrained" if base.untrained else "pretraining",
        cost=base.cost,
    )


def plan(study: Study, overrides: Sequence[str] = (), out: Path = Path(), title: str = "") -> list[Job]:
    """Every run: by number of labels as the study lists them, then by arm, then by seed. ValueError names a wrong arm.

    out: the study's folder. title: of the part that this study is of another.
    """
    arms(study)
    counts: tuple[int | None, ...] = study.labels or (None,)
    found: list[Job] = []
    for count in counts:
        for arm in study.arm:
            if arm.labels and count not in arm.labels:
                continue
            found += [_job(study, arm, seed, count, overrides, out, title) for seed in study.seeds]
    if missing := [arm.name for arm in study.arm if not any(job.arm == arm.name for job in found)]:
        raise ValueError(f"study {study.name!r}: {', '.join(missing)}: none of its labels is among the study's")
    return found


def _job(study: Study, arm: Arm, seed: int, labels: int | None, overrides: Sequence[str], out: Path, title: str) -> Job:
    sets = [f"{key}={toml(value)}" for key, value in settings(study, arm, seed, labels, out).items()]
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
    count = [] if labels is None else [f"{labels}-labels"]
    parts = (*([slug(title)] if title else []), slug(arm.name), *count, f"seed-{seed}")
    return Job(
        folder="_".join(parts),
        arm=arm.name,
        labels=labels,
        seed=seed,
        base=arm.base,
        overrides=tuple(sets),
        recipe=settled,
        part=title,
        pretrained=_folder(arm.pretrained) if arm.pretrained else "",
        stand_in=study.shape.base if study.shape else "",
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


def toml(value: Any) -> str:
    """A value as TOML, on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    return json.dumps(value)
