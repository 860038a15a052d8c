"""The deterministic one-step paradigm (GenPercept): z_y = -v_theta(z_x, t), once. The limit beta = 1 of RGB blending."""

from __future__ import annotations

import torch
from torch import Tensor

from genpercept import equations
from genpercept.paradigms import Denoise
from genpercept.rng import Rng
from genpercept.types import Features


class OneStep:
    name = "one_step"
    needs_latent = False

    def input_channels(self, latent_channels: int) -> int:
        return latent_channels

    def training_pair(self, z_x: Tensor, z_y: Tensor, rng: Rng) -> tuple[Tensor, Tensor, Tensor]:
        """The image latent itself, t = 1, and the target -z_y. Draws nothing from `rng`."""
        return z_x, _timestep(z_x), equations.one_step_target(z_y)

    def estimate(self, output: Tensor) -> Tensor:
        return equations.one_step_estimate(output)

    def predict(self, denoise: Denoise, z_x: Tensor, steps: int, rng: Rng | None = None) -> Features:
        """One call of the denoiser. ValueError for any other number of steps."""
        if steps != 1:
            raise ValueError(
                f"num_inference_steps={steps}: a one-step model takes exactly 1 step; leave the option out"
            )
        features = denoise(z_x, _timestep(z_x))
        if features.latent is None:
            return features
        return features.with_latent(equations.one_step_estimate(features.latent))


def _timestep(z_x: Tensor) -> Tensor:
    return torch.full((z_x.shape[0],), equations.ONE_STEP_TIMESTEP, dtype=torch.int64, device=z_x.device)


PLUGIN = OneStep()
