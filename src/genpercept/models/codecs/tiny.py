"""The tiny autoencoder (diffusers' AutoencoderTiny, published as TAESD): its latents are in scaled space already."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from diffusers import AutoencoderTiny
from torch import Tensor, nn

from genpercept.checkpoints.schema import check_arguments
from genpercept.models.codecs import CodecPlugin, input_dtype
from genpercept.models.codecs._autoencoder import decoded, latents

WIDTH, BLOCKS = 64, 3  # of every level as published (TAESD); the outermost has one block


def matching_config(kl: dict[str, Any], width: int = WIDTH, blocks: int = BLOCKS) -> dict[str, Any]:
    """Configuration of an AutoencoderTiny with the levels and latent of the AutoencoderKL whose configuration `kl` is.

    width: channels of every level. With Stable Diffusion's and the defaults it is TAESD: 2,445,063 parameters.
    """
    levels = len(kl["block_out_channels"])
    widths, inner = [width] * levels, [blocks] * (levels - 1)
    return {
        "_class_name": "AutoencoderTiny",
        "encoder_block_out_channels": widths,
        "decoder_block_out_channels": widths,
        "num_encoder_blocks": [1, *inner],
        "num_decoder_blocks": [*inner, 1],
        "latent_channels": kl["latent_channels"],
    }


class TinyCodec:
    """Images in [-1, 1] on both sides: diffusers' AutoencoderTiny maps to [0, 1] inside its encoder and back in its decoder."""

    def __init__(self, module: AutoencoderTiny) -> None:
        self.module = module
        self.scale = float(module.config["scaling_factor"])
        self.channels = int(module.config["latent_channels"])
        self.stride = 2 ** (len(module.config["encoder_block_out_channels"]) - 1)

    def encode(self, image: Tensor) -> Tensor:
        return latents(self.module, image.to(input_dtype(self.module))) * self.scale

    def decode(self, latent: Tensor) -> Tensor:
        image = decoded(self.module, latent.to(input_dtype(self.module)) / self.scale)
        return image.expand(-1, 3, -1, -1)  # one of a single channel, as the distilling stage makes them


class Tiny(CodecPlugin):
    name = "tiny"
    class_name = "AutoencoderTiny"
    output = "latent"

    def check(self, config: dict, path: Path) -> None:
        check_arguments(path, config, AutoencoderTiny)

    def build(self, config: dict) -> nn.Module:
        # AutoencoderTiny saves block_out_channels, and warns of it when read
        known = {k: v for k, v in config.items() if k != "block_out_channels"}
        return cast(nn.Module, AutoencoderTiny.from_config(known))

    def wrap(self, module: nn.Module | None) -> TinyCodec:
        if not isinstance(module, AutoencoderTiny):
            raise ValueError(
                f"codec 'tiny' needs an AutoencoderTiny, not a {type(module).__name__}: use codec 'kl' for AutoencoderKL"
            )
        return TinyCodec(module)


PLUGIN = Tiny()
