"""The networks of a predictor in training: where each part's weights come from, and which of them learn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from genpercept.checkpoints import hub, shapes
from genpercept.checkpoints.parts import MANIFEST
from genpercept.core.labels import LABELS
from genpercept.core.modules import config_of, pretrained
from genpercept.core.registry import Registry, Table
from genpercept.imaging.kinds import KINDS
from genpercept.metrics import METRICS
from genpercept.models import adapters
from genpercept.models.backbones import BACKBONES, as_backbone
from genpercept.models.codecs import CODECS, Codec, half
from genpercept.models.codecs.guided import brought_up
from genpercept.models.heads import HEADS, Head, neck_config
from genpercept.models.paradigms import PARADIGMS, Paradigm
from genpercept.pipeline import codec_swap
from genpercept.pipeline import folder as _folder
from genpercept.pipeline.pipeline import GenPerceptPipeline
from genpercept.tasks import TASKS, Task
from genpercept.training.networks.codec import open_codec
from genpercept.training.networks.prompts import Prompts, open_prompts
from genpercept.training.recipe import Recipe

# learn.denoiser values whose first convolution stays the base's
_KEEPS_INPUT = ("frozen", "lora", "controlnet")


@dataclass
class Parts:
    """`denoiser` and `head_module` (None for a head without weights) learn or not, as their requires_grad says."""

    denoiser: nn.Module
    vae: nn.Module | None  # none for a backbone that takes pixels
    head_module: nn.Module | None
    codec: Codec
    head: Head
    paradigm: Paradigm
    prompts: Prompts
    backbone: str
    codec_name: str
    head_name: str

    def decoder(self) -> list[nn.Module]:
        """The modules of the codec that turn a latent into an image."""
        decodes = half(self.vae, "decoder") if self.vae is not None else None
        parts = (getattr(decodes, name, None) for name in ("decoder", "post_quant_conv", "upsampler"))
        return [part for part in parts if part is not None]

    def groups(self, recipe: Recipe) -> list[dict[str, Any]]:
        """The optimiser's parameter groups, one per part that learns, each with its own rate."""
        optim = recipe.optim
        found = [
            ([self.denoiser], optim.lr),
            (self.decoder(), optim.lr_decoder or optim.lr),
            ([self.head_module] if self.head_module else [], optim.lr_head or optim.lr),
        ]
        groups = [
            {"params": [p for m in modules for p in m.parameters() if p.requires_grad], "lr": lr}
            for modules, lr in found
        ]
        return [group for group in groups if group["params"]]

    def pipeline(self, recipe: Recipe, denoiser: nn.Module | None = None) -> GenPerceptPipeline:
        """The predictor as it is saved; `denoiser` in place of the one in training."""
        sized: dict[str, Any] = {} if recipe.resize_mode == "fit" else {"resize_mode": recipe.resize_mode}
        return GenPerceptPipeline.from_parts(
            unet=denoiser or self.denoiser,
            vae=self.vae,
            prompt_embeds=self.prompts.fixed,
            task=recipe.task,
            task_options=recipe.task_options,
            paradigm=recipe.paradigm,
            paradigm_options=self.paradigm.options,
            head=self.head_name,
            codec=self.codec_name,
            backbone=self.backbone,
            resolution=recipe.resolution or max(max(size) for size in recipe.sizes()),
            **sized,
            recipe=recipe.resolved(),
            base=recipe.model.base,
            prompt=self.prompts.text,
            head_module=self.head_module,
        )

    def save(self, recipe: Recipe, folder: Path) -> None:
        """The predictor; beside it a LoRA adapter (lora/) or a ControlNet (controlnet/) in its own layout."""
        if not adapters.has_lora(self.denoiser):
            self.pipeline(recipe).save_pretrained(folder)
            if recipe.learn.denoiser == "controlnet":
                pretrained(self.denoiser.get_submodule("controlnet")).save_pretrained(folder / "controlnet")
            return
        self.pipeline(recipe, adapters.merged_copy(self.denoiser)).save_pretrained(folder)
        adapters.save_lora(self.denoiser, folder / "lora")


def build(recipe: Recipe) -> Parts:
    """The parts that a recipe asks for, over those of its base. ValueError for what cannot be paired or cannot learn."""
    start = _start(recipe)
    codec_name, backbone = str(start.info["codec"]), str(start.info["backbone"])
    with shapes.memory():
        codec_name, vae = _codec(recipe, start.vae, codec_name)
    codec = CODECS.find(codec_name).wrap(vae)
    # a base's own prediction type is among its options, a predictor's belong to what it was trained for
    options = recipe.paradigm_options if start.info["task"] else start.info["paradigm_options"]
    paradigm = PARADIGMS.find(recipe.paradigm).with_options(**options)
    channels = paradigm.input_channels(codec.channels)
    head_name = recipe.model.head or TASKS.find(recipe.task).head
    with shapes.memory():
        denoiser = _denoiser(recipe, start.unet, backbone, channels)
        head_module = _head(recipe, start, head_name, denoiser)
        backbone, denoiser = _with_adapters(recipe, backbone, denoiser)
    head = HEADS.find(head_name).wrap(head_module)
    prompts = open_prompts(recipe.prompt, hub.resolve(recipe.model.base), start.prompt_embeds, recipe.seed)
    parts = Parts(denoiser, vae, head_module, codec, head, paradigm, prompts, backbone, codec_name, head_name)
    _select(recipe, parts)
    _check_sizes(recipe, parts.pipeline(recipe).stride, parts)  # refuses, too, what cannot be paired
    return parts


def _with_adapters(recipe: Recipe, backbone: str, denoiser: nn.Module) -> tuple[str, nn.Module]:
    """The backbone's name and the denoiser, with the ControlNet or the adapters that learn.denoiser names, if any."""
    if recipe.learn.denoiser == "controlnet":
        controlled = BACKBONES.find(backbone).controlled
        if not controlled:
            raise ValueError(
                f'learn.denoiser "controlnet": a ControlNet copies a U-Net\'s encoder, which {backbone} has not'
            )
        return controlled, BACKBONES.find(controlled).control(denoiser)
    if recipe.learn.denoiser == "lora":
        lora = recipe.lora
        targets = lora.targets or BACKBONES.find(backbone).lora_targets
        adapters.add_lora(denoiser, lora.rank, lora.alpha, targets, recipe.seed)
    return backbone, denoiser


def _check_sizes(recipe: Recipe, stride: int, parts: Parts) -> None:
    """ValueError for training sizes that whole patches of the backbone do not fill; convolutions make do with any."""
    if as_backbone(parts.denoiser).patch == 1:
        return
    for h, w in sorted({tuple(size) for number in range(len(recipe.data)) for size in recipe.sizes(number)}):
        if h % stride or w % stride:
            near = " x ".join(str(max(1, round(edge / stride)) * stride) for edge in (h, w))
            raise ValueError(
                f"augment.sizes {h} x {w}: backbone {parts.backbone!r} needs multiples of {stride} pixels; take {near}"
            )


def _start(recipe: Recipe) -> _folder.Parts:
    """What training starts from: a text-to-image base, or a predictor that is to be trained further, or for another task."""
    folder = hub.resolve(recipe.model.base)
    if (folder / MANIFEST).is_file():
        return _folder.read_model(folder, None)
    parts = _folder.read_base(folder, recipe.paradigm, recipe.paradigm_options, "", None, widen=False)
    return replace(parts, info=parts.info | {"task": None, "head": None})


def _codec(recipe: Recipe, base: nn.Module | None, name: str) -> tuple[str, nn.Module | None]:
    """The base's codec or the recipe's own and its name, the decoder with random weights or an upsampler if asked.

    None where nothing is encoded.
    """
    if base is None:
        if recipe.model.codec:
            raise ValueError(f"model.codec: {recipe.model.base} takes pixels, which nothing encodes; leave it out")
        if recipe.model.upsample > 1:
            raise ValueError(f"model.upsample: {recipe.model.base} takes pixels and has no decoder; leave it out")
        return name, None
    name, vae = ("kl", open_codec(recipe)) if recipe.model.codec else (name, base)
    if recipe.learn.decoder == "scratch":
        fresh = CODECS.find(name).build(config_of(vae))
        old, new = half(vae, "encoder"), half(fresh, "encoder")
        for part in ("encoder", "quant_conv"):
            if getattr(old, part, None) is not None:
                getattr(new, part).load_state_dict(getattr(old, part).state_dict())
        vae = fresh.eval()
    return _brought_up(recipe, vae, name) if recipe.model.upsample > 1 else (name, vae)


def _brought_up(recipe: Recipe, vae: nn.Module, name: str) -> tuple[str, nn.Module]:
    """The codec with an upsampler behind its decoder. ValueError where that is no AutoencoderKL's."""
    if recipe.learn.decoder == "frozen":
        raise ValueError(
            'model.upsample: its network is new and learns with the decoder; set learn.decoder = "finetune"'
        )
    whole = half(vae, "decoder")
    if type(whole).__name__ != CODECS.find("kl").class_name:
        raise ValueError(
            f"model.upsample: the decoder of {recipe.model.base} is a {type(whole).__name__}, and only an AutoencoderKL's can "
            "be brought up; leave it out"
        )
    return codec_swap.join(half(vae, "encoder"), brought_up(whole, recipe.model.upsample.bit_length() - 1))


def choose_pyramid(recipe: Recipe, denoiser: nn.Module, backbone: str) -> None:
    """Make the denoiser give the features that model.pyramid_blocks names, if any. ValueError where it has no choice."""
    if not recipe.model.pyramid_blocks:
        return
    if not BACKBONES.find(backbone).chooses_blocks:
        raise ValueError(f"model.pyramid_blocks: the pyramid of {backbone} is what its up blocks give; leave it out")
    as_backbone(denoiser).choose_blocks(recipe.model.pyramid_blocks)


def _denoiser(recipe: Recipe, base: nn.Module, backbone: str, channels: int) -> nn.Module:
    """The base's denoiser for an input of so many channels, or one of its size with random weights."""
    plugin = BACKBONES.find(backbone)
    choose_pyramid(recipe, base, backbone)
    config, own = config_of(base), as_backbone(base).in_channels
    if recipe.learn.denoiser == "scratch":
        return plugin.build(config | ({} if own == channels else {"in_channels": channels}))
    if own == channels:
        return base
    if recipe.learn.denoiser in _KEEPS_INPUT:
        raise ValueError(
            f'learn.denoiser "{recipe.learn.denoiser}": {recipe.paradigm} needs {channels} input channels, the base has '
            f'{own}, and a widened first convolution must learn: choose "finetune" or "scratch"'
        )
    return plugin.adapt(base, channels)


def _head(recipe: Recipe, start: _folder.Parts, name: str, denoiser: nn.Module) -> nn.Module | None:
    """The base's head where it has the one that is asked for, or a fresh one that fits the denoiser and the task."""
    plugin = HEADS.find(name)
    if plugin.class_name is None:
        if recipe.model.head_config:
            raise ValueError(f"model.head_config: head {name!r} has no weights of its own and takes no configuration")
        return None
    task = find_task(recipe)
    own = start.head if start.info["head"] == name and recipe.learn.head != "scratch" else None
    if own is not None and start.info["task"] == task.name:
        _check_own_head(recipe, start, task)
        return own
    fresh = fresh_head(recipe, name, denoiser)
    if own is not None and _same_form(own, fresh):  # dis to matting: as many maps, of the same kind
        return own
    if recipe.learn.head == "frozen":
        raise ValueError('learn.head "frozen": the base has no trained head of this kind; let it learn')
    return fresh


def _check_own_head(recipe: Recipe, start: _folder.Parts, task: Task) -> None:
    """ValueError where the base's head, of the same task, is not the one that the recipe asks for."""
    if task.with_options(**(start.info.get("task_options") or {})).options != task.options:
        raise ValueError(
            f"model.base {recipe.model.base}: its head is for task_options {start.info.get('task_options')}; "
            'set the same, or learn.head = "scratch"'
        )


def _same_form(head: nn.Module, other: nn.Module) -> bool:
    """Same class, same configuration; as JSON has it, since a loaded one has lists for tuples."""
    public = [json.dumps({k: v for k, v in config_of(x).items() if k[0] != "_"}, sort_keys=True) for x in (head, other)]
    return type(head) is type(other) and public[0] == public[1]


def fresh_head(recipe: Recipe, name: str, denoiser: nn.Module) -> nn.Module:
    """Random weights, for the denoiser's features and the task. ValueError where the head cannot give what the task takes."""
    plugin, task = HEADS.find(name), find_task(recipe)
    space = next((s for s in plugin.spaces if s in task.spaces), None)
    if space is None:
        raise ValueError(
            f"model.head {name!r} gives {' or '.join(plugin.spaces)}, but task {task.name} takes {' or '.join(task.spaces)}: "
            f"leave it out for {task.head!r}"
        )
    net = as_backbone(denoiser)
    neck = neck_config(net.pyramid_channels, net.pyramid_strides)
    return plugin.build(neck | {"out_channels": task.outputs(space)} | recipe.model.head_config)


def find_task(recipe: Recipe) -> Task:
    """The recipe's task with its options."""
    return TASKS.find(recipe.task).with_options(**recipe.task_options)


def check_task(task: Task) -> None:
    """ValueError where a task names a label, a kind, a head or a metric that there is not: else it shows hours later."""
    named: list[tuple[Registry[Any] | Table[Any], str]] = [
        *((LABELS, name) for name in task.labels),
        (KINDS, task.kind),
    ]
    named += [(HEADS, task.head), *([(METRICS, task.metric)] if task.metric else [])]
    for known, name in named:
        try:
            known.find(name)
        except ValueError as error:
            raise ValueError(f"task {task.name!r}: {error}") from None


def own_losses(task: Task, space: str) -> Mapping[str, float]:
    """A task's losses on maps of this space. ValueError where it has none."""
    if not task.losses.get(space):
        raise ValueError(
            f"task {task.name!r} has no losses of its own in space {space!r}: say which, such as loss.mse = 1"
        )
    return task.losses[space]


def _select(recipe: Recipe, parts: Parts) -> None:
    """Set requires_grad. ValueError where a part could learn nothing, or nothing learns."""
    learn, denoiser = recipe.learn, parts.denoiser
    latent = parts.head.consumes == "latent"
    if parts.vae is not None:
        parts.vae.requires_grad_(False)
    if learn.denoiser in ("finetune", "scratch", "frozen"):
        denoiser.requires_grad_(learn.denoiser != "frozen")
    if not latent:  # its last layers do not run; DistributedDataParallel wants gradients of all that learns
        for parameter in as_backbone(denoiser).output_parameters():
            parameter.requires_grad_(False)
    if parts.head_module is not None:
        parts.head_module.requires_grad_(learn.head != "frozen")
    if learn.decoder != "frozen":
        if not latent:
            raise ValueError(
                f"learn.decoder: head {parts.head_name!r} reads the denoiser's features, so the decoder never runs"
            )
        for part in parts.decoder():
            part.requires_grad_(True)
    if not parts.groups(recipe):
        raise ValueError('nothing learns: set learn.denoiser, learn.decoder or learn.head to something but "frozen"')
