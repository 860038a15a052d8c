"""The mathematics of the paper, one function each. z_x: image latent, z_y: label latent, abar: cumulated alpha. Torch only.

The equations by their numbers: "v1" is the first version (arXiv 2403.06090v1, section 2); "ICLR" is the supplement of the
version at ICLR 2025, section 1, which has an equation 2 of its own, so that all that follow are one higher.

v1  ICLR  equation                                      here
1   1     forward process                               diffuse() with Gaussian noise
-   2     beta_s, the variance schedule                 scaled_linear_betas()
2   3     objective of the stochastic multi-step way    v_target() with Gaussian noise
3   4     its inference: estimates of both ends, step   clean_from_v(), noise_from_v(), ddim_step()
4   5     RGB blending: z_x in the noise's place        diffuse() with z_x
5   6     objective of RGB blending                     v_target() with z_x
6   7     its inference                                 clean_from_v(), noise_from_v(), ddim_step()
7   8     limit of 4 to 6 as all beta = 1, so abar = 0  one_step_target(), one_step_estimate()
8   9     the same with one timestep: GenPercept        one_step_target(), one_step_estimate()

abar, alphas_cumprod(), has no number: it is in the line below v1 equation 1. What is not a formula is elsewhere. Of v1:
the concatenation of 1 and 3 (here z_x comes first, as in Marigold's weights) and the loops over t of 3 and 6 are in the
paradigms stochastic_multi_step and deterministic_multi_step, the input z_x and t = 1 of 8 in one_step; the squared norm
of 2, 5, 7 and 8 is the loss "latent", the expectation over t and noise the draws of a paradigm; the decoder D of 3, 6, 7
and 8 is the head "vae". Two functions differ from the print and say how: a sign in noise_from_v(), the count of s in
scaled_linear_betas().

Others: DDIM (Song et al. 2021), zero terminal SNR and the spacing of timesteps (Lin et al. 2024), LCM (Luo et al. 2023),
multi-resolution noise (as Marigold, Ke et al. 2024), the start from zeros of E2E-FT (Martin Garcia et al. 2024).

Flow matching as DepthFM has it (Gui et al. 2024, arXiv 2403.13788, section 3), from the noised latent of the image, z_0, to the
label's, z_1. Without numbers: the paper's print was not at hand, only its code, github.com/CompVis/depth-fm at da632c8, which
computes the lines marked "code"; tests/test_equations.py holds them against what it stored on the way. The others follow
from the straight path, and have nothing of its code to be compared with, since its training is not public.

code  the start z_0 = sqrt(abar) z_x + sqrt(1 - abar) eps  diffuse() at abar = cosine_alpha_bar()
code  dz = v dt, solved by Euler's method from 0 to 1      euler_step() at the times of euler_times()
      the straight path z_t = (1 - t) z_0 + t z_1          flow_path()
      its velocity z_1 - z_0, the objective's target       flow_velocity()
      the label that a velocity leads to                   flow_end()
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

TRAIN_STEPS = 1000  # T of Stable Diffusion's noise schedule
SD_BETAS = (0.00085, 0.012)  # its beta_start and beta_end
ONE_STEP_TIMESTEP = 1  # the paper: "t does not matter"; the released models run at t = 1
SPACINGS = ("leading", "trailing", "linspace")
PREDICTION_TYPES = ("v_prediction", "epsilon", "sample")
ONE_STEP_TYPES = ("v_prediction", "sample")  # at abar = 0 the noise tells nothing of the label
DOWNSCALES = ("original", "every_layer", "power_of_two", "random_step")
MULTIRES_LEVELS = 10


def scaled_linear_betas(beta_start: float, beta_end: float, steps: int = TRAIN_STEPS) -> Tensor:
    """beta_s = (sqrt(b0) + s / (T - 1) (sqrt(b1) - sqrt(b0)))^2 for s = 0 .. T - 1. Returns (T,) float32.

    Paper: ICLR eq. 2, which counts s = 1 .. T and divides by T; here as diffusers has it, where both ends are reached.
    """
    return torch.linspace(beta_start**0.5, beta_end**0.5, steps, dtype=torch.float32) ** 2


def alphas_cumprod(betas_T: Tensor) -> Tensor:
    """abar_t = prod_{s <= t} (1 - beta_s). (T,) -> (T,). Paper: the line below eq. 1, without a number."""
    return torch.cumprod(1.0 - betas_T, dim=0)


def zero_terminal_snr(abar_T: Tensor) -> Tensor:
    """Lin et al. 2024, algorithm 1: sqrt(abar) shifted and scaled so that the last is 0 and the first stays. (T,) -> (T,)."""
    root = abar_T.sqrt()
    first, last = root[0], root[-1]
    return ((root - last) * (first / (first - last))) ** 2


def sample_timesteps(steps: int, spacing: str = "leading", offset: int = 1) -> Tensor:
    """Timesteps of inference, descending: (steps,) int64. Lin et al. 2024, table 2, rounded as diffusers rounds.

    `offset` is added for leading spacing only. ValueError where a timestep falls outside 0 .. T - 1.
    """
    if not 1 <= steps <= TRAIN_STEPS:
        raise ValueError(f"num_inference_steps={steps}: must lie between 1 and {TRAIN_STEPS}")
    i = torch.arange(steps, dtype=torch.float64)
    match spacing:
        case "leading":
            t = (i * (TRAIN_STEPS // steps)).flip(0) + offset
        case "trailing":
            stride = TRAIN_STEPS - (TRAIN_STEPS - TRAIN_STEPS / steps)  # rounded as numpy.arange does: it decides ties
            t = (TRAIN_STEPS - i * stride).round() - 1
        case "linspace":
            t = (i * ((TRAIN_STEPS - 1) / max(steps - 1, 1))).round().flip(0)
        case _:
            raise ValueError(f"spacing {spacing!r}: choose {', '.join(SPACINGS)}")
    if int(t[0]) >= TRAIN_STEPS:
        raise ValueError(
            f"num_inference_steps={steps} with steps_offset={offset}: starts at t = {int(t[0])}, beyond {TRAIN_STEPS - 1}; "
            "take fewer steps or another spacing"
        )
    return t.long()


def abar_before(t: int, steps: int, abar_T: Tensor, final: Tensor) -> Tensor:
    """abar one DDIM step of T // steps before t; `final` past the start. As diffusers, whatever the spacing. Scalar."""
    before = t - TRAIN_STEPS // steps
    return abar_T[before] if before >= 0 else final


def per_sample(value: Tensor, like_BCHW: Tensor) -> Tensor:
    """A number per sample (B,), or one for all (), shaped to broadcast over (B, C, H, W), in that tensor's dtype and device."""
    return value.to(like_BCHW).reshape(-1, *([1] * (like_BCHW.ndim - 1)))


def diffuse(z: Tensor, noise: Tensor, abar: Tensor) -> Tensor:
    """Forward process: z_t = sqrt(abar) z + sqrt(1 - abar) eps. (B, ...) each; abar (B,) or ().

    Paper: v1 eq. 1 (ICLR eq. 1), z = z_y; RGB blending, v1 eq. 4 (ICLR eq. 5), is the same with z_x for eps.
    """
    a = per_sample(abar, z)
    return a.sqrt() * z + (1 - a).sqrt() * noise


def v_target(z: Tensor, noise: Tensor, abar: Tensor) -> Tensor:
    """v-prediction target: v = sqrt(abar) eps - sqrt(1 - abar) z.

    Paper: within the norm of v1 eq. 2 (ICLR eq. 3), z = z_y; of RGB blending, v1 eq. 5 (ICLR eq. 6), with z_x for eps.
    """
    a = per_sample(abar, z)
    return a.sqrt() * noise - (1 - a).sqrt() * z


def clean_from_v(z_t: Tensor, v: Tensor, abar: Tensor) -> Tensor:
    """Estimate of the clean latent from a v-prediction: z = sqrt(abar) z_t - sqrt(1 - abar) v.

    Paper: z_{t -> 0} of v1 eq. 3 and, for RGB blending, of v1 eq. 6 (ICLR eq. 4 and 7).
    """
    a = per_sample(abar, z_t)
    return a.sqrt() * z_t - (1 - a).sqrt() * v


def noise_from_v(z_t: Tensor, v: Tensor, abar: Tensor) -> Tensor:
    """Estimate of the noise (of z_x, in RGB blending) from a v-prediction: eps = sqrt(1 - abar) z_t + sqrt(abar) v.

    Paper: eps_t of v1 eq. 3 and z_t^(x) of v1 eq. 6 (ICLR eq. 4 and 7). Both versions print a minus before
    sqrt(1 - abar) z_t; plus is what inverts v_target(), and what diffusers has.
    """
    a = per_sample(abar, z_t)
    return (1 - a).sqrt() * z_t + a.sqrt() * v


def clean_estimate(kind: str, z_t: Tensor, output: Tensor, abar: Tensor) -> Tensor:
    """Estimate of the clean latent from a network output of this prediction type (Song et al. 2021, eq. 9 for epsilon)."""
    match kind:
        case "v_prediction":
            return clean_from_v(z_t, output, abar)
        case "epsilon":
            a = per_sample(abar, z_t)
            return (z_t - (1 - a).sqrt() * output) / a.sqrt()
        case "sample":
            return output
    raise ValueError(f"prediction type {kind!r}: choose {', '.join(PREDICTION_TYPES)}")


def noise_estimate(kind: str, z_t: Tensor, output: Tensor, abar: Tensor) -> Tensor:
    """Estimate of the noise from a network output of this prediction type."""
    match kind:
        case "v_prediction":
            return noise_from_v(z_t, output, abar)
        case "epsilon":
            return output
        case "sample":
            a = per_sample(abar, z_t)
            return (z_t - a.sqrt() * output) / (1 - a).sqrt()
    raise ValueError(f"prediction type {kind!r}: choose {', '.join(PREDICTION_TYPES)}")


def training_target(kind: str, z: Tensor, noise: Tensor, abar: Tensor) -> Tensor:
    """What a network of this prediction type is trained to answer at diffuse(z, noise, abar)."""
    match kind:
        case "v_prediction":
            return v_target(z, noise, abar)
        case "epsilon":
            return noise
        case "sample":
            return z
    raise ValueError(f"prediction type {kind!r}: choose {', '.join(PREDICTION_TYPES)}")


def zeros_target(kind: str, z: Tensor, abar: Tensor) -> Tensor:
    """The answer to z_t = 0 whose clean estimate is z (E2E-FT, Martin Garcia et al. 2024, which starts from zeros)."""
    a = per_sample(abar, z)
    match kind:
        case "v_prediction":
            return -z / (1 - a).sqrt()
        case "epsilon":
            return -z * (a / (1 - a)).sqrt()
        case "sample":
            return z
    raise ValueError(f"prediction type {kind!r}: choose {', '.join(PREDICTION_TYPES)}")


def ddim_step(kind: str, z_t: Tensor, output: Tensor, abar: Tensor, abar_before: Tensor) -> Tensor:
    """Song et al. 2021, eq. 12, with sigma = 0: the estimates of both ends, mixed again at the step before.

    Paper: z_{t-1} of v1 eq. 3 (ICLR eq. 4) and, for RGB blending, of v1 eq. 6 (ICLR eq. 7).
    """
    clean = clean_estimate(kind, z_t, output, abar)
    return diffuse(clean, noise_estimate(kind, z_t, output, abar), abar_before)


def lcm_timesteps(steps: int, original_steps: int = 50) -> Tensor:
    """Timesteps of multistep consistency sampling, descending, (steps,) int64: evenly out of those of the distillation."""
    if not 1 <= steps <= original_steps <= TRAIN_STEPS:
        raise ValueError(
            f"num_inference_steps={steps}: the lcm sampler takes 1 to original_inference_steps={original_steps} steps"
        )
    distilled = torch.arange(original_steps, 0, -1) * (TRAIN_STEPS // original_steps) - 1
    return distilled[(torch.arange(steps, dtype=torch.float64) * (original_steps / steps)).floor().long()]


def lcm_estimate(clean: Tensor, z_t: Tensor, t: int, timestep_scaling: float = 10.0, sigma_data: float = 0.5) -> Tensor:
    """Consistency function f = c_skip z_t + c_out clean (Luo et al. 2023, eq. 9; c_skip(0) = 1, c_out(0) = 0)."""
    s = t * timestep_scaling
    c_skip, c_out = sigma_data**2 / (s**2 + sigma_data**2), s / math.sqrt(s**2 + sigma_data**2)
    return c_out * clean + c_skip * z_t


def multires_sizes(h: int, w: int, downscale: str, ratios: Iterable[float]) -> list[tuple[int, int]]:
    """Sizes of the coarser noises that are added to one of h x w. ratios: one in [2, 4) per level, for the random kinds.

    original: by ratio^i at level i, the first at full size; random_step: by the ratio; power_of_two: by 2^i; each until an
    edge is 1; every_layer: halved floor(log2(shorter edge)) times.
    """
    if downscale not in DOWNSCALES:
        raise ValueError(f"downscale {downscale!r}: choose {', '.join(DOWNSCALES)}")
    levels = int(math.log2(min(h, w))) if downscale == "every_layer" else MULTIRES_LEVELS
    sizes: list[tuple[int, int]] = []
    for i, ratio in zip(range(levels), ratios, strict=False):
        by = {"original": ratio**i, "every_layer": 2, "power_of_two": 2**i, "random_step": ratio}[downscale]
        h, w = max(1, int(h / by)), max(1, int(w / by))
        sizes.append((h, w))
        if downscale != "every_layer" and 1 in (h, w):
            break
    return sizes


def multires_noise(noise_CHW: Tensor, coarser: Sequence[Tensor], strength: float) -> Tensor:
    """noise + sum_i strength^i upsampled(coarser_i), at unit standard deviation. (C, H, W), (C, H_i, W_i) -> (C, H, W)."""
    size = noise_CHW.shape[-2:]
    total = noise_CHW
    for i, level in enumerate(coarser):
        total = total + strength**i * F.interpolate(level[None], size, mode="bilinear")[0]
    return total / total.std()


def one_step_target(z_y: Tensor, kind: str = "v_prediction") -> Tensor:
    """What the denoiser is trained to answer to z_x in one step: v_target(z_y, z_x, abar = 0) = -z_y; z_y for "sample".

    Paper: within the norm of v1 eq. 7 at any t, and of v1 eq. 8 at t = 1 (ICLR eq. 8 and 9).
    """
    return -z_y if kind == "v_prediction" else z_y


def one_step_estimate(output: Tensor, kind: str = "v_prediction") -> Tensor:
    """The label latent from the denoiser's answer to z_x: clean_from_v(z_x, v, abar = 0) = -v, once; itself for "sample".

    Paper: z_{1 -> 0} of v1 eq. 7 and of v1 eq. 8 (ICLR eq. 8 and 9). The z_{t-1} = -z_t of eq. 7 follows from the sign named
    in noise_from_v(): with plus, z_{t-1} = z_t = z_x at every step.
    """
    return -output if kind == "v_prediction" else output


def cosine_alpha_bar(share: float, eps: float = 1e-5) -> Tensor:
    """abar = 1 / (1 + (tan(pi share / 2) + eps)^2), the cosine schedule at a share of its length in [0, 1]. Scalar, float64.

    DepthFM's code: of the start alone, at the checkpoint's noising_step / 1000.
    Its log-SNR is -2 log(tan(pi share / 2) + eps); eps keeps the beginning finite. Not Stable Diffusion's betas: at 0.4 it is
    0.654502, where those give 0.195.
    """
    return 1 / (1 + (torch.tan(torch.tensor(math.pi * share / 2, dtype=torch.float64)) + eps) ** 2)


def flow_path(z_0: Tensor, z_1: Tensor, t: Tensor) -> Tensor:
    """The straight path between two latents: z_t = (1 - t) z_0 + t z_1. (B, ...) each; t (B,) or () in [0, 1].

    DepthFM: by name, see above; what its training draws t from is not known here.
    """
    t = per_sample(t, z_0)
    return (1 - t) * z_0 + t * z_1


def flow_velocity(z_0: Tensor, z_1: Tensor) -> Tensor:
    """The velocity of the straight path, the same at every t: z_1 - z_0. DepthFM: what its network answers with."""
    return z_1 - z_0


def flow_end(z_t: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
    """Where a point of the straight path leads at this velocity: z_1 = z_t + (1 - t) v."""
    return z_t + (1 - per_sample(t, z_t)) * velocity


def euler_times(steps: int) -> Tensor:
    """Times at which `steps` steps of Euler's method ask for a velocity: 0, 1/n, ..., 1 - 1/n. (steps,) float32.

    DepthFM's code: the grid of torchdiffeq at a step size of 1/n, but for n = 61, which it rounds to 62 of them.
    """
    return (torch.arange(steps, dtype=torch.float64) / steps).float()


def euler_step(z_t: Tensor, velocity: Tensor, steps: int) -> Tensor:
    """One of `steps` equal steps of Euler's method from t = 0 to 1: z + v / n. DepthFM's code: torchdiffeq's "euler"."""
    return z_t + velocity / steps
