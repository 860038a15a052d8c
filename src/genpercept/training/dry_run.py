"""What `--dry-run` says a recipe would do; nothing is rendered, trained or written.

What a run resolves is resolved: plugins and their options, splits, lists of files, samples, the networks' shapes. What can
never work is a ValueError; what would work on a machine that has it all is said line by line.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genpercept.checkpoints import hub
from genpercept.checkpoints.parts import MANIFEST, PartPlugin, read_json
from genpercept.models.backbones import BACKBONES
from genpercept.models.codecs import CODECS
from genpercept.models.heads import HEADS
from genpercept.models.paradigms import PARADIGMS
from genpercept.pipeline.folder import base_backbone
from genpercept.pipeline.manifest import part_path, predictor_backbone, read_manifest
from genpercept.tasks import TASKS
from genpercept.training import footprint, lacking, losses
from genpercept.training.losses import LOSSES
from genpercept.training.networks import predictor
from genpercept.training.recipe import Recipe
from genpercept.training.rehearsal import shapes_of
from genpercept.training.run import judging
from genpercept.training.run.batches import Split
from genpercept.training.samples.order import Order
from genpercept.training.samples.sources import check_declared
from genpercept.training.stages.finetune import FinetuneStage

LACKING = 3  # exit code: it would work, but for what this machine lacks


@dataclass(frozen=True)
class Plan:
    """lines: what would be done. lacking: what of it this machine has not, a line each."""

    lines: tuple[str, ...]
    lacking: tuple[str, ...] = ()

    @property
    def code(self) -> int:
        """The command's exit code."""
        return LACKING if self.lacking else 0

    def __str__(self) -> str:
        return "\n".join([*self.lines, *(f"not on this machine: {line}" for line in self.lacking)])


def plan(recipe: Recipe, out: Path | None = None) -> Plan:
    """Parameters, steps, images, data and what they take. ValueError for a recipe that no machine can run.

    out: where the run would be written; None: that is not said yet.
    """
    for name in recipe.loss:
        losses.check_options(name, LOSSES.find(name), recipe.loss_options.get(name, {}))
    task = None
    if recipe.stage == "finetune":
        PARADIGMS.find(recipe.paradigm).with_options(**recipe.paradigm_options)
        HEADS.find(recipe.model.head or TASKS.find(recipe.task).head)
        task = predictor.find_task(recipe)
        predictor.check_task(task)
    for number, data in enumerate(recipe.data):
        check_declared(data, [data.split] if number else [data.split, recipe.validation.split], task)
    judging.check(recipe)
    _check_mixture(recipe)
    split = division(recipe)
    lacks = list(dict.fromkeys(lacking.of_recipe(recipe, task.labels if task else ())))
    there = all(lacking.here(name) for name in (recipe.model.base, recipe.model.codec) if name)
    stage = shapes_of(recipe) if there else None
    images = recipe.steps * recipe.loader.batch_size
    sets = ", ".join(f"{d.called} {d.count or 'all'} x {d.weight:g}" for d in recipe.data)
    lines = [
        f"stage {recipe.stage}{_what(recipe)}: {recipe.steps} steps, {images:,} images",
        f"parameters: {_parameters(recipe)}",
        f"data: {sets}; sizes {', '.join(f'{h}x{w}' for h, w in recipe.sizes())}",
        str(split),
    ]
    if recipe.max_minutes:
        lines.append(f"stops after {recipe.max_minutes:g} min if that is sooner")
    lacks += [line for line in lacking.of_folders(recipe, out) if line not in lacks]
    if isinstance(stage, FinetuneStage):
        takes = footprint.of_stage(stage, split.at_once)
        lines.append(str(takes))
        lacks += [*lacking.of_disk(out or Path(), takes.disk), *lacking.of_memory(takes.fixed)]
    return Plan(tuple(lines), tuple(lacks))


def division(recipe: Recipe) -> Split:
    """How a step's samples are divided over the processes that there will be. ValueError for fewer samples than processes."""
    processes = int(os.environ.get("WORLD_SIZE", "0")) or recipe.speed.processes
    return Split(recipe.loader.batch_size, processes, 0, recipe.loader.micro_batch)


def _check_mixture(recipe: Recipe) -> None:
    """ValueError for sets that are drawn too seldom."""
    weights = [data.weight for data in recipe.data]
    Order([1] * len(weights), weights, recipe.seed, recipe.loader.batch_size, recipe.loader.one_set_per_batch)


def _what(recipe: Recipe) -> str:
    """Task, paradigm and what learns, of a fine-tuning recipe; what becomes of which end, of a distilling one."""
    if recipe.stage == "distil":
        given = recipe.distil.model_dump(exclude_defaults=True, exclude={"part"})
        width = {} if recipe.distil.part == "denoiser" else {"width": recipe.distil.width}
        said = ", ".join(f"{k} {v}" for k, v in (width | given).items())
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
    from genpercept.training.networks.guided import guided_config
    from genpercept.training.networks.prune import Part, slim_config
    from genpercept.training.networks.tiny import tiny_config
    from genpercept.training.stages.distil import out_channels

    folder, distil = _local(recipe.model.base), recipe.distil
    if not (folder / MANIFEST).is_file():
        return f"those of {recipe.model.base}, not here yet"
    if distil.part == "denoiser":
        return _slim_denoiser(recipe)
    info = read_manifest(folder)
    config = read_json(part_path(folder, "vae", info["parts"]) / "config.json") if "vae" in info["parts"] else {}
    config = config.get(distil.part, config)  # of a pair's half
    if config.get("_class_name") != "AutoencoderKL":
        raise ValueError(
            f"model.base {recipe.model.base}: its {distil.part} is no AutoencoderKL's, from which alone one is distilled"
        )
    given: tuple[Part, float, int] = (distil.part, distil.width, distil.blocks)
    channels = out_channels(recipe)
    if distil.form == "tiny":
        after = _count(CODECS.find("tiny"), tiny_config(config, *given, channels), distil.part)
    elif distil.form == "guided":
        small = guided_config(config, distil.levels or 1, distil.width, distil.blocks, channels, distil.attention)
        after = _count(CODECS.find("guided"), small)
    else:
        after = _count(CODECS.find("kl"), slim_config(config, *given, channels, distil.attention), distil.part)
    return f"{distil.part} {_count(CODECS.find('kl'), config, distil.part)} -> {after}, which learn"


def _slim_denoiser(recipe: Recipe) -> str:
    """Parameters of the U-Net before and after."""
    from genpercept.training.networks.slim_unet import slim_config

    found, distil = _base_config(recipe.model.base), recipe.distil
    assert found is not None
    plugin, config = BACKBONES.find(found[0]), found[1]
    slim = slim_config(config, distil.blocks, distil.levels, distil.middle, distil.without_attention)
    return f"denoiser {_count(plugin, config)} -> {_count(plugin, slim)}, which learn"


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
