"""One end of the tiny autoencoder (diffusers' AutoencoderTiny, published as TAESD), to be distilled from a larger codec's.

As TAESD was made: an encoder taught the latents of Stable Diffusion's, a decoder its pictures. Here it starts from random
weights, because nothing in it corresponds to a layer of the larger one.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import nn

from genpercept.models.codecs import CODECS
from genpercept.models.codecs.tiny import BLOCKS, WIDTH, matching_config
from genpercept.training.networks.prune import Part


def tiny_config(config: dict[str, Any], part: Part, width: float, blocks: int = 0, channels: int = 3) -> dict[str, Any]:
    """Configuration of an AutoencoderTiny with the latents of the codec that `config` describes. See `tiny_half`."""
    return matching_config(config, max(1, round(WIDTH * width)), blocks or BLOCKS) | {
        "in_channels": config["in_channels"],
        "out_channels": channels if part == "decoder" else config["out_channels"],
    }


def tiny_half(vae: nn.Module, part: Part, width: float, blocks: int = 0, channels: int = 3) -> AutoencoderTiny:
    """`part` of an AutoencoderTiny with random weights, for the scaled latents of `vae`.

    width: share of TAESD's 64 channels. blocks: per level, 0: TAESD's 3; the outermost has one. channels: of a decoder's
    answer. ValueError for a codec of another class than AutoencoderKL.
    """
    if not isinstance(vae, AutoencoderKL):
        raise ValueError(f'distil.form "tiny": learns from an AutoencoderKL, not from a {type(vae).__name__}')
    half = cast(
        AutoencoderTiny,
        CODECS.find("tiny").build(tiny_config(dict(vae.config), part, width, blocks, channels)),
    )
    setattr(half, {"encoder": "decoder", "decoder": "encoder"}[part], None)
    device = next(vae.parameters()).device
    nn.Module.to(half, device=device, dtype=torch.float32)
    return half
