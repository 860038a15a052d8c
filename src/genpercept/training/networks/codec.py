"""Networks that a stage starts from."""

from __future__ import annotations

from typing import Protocol, cast, runtime_checkable

import torch
from accelerate import PartialState
from diffusers.models.attention_processor import AttentionProcessor, AttnProcessor
from torch import nn
from transformers import PreTrainedModel

from genpercept.checkpoints import hub, parts, shapes
from genpercept.models.codecs import CODECS, HALVES, half
from genpercept.training.recipe import Recipe


@runtime_checkable
class _Attentive(Protocol):
    """A module of diffusers, whose attention layers take the code that computes them; transformers' have names for theirs."""

    def set_attn_processor(self, processor: AttentionProcessor) -> None: ...


def use_attention(module: nn.Module, recipe: Recipe) -> None:
    """Choose how a module computes attention. In bf16 on CPUs the fused kernel is slower there and back, on small maps."""
    kind = recipe.speed.attention
    if kind == "plain" or (kind == "auto" and recipe.precision == "bf16" and not torch.cuda.is_available()):
        halves = [part for end in HALVES if (part := half(module, end)) is not module]
        if halves:  # a pair of codecs
            for part in halves:
                use_attention(part, recipe)
        elif isinstance(module, _Attentive):
            module.set_attn_processor(AttnProcessor())
        else:
            cast(PreTrainedModel, module).set_attn_implementation("eager")


def open_codec(recipe: Recipe) -> nn.Module:
    """The AutoencoderKL of the recipe: model.codec, or the base's."""
    folder = hub.resolve(recipe.model.codec or recipe.model.base)
    if not (folder / "config.json").exists():
        folder = folder / "vae"
    return parts.load_part(CODECS.find("kl"), folder)


def own_device() -> torch.device:
    """The device that accelerate gave this process: caches are filled there, before anything is prepared for training.

    Within `shapes.shapes_only` that of networks without memory.
    """
    if shapes.wanted():
        return torch.device("meta")
    return torch.device(PartialState().device or "cpu")
