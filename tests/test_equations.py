"""The paper's equations, with diffusers' schedulers as oracle."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from genpercept import equations as eq

BETAS = [(0.00085, 0.012), (0.0034, 0.048), (0.136, 0.192), (0.544, 0.768)]


def latents(seed: int, shape: tuple[int, ...] = (2, 4, 5, 3)) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g), torch.randn(shape, generator=g)


@pytest.mark.parametrize("betas", BETAS)
def test_schedule_is_diffusers(betas: tuple[float, float]) -> None:
    oracle = DDIMScheduler(beta_start=betas[0], beta_end=betas[1], beta_schedule="scaled_linear")
    torch.testing.assert_close(
        eq.alphas_cumprod(eq.scaled_linear_betas(*betas)), oracle.alphas_cumprod, rtol=1e-6, atol=0
    )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), t=st.tuples(st.integers(0, 999), st.integers(0, 999)), betas=st.sampled_from(BETAS))
def test_forward_process_and_v_are_diffusers(seed: int, t: tuple[int, int], betas: tuple[float, float]) -> None:
    z, noise = latents(seed)
    oracle = DDPMScheduler(
        beta_start=betas[0],
        beta_end=betas[1],
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
    )
    steps = torch.tensor(t)
    abar = eq.alphas_cumprod(eq.scaled_linear_betas(*betas))[steps]
    torch.testing.assert_close(eq.diffuse(z, noise, abar), oracle.add_noise(z, noise, steps))
    torch.testing.assert_close(eq.v_target(z, noise, abar), oracle.get_velocity(z, noise, steps))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), abar=st.floats(0, 1))
def test_v_gives_back_both_ends(seed: int, abar: float) -> None:
    z, noise = latents(seed)
    a = torch.tensor([abar, 1 - abar])
    z_t, v = eq.diffuse(z, noise, a), eq.v_target(z, noise, a)
    torch.testing.assert_close(eq.clean_from_v(z_t, v, a), z, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(eq.noise_from_v(z_t, v, a), noise, rtol=1e-4, atol=1e-5)


def test_one_step_is_the_limit_of_rgb_blending() -> None:
    """beta_start = beta_end = 1: abar = 0 at every t, the input is z_x, the target -z_y, the estimate -v."""
    z_x, z_y = latents(0)
    abar = eq.alphas_cumprod(eq.scaled_linear_betas(1.0, 1.0))
    assert float(abar.abs().max()) == 0.0
    assert torch.equal(eq.diffuse(z_y, z_x, abar[:2]), z_x)
    assert torch.equal(eq.v_target(z_y, z_x, abar[:2]), eq.one_step_target(z_y))
    assert torch.equal(eq.clean_from_v(z_x, eq.one_step_target(z_y), abar[:2]), z_y)
    assert torch.equal(eq.one_step_estimate(eq.one_step_target(z_y)), z_y)
