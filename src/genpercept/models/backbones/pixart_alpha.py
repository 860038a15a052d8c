"""PixArt-alpha (Chen et al. 2023): diffusers' PixArtTransformer2DModel with an explicit method for its feature pyramid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import PixArtTransformer2DModel
from diffusers.models.embeddings import get_2d_sincos_pos_embed
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from genpercept.checkpoints.schema import check_arguments
from genpercept.core.values import Features
from genpercept.models.backbones import BackbonePlugin
from genpercept.models.backbones._blocks import KEY, check_size, choose, to_map
from genpercept.models.backbones._blocks import check as check_blocks
from genpercept.models.backbones._saved import SavedAsParent
from genpercept.models.backbones._widen import widen_convolution

# PixArt-XL-2-512x512: 610,856,096 parameters. The 1024 model has sample_size 128, whose two micro-conditions add 493,056.
PIXART_512_CONFIG: dict[str, Any] = {
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 28,
    "cross_attention_dim": 1152,
    "caption_channels": 4096,
    "sample_size": 64,
    "patch_size": 2,
    "norm_type": "ada_norm_single",
    "norm_elementwise_affine": False,
}
PIXART_1024_CONFIG: dict[str, Any] = PIXART_512_CONFIG | {"sample_size": 128}

_LARGEST_TABLE = 512  # cells along each edge; the largest published, for 2048 pixels, has 256
_PIXELS_PER_CELL = 8  # of the codec PixArt was trained with: its micro-conditions are in pixels


class PixArtTransformer(SavedAsParent, PixArtTransformer2DModel):
    """PixArtTransformer2DModel whose `forward_features` also gives the token maps behind four of its blocks.

    An explicit method, not forward hooks, tested equal to the parent's forward. All maps have one size; the deepest block's
    counts as the coarsest level, as DPT reads plain transformers. The sine position embeddings span any grid, as the parent's.
    """

    parent_name = PixArtTransformer2DModel.__name__
    empty_prompt: Tensor | None = None

    @property
    def in_channels(self) -> int:
        return int(self.config["in_channels"])

    @property
    def latent_channels(self) -> int:
        """Of the output latent: half of what the network gives where the other half is its learned sigma."""
        return self.in_channels if self.out_channels == 2 * self.in_channels else self.out_channels

    @property
    def patch(self) -> int:
        return int(self.config["patch_size"])

    @property
    def context_width(self) -> int | None:
        return self.config["caption_channels"] or self.config["cross_attention_dim"]

    @property
    def pyramid_blocks(self) -> tuple[int, ...]:
        """Counted from 0. `pyramid_blocks` in config.json, or four evenly spaced ones."""
        return choose(self.config.get(KEY), len(self.transformer_blocks))

    def choose_blocks(self, blocks: Sequence[int]) -> None:
        """Read the pyramid behind these blocks from now on. ValueError for blocks that are not there."""
        self.register_to_config(**{KEY: list(choose(blocks, len(self.transformer_blocks)))})

    @property
    def pyramid_channels(self) -> tuple[int, ...]:
        return (int(self.inner_dim),) * len(self.pyramid_blocks)

    @property
    def pyramid_strides(self) -> tuple[int, ...]:
        """Image pixels per token behind an 8 x codec: 16 at every level."""
        return (_PIXELS_PER_CELL * self.patch,) * len(self.pyramid_blocks)

    def output_parameters(self) -> Iterator[nn.Parameter]:
        yield self.scale_shift_table
        yield from self.proj_out.parameters()
        for block in self.transformer_blocks[self.pyramid_blocks[-1] + 1 :]:
            yield from block.parameters()

    @apply_forward_hook  # so that model CPU offload brings the weights in, as it does for `forward`
    def forward_features(self, x: Tensor, t: Tensor, context: Tensor, *, latent: bool = True) -> Features:
        """x (B, in_channels, h, w), h and w multiples of `patch`; t (B,) or (); context (B, tokens, context_width), all read.

        Returns the latent (B, latent_channels, h, w), without the learned sigma, unless `latent` is False, and the pyramid.
        """
        size, grid = (int(x.shape[-2]), int(x.shape[-1])), check_size("pixart_alpha", x, self.patch)
        h = self.pos_embed(x)
        conditions = self._micro_conditions(size, x) if self.use_additional_conditions else None
        shifts, emb = self.adaln_single(t.expand(len(x)), conditions, batch_size=len(x), hidden_dtype=h.dtype)
        if self.caption_projection is not None:
            context = self.caption_projection(context)
        chosen = self.pyramid_blocks
        maps: list[Tensor] = []
        blocks = self.transformer_blocks if latent else self.transformer_blocks[: chosen[-1] + 1]
        for number, block in enumerate(blocks):
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                run = cast(Callable[..., Tensor], self._gradient_checkpointing_func)  # None while that is off
                h = run(block, h, None, context, None, shifts, None, None)
            else:
                h = block(h, encoder_hidden_states=context, timestep=shifts)
            if number in chosen:
                maps.append(to_map(h, grid))
        pyramid = tuple(reversed(maps))
        return Features(self._output(h, emb, grid) if latent else None, pyramid, size)

    def _micro_conditions(self, size: tuple[int, int], like: Tensor) -> dict[str, Tensor]:
        """Height and width of the image in pixels, and their ratio, as the 1024 models were told them in training."""
        pixels = [float(edge * _PIXELS_PER_CELL) for edge in size]
        resolution = torch.tensor(pixels, device=like.device).repeat(len(like), 1)
        return {"resolution": resolution, "aspect_ratio": resolution[:, :1] / resolution[:, 1:]}

    def _output(self, h: Tensor, emb: Tensor, grid: tuple[int, int]) -> Tensor:
        """Tokens -> latent: modulated norm, projection, and patches put back in their places."""
        shift, scale = (self.scale_shift_table[None] + emb[:, None]).chunk(2, dim=1)
        out = self.proj_out(self.norm_out(h) * (1 + scale) + shift)
        out = out.unflatten(2, (self.patch, self.patch, self.out_channels)).unflatten(1, grid)
        out = out.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)  # (B, C, rows, patch, columns, patch)
        return out[:, : self.latent_channels]


def drop_sigma(net: PixArtTransformer) -> None:
    """Leave the learned sigma out of the last projection, in place, where there is one: a predictor never reads it."""
    channels, last = net.latent_channels, net.proj_out
    if channels == net.out_channels:
        return
    shape = (net.patch**2, net.out_channels)
    with torch.no_grad():
        for name in ("weight", "bias"):
            old = getattr(last, name)
            kept = old.unflatten(0, shape)[:, :channels].flatten(0, 1).clone()
            setattr(last, name, nn.Parameter(kept, requires_grad=old.requires_grad))
    last.out_features = len(last.bias)
    net.out_channels = channels
    net.register_to_config(out_channels=channels)


class PixArtAlpha(BackbonePlugin):
    """The published folders are diffusers' older Transformer2DModel, with the null caption among the weights.

    `null_caption` (120, 4096) is what a tenth of PixArt's training captions were replaced by. diffusers itself leaves it out
    and guides by T5's answer to "", which training never showed.
    """

    name = "pixart_alpha"
    class_name = PixArtTransformer2DModel.__name__
    older_names = ("Transformer2DModel",)
    null_caption = "caption_projection.y_embedding"
    input = "latent"
    folder = "transformer"
    chooses_blocks = True

    def recognise(self, config: dict) -> bool:
        older = config.get("_class_name") in self.older_names and config.get("norm_type") == "ada_norm_single"
        return older or config.get("_class_name") == self.class_name

    def skip(self, tensor: str) -> bool:
        """The null caption: it is the prompt's embedding, not a weight."""
        return tensor == self.null_caption

    def check(self, config: dict, path: Path) -> None:
        check_arguments(path, config, PixArtTransformer2DModel)
        check_blocks(config, path)
        if (size := config.get("sample_size") or 0) > _LARGEST_TABLE:
            raise ValueError(
                f"{path}: sample_size is {size}: must be an integer from 1 to {_LARGEST_TABLE}, of which a table is computed"
            )

    def build(self, config: dict) -> nn.Module:
        """`pyramid_blocks` of the configuration: the blocks that make the pyramid, counted from 0."""
        own = signature(PixArtTransformer2DModel.__init__).parameters
        known = {key: value for key, value in config.items() if key in own}
        net = cast(PixArtTransformer, PixArtTransformer.from_config(known))
        if config.get(KEY):
            net.choose_blocks(config[KEY])
        place = net.pos_embed
        with torch.device("cpu"):  # computed, not stored in files, so that it must not stay on the meta device
            table = get_2d_sincos_pos_embed(
                net.inner_dim,
                place.height,
                base_size=place.base_size,
                interpolation_scale=place.interpolation_scale,
                output_type="pt",
            )
        place.register_buffer("pos_embed", table.float()[None], persistent=False)
        return net

    def adapt(self, module: nn.Module, channels: int) -> nn.Module:
        """The learned sigma goes; the first convolution is widened where it must be."""
        net = cast(PixArtTransformer, module)
        drop_sigma(net)
        if net.in_channels != channels:
            widen_convolution(net.pos_embed.proj, channels)
            net.register_to_config(in_channels=channels)
        return net


PLUGIN = PixArtAlpha()
