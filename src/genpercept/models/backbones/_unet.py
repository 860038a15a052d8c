"""The denoiser of Stable Diffusion: diffusers' UNet2DConditionModel with an explicit method for its feature pyramid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttentionProcessor
from diffusers.models.unets.unet_2d_blocks import CrossAttnUpBlock2D, UpBlock2D
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from genpercept.core.values import Features
from genpercept.models.backbones import _self_attention as self_attention
from genpercept.models.backbones._saved import SavedAsParent

# Stable Diffusion 2.1 (768, v-prediction): 865,910,724 parameters.
SD21_CONFIG: dict[str, Any] = {
    "sample_size": 96,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}


_SD1: dict[str, Any] = {"cross_attention_dim": 768, "attention_head_dim": 8, "use_linear_projection": False}
# Stable Diffusion 1.5: 859,520,964 parameters.
SD15_CONFIG: dict[str, Any] = SD21_CONFIG | _SD1 | {"sample_size": 64}
# Stable Diffusion XL: 2,567,463,684 parameters.
SDXL_CONFIG: dict[str, Any] = {
    "sample_size": 128,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 2,
    "up_block_types": ["CrossAttnUpBlock2D"] * 2 + ["UpBlock2D"],
    "block_out_channels": [320, 640, 1280],
    "layers_per_block": 2,
    "attention_head_dim": [5, 10, 20],
    "transformer_layers_per_block": [1, 2, 10],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_TIME_IDS = 6  # numbers that an SDXL-shaped U-Net is told: original size, corner of the crop, target size
_PIXELS_PER_CELL = 8  # of the codec they were counted with
BOTTLENECK = "fftblock"  # name of a submodule between the middle and the up blocks, as DepthMaster's files have it


class SD21UNet(SavedAsParent, UNet2DConditionModel):
    """UNet2DConditionModel whose `forward_features` also gives the outputs of the up blocks.

    An explicit method, not forward hooks: those break torch.compile, CUDA graphs and export. It is tested equal to the
    parent's forward. It takes what text-to-image U-Nets take; the parent's many extras (adapters, GLIGEN) stay in `forward`.
    """

    parent_name = UNet2DConditionModel.__name__
    patch = 1

    def set_attn_processor(self, processor: AttentionProcessor | dict[str, AttentionProcessor]) -> None:
        """As the parent's; a single one is used in the way that the network's self-attention is computed."""
        way = getattr(self.config, self_attention.KEY, self_attention.PLAIN)
        one_for_all = not isinstance(processor, dict)
        super().set_attn_processor(self_attention.processors(self, way, processor) if one_for_all else processor)

    @property
    def in_channels(self) -> int:
        return int(self.config["in_channels"])

    @property
    def context_width(self) -> int:
        width = self.config["cross_attention_dim"]
        return int(width[0] if isinstance(width, list | tuple) else width)

    @property
    def bottleneck(self) -> nn.Module | None:
        """What a backbone such as sd21_fourier has put between the middle and the up blocks, a map -> a map of its shape."""
        return self._modules.get(BOTTLENECK)

    def add_bottleneck(self, block: nn.Module) -> None:
        """Let `block` run there from now on, and be saved with the rest."""
        self.add_module(BOTTLENECK, block)

    @property
    def empty_prompt(self) -> Tensor | None:
        """The embedding of "" that the network knows by itself, (1, 1, width): SDXL was trained with zeros for it."""
        if self.config["addition_embed_type"] != "text_time":
            return None
        return torch.zeros(1, 1, self.context_width)

    @property
    def pyramid_channels(self) -> tuple[int, ...]:
        """Channels of the up-block outputs, coarsest first: 1280, 1280, 640, 320 for Stable Diffusion 2.1."""
        return tuple(reversed(self.config["block_out_channels"]))

    @property
    def pyramid_strides(self) -> tuple[int, ...]:
        """Image pixels per cell behind an 8 x codec: 32, 16, 8, 8. All but the last up block upsample."""
        n = len(self.up_blocks)
        return tuple(8 * 2 ** max(0, n - 2 - i) for i in range(n))

    def output_parameters(self) -> Iterator[nn.Parameter]:
        if self.conv_norm_out is not None:
            yield from self.conv_norm_out.parameters()
        yield from self.conv_out.parameters()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The parent's. ValueError where there is a bottleneck, which the parent would leave out without a word."""
        if self.bottleneck is not None:
            raise ValueError(
                f"{BOTTLENECK} is no part of diffusers' forward, which leaves it out: call forward_features"
            )
        return super().forward(*args, **kwargs)

    @apply_forward_hook  # so that model CPU offload brings the weights in, as it does for `forward`
    def forward_features(
        self,
        x: Tensor,
        t: Tensor,
        context: Tensor,
        *,
        latent: bool = True,
        class_labels: Tensor | None = None,
        residuals: Sequence[Tensor] = (),
    ) -> Features:
        """x (B, in_channels, h, w), any h and w; t (B,) or (); context (B, tokens, cross_attention_dim).

        residuals: what a ControlNet adds to the skip connections, in their order, and last to the middle. Returns the
        output latent (B, out_channels, h, w), unless `latent` is False, and the four up-block outputs.
        """
        emb = self.time_embedding(self.get_time_embed(sample=x, timestep=t))
        if (class_emb := self.get_class_embed(sample=x, class_labels=class_labels)) is not None:
            emb = torch.cat([emb, class_emb], dim=-1) if self.config["class_embeddings_concat"] else emb + class_emb
        if self.config["addition_embed_type"] == "text_time":
            conditions = self._size_conditions(x)
            more = self.get_aug_embed(emb=emb, encoder_hidden_states=context, added_cond_kwargs=conditions)
            emb = emb + cast(Tensor, more)
        h = self.conv_in(x)
        skips = (h,)
        for block in self.down_blocks:
            if getattr(block, "has_cross_attention", False):
                h, new = block(hidden_states=h, temb=emb, encoder_hidden_states=context)
            else:
                h, new = block(hidden_states=h, temb=emb)
            skips += new
        if getattr(self.mid_block, "has_cross_attention", False):
            h = self.mid_block(h, emb, encoder_hidden_states=context)
        elif self.mid_block is not None:  # slim ones have none
            h = self.mid_block(h, emb)
        if residuals:
            skips = tuple(skip + extra for skip, extra in zip(skips, residuals[:-1], strict=True))
            h = h + residuals[-1]
        if self.bottleneck is not None:
            h = self.bottleneck(h)
        pyramid: list[Tensor] = []
        for block in self.up_blocks:
            n = len(cast(UpBlock2D | CrossAttnUpBlock2D, block).resnets)
            block_skips, skips = skips[-n:], skips[:-n]
            # odd sizes: upsample to the size of the skip that comes next, not to twice the current one
            kwargs = {"upsample_size": skips[-1].shape[2:]} if skips else {}
            if getattr(block, "has_cross_attention", False):
                kwargs["encoder_hidden_states"] = context
            h = block(hidden_states=h, temb=emb, res_hidden_states_tuple=block_skips, **kwargs)
            pyramid.append(h)
        size = (x.shape[-2], x.shape[-1])  # without int(), which would make constants of a traced graph's symbols
        return Features(self._output(h) if latent else None, tuple(pyramid), size)

    def _output(self, h: Tensor) -> Tensor:
        if self.conv_norm_out is not None and self.conv_act is not None:
            h = self.conv_act(self.conv_norm_out(h))
        return self.conv_out(h)

    def _size_conditions(self, x: Tensor) -> dict[str, Tensor]:
        """What an SDXL-shaped U-Net is told beside the text: no pooled text, as for "", and an uncropped image of this size."""
        config = self.config
        width = config["projection_class_embeddings_input_dim"] - _TIME_IDS * config["addition_time_embed_dim"]
        size = [float(edge * _PIXELS_PER_CELL) for edge in x.shape[-2:]]
        time_ids = torch.tensor([*size, 0.0, 0.0, *size], device=x.device, dtype=x.dtype)
        return {"text_embeds": x.new_zeros(len(x), width), "time_ids": time_ids.repeat(len(x), 1)}
