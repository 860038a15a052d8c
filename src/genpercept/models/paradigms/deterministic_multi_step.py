"""The deterministic multi-step paradigm (RGB blending): diffusion between label and image, with z_x in the noise's place."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from genpercept import equations
from genpercept.core.rng import Rng
from genpercept.core.values import Features
from genpercept.models.paradigms import Denoise
from genpercept.models.paradigms._multi_step import MultiStep
from genpercept.models.paradigms._options import full_timestep


@dataclass(frozen=True)
class DeterministicMultiStep(MultiStep):
    """v-prediction. At betas (1, 1) it is the one-step paradigm, whatever the number of steps."""

    name = "deterministic_multi_step"
    stochastic = False

    def input_channels(self, latent_channels: int) -> int:
        return latent_channels

    def training_pair(self, z_x: Tensor, z_y: Tensor, rng: Rng) -> tuple[Tensor, Tensor, Tensor]:
        """sqrt(abar) z_y + sqrt(1 - abar) z_x at a random t, and the target sqrt(abar) z_x - sqrt(1 - abar) z_y."""
        t = self.random_timestep(rng)
        abar = self.abar[t]
        return equations.diffuse(z_y, z_x, abar), t.to(z_x.device), equations.v_target(z_y, z_x, abar)

    def estimate(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return equations.clean_from_v(x, output, self.abar[t.cpu()])

    def predict(
        self, denoise: Denoise, z_x: Tensor, steps: int, rng: Rng | None = None, latents: Tensor | None = None
    ) -> Features:
        """From z_x through `steps` DDIM steps; the answer is the last estimate of the label latent. float32 throughout."""
        abar_T = self.abar
        z_t = z_x.float()
        features, clean = Features(), z_t
        for t in self.timesteps(steps):
            features = denoise(z_t, full_timestep(z_t, t))
            v = features.require_latent().float()
            clean = equations.clean_from_v(z_t, v, abar_T[t])
            before = equations.abar_before(t, steps, abar_T, abar_T[0])
            z_t = equations.ddim_step("v_prediction", z_t, v, abar_T[t], before)
        return features.with_latent(clean)


PLUGIN = DeterministicMultiStep()
