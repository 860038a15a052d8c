"""A decoder that stops at half or a quarter of the size, and a small network that brings its answer up along the
photograph.

The decoder is an AutoencoderKL's without its finest levels. Upsampling is convex, as RAFT's (Teed & Deng 2020,
section 3.3): every pixel is a weighted mean of the 3 x 3 values around it, here with weights out of the decoder's
features and the photograph, plus a residual. All of its convolutions run at the small size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention import AttentionMixin
from diffusers.models.autoencoders.vae import Decoder
from torch import Tensor, nn

from genpercept.checkpoints.schema import check_arguments
from genpercept.core.modules import config_of
from genpercept.models.codecs import CodecPlugin, input_dtype

HINTS = 16  # channels that the decoder gives the upsampler beside the label
WIDTH = 48  # of the upsampler
_NEIGHBOURS = 9
_NOTHING = -12.0  # logit of a weight that is none


class GuidedUpsampler(nn.Module):
    """Label and hints (B, C + hints, h, w), image (B, 3, h f, w f) in [-1, 1] -> label (B, C, h f, w f).

    With its first weights it is bilinear interpolation (edges repeated), to 1e-4 of the values' range.
    """

    def __init__(self, channels: int, hints: int, factor: int, width: int) -> None:
        super().__init__()
        self.channels, self.factor = channels, factor
        self.conv_in = nn.Conv2d(channels + hints + 3 * factor**2, width, 3, padding=1)
        self.conv_mid = nn.Conv2d(width, width, 3, padding=1)
        self.conv_out = nn.Conv2d(width, (_NEIGHBOURS + channels) * factor**2, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        bias = cast(Tensor, self.conv_out.bias)
        if not bias.is_meta:
            with torch.no_grad():
                bias.copy_(torch.cat([_bilinear(factor).flatten(), torch.zeros(channels * factor**2)]))

    def forward(self, low_BCHW: Tensor, image_BCHW: Tensor) -> Tensor:
        label, squares = low_BCHW[:, : self.channels], self.factor**2
        x = torch.cat([low_BCHW, F.pixel_unshuffle(image_BCHW.to(low_BCHW.dtype), self.factor)], dim=1)
        x = self.conv_out(F.silu(self.conv_mid(F.silu(self.conv_in(x)))))
        logits, residual = x[:, : _NEIGHBOURS * squares], x[:, _NEIGHBOURS * squares :]
        weights = logits.unflatten(1, (_NEIGHBOURS, squares)).softmax(1)
        h, w = label.shape[-2:]
        padded = F.pad(label, (1, 1, 1, 1), mode="replicate")
        found = residual.unflatten(1, (self.channels, squares))
        for k in range(_NEIGHBOURS):  # one after the other: nine copies of the map would be most of the memory
            row, column = divmod(k, 3)
            moved = padded[:, :, row : row + h, column : column + w]
            found = found + weights[:, k, None] * moved[:, :, None]
        return F.pixel_shuffle(found.flatten(1, 2), self.factor)


def _bilinear(factor: int) -> Tensor:
    """Logits (9, factor^2) of bilinear interpolation's weights, for each place within a pixel of the small map."""
    offsets = (torch.arange(factor) + 0.5) / factor - 0.5  # from the small pixel's centre, in small pixels
    along = torch.stack([(-offsets).clamp_min(0), 1 - offsets.abs(), offsets.clamp_min(0)])  # (3, factor)
    weights = torch.einsum("ay,bx->abyx", along, along).flatten(2).flatten(0, 1)
    return weights.log().clamp_min(_NOTHING)


class GuidedDecoder(ModelMixin, AttentionMixin, ConfigMixin):
    """`post_quant_conv` and `decoder` of an AutoencoderKL without its finest levels, and `upsampler`."""

    _supports_gradient_checkpointing = True
    use_tiling = False

    @register_to_config
    def __init__(
        self,
        block_out_channels: tuple[int, ...] = (256, 512, 512),
        levels: int = 1,
        layers_per_block: int = 2,
        latent_channels: int = 4,
        out_channels: int = 3,
        norm_num_groups: int = 32,
        act_fn: str = "silu",
        mid_block_add_attention: bool = True,
        use_post_quant_conv: bool = True,
        scaling_factor: float = 0.18215,
        hints: int = HINTS,
        width: int = WIDTH,
    ) -> None:
        """As AutoencoderKL's arguments. block_out_channels: of the levels that are left, the finest first; levels:
        how many finer ones were left out, at least one; hints, width: of the upsampler.
        """
        super().__init__()
        if levels < 1:
            raise ValueError(f"levels {levels}: a guided decoder leaves out at least one; AutoencoderKL has all")
        self.post_quant_conv = nn.Conv2d(latent_channels, latent_channels, 1) if use_post_quant_conv else None
        self.decoder = Decoder(
            in_channels=latent_channels,
            out_channels=out_channels + hints,
            up_block_types=("UpDecoderBlock2D",) * len(block_out_channels),
            block_out_channels=tuple(block_out_channels),
            layers_per_block=layers_per_block,
            norm_num_groups=norm_num_groups,
            act_fn=act_fn,
            mid_block_add_attention=mid_block_add_attention,
        )
        self.upsampler = GuidedUpsampler(out_channels, hints, 2**levels, width)

    def forward(self, latent_BChw: Tensor, image_BCHW: Tensor) -> Tensor:
        """Latent that is not scaled, image in [-1, 1] -> label image (B, out_channels, H, W), about [-1, 1], unclipped."""
        if self.post_quant_conv is not None:
            latent_BChw = self.post_quant_conv(latent_BChw)
        return self.upsampler(self.decoder(latent_BChw), image_BCHW)

    def enable_tiling(self) -> NoReturn:
        raise ValueError("a guided decoder does not work in tiles: leave tiling out, or use the whole decoder")

    def disable_tiling(self) -> None:
        """It never tiles."""


class Guided:
    """A GuidedDecoder as half of a Codec."""

    def __init__(self, module: GuidedDecoder) -> None:
        self.module = module
        config = module.config
        self.scale, self.channels = float(config["scaling_factor"]), int(config["latent_channels"])
        self.stride = 2 ** (len(config["block_out_channels"]) - 1 + int(config["levels"]))

    def encode(self, image: Tensor) -> Tensor:
        raise ValueError("a GuidedDecoder only decodes: pair it with another codec's encoder")

    def decode(self, latent: Tensor) -> Tensor:
        raise ValueError("a GuidedDecoder decodes beside the photograph: use decode_guided")

    def decode_guided(self, latent: Tensor, image: Tensor) -> Tensor:
        """(B, 3, H, W) out of the scaled latent and the image in [-1, 1]; one channel is painted on all three."""
        dtype = input_dtype(self.module)
        return self.module(latent.to(dtype) / self.scale, image.to(dtype)).expand(-1, 3, -1, -1)


class GuidedPlugin(CodecPlugin):
    name = "guided"
    class_name = GuidedDecoder.__name__
    output = "latent"
    encodes = False

    def check(self, config: dict, path: Path) -> None:
        check_arguments(path, config, GuidedDecoder)
        levels = config.get("levels", 1)
        if not 1 <= levels <= _MOST_LEVELS:
            raise ValueError(f"{path}: levels is {levels}: must lie between 1 and {_MOST_LEVELS}; copy it again")

    def build(self, config: dict) -> nn.Module:
        return cast(nn.Module, GuidedDecoder.from_config(config))

    def wrap(self, module: nn.Module | None) -> Guided:
        if not isinstance(module, GuidedDecoder):
            raise ValueError(f"codec 'guided' needs a GuidedDecoder, not a {type(module).__name__}: use codec 'kl'")
        return Guided(module)


_MOST_LEVELS = 4


def matching_config(
    kl: dict[str, Any], levels: int = 1, channels: int = 3, hints: int = HINTS, width: int = WIDTH
) -> dict[str, Any]:
    """Configuration of a GuidedDecoder over the decoder of the AutoencoderKL whose configuration `kl` is.

    ValueError for more levels than can be left out.
    """
    kept: Sequence[int] = kl["block_out_channels"][levels:]
    if not kept:
        raise ValueError(
            f"levels {levels}: the decoder has {len(kl['block_out_channels'])}, of which at least one must stay"
        )
    same = ("layers_per_block", "latent_channels", "norm_num_groups", "act_fn", "mid_block_add_attention")
    same += ("use_post_quant_conv", "scaling_factor")
    config = {key: kl[key] for key in same if kl.get(key) is not None}
    own = {"block_out_channels": list(kept), "levels": levels, "out_channels": channels, "hints": hints, "width": width}
    return {"_class_name": GuidedDecoder.__name__} | config | own


def brought_up(vae: nn.Module, levels: int = 1) -> GuidedDecoder:
    """The whole decoder of an AutoencoderKL over copies of its weights, whose answer an upsampler brings to 2^levels times
    the size. It begins as the decoder enlarged bilinearly, to 1e-4; `vae` stays as it is.
    """
    config = matching_config(config_of(vae), levels=0) | {"levels": levels}
    made = cast(GuidedDecoder, GuidedDecoder.from_config(config))
    own, whole = made.state_dict(), vae.state_dict()
    for name in own.keys() & whole.keys():
        rows = whole[name]
        if own[name].shape == rows.shape:
            own[name] = rows.detach().clone()
        else:  # the last convolution, which gives hints beside the label
            own[name][: len(rows)] = rows
    made.load_state_dict(own)
    return cast(GuidedDecoder, nn.Module.to(made, dtype=next(vae.parameters()).dtype)).eval()


PLUGIN = GuidedPlugin()
