"""Paradigms: how a denoiser becomes a predictor. They call `genpercept.equations` and hold no other mathematics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from genpercept.rng import Rng
from genpercept.types import Features

Denoise = Callable[[Tensor, Tensor], Features]  # (network input (B, C, h, w), timestep (B,)) -> Features


class Paradigm(Protocol):
    name: str
    needs_latent: bool  # whether `predict` reads Features.latent (multi-step and the VAE head do)

    def input_channels(self, latent_channels: int) -> int:
        """Channels of the network input for latents of this many channels."""
        ...

    def training_pair(self, z_x: Tensor, z_y: Tensor, rng: Rng) -> tuple[Tensor, Tensor, Tensor]:
        """Latents (B, 4, h, w) of image and label -> network input, timestep (B,) int64, target (B, 4, h, w)."""
        ...

    def estimate(self, output: Tensor) -> Tensor:
        """The label latent that a training-time network output stands for (for losses through the decoder)."""
        ...

    def predict(self, denoise: Denoise, z_x: Tensor, steps: int, rng: Rng | None) -> Features:
        """Image latent (B, 4, h, w) -> Features whose latent is the label's. ValueError for steps it cannot take."""
        ...
