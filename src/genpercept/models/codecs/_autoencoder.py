"""Calls of diffusers' autoencoders with the types of their answers, which theirs leave open."""

from __future__ import annotations

from typing import cast

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTinyOutput
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from torch import Tensor


def posterior(module: AutoencoderKL, image_BCHW: Tensor) -> DiagonalGaussianDistribution:
    """What the encoder says of images in [-1, 1]: mean, std and logvar of latents (B, C, h, w), not scaled."""
    return cast(AutoencoderKLOutput, module.encode(image_BCHW)).latent_dist


def latents(module: AutoencoderTiny, image_BCHW: Tensor) -> Tensor:
    """What the encoder makes of images in [-1, 1]: latents (B, C, h, w), not scaled."""
    return cast(AutoencoderTinyOutput, module.encode(image_BCHW)).latents


def decoded(module: AutoencoderKL | AutoencoderTiny, latent_BChw: Tensor) -> Tensor:
    """What the decoder makes of latents that are not scaled: (B, C, H, W), in the channels that it has."""
    return cast(DecoderOutput, module.decode(cast(torch.FloatTensor, latent_BChw))).sample
