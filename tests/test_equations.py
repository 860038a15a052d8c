"""The paper's equations, with diffusers' schedulers as oracle."""

import inspect
import re

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, LCMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from genpercept import equations as eq
from tests.support.paths import GOLDEN

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
    assert torch.equal(eq.ddim_step("v_prediction", z_x, eq.one_step_target(z_y), abar[:2], abar[:2]), z_x)


# ---- the paper's numbers ---------------------------------------------------------------------------------------------

VERSIONS = ("v1", "ICLR")


def table() -> list[tuple[dict[str, int], set[str]]]:
    """Rows of the table at the top of the module: numbers by version (those without one left out), functions named."""
    rows = re.findall(r"^([\d-])   (\d)     (.+)$", inspect.getdoc(eq) or "", re.MULTILINE)
    return [
        ({v: int(n) for v, n in zip(VERSIONS, numbers, strict=True) if n != "-"}, set(re.findall(r"(\w+)\(\)", text)))
        for *numbers, text in rows
    ]


def numbers(docstring: str, version: str) -> set[int]:
    """Equations of one version that a docstring names, as in "v1 eq. 3 and 6"."""
    lists = re.findall(rf"\b{version} eq\. (\d(?:(?:, | and )\d)*)", " ".join(docstring.split()))
    return {int(n) for each in lists for n in re.findall(r"\d", each)}


def test_the_table_names_every_equation_of_the_paper_once() -> None:
    assert [n["v1"] for n, _ in table() if "v1" in n] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [n["ICLR"] for n, _ in table()] == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert all(functions for _, functions in table())


@pytest.mark.parametrize("version", VERSIONS)
def test_table_and_docstrings_name_the_same_equations(version: str) -> None:
    """Each function that a row names says so itself, and no function claims an equation whose row does not name it."""
    of_table = {(f, n[version]) for n, functions in table() for f in functions if version in n}
    public = inspect.getmembers(eq, lambda x: inspect.isfunction(x) and x.__module__ == eq.__name__)
    of_docstrings = {(name, n) for name, f in public for n in numbers(inspect.getdoc(f) or "", version)}
    assert of_table == of_docstrings


# ---- schedules and timesteps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("betas", BETAS[:2])
def test_zero_terminal_snr_is_diffusers(betas: tuple[float, float]) -> None:
    oracle = DDIMScheduler(
        beta_start=betas[0], beta_end=betas[1], beta_schedule="scaled_linear", rescale_betas_zero_snr=True
    )
    ours = eq.zero_terminal_snr(eq.alphas_cumprod(eq.scaled_linear_betas(*betas)))
    assert float(ours[-1]) == 0.0
    torch.testing.assert_close(ours, oracle.alphas_cumprod, rtol=1e-5, atol=1e-7)
    for steep in BETAS[2:]:  # abar reaches 0 in float32 long before the end, where diffusers divides 0 by 0
        assert eq.zero_terminal_snr(eq.alphas_cumprod(eq.scaled_linear_betas(*steep))).isfinite().all()


@pytest.mark.parametrize("spacing", eq.SPACINGS)
def test_timesteps_are_diffusers(spacing: str) -> None:
    """All numbers of steps where diffusers gives that many within the schedule (its trailing spacing may give one more)."""
    oracle = DDIMScheduler(timestep_spacing=spacing, steps_offset=1)
    compared = 0
    for steps in range(1, 1001):
        oracle.set_timesteps(steps)
        want = oracle.timesteps.tolist()
        if want[0] > 999:
            with pytest.raises(ValueError, match="beyond 999"):
                eq.sample_timesteps(steps, spacing, 1)
            continue
        ours = eq.sample_timesteps(steps, spacing, 1).tolist()
        assert ours == want[:steps] and len(ours) == steps
        compared += len(want) == steps
    assert compared > 880


def test_ten_leading_steps_are_the_papers() -> None:
    assert eq.sample_timesteps(10).tolist() == [901, 801, 701, 601, 501, 401, 301, 201, 101, 1]


@pytest.mark.parametrize("original", [50, 37, 100])
def test_lcm_timesteps_are_diffusers(original: int) -> None:
    oracle = LCMScheduler(original_inference_steps=original)
    for steps in range(1, original + 1):
        oracle.set_timesteps(steps)
        assert eq.lcm_timesteps(steps, original).tolist() == oracle.timesteps.tolist()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: eq.sample_timesteps(0), "between 1 and 1000"),
        (lambda: eq.sample_timesteps(1001), "between 1 and 1000"),
        (lambda: eq.sample_timesteps(4, "tailing"), "choose leading, trailing, linspace"),
        (lambda: eq.lcm_timesteps(51, 50), "1 to original_inference_steps=50"),
        (lambda: eq.clean_estimate("x0", *latents(0), torch.tensor(0.5)), "choose v_prediction, epsilon, sample"),
        (lambda: eq.multires_sizes(8, 8, "half", []), "choose original"),
    ],
)
def test_wrong_settings_say_what_there_is(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# ---- steps -----------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    steps=st.integers(1, 60),
    at=st.floats(0, 0.999),
    kind=st.sampled_from(eq.PREDICTION_TYPES),
    spacing=st.sampled_from(eq.SPACINGS),
    betas=st.sampled_from(BETAS[:2]),
    to_one=st.booleans(),
    rescale=st.booleans(),
)
def test_ddim_step_is_diffusers(
    seed: int, steps: int, at: float, kind: str, spacing: str, betas: tuple[float, float], to_one: bool, rescale: bool
) -> None:
    oracle = DDIMScheduler(
        beta_start=betas[0],
        beta_end=betas[1],
        beta_schedule="scaled_linear",
        prediction_type=kind,
        timestep_spacing=spacing,
        steps_offset=1,
        set_alpha_to_one=to_one,
        rescale_betas_zero_snr=rescale and kind != "epsilon",
        clip_sample=False,
    )
    oracle.set_timesteps(steps)
    t = int(oracle.timesteps[int(at * steps)])
    z_t, output = latents(seed)
    want = oracle.step(output, t, z_t)
    abar = oracle.alphas_cumprod
    before = eq.abar_before(t, steps, abar, torch.ones(()) if to_one else abar[0])
    torch.testing.assert_close(eq.clean_estimate(kind, z_t, output, abar[t]), want.pred_original_sample)
    torch.testing.assert_close(eq.ddim_step(kind, z_t, output, abar[t], before), want.prev_sample, rtol=1e-4, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    steps=st.integers(1, 8),
    kind=st.sampled_from(eq.PREDICTION_TYPES),
    scaling=st.sampled_from([10.0, 1.0]),
)
def test_lcm_step_is_diffusers(seed: int, steps: int, kind: str, scaling: float) -> None:
    oracle = LCMScheduler(prediction_type=kind, timestep_scaling=scaling)
    oracle.set_timesteps(steps)
    timesteps = eq.lcm_timesteps(steps).tolist()
    z_t, output = latents(seed)
    noise = torch.randn(z_t.shape, generator=torch.Generator().manual_seed(seed))
    want = oracle.step(output, timesteps[0], z_t, generator=torch.Generator().manual_seed(seed))
    abar = oracle.alphas_cumprod
    ours = eq.lcm_estimate(eq.clean_estimate(kind, z_t, output, abar[timesteps[0]]), z_t, timesteps[0], scaling)
    torch.testing.assert_close(ours, want.denoised, rtol=1e-4, atol=1e-5)
    following = eq.diffuse(ours, noise, abar[timesteps[1]]) if steps > 1 else ours
    torch.testing.assert_close(following, want.prev_sample, rtol=1e-4, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), abar=st.floats(0.01, 0.99), kind=st.sampled_from(eq.PREDICTION_TYPES))
def test_a_perfect_answer_gives_back_both_ends(seed: int, abar: float, kind: str) -> None:
    z, noise = latents(seed)
    a = torch.tensor(abar)
    z_t, answer = eq.diffuse(z, noise, a), eq.training_target(kind, z, noise, a)
    torch.testing.assert_close(eq.clean_estimate(kind, z_t, answer, a), z, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(eq.noise_estimate(kind, z_t, answer, a), noise, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(eq.ddim_step(kind, z_t, answer, a, torch.ones(())), z, rtol=1e-3, atol=1e-4)


# ---- multi-resolution noise ------------------------------------------------------------------------------------------


def test_multires_sizes() -> None:
    assert eq.multires_sizes(64, 32, "every_layer", [2.0] * 10) == [(32, 16), (16, 8), (8, 4), (4, 2), (2, 1)]
    assert eq.multires_sizes(64, 32, "power_of_two", [9.0] * 10) == [(64, 32), (32, 16), (8, 4), (1, 1)]
    assert eq.multires_sizes(64, 32, "original", [3.0] * 10) == [(64, 32), (21, 10), (2, 1)]
    assert eq.multires_sizes(64, 32, "random_step", [2.0, 4.0, 2.0, 2.5]) == [(32, 16), (8, 4), (4, 2), (1, 1)]
    assert all(eq.multires_sizes(1, 1, kind, [2.0] * 10) in ([], [(1, 1)]) for kind in eq.DOWNSCALES)


def test_multires_noise_has_unit_deviation_and_more_at_low_frequencies() -> None:
    g = torch.Generator().manual_seed(0)
    white = torch.randn(4, 64, 64, generator=g)
    coarser = [torch.randn(4, *size, generator=g) for size in eq.multires_sizes(64, 64, "every_layer", [2.0] * 10)]
    smooth = eq.multires_noise(white, coarser, 0.9)
    torch.testing.assert_close(smooth.std(), torch.ones(()))
    blocks = [torch.nn.functional.avg_pool2d(x, 8).std() for x in (white, smooth)]
    assert blocks[1] > 3 * blocks[0]
    torch.testing.assert_close(eq.multires_noise(white, [], 0.9), white / white.std())


# ---- flow matching ---------------------------------------------------------------------------------------------------


def test_cosine_alpha_bar() -> None:
    """Values of DepthFM's own code at 100, 200, 400, 700 and 1000 of 1000 steps."""
    want = [0.9755252435136, 0.9045031805694, 0.6545022724581, 0.2061057064193, 3.7494e-33]
    found = [float(eq.cosine_alpha_bar(step / 1000)) for step in (100, 200, 400, 700, 1000)]
    assert found == pytest.approx(want, rel=1e-4, abs=1e-12)
    assert float(eq.cosine_alpha_bar(0)) == pytest.approx(1, abs=1e-9)


@pytest.fixture(scope="module")
def depthfm() -> dict[str, torch.Tensor]:
    """What DepthFM's own code computed on the way."""
    with np.load(GOLDEN / "depthfm" / "answers.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def test_every_stored_value_of_the_cosine_schedule(depthfm: dict[str, torch.Tensor]) -> None:
    found = torch.stack([eq.cosine_alpha_bar(int(step) / 1000) for step in depthfm["alpha_bar_steps"]])
    torch.testing.assert_close(found, depthfm["alpha_bar"], rtol=1e-12, atol=1e-30)


@pytest.mark.parametrize("key", ["a", "b", "b_res64", "ens3_a"])
def test_the_start_is_depthfms(key: str, depthfm: dict[str, torch.Tensor]) -> None:
    z_x = depthfm[f"image_latent_{key.removeprefix('ens3_')}"]
    found = eq.diffuse(z_x.expand_as(depthfm[f"noise_{key}"]), depthfm[f"noise_{key}"], eq.cosine_alpha_bar(0.4))
    torch.testing.assert_close(found, depthfm[f"source_{key}"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("key", ["steps1_a", "steps2_a", "steps4_a", "steps1_ens3_a", "steps2_ens3_a"])
def test_eulers_steps_are_depthfms(key: str, depthfm: dict[str, torch.Tensor]) -> None:
    """From its start, along the velocities that its network gave, to its latent of the depth; at its times."""
    velocities, times = depthfm[f"velocity_{key}"], depthfm[f"times_{key}"]
    assert torch.equal(eq.euler_times(len(velocities)), times)
    z_t = depthfm[f"source_{key.partition('_')[2]}"]
    for velocity in velocities:
        z_t = eq.euler_step(z_t, velocity, len(velocities))
    torch.testing.assert_close(z_t, depthfm[f"latent_{key}"], rtol=0, atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), t=st.floats(0, 0.999))
def test_the_straight_path_leads_to_its_end(seed: int, t: float) -> None:
    z_0, z_1 = torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    at = torch.tensor([t, 0.0, 1.0], dtype=torch.float64)
    z_t, v = eq.flow_path(z_0, z_1, at), eq.flow_velocity(z_0, z_1)
    assert torch.equal(z_t[1], z_0[1]) and torch.equal(z_t[2], z_1[2])
    torch.testing.assert_close(eq.flow_end(z_t, v, at), z_1)


@pytest.mark.parametrize("steps", [1, 2, 61, 100])
def test_euler_on_the_straight_path(steps: int) -> None:
    times = eq.euler_times(steps)
    assert times.dtype == torch.float32 and len(times) == steps and float(times[-1]) < 1
    z, v = torch.zeros(2, 1), torch.ones(2, 1)
    for t in times:
        torch.testing.assert_close(z, t.expand(2, 1), rtol=0, atol=1e-5)
        z = eq.euler_step(z, v, steps)
    torch.testing.assert_close(z, v, rtol=0, atol=1e-5)
