"""Networks that a stage starts from."""

from __future__ import annotations

import copy
from typing import Any, Protocol, cast, runtime_checkable

import torch
from accelerate import PartialState
from diffusers.models.attention_processor import AttentionProcessor, AttnProcessor
from torch import Tensor, nn
from transformers import PreTrainedModel

from genpercept.checkpoints import hub, parts, shapes
from genpercept.models.codecs import CODECS, HALVES, Codec, half
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


class FrozenEncoder:
    """Encodes as a codec does, in whatever precision the recipe wants; the codec's own weights stay as they are.

    In pure bf16 its weights are rounded once, not in each step, and normalisations, too, write 2 bytes for a number.
    """

    def __init__(self, codec: Codec, vae: nn.Module | None, name: str, recipe: Recipe) -> None:
        self._codec, self._vae, self._name, self._recipe = codec, vae, name, recipe
        self._halved: Codec | None = None

    def __call__(self, image_BCHW: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> latent (B, C, h, w) float32. Called within torch.no_grad and the step's autocast."""
        if not self.pure(image_BCHW.device):
            return self._codec.encode(image_BCHW).float()
        with torch.autocast(image_BCHW.device.type, enabled=False):
            return self._in_bf16(image_BCHW.device).encode(image_BCHW).float()

    def pure(self, device: torch.device) -> bool:
        """Whether it computes in bf16 throughout on this device."""
        asked = self._recipe.speed.encoder
        if self._recipe.precision != "bf16" or self._vae is None or asked == "mixed":
            return False
        quick = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return asked == "bf16" or quick

    def _in_bf16(self, device: torch.device) -> Codec:
        """A copy of the codec in bf16, of which what only decodes stays where it is."""
        if self._halved is None:
            whole = cast(nn.Module, self._vae)
            kept = [getattr(whole, name, None) for name in _DECODING]
            shared = {id(part): part for part in kept if part is not None}
            copied = copy.deepcopy(whole, cast(dict[int, Any], shared)).requires_grad_(False)
            for name, part in copied.named_children():
                if name not in _DECODING:
                    part.to(device, torch.bfloat16)
            self._halved = CODECS.find(self._name).wrap(copied)
        return self._halved


_DECODING = ("decoder", "post_quant_conv", HALVES["decoder"])  # children of codecs that encoding does not run
