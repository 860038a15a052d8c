"""Paradigms: how a denoiser becomes a predictor. They call `genpercept.equations` and hold no other mathematics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, Self

from torch import Tensor

from genpercept.core.registry import Registry
from genpercept.core.rng import Rng
from genpercept.core.values import Features

Denoise = Callable[[Tensor, Tensor], Features]  # (network input (B, C, h, w), timestep (B,)) -> Features


class Paradigm(Protocol):
    """A frozen dataclass whose fields are its options; `PLUGIN` is the one with the defaults."""

    name: str
    needs_latent: bool  # whether `predict` reads Features.latent at every step (the multi-step ones do)
    gives_latent: bool  # whether it can end in a latent, for heads that consume one
    prediction_types: tuple[str, ...]  # what a base's denoiser may predict for training to start from it

    @property
    def stochastic(self) -> bool:
        """Whether it starts from noise, so that runs differ and can be ensembled."""
        ...

    @property
    def default_steps(self) -> int:
        """Steps of inference where none are asked for."""
        ...

    @property
    def options(self) -> dict[str, Any]:
        """Every option with its value, as genpercept.json stores them."""
        ...

    def with_options(self, **options: Any) -> Self:
        """The same paradigm with other options. ValueError names an unknown one, or a value that an option cannot have."""
        ...

    def check_steps(self, steps: int) -> None:
        """ValueError for a number of inference steps that it cannot take."""
        ...

    def input_channels(self, latent_channels: int) -> int:
        """Channels of the network input for latents of this many channels."""
        ...

    def label_channels(self, latent_channels: int) -> int:
        """Channels of the noise that the label latent starts from: of one image, or of several where it predicts several

        together, each from noise of its own.
        """
        ...

    def training_pair(self, z_x: Tensor, z_y: Tensor, rng: Rng) -> tuple[Tensor, Tensor, Tensor]:
        """Latents (B, 4, h, w) of image and label -> network input, timestep (B,) int64, target (B, 4, h, w).

        The timestep is as the network is told it: flow matching's is a time in [0, 1), float32. Several label images
        (`label_channels`): their latents beside each other in the channels of z_y.
        """
        ...

    def estimate(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The label latent that a training-time output stands for (for losses through the decoder).

        output (B, 4, h, w) is the network's answer to the input x and timestep t of `training_pair`.
        """
        ...

    def predict(
        self, denoise: Denoise, z_x: Tensor, steps: int, rng: Rng | None = None, latents: Tensor | None = None
    ) -> Features:
        """Image latent (B, 4, h, w) -> Features whose latent is the label's. ValueError for steps it cannot take.

        rng: of the noise. latents (B, 4, h, w): the noise to start from, in place of rng's; stochastic paradigms only.
        """
        ...


PARADIGMS = Registry[Paradigm](__name__, "paradigm", "genpercept.paradigms", Paradigm)
find = PARADIGMS.find
