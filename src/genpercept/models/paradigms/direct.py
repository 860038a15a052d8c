"""The direct paradigm: one pass of the backbone, whose features a pyramid head reads. No latent comes out."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from genpercept import equations
from genpercept.core.rng import Rng
from genpercept.core.values import Features
from genpercept.models.paradigms import Denoise
from genpercept.models.paradigms._options import OnePass, check_timestep, full_timestep


@dataclass(frozen=True)
class Direct(OnePass):
    """timestep: what a denoiser is told, 0 to 999. Losses compare the head's maps only: there is no latent to compare."""

    timestep: int = equations.ONE_STEP_TIMESTEP

    name = "direct"
    needs_latent = False
    gives_latent = False
    stochastic = False

    def __post_init__(self) -> None:
        check_timestep("timestep", self.timestep)

    def input_channels(self, latent_channels: int) -> int:
        return latent_channels

    def training_pair(self, z_x: Tensor, z_y: Tensor, rng: Rng) -> tuple[Tensor, Tensor, Tensor]:
        """The image latent, the timestep, and z_y as it is, which no output can be compared with."""
        return z_x, full_timestep(z_x, self.timestep), z_y

    def estimate(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """ValueError: there is no latent."""
        raise ValueError("paradigm 'direct' gives no latent: leave out losses on latents, or choose one_step")

    def predict(
        self, denoise: Denoise, z_x: Tensor, steps: int = 1, rng: Rng | None = None, latents: Tensor | None = None
    ) -> Features:
        """One call of the backbone. ValueError for any other number of steps."""
        self.check_steps(steps)
        return denoise(z_x, full_timestep(z_x, self.timestep))


PLUGIN = Direct()
