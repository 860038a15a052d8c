"""What the two multi-step paradigms share: a noise schedule, and DDIM sampling over it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar

from torch import Tensor

from genpercept import equations
from genpercept.core.rng import Rng
from genpercept.models.paradigms._options import Options, check_choice, check_timestep


@dataclass(frozen=True)
class MultiStep(Options):
    """betas: beta_start and beta_end, scaled_linear. spacing, steps_offset: of inference's timesteps, as diffusers has them."""

    betas: tuple[float, float] = equations.SD_BETAS
    spacing: str = "leading"
    steps_offset: int = 1

    noun = "paradigm"
    needs_latent = True
    gives_latent = True
    default_steps = 10
    prediction_types: ClassVar[tuple[str, ...]] = ("v_prediction",)

    def __post_init__(self) -> None:
        check_betas(self.betas)
        check_choice("spacing", self.spacing, equations.SPACINGS)
        check_timestep("steps_offset", self.steps_offset)

    @property
    def abar(self) -> Tensor:
        """Cumulated alphas of the schedule, (T,) float32 on the CPU."""
        return equations.alphas_cumprod(equations.scaled_linear_betas(*self.betas))

    def check_steps(self, steps: int) -> None:
        self.timesteps(steps)

    def label_channels(self, latent_channels: int) -> int:
        return latent_channels

    def timesteps(self, steps: int) -> list[int]:
        """Timesteps of inference, descending. ValueError for a number of steps that the spacing cannot give."""
        return equations.sample_timesteps(steps, self.spacing, self.steps_offset).tolist()

    def random_timestep(self, rng: Rng) -> Tensor:
        """One timestep per sample, uniform in [0, T - 1], (B,) int64 on the CPU."""
        return rng.integers(0, equations.TRAIN_STEPS, "timestep")


def check_betas(betas: object) -> None:
    """ValueError unless these are two numbers with 0 < beta_start <= beta_end <= 1."""
    if not isinstance(betas, tuple | list) or len(betas) != 2 or not all(isinstance(b, Real) for b in betas):
        raise ValueError(f"betas={betas!r}: give two numbers, beta_start and beta_end, such as 0.00085, 0.012")
    start, end = (float(b) for b in betas)
    if not (math.isfinite(start) and math.isfinite(end) and 0 < start <= end <= 1):
        raise ValueError(f"betas={betas!r}: must satisfy 0 < beta_start <= beta_end <= 1")
