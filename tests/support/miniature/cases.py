"""What really runs: each recipe, and each arm of each study, with the few keys that a miniature replaces.

`genpercept` is whichever version is imported; the recipes are those of a folder, so that one version's can be run with another.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genpercept.commands.study import plan
from genpercept.training import recipe as recipes
from genpercept.training.recipe import Loader, Recipe
from tests.support.miniature.world import STAND_INS

STEPS, EVERY = 3, 2  # a run, and its validations and checkpoints
EDGE, PATCHES = 64, {"dinov2": 14, "clip": 14}  # of training images; whole patches fill them
WIDTHS = {"dpt": "fusion_hidden_size", "upernet": "hidden_size"}  # of heads
_SCENES, _FILES = 24, 4
_RUN = re.compile(r"runs/(.+)/model")
REPLACED = {
    "model.base": "a published base: its stand-in of random weights in the same layout",
    "steps": f"{STEPS}",
    "validation.every": f"{EVERY}",
    "validation.count": f"2; {_SCENES} where only scenes with some label count",
    "checkpoint.every": f"{EVERY}",
    "checkpoint.keep": "at least 2, so that a run can be taken up in its middle",
    "loader.batch_size": "at most 4",
    "optim.accumulation": "at most 2",
    "data.N.count": f"at most {_SCENES} scenes or {_FILES} files, where the recipe has a count",
    "resolution": f"at most {EDGE}",
    "augment.sizes": f"edges above 128 shrunk to {EDGE}, in whole strides or patches",
    "data.N.sizes": "the same",
    "task_options.height": "pose: as augment.sizes",
    "task_options.width": "pose: as augment.sizes",
    "model.head_config.fusion_hidden_size": "dpt: at most 32",
    "model.head_config.hidden_size": "upernet: at most 32",
    "model.codec_config": "an autoencoder of the paper's size: widths of 8 and 16",
    "study.test.N.count": "at most 4, where the study has a count",
    "seed": "a study's first alone",
}


@dataclass(frozen=True)
class Case:
    """`name` is its recipe's (paper/depth), or that of the study and the arm. `overrides` are the arm's own."""

    name: str
    recipe: Path
    overrides: tuple[str, ...] = ()
    study: Path | None = None
    arm: str = ""
    folder: str = ""  # of the arm's first seed in the study's

    @property
    def slug(self) -> str:
        return re.sub(r"[^A-Za-z0-9_./]+", "-", self.name).strip("-")


def cases(root: Path) -> Iterator[Case | tuple[str, str]]:
    """All of a folder `recipes`; (name, error) for a study that cannot be read, once for each of its arms."""
    for kind in ("paper", "distil", "mini"):
        for path in sorted((root / kind).glob("*.toml")):
            yield Case(f"{kind}/{path.stem}", path)
    for path in (*sorted((root / "studies").glob("*.toml")), *sorted((root / "studies" / "mini").glob("*.toml"))):
        yield from _arms(path, path.relative_to(root).with_suffix("").as_posix())


def _arms(path: Path, name: str) -> Iterator[Case | tuple[str, str]]:
    try:
        study = plan.load(path)
        jobs = plan.plan(study)
    except ValueError as error:
        for arm in recipes.read_table(path).get("arm", []):
            yield f"{name}: {arm.get('name')}", str(error)
        return
    seen: set[str] = set()
    for job in jobs:
        if job.arm not in seen:
            seen.add(job.arm)
            arm = f"{name}: {job.arm}"
            yield Case(arm, job.base, job.overrides, path, plan.slug(job.arm), job.folder)


def needs(case: Case, names: Sequence[str]) -> list[str]:
    """The recipes whose models this one starts from, of `names`: runs/paper/depth, or runs/depth in its own folder."""
    recipe = recipes.load(case.recipe, case.overrides)
    found = []
    for text in (recipe.model.base, recipe.model.codec):
        if match := _RUN.search(text):
            run, kind = match[1], case.recipe.parent.name
            tries = (run, f"{kind}/{run}", f"{kind}/{run.rstrip('0123456789')}", f"paper/{run}", f"mini/{run}")
            found.append(next((name for name in tries if name in names), run))
    return found


def run_of(text: str) -> str | None:
    """ "runs/depth" of "runs/depth/model"."""
    match = _RUN.search(text)
    return None if match is None else f"runs/{match[1]}"


def shrunk(case: Case, bases: Path) -> list[str]:
    """The `key=value` of REPLACED that this case needs, after its own overrides."""
    recipe = recipes.load(case.recipe, case.overrides)
    stand_in = STAND_INS.get(recipe.model.base)
    patch = PATCHES.get(stand_in or "", 16 if stand_in == "pixart" else 8)
    found: dict[str, Any] = {
        "steps": STEPS,
        "validation.every": EVERY,
        "validation.count": _SCENES if recipe.data[0].having else 2,
        "checkpoint.every": EVERY,
    }
    if stand_in:
        found["model.base"] = str(bases / stand_in)
    if recipe.checkpoint.keep < 2:
        found["checkpoint.keep"] = 2
    if recipe.resolution > EDGE:
        found["resolution"] = EDGE // patch * patch
    if large := _smaller(recipe.augment.sizes, patch):
        found["augment.sizes"] = large
    for key in ("height", "width"):
        if key in recipe.task_options and large:
            found[f"task_options.{key}"] = found["augment.sizes"][0][key == "width"]
    if key := WIDTHS.get(recipe.model.head):
        found[f"model.head_config.{key}"] = min(32, recipe.model.head_config.get(key, 32))
    found |= _batch(recipe)
    if recipe.stage == "autoencoder" and max(recipe.model.codec_config.get("block_out_channels", [0])) > 128:
        depth = len(recipe.model.codec_config["block_out_channels"])
        found["model.codec_config.block_out_channels"] = [8, *[16] * (depth - 1)]
        found["model.codec_config.norm_num_groups"] = 8
    for number, data in enumerate(recipe.data):
        if large := _smaller(data.sizes, patch):
            found[f"data.{number}.sizes"] = large
        most = _SCENES if data.root is None else _FILES
        if data.count > most:
            found[f"data.{number}.count"] = most
    return [f"{key}={json.dumps(value)}" for key, value in found.items()]


def _batch(recipe: Recipe) -> dict[str, int]:
    """At most 4 samples a step. Recipes of before `loader.micro_batch` name a part of it, of which there are at most 2."""
    if "micro_batch" in Loader.model_fields:
        return {"loader.batch_size": min(recipe.loader.batch_size, 4)}
    return {
        "loader.batch_size": min(recipe.loader.batch_size, 2 if recipe.optim.accumulation > 1 else 4),
        "optim.accumulation": min(recipe.optim.accumulation, 2),
    }


def _smaller(sizes: Sequence[Sequence[int]], patch: int) -> list[list[int]]:
    """Sizes with EDGE as the longest edge; none where all of them are small already."""
    if max((max(size) for size in sizes), default=0) <= 128:
        return []
    return [[max(1, round(e * EDGE / max(size) / patch)) * patch for e in size] for size in sizes]


def of_study(case: Case, replaced: Sequence[str]) -> list[str]:
    """The `key=value` for `genpercept study --arms` that make its run this case's: the same keys, one seed, few test images."""
    assert case.study is not None
    study = plan.load(case.study)
    tests = enumerate(study.test)
    few = [f"study.test.{number}.count=4" for number, held in tests if held.count > 4]
    return [*replaced, f"study.seeds=[{study.seeds[0]}]", *few]


def measure(study: Path, arm: str, folder: Path, overrides: Sequence[str]) -> int:
    """What the process of a study's run does, in this one: trains, unless there is a model, and measures. Its exit code."""
    from genpercept.commands.study import job as jobs

    own = [text for text in overrides if not text.startswith("study.")]
    planned = plan.load(study, overrides)
    job = next(job for job in plan.plan(planned, own) if plan.slug(job.arm) == arm and job.folder == folder.name)
    (folder / jobs.JOB).write_text(json.dumps(job.content()))
    return jobs.main(folder)
