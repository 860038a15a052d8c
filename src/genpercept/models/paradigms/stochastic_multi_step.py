"""The stochastic multi-step paradigm (Marigold): denoising from Gaussian noise, with the image latent as condition."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from genpercept import equations
from genpercept.core.rng import Rng
from genpercept.core.values import Features
from genpercept.models.paradigms import Denoise
from genpercept.models.paradigms._multi_step import MultiStep
from genpercept.models.paradigms._options import check_choice, check_flag, check_integer, full_timestep

SAMPLERS = ("ddim", "lcm")
STARTS = ("noise", "zeros")
MAX_TARGETS = 64
_Network = Callable[[Tensor, int], Features]  # (z_t, t) -> Features; the condition is bound


@dataclass(frozen=True)
class StochasticMultiStep(MultiStep):
    """prediction_type, original_inference_steps, timestep_scaling: as diffusers' schedulers have them. set_alpha_to_one, too:
    the answer is the last estimate of the label latent, as the paper's public code takes it; False (Marigold's checkpoints)
    leaves in it what noise the first step of the schedule has.

    zero_terminal_snr: the schedule rescaled so that the last step is pure noise (Marigold v1-1). sampler: ddim (eta 0), or lcm
    (multistep consistency sampling). start: noise, or zeros (E2E-FT: then nothing is random). targets: label images that are
    predicted together, their latents beside each other (Marigold's intrinsic images). shared_noise: they all start from one
    and the same noise (GeoWizard).

    Training only: multires_strength in [0, 1] adds coarser noise to the noise (0: none; Marigold 0.9), multires_annealed
    scales it by t / T, multires_downscale chooses the coarser sizes.
    """

    prediction_type: str = "v_prediction"
    set_alpha_to_one: bool = True
    zero_terminal_snr: bool = False
    sampler: str = "ddim"
    original_inference_steps: int = 50
    timestep_scaling: float = 10.0
    start: str = "noise"
    targets: int = 1
    shared_noise: bool = False
    multires_strength: float = 0.0
    multires_annealed: bool = True
    multires_downscale: str = "original"

    name = "stochastic_multi_step"
    prediction_types = equations.PREDICTION_TYPES

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("prediction_type", self.prediction_type, equations.PREDICTION_TYPES)
        check_choice("sampler", self.sampler, SAMPLERS)
        check_choice("start", self.start, STARTS)
        check_integer("targets", self.targets, 1, MAX_TARGETS)
        check_choice("multires_downscale", self.multires_downscale, equations.DOWNSCALES)
        for name in ("set_alpha_to_one", "zero_terminal_snr", "multires_annealed", "shared_noise"):
            check_flag(name, getattr(self, name))
        check_integer("original_inference_steps", self.original_inference_steps, 1, equations.TRAIN_STEPS)
        for name, value, high in (
            ("multires_strength", self.multires_strength, 1.0),
            ("timestep_scaling", self.timestep_scaling, float("inf")),
        ):
            if not isinstance(value, Real) or not 0 <= float(value) <= high:
                raise ValueError(f"{name}={value!r}: must be a number from 0 to {high:g}")
        if self.zero_terminal_snr and self.betas[0] == 1:
            raise ValueError(
                f"zero_terminal_snr with betas={self.betas}: every step is pure noise already; leave it out"
            )
        if self.shared_noise and self.sampler == "lcm":
            raise ValueError("shared_noise with sampler='lcm': that sampler adds noise between its steps; take ddim")
        if self.start == "zeros" and self.sampler == "lcm":
            raise ValueError("start='zeros' with sampler='lcm': that sampler adds noise between its steps; take ddim")
        if self.prediction_type == "epsilon" and not float(self.abar[-1]) > 0:
            raise ValueError(
                "prediction_type='epsilon' with a schedule that ends in pure noise (zero_terminal_snr, or betas of 1): "
                "the noise tells nothing of the label there; take v_prediction or sample"
            )

    @property
    def stochastic(self) -> bool:
        return self.start == "noise"

    @property
    def default_steps(self) -> int:  # type: ignore[override]
        if self.start == "zeros":
            return 1
        return 4 if self.sampler == "lcm" else 10

    @property
    def abar(self) -> Tensor:
        """Cumulated alphas of the schedule, (T,) float32 on the CPU, rescaled if asked."""
        abar_T = super().abar
        return equations.zero_terminal_snr(abar_T) if self.zero_terminal_snr else abar_T

    def timesteps(self, steps: int) -> list[int]:
        """Timesteps of inference, descending. The lcm sampler takes its own from those of its distillation."""
        if self.sampler == "lcm":
            return equations.lcm_timesteps(steps, self.original_inference_steps).tolist()
        return super().timesteps(steps)

    def input_channels(self, latent_channels: int) -> int:
        return (1 + self.targets) * latent_channels

    def label_channels(self, latent_channels: int) -> int:
        return latent_channels if self.shared_noise else self.targets * latent_channels

    def _for_all(self, noise_BCHW: Tensor) -> Tensor:
        """Noise for the latents of all targets, beside each other."""
        return noise_BCHW.repeat(1, self.targets, 1, 1) if self.shared_noise else noise_BCHW

    def training_pair(self, z_x: Tensor, z_y: Tensor, rng: Rng) -> tuple[Tensor, Tensor, Tensor]:
        """concat(z_x, sqrt(abar) z_y + sqrt(1 - abar) eps) at a random t, and the target of the prediction type.

        From zeros, as in inference in one step: concat(z_x, 0) at its timestep, with the answer that gives z_y there.
        """
        if self.start == "zeros":
            return self._pair_from_zeros(z_x, z_y)
        t = self.random_timestep(rng)
        abar = self.abar[t]
        shape = torch.Size((self.label_channels(z_y.shape[1] // self.targets), *z_y.shape[2:]))
        noise = self._for_all(self._training_noise(shape, t, rng)).to(z_y)
        x = torch.cat([z_x, equations.diffuse(z_y, noise, abar)], dim=1)
        return x, t.to(z_x.device), equations.training_target(self.prediction_type, z_y, noise, abar)

    def _pair_from_zeros(self, z_x: Tensor, z_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        t = full_timestep(z_x, self.timesteps(1)[0])
        abar = self.abar[t.cpu()]
        return (
            torch.cat([z_x, torch.zeros_like(z_y)], dim=1),
            t,
            equations.zeros_target(self.prediction_type, z_y, abar),
        )

    def _training_noise(self, shape: torch.Size, t: Tensor, rng: Rng) -> Tensor:
        """Standard normal, or multi-resolution noise, (B, C, h, w) float32, each sample from its own key."""
        noise = rng.normal(shape)
        if not self.multires_strength:
            return noise
        rows = []
        for row, t_i, draw in zip(noise, t.tolist(), rng.generators("multires"), strict=True):
            strength = self.multires_strength * (t_i / equations.TRAIN_STEPS if self.multires_annealed else 1.0)
            rows.append(equations.multires_noise(row, list(self._coarser(shape, draw)), strength))
        return torch.stack(rows)

    def _coarser(self, shape: torch.Size, draw: np.random.Generator) -> Iterator[Tensor]:
        """Standard normal at the coarser sizes, of one sample."""
        ratios = draw.uniform(2, 4, equations.MULTIRES_LEVELS).tolist()
        channels, h, w = shape
        for size in equations.multires_sizes(h, w, self.multires_downscale, ratios):
            yield torch.from_numpy(draw.standard_normal((channels, *size), "float32"))

    def estimate(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        z_t = x[:, x.shape[1] // (1 + self.targets) :]
        return equations.clean_estimate(self.prediction_type, z_t, output, self.abar[t.cpu()])

    def predict(
        self, denoise: Denoise, z_x: Tensor, steps: int, rng: Rng | None = None, latents: Tensor | None = None
    ) -> Features:
        """From noise (`latents`, or else rng's) or zeros through `steps` steps of the sampler. float32 throughout."""
        shape = (self.label_channels(z_x.shape[1]), *z_x.shape[2:])
        if self.start == "zeros":
            latents = z_x.new_zeros((len(z_x), *shape))  # as good as noise for all that follows
        elif latents is None:
            if rng is None:
                raise ValueError("stochastic_multi_step starts from noise: pass rng or latents")
            latents = rng.normal(shape)
        condition = z_x.float()
        z_t = self._for_all(latents.to(condition))
        sample = self._lcm if self.sampler == "lcm" else self._ddim

        def network(z_t: Tensor, t: int) -> Features:
            return denoise(torch.cat([condition, z_t], dim=1), full_timestep(z_t, t))

        return sample(network, z_t, steps, rng)

    def _ddim(self, network: _Network, z_t: Tensor, steps: int, rng: Rng | None) -> Features:
        abar_T = self.abar
        final = torch.ones(()) if self.set_alpha_to_one else abar_T[0]
        features = Features()
        for t in self.timesteps(steps):
            features = network(z_t, t)
            output = features.require_latent().float()
            before = equations.abar_before(t, steps, abar_T, final)
            z_t = equations.ddim_step(self.prediction_type, z_t, output, abar_T[t], before)
        return features.with_latent(z_t)

    def _lcm(self, network: _Network, z_t: Tensor, steps: int, rng: Rng | None) -> Features:
        """Noise is added anew between steps, keyed by the step; none after the last."""
        abar_T = self.abar
        timesteps = self.timesteps(steps)
        features, clean = Features(), z_t
        for i, t in enumerate(timesteps):
            features = network(z_t, t)
            output = features.require_latent().float()
            clean = equations.clean_estimate(self.prediction_type, z_t, output, abar_T[t])
            clean = equations.lcm_estimate(clean, z_t, t, self.timestep_scaling)
            if i + 1 < steps:
                if rng is None:
                    raise ValueError("the lcm sampler adds noise between its steps: pass rng")
                noise = replace(rng, step=i + 1).normal(z_t.shape[1:]).to(z_t)
                z_t = equations.diffuse(clean, noise, abar_T[timesteps[i + 1]])
        return features.with_latent(clean)


PLUGIN = StochasticMultiStep()
