"""What this machine lacks for a recipe: data, packages, weights, room. A line each; a ValueError for what no machine has."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import torch

from genpercept.checkpoints import hub
from genpercept.core.texts import one_line
from genpercept.data import DATASETS, NoSamples
from genpercept.training import recipe_names
from genpercept.training.recipe import DataSet, Loader, Recipe
from genpercept.training.samples.sources import open_source

_DISTRIBUTION = "genpercept"
_FIRST = re.compile(r"[A-Za-z0-9._-]+")
_GIB = 2**30


def of_recipe(recipe: Recipe, labels: Sequence[str]) -> Iterator[str]:
    """All but room. labels: that every sample of the data must have."""
    yield from extra("train", "training")
    for name in recipe.logging.trackers:
        if find_spec(name) is None:
            yield f"logging.trackers: the package {name}: pip install {name}, or leave it out"
    if recipe.optim.kind == "8bit" and find_spec("bitsandbytes") is None:
        yield 'optim.kind "8bit": the package bitsandbytes: pip install bitsandbytes, or choose "fused"'
    yield from of_models(recipe)
    for number, data in enumerate(recipe.data):
        yield from of_set(data, recipe.loader, labels, f"data.{number}")
    first = recipe.data[0].root
    if first is None or first.expanduser().is_dir():  # else it has been said
        yield from of_set(recipe.held_out(), recipe.loader, labels, "validation", at_least=1)
    for held in recipe.validation.sets:
        yield from of_set(held.data(), recipe.loader, labels, f"validation.sets {held.label!r}")


def of_models(recipe: Recipe, made: bool = False) -> Iterator[str]:
    """Models that the run starts from, and the recipe that makes them where there is one. made: only such."""
    for key, name in (("model.base", recipe.model.base), ("model.codec", recipe.model.codec)):
        maker = recipe_names.maker(name)
        if name and (maker or not made) and here(name) is None:
            advice = f"; `genpercept train {maker} --out {Path(name).parent}` makes it" if maker else ""
            yield f"{key}: no folder {name}, and no such model among those downloaded or embedded{advice}"


def of_set(
    data: DataSet, loader: Loader, labels: Sequence[str], where: str, at_least: int | None = None
) -> Iterator[str]:
    """A data set's folder, files and packages. Its first, middle and last sample are read, and must have `labels`.

    at_least: the entries that it must have, where that is not its count.
    """
    plugin = DATASETS.find(data.name).with_options(**data.options)
    about = plugin.about
    wanted = about.extra if about is not None else "synthetic" if data.name == "synthetic" else ""
    if wanted and (missing := list(extra(wanted, f"data set {data.name!r}"))):
        yield from (f"{where}: {line}" for line in missing)
        return
    if data.root is None:  # it makes its own, or says that it needs a folder
        open_source(_uncached(data), loader.model_copy(update={"cache": False}))
        return
    root = data.root.expanduser()
    if not root.is_dir():
        yield f"{where}: no folder {root}, for data set {data.name!r}"
        return
    try:
        entries = len(plugin.index(data.root, data.split))
        if (wish := data.count if at_least is None else at_least) > entries:
            yield f"{where}: split {data.split!r} in {root} has {entries} entries, and count asks for {wish}"
        source = open_source(data, loader, lambda _: None, labels)
        for number in sorted({0, len(source) // 2, len(source) - 1}):
            record = source[number]
            if absent := [label for label in labels if record.get(label) is None]:
                yield f"{where}: sample {record.get('name') or number} in {root} has no {', '.join(absent)}"
                return
    except NoSamples as error:
        if data.split != "val":  # else what is trained on stands in
            yield f"{where}: {one_line(error)}"
    except ModuleNotFoundError as error:
        yield f"{where}: data set {data.name!r} needs the package {error.name}"
    except (ValueError, OSError) as error:
        yield f"{where}: {one_line(error)}"


def _uncached(data: DataSet) -> DataSet:
    """Scenes that are made when they are asked for: which of them have a label cannot be told without rendering all."""
    return data.model_copy(update={"having": ""})


def extra(name: str, what: str) -> Iterator[str]:
    """The packages of `pip install 'genpercept[NAME]'` that are not installed, as a line."""
    if missing := [package for package in _packages(name) if not _installed(package)]:
        yield f"{what} needs {', '.join(missing)}: pip install 'genpercept[{name}]'"


def _packages(name: str) -> list[str]:
    """Of an extra, those of the extras that it is made of included."""
    found = []
    for line in metadata.requires(_DISTRIBUTION) or ():
        requirement, _, marker = line.partition(";")
        if re.search(rf"extra == ['\"]{re.escape(name)}['\"]", marker):
            first = _FIRST.match(requirement.strip())
            assert first is not None
            inner = re.search(r"\[(.+?)\]", requirement)
            ours = first[0] == _DISTRIBUTION and inner is not None
            found += _packages(inner[1]) if ours and inner is not None else [first[0]]
    return found


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def here(name: str) -> Path | None:
    """The folder of a base that is on this machine: given as a folder, embedded, or downloaded before."""
    try:
        return hub.resolve(name, local_files_only=True)
    except ValueError:
        return None


def of_folders(recipe: Recipe, out: Path | None) -> Iterator[str]:
    """Folders that the run would write into, and cannot: its own, and that of what it keeps between runs."""
    loader, rendered = recipe.loader, any(data.root is None for data in (*recipe.data, *recipe.validation.sets))
    latents = recipe.denoiser.cached_latents if recipe.stage == "denoiser" else loader.latent_variants > 0
    kept = (loader.cache and rendered) or (latents and recipe.stage != "autoencoder")
    for what, folder in (("--out", out), ("loader.cache_dir", loader.cache_dir if kept else None)):
        if folder is not None and (why := unwritable(folder)):
            yield f"{what} {folder}: cannot be written: {why}; choose another"


def unwritable(folder: Path) -> str:
    """Why a folder cannot be written or made; "" where it can. Nothing is left behind."""
    place = _nearest(folder.expanduser())
    if not place.is_dir():
        return f"{place} is a file"
    try:
        with tempfile.TemporaryFile(dir=place):
            return ""
    except OSError as error:
        return error.strerror or one_line(error)


def _nearest(path: Path) -> Path:
    """The path, or the part of it that is there."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def of_disk(out: Path, needed: int) -> Iterator[str]:
    """Room in the folder of a run for so many bytes."""
    place = _nearest(out)
    free = shutil.disk_usage(place).free
    if needed > free:
        yield f"disk: {free / _GIB:.1f} GiB are free at {place}, the run needs {needed / _GIB:.1f}; see checkpoint.keep"


def of_memory(needed: int) -> Iterator[str]:
    """Memory of the accelerator for so many bytes, which do not depend on the batch; nothing where there is none."""
    if not torch.cuda.is_available():
        return
    there = torch.cuda.get_device_properties(0).total_memory
    if needed > there:
        yield (
            f"memory: {torch.cuda.get_device_name(0)} has {there / _GIB:.1f} GiB, and weights, gradients and optimiser alone "
            f"need {needed / _GIB:.1f}: learn less (learn.denoiser), or share it by FSDP"
        )
