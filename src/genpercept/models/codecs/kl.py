"""Stable Diffusion's autoencoder (diffusers' AutoencoderKL), deterministic: posterior mean times the scaling factor.

A decoder of one channel, as the distilling stage makes them for tasks of one value per pixel, paints it on all three.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from diffusers import AutoencoderKL
from torch import Tensor, nn

from genpercept.checkpoints.schema import check_arguments
from genpercept.models.codecs import CodecPlugin, input_dtype
from genpercept.models.codecs._autoencoder import decoded, posterior

# Stable Diffusion 1 and 2: 83,653,863 parameters.
SD_VAE_CONFIG: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 768,
    "scaling_factor": 0.18215,
}

_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


class KlCodec:
    """encode: mean of the posterior x scaling_factor (never sampled, so equal images give equal latents)."""

    def __init__(self, module: AutoencoderKL) -> None:
        self.module = module
        self.scale = float(module.config["scaling_factor"])
        self.channels = int(module.config["latent_channels"])
        self.stride = 2 ** (len(module.config["block_out_channels"]) - 1)

    def encode(self, image: Tensor) -> Tensor:
        return posterior(self.module, image.to(input_dtype(self.module))).mean * self.scale

    def decode(self, latent: Tensor) -> Tensor:
        return decoded(self.module, latent.to(input_dtype(self.module)) / self.scale).expand(-1, 3, -1, -1)


class Kl(CodecPlugin):
    name = "kl"
    class_name = "AutoencoderKL"
    output = "latent"

    def check(self, config: dict, path: Path) -> None:
        check_arguments(path, config, AutoencoderKL)

    def build(self, config: dict) -> nn.Module:
        return cast(nn.Module, AutoencoderKL.from_config(config))

    def rename(self, tensor: str) -> str:
        """Today's name of a tensor: Stable Diffusion's published files have the mid-block attention under older names."""
        if ".attentions." not in tensor:
            return tensor
        head, _, last = tensor.rpartition(".")
        stem, _, layer = head.rpartition(".")
        return f"{stem}.{_OLD_ATTENTION.get(layer, layer)}.{last}"

    def wrap(self, module: nn.Module | None) -> KlCodec:
        if not isinstance(module, AutoencoderKL):
            raise ValueError(
                f"codec 'kl' needs an AutoencoderKL, not a {type(module).__name__}: use codec 'tiny' for AutoencoderTiny"
            )
        return KlCodec(module)


PLUGIN = Kl()
