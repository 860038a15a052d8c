"""Each category of a data set in turn: train, set thresholds on good images, measure. DIR/fit.json says what came out.

Its `categories` say which model is whose, for `predict` and `evaluate`; its `results` what each of them reaches.

A category's thresholds go into its model, where every prediction reads them; the held-out good images that they are set on
are neither trained on nor measured on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from genpercept.commands import terminal
from genpercept.commands.files.fitted import FIT
from genpercept.commands.files.results import prepare_folder
from genpercept.commands.fit.table import table
from genpercept.core import files
from genpercept.core.devices import pick_device
from genpercept.core.names import choose
from genpercept.core.said import result, say
from genpercept.core.values import Sample
from genpercept.data import DATASETS, Dataset
from genpercept.imaging.prediction import Prediction
from genpercept.imaging.read import shown
from genpercept.metrics import METRICS
from genpercept.pipeline import loading, manifest
from genpercept.tasks import TASKS, JudgingTask
from genpercept.training import recipe as recipes

SET = "mvtec_ad"
_CHUNK = 16  # images handed to the pipeline at once


@dataclass(frozen=True)
class Settings:
    """What decides the results."""

    root: str
    recipe: str
    overrides: tuple[str, ...]
    held_out: float
    image_rate: float
    pixel_rate: float


def main(
    root: Path,
    out: Path,
    categories: Sequence[str] = (),
    *,
    recipe: str | None = None,
    base: str | None = None,
    overrides: Sequence[str] = (),
    held_out: float = 0.1,
    image_rate: float = 0.05,
    pixel_rate: float = 0.01,
    resume: bool = False,
    device: str = "auto",
    batch_size: int = 1,
) -> int:
    """Fit `categories` (none: all in `root`) into `out`, print the figures. Returns the exit status.

    ValueError before anything is trained for a recipe, a category or a folder that is wrong, and for an `out` that has
    results of other settings.
    """
    root = root.expanduser()
    names = _chosen(root, categories, held_out)
    path = recipe or _usual(base)
    sets = [*([f"model.base={base}"] if base else []), *overrides]
    if wrong := next((text for text in sets if text.partition("=")[0].strip().split(".")[0] == "data"), None):
        raise ValueError(f"--set {wrong}: the data of every category are set here; choose them by --root, --categories")
    settings = Settings(str(root.absolute()), str(path), tuple(sets), held_out, image_rate, pixel_rate)
    task = TASKS.find(recipes.load(path, _overrides(settings, names[0])).task)  # says what is wrong with the recipe
    if not isinstance(task, JudgingTask):
        raise ValueError(f"{path}: trains {task.name}, which judges no images: give a recipe of a task that does")
    results = _claim(out, settings, resume)
    for name in names:
        if name in results["results"]:
            say(f"{name}: done before")
            continue
        if code := _train(out / name, settings, name):
            return code
        results["results"][name] = _measured(out / name / "model", settings, name, pick_device(device), batch_size)
        results["categories"][name] = f"{name}/model"
        _write(out, results)
    result(results)
    terminal.show(table(results, METRICS.find(task.metric).columns))
    click.echo(f"{shown(out / FIT)}: thresholds and figures; {shown(out)}/CATEGORY/model: the models")
    return 0


# ---- before ----------------------------------------------------------------------------------------------------------


def _chosen(root: Path, categories: Sequence[str], held_out: float) -> list[str]:
    """The categories, each with images to train on, to set thresholds on, and to measure on."""
    there = list(dict.fromkeys(entry.category for entry in DATASETS.find(SET).index(root, "train")))
    names = [choose(f"category of {shown(root)}", name, there) for name in categories] or there
    for name in names:
        for split in ("train", "val", "test"):
            if not _data(name, held_out).index(root, split):
                raise ValueError(
                    f"{shown(root)}: category {name} has no image of split {split}; add some, or leave it out"
                )
    return names


def _usual(base: str | None) -> str:
    """The package's recipe: for an embedded base the small one."""
    return f"{'mini' if base and base.startswith('mini/') else 'paper'}/anomaly"


def _data(category: str, held_out: float) -> Dataset:
    return DATASETS.find(SET).with_options(category=category, held_out=held_out)


def _overrides(settings: Settings, category: str) -> list[str]:
    """The recipe's data and validation are those of the category; what the user sets comes after."""
    options = f"options = {{ category = {json.dumps(category)}, held_out = {settings.held_out} }}"
    data = f'data=[{{ name = "{SET}", root = {json.dumps(settings.root)}, split = "train", {options} }}]'
    return [data, "validation.split=val", "validation.every=0", *settings.overrides]


def _claim(out: Path, settings: Settings, resume: bool) -> dict[str, Any]:
    """Make `out` the folder of these settings; what it holds already. ValueError where it holds something else."""
    path = out / FIT
    fresh = json.loads(files.to_json({"settings": asdict(settings), "categories": {}, "results": {}, "mean": {}}))
    if path.is_file() and any(out.glob("*/recipe.json")):  # something was begun
        if not resume:
            raise ValueError(f"{shown(path)}: is there already: go on with --resume, or choose another --out")
        known, new = files.read_json(path), fresh["settings"]
        if changed := sorted(key for key in new if known["settings"].get(key) != new[key]):
            raise ValueError(f"{shown(path)}: of other settings ({', '.join(changed)}): choose another --out")
        return known
    prepare_folder(out)
    files.write_json(path, fresh)
    return fresh


# ---- one category ----------------------------------------------------------------------------------------------------


def _train(out: Path, settings: Settings, category: str) -> int:
    """The exit status of the training; 0 where the model is there."""
    if (out / "model").is_dir():
        return 0
    from genpercept.training.loop import main as train

    say(f"{category}: training in {shown(out)}")
    return train(settings.recipe, _overrides(settings, category), out, resume=(out / "checkpoints").is_dir())


def _measured(model: Path, settings: Settings, category: str, device: str, batch_size: int) -> dict[str, Any]:
    """Thresholds from the held-out good images into the model, and its figures on the test images."""
    data, root = _data(category, settings.held_out), Path(settings.root)
    pipe = loading.load(str(model), device=device)
    task: Any = pipe.task_plugin  # a JudgingTask: `main` has looked
    good = [prediction for _, prediction in _predictions(pipe, data, root, "val", batch_size)]
    fitted = task.fitted(good, settings.image_rate, settings.pixel_rate)
    manifest.set_task_options(model, **fitted.options)
    metric = METRICS.find(task.metric)(**task.metric_options())
    verdicts: dict[bool, list[bool]] = {False: [], True: []}
    for sample, prediction in _predictions(pipe, data, root, "test", batch_size):
        truth = task.truth(sample)
        metric.update(prediction, **truth, name=sample.name)
        verdicts[bool(truth["gt"].any())].append(fitted.judge(prediction)["anomalous"])
    return {
        "thresholds": {key: fitted.options[key] for key in fitted.verdict},
        "held_out_images": len(good),
        "test_images": {"good": len(verdicts[False]), "anomalous": len(verdicts[True])},
        "figures": metric.compute() | {"false_alarms": _share(verdicts[False]), "found": _share(verdicts[True])},
    }


def _predictions(
    pipe: Any, data: Dataset, root: Path, split: str, batch_size: int
) -> Iterator[tuple[Sample, Prediction]]:
    entries = data.index(root, split)
    for start in range(0, len(entries), _CHUNK):
        samples = [data.load(entry) for entry in entries[start : start + _CHUNK]]
        yield from zip(samples, pipe([s.image for s in samples], batch_size=batch_size), strict=True)


def _share(said: Sequence[bool]) -> float:
    return sum(said) / len(said) if said else math.nan


def _write(out: Path, results: dict[str, Any]) -> None:
    rows = [row["figures"] for row in results["results"].values()]
    results["mean"] = {key: _mean([row[key] for row in rows]) for key in rows[0]}
    files.write_json(out / FIT, results)


def _mean(values: Sequence[float | None]) -> float | None:
    """Of those that there are."""
    there = [v for v in values if v is not None and math.isfinite(v)]
    return sum(there) / len(there) if there else None
