"""Encoder, denoiser and decoder as one network, for peers of which no package has a pipeline."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from genpercept.core.rng import Rng
from genpercept.core.values import Features
from genpercept.models.paradigms import PARADIGMS

TOKENS = 2  # of the empty prompt, not padded
_PADDED_TOKENS = 77


class Flow(nn.Module):
    """DepthFM: encoder, a few steps of the U-Net for each of several starts, decoder, and the mean of what it gives."""

    vae_scale_factor = 8
    unet: Any  # diffusers' networks, whose calls have no types
    vae: Any

    def __init__(self, unet: Any, vae: Any, width: int) -> None:
        super().__init__()
        self.unet, self.vae = unet, vae
        self.empty_text_embedding = torch.zeros(1, _PADDED_TOKENS, width, device="cpu")

    def forward(self, image: Tensor, num_inference_steps: int, ensemble_size: int, **_: Any) -> Tensor:
        """image (1, 3, H, W) -> log-depth (1, 1, H, W)."""
        scale = self.vae.config.scaling_factor
        prompt = self.empty_text_embedding.to(image).expand(ensemble_size, -1, -1)

        def denoise(x: Tensor, t: Tensor) -> Features:
            return Features(self.unet(x.to(image.dtype), t, prompt).sample)

        z_x = (self.vae.encode(image * 2 - 1).latent_dist.mode() * scale).repeat(ensemble_size, 1, 1, 1)
        rng = Rng(0, 0, range(ensemble_size))
        found = PARADIGMS.find("flow_matching").predict(denoise, z_x, num_inference_steps, rng).require_latent()
        return self.vae.decode((found / scale).to(image.dtype)).sample.mean((0, 1), keepdim=True)


class InLatents(nn.Module):
    """Encoder, denoiser and decoder as one network in one step, from pixels in [-1, 1] to a map."""

    def __init__(self, unet: Any, vae: Any) -> None:
        super().__init__()
        self.unet, self.vae = unet, vae

    def forward(self, image: Tensor) -> Any:
        width, factor = self.unet.context_width, self.vae.config.scaling_factor
        latent = self.vae.encode(image).latent_dist.mean * factor
        found = self.unet.forward_features(latent, image.new_ones(1), image.new_zeros(1, TOKENS, width))
        return SimpleNamespace(predicted_depth=self.vae.decode(found.require_latent() / factor).sample.mean(1))
