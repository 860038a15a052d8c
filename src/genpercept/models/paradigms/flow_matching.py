"""Flow matching (DepthFM, Gui et al. 2024): a straight flow from the image's noised latent to the label's.

It starts from the image, not from noise, and is told the image's clean latent beside its state. The network answers with a
velocity, and Euler's method follows it from time 0 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from genpercept import equations
from genpercept.core.rng import Rng
from genpercept.core.values import Features
from genpercept.models.paradigms import Denoise
from genpercept.models.paradigms._options import Options, check_integer


@dataclass(frozen=True)
class FlowMatching(Options):
    """noising_step: how far, of 1000 steps of the cosine schedule, the image's latent is noised before it starts, in training
    and in inference; 0: not at all, so that nothing is random. DepthFM's own checkpoint: 400.

    The network is told a time in [0, 1), a fraction, not one of 1000 timesteps. n steps are n calls, at 0, 1/n, ...: DepthFM's
    code makes 62 where 61 are asked for, whose last one, at the end by a rounding error, moves nothing.
    """

    noising_step: int = 400

    name = "flow_matching"
    noun = "paradigm"
    needs_latent = True
    gives_latent = True
    default_steps = 2
    # a velocity is none of these: whatever a base predicted, it has to learn that anew
    prediction_types: ClassVar[tuple[str, ...]] = equations.PREDICTION_TYPES

    def __post_init__(self) -> None:
        check_integer("noising_step", self.noising_step, 0, equations.TRAIN_STEPS)

    @property
    def stochastic(self) -> bool:
        return self.noising_step > 0

    @property
    def abar(self) -> Tensor:
        """Share of the image in the start's variance. Scalar, float64."""
        return equations.cosine_alpha_bar(self.noising_step / equations.TRAIN_STEPS)

    def check_steps(self, steps: int) -> None:
        if not 1 <= steps <= equations.TRAIN_STEPS:
            raise ValueError(f"num_inference_steps={steps}: must lie between 1 and {equations.TRAIN_STEPS}")

    def input_channels(self, latent_channels: int) -> int:
        return 2 * latent_channels

    def label_channels(self, latent_channels: int) -> int:
        return latent_channels

    def training_pair(self, z_x: Tensor, z_y: Tensor, rng: Rng) -> tuple[Tensor, Tensor, Tensor]:
        """concat((1 - t) z_0 + t z_y, z_x) at a random time (B,) float32 in [0, 1), and the target z_y - z_0, where z_0 is z_x
        noised.
        """
        t = rng.uniform("timestep").to(z_x.device)
        z_0 = self._noised(z_x, rng.normal(z_x.shape[1:]) if self.stochastic else None)
        x = torch.cat([equations.flow_path(z_0, z_y, t), z_x], dim=1)
        return x, t, equations.flow_velocity(z_0, z_y)

    def estimate(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return equations.flow_end(x[:, : x.shape[1] // 2], output, t)

    def predict(
        self, denoise: Denoise, z_x: Tensor, steps: int, rng: Rng | None = None, latents: Tensor | None = None
    ) -> Features:
        """From z_x, noised by `latents` or else by rng's, through `steps` steps of Euler's method. float32 throughout."""
        self.check_steps(steps)
        condition = z_x.float()
        if self.stochastic and latents is None:
            if rng is None:
                raise ValueError("flow_matching noises the image's latent that it starts from: pass rng or latents")
            latents = rng.normal(z_x.shape[1:])
        z_t = self._noised(condition, latents)
        features = Features()
        for t in equations.euler_times(steps).to(z_t.device):
            features = denoise(torch.cat([z_t, condition], dim=1), t.expand(len(z_t)))
            z_t = equations.euler_step(z_t, features.require_latent().float(), steps)
        return features.with_latent(z_t)

    def _noised(self, z_x: Tensor, noise: Tensor | None) -> Tensor:
        return z_x if noise is None else equations.diffuse(z_x, noise.to(z_x), self.abar)


PLUGIN = FlowMatching()
