"""The mathematics of the paper, one function each. z_x: image latent, z_y: label latent, abar: cumulated alpha. Torch only.

Equation names follow the paper: forward process, v-prediction, RGB blending (deterministic multi-step) and its limit
beta_start = beta_end = 1, one step (section 1 of the method; scheduler settings of Stable Diffusion 2.1).
"""

from __future__ import annotations

import torch
from torch import Tensor

TRAIN_STEPS = 1000  # T of Stable Diffusion's noise schedule
SD_BETAS = (0.00085, 0.012)  # its beta_start and beta_end
ONE_STEP_TIMESTEP = 1  # the paper: "t does not matter"; the released models run at t = 1


def scaled_linear_betas(beta_start: float, beta_end: float, steps: int = TRAIN_STEPS) -> Tensor:
    """beta_s = (sqrt(b0) + s / (T - 1) (sqrt(b1) - sqrt(b0)))^2 for s = 0 .. T - 1. Returns (T,) float32."""
    return torch.linspace(beta_start**0.5, beta_end**0.5, steps, dtype=torch.float32) ** 2


def alphas_cumprod(betas_T: Tensor) -> Tensor:
    """abar_t = prod_{s <= t} (1 - beta_s). (T,) -> (T,)."""
    return torch.cumprod(1.0 - betas_T, dim=0)


def per_sample(value: Tensor, like_BCHW: Tensor) -> Tensor:
    """A number per sample (B,), or one for all (), shaped to broadcast over (B, C, H, W), in that tensor's dtype and device."""
    return value.to(like_BCHW).reshape(-1, *([1] * (like_BCHW.ndim - 1)))


def diffuse(z: Tensor, noise: Tensor, abar: Tensor) -> Tensor:
    """Forward process: z_t = sqrt(abar) z + sqrt(1 - abar) eps. For RGB blending "eps" is z_x and z is z_y."""
    a = per_sample(abar, z)
    return a.sqrt() * z + (1 - a).sqrt() * noise


def v_target(z: Tensor, noise: Tensor, abar: Tensor) -> Tensor:
    """v-prediction target: v = sqrt(abar) eps - sqrt(1 - abar) z."""
    a = per_sample(abar, z)
    return a.sqrt() * noise - (1 - a).sqrt() * z


def clean_from_v(z_t: Tensor, v: Tensor, abar: Tensor) -> Tensor:
    """Estimate of the clean latent from a v-prediction: z = sqrt(abar) z_t - sqrt(1 - abar) v."""
    a = per_sample(abar, z_t)
    return a.sqrt() * z_t - (1 - a).sqrt() * v


def noise_from_v(z_t: Tensor, v: Tensor, abar: Tensor) -> Tensor:
    """Estimate of the noise (of z_x, in RGB blending) from a v-prediction: eps = sqrt(1 - abar) z_t + sqrt(abar) v."""
    a = per_sample(abar, z_t)
    return (1 - a).sqrt() * z_t + a.sqrt() * v


def one_step_target(z_y: Tensor) -> Tensor:
    """What the denoiser is trained to answer to z_x in one step: v_target(z_y, z_x, abar = 0) = -z_y."""
    return -z_y


def one_step_estimate(v: Tensor) -> Tensor:
    """The label latent from the denoiser's answer to z_x: clean_from_v(z_x, v, abar = 0) = -v, once."""
    return -v
