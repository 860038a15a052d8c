"""The deterministic one-step paradigm (GenPercept): z_y = -v_theta(z_x, t), once. The limit beta = 1 of RGB blending.

With prediction_type "sample" (Lotus-D) the network answers with z_y itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from genpercept import equations
from genpercept.core.rng import Rng
from genpercept.core.values import Features
from genpercept.models.paradigms import Denoise
from genpercept.models.paradigms._options import OnePass, check_choice, check_flag, check_timestep, full_timestep


@dataclass(frozen=True)
class OneStep(OnePass):
    """timestep: what the network is told, 0 to 999. random_timestep: in training, uniform in [0, 999] instead.

    prediction_type: v_prediction (the network answers -z_y) or sample (z_y).
    """

    timestep: int = equations.ONE_STEP_TIMESTEP
    random_timestep: bool = False
    prediction_type: str = "v_prediction"

    name = "one_step"
    needs_latent = False
    gives_latent = True
    stochastic = False
    prediction_types = equations.ONE_STEP_TYPES

    def __post_init__(self) -> None:
        check_timestep("timestep", self.timestep)
        check_flag("random_timestep", self.random_timestep)
        check_choice("prediction_type", self.prediction_type, equations.ONE_STEP_TYPES)

    def input_channels(self, latent_channels: int) -> int:
        return latent_channels

    def training_pair(self, z_x: Tensor, z_y: Tensor, rng: Rng) -> tuple[Tensor, Tensor, Tensor]:
        """The image latent itself, the timestep, and the target -z_y (or z_y). Draws only a random timestep from `rng`."""
        if self.random_timestep:
            t = rng.integers(0, equations.TRAIN_STEPS, "timestep").to(z_x.device)
        else:
            t = full_timestep(z_x, self.timestep)
        return z_x, t, equations.one_step_target(z_y, self.prediction_type)

    def estimate(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return equations.one_step_estimate(output, self.prediction_type)

    def predict(
        self, denoise: Denoise, z_x: Tensor, steps: int = 1, rng: Rng | None = None, latents: Tensor | None = None
    ) -> Features:
        """One call of the denoiser. ValueError for any other number of steps."""
        self.check_steps(steps)
        features = denoise(z_x, full_timestep(z_x, self.timestep))
        if features.latent is None:
            return features
        return features.with_latent(equations.one_step_estimate(features.latent, self.prediction_type))


PLUGIN = OneStep()
