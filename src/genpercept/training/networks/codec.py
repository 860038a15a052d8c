"""Networks that a stage starts from."""

from __future__ import annotations

from typing import Any, cast

import torch
from accelerate import PartialState
from diffusers.models.attention_processor import AttnProcessor
from torch import nn

from genpercept.checkpoints import hub, parts
from genpercept.models.codecs import CODECS, HALVES, half
from genpercept.training.recipe import Recipe


def use_attention(module: nn.Module, recipe: Recipe) -> None:
    """Choose how a module computes attention. In bf16 on CPUs the fused kernel is slower there and back, on small maps."""
    kind = recipe.speed.attention
    if kind == "plain" or (kind == "auto" and recipe.precision == "bf16" and not torch.cuda.is_available()):
        halves = [part for end in HALVES if (part := half(module, end)) is not module]
        if halves:  # a pair of codecs
            for part in halves:
                use_attention(part, recipe)
        elif hasattr(module, "set_attn_processor"):  # diffusers
            cast(Any, module).set_attn_processor(AttnProcessor())
        else:  # transformers
            cast(Any, module).set_attn_implementation("eager")


def open_codec(recipe: Recipe) -> nn.Module:
    """The AutoencoderKL of the recipe: model.codec, or the base's."""
    folder = hub.resolve(recipe.model.codec or recipe.model.base)
    if not (folder / "config.json").exists():
        folder = folder / "vae"
    return parts.load_part(CODECS.find("kl"), folder)


def own_device() -> torch.device:
    """The device that accelerate gave this process: caches are filled there, before anything is prepared for training."""
    return torch.device(PartialState().device or "cpu")
