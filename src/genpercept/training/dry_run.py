"""What `--dry-run` says a recipe would do; nothing is rendered, trained or written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genpercept.checkpoints import hub
from genpercept.checkpoints.parts import MANIFEST, PartPlugin, read_json
from genpercept.core.names import choose
from genpercept.data import DATASETS
from genpercept.models.backbones import BACKBONES
from genpercept.models.codecs import CODECS
from genpercept.models.heads import HEADS
from genpercept.models.paradigms import PARADIGMS
from genpercept.pipeline.folder import base_backbone, predictor_backbone, read_manifest
from genpercept.tasks import TASKS, Task
from genpercept.training import losses
from genpercept.training.losses import LOSSES
from genpercept.training.networks import predictor
from genpercept.training.recipe import DataSet, Recipe
from genpercept.training.run import judging


def plan(recipe: Recipe) -> str:
    """Parameters, steps, images and data in a few lines. ValueError for plugins, or options of theirs, that do not exist."""
    for name in recipe.loss:
        losses.check_options(name, LOSSES.find(name), recipe.loss_options.get(name, {}))
    task = None
    if recipe.stage == "finetune":
        PARADIGMS.find(recipe.paradigm).with_options(**recipe.paradigm_options)
        HEADS.find(recipe.model.head or TASKS.find(recipe.task).head)
        task = predictor.find_task(recipe)
        predictor.check_task(task)
    for number, data in enumerate(recipe.data):
        _check_data(data, [data.split] if number else [data.split, recipe.validation.split], task)
    judging.check(recipe)
    images = recipe.steps * recipe.loader.batch_size
    sets = ", ".join(f"{d.called} {d.count or 'all'} x {d.weight:g}" for d in recipe.data)
    lines = [
        f"stage {recipe.stage}{_what(recipe)}: {recipe.steps} steps, {images:,} images",
        f"parameters: {_parameters(recipe)}",
        f"data: {sets}; sizes {', '.join(f'{h}x{w}' for h, w in recipe.sizes())}",
    ]
    if recipe.max_minutes:
        lines.append(f"stops after {recipe.max_minutes:g} min if that is sooner")
    return "\n".join(lines)


def _check_data(data: DataSet, splits: Sequence[str], task: Task | None) -> None:
    """ValueError for a data set, or an option or split of it, that there is not, and for one without the task's labels.

    Of data sets that say what they have; what the others' files hold, a run finds out.
    """
    about = DATASETS.find(data.name).with_options(**data.options).about
    if about is None:
        return
    for split in splits:
        choose(f"split of data set {data.name!r}", split, about.splits)
    if missing := [label for label in (task.labels if task else ()) if label not in about.provides]:
        assert task is not None
        raise ValueError(
            f"data set {data.name!r} has no {', '.join(missing)}, which task {task.name!r} needs; it provides "
            f"{', '.join(about.provides)}"
        )


def _what(recipe: Recipe) -> str:
    """Task, paradigm and what learns, of a fine-tuning recipe; what becomes of which end, of a distilling one."""
    if recipe.stage == "distil":
        given = recipe.distil.model_dump(exclude_defaults=True, exclude={"part"})
        said = ", ".join(f"{k} {v}" for k, v in ({"width": recipe.distil.width} | given).items())
        return f" ({recipe.task}, {recipe.distil.part}: {said})"
    if recipe.stage != "finetune":
        return ""
    parts = {"denoiser": recipe.learn.denoiser, "decoder": recipe.learn.decoder}
    said = ", ".join(f"{part} {how}" for part, how in parts.items() if how != "frozen" or part == "denoiser")
    return f" ({recipe.task}, {recipe.paradigm}, {said}{f', head {recipe.model.head}' if recipe.model.head else ''})"


def _parameters(recipe: Recipe) -> str:
    """Numbers of parameters, counted on modules without memory."""
    match recipe.stage:
        case "autoencoder":
            from genpercept.training.stages.autoencoder import DEFAULT_CONFIG

            return f"codec {_count(CODECS.find('kl'), {**DEFAULT_CONFIG, **recipe.model.codec_config})}"
        case "denoiser" if not recipe.model.base:
            from genpercept.training.stages.denoiser import DEFAULTS

            name = recipe.model.backbone or "sd21"
            denoiser = _count(BACKBONES.find(name), {**DEFAULTS.get(name, {}), **recipe.model.backbone_config})
            return f"denoiser {denoiser}; the text encoder's depend on the captions' words"
        case "distil":
            return _slim_parameters(recipe)
        case _:
            return _learner_parameters(recipe)


def _learner_parameters(recipe: Recipe) -> str:
    """Of the denoiser and of a head that has weights, where the base is on this machine."""
    found = _base_config(recipe.model.base)
    if not found:
        return f"those of {recipe.model.base}, not here yet"
    said = f"denoiser {_count(BACKBONES.find(found[0]), found[1])}"
    name = recipe.model.head or TASKS.find(recipe.task).head
    if HEADS.find(name).class_name is None:
        return said
    with torch.device("meta"):
        denoiser = BACKBONES.find(found[0]).build(found[1])
        predictor.choose_pyramid(recipe, denoiser, found[0])
        head = predictor.fresh_head(recipe, name, denoiser)
    return f"{said}, head {sum(p.numel() for p in head.parameters()):,}"


def _slim_parameters(recipe: Recipe) -> str:
    """Of the end that is distilled, before and after, where the base is on this machine."""
    from genpercept.training.networks.prune import Part, slim_config
    from genpercept.training.networks.tiny import tiny_config
    from genpercept.training.stages.distil import out_channels

    folder, distil = _local(recipe.model.base), recipe.distil
    if not (folder / MANIFEST).is_file():
        return f"those of {recipe.model.base}, not here yet"
    info = read_manifest(folder)
    config = read_json(folder / info["parts"]["vae"]["path"] / "config.json") if "vae" in info["parts"] else {}
    config = config.get(distil.part, config)  # of a pair's half
    if config.get("_class_name") != "AutoencoderKL":
        raise ValueError(
            f"model.base {recipe.model.base}: its {distil.part} is no AutoencoderKL's, from which alone one is distilled"
        )
    given: tuple[Part, float, int] = (distil.part, distil.width, distil.blocks)
    channels = out_channels(recipe)
    if distil.form == "tiny":
        after = _count(CODECS.find("tiny"), tiny_config(config, *given, channels), distil.part)
    else:
        after = _count(CODECS.find("kl"), slim_config(config, *given, channels, distil.attention), distil.part)
    return f"{distil.part} {_count(CODECS.find('kl'), config, distil.part)} -> {after}, which learn"


def _count(plugin: PartPlugin, config: dict[str, Any], part: str = "") -> str:
    """Parameters of the module, or of its part of this name."""
    with torch.device("meta"):
        module: nn.Module = plugin.build(config)
    module = module.get_submodule(part)
    return f"{sum(p.numel() for p in module.parameters()):,}"


def _local(base: str) -> Path:
    """The folder of a base, if it is on this machine."""
    folder = Path(base)
    return hub.resolve(base) if not folder.is_dir() and base in hub.embedded_names() else folder


def _base_config(base: str) -> tuple[str, dict[str, Any]] | None:
    """The denoiser's plugin and config where the base is on this machine; a dry run downloads nothing."""
    folder = _local(base)
    name, path = predictor_backbone(folder) if (folder / MANIFEST).is_file() else base_backbone(folder)
    return (name, read_json(path / "config.json")) if (path / "config.json").exists() else None
