"""The paradigms: options, training pairs, sampling, and that a batch draws what its samples draw alone."""

import json
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from genpercept import equations as eq
from genpercept.core.rng import Rng
from genpercept.core.values import Features
from genpercept.models.paradigms import PARADIGMS

NAMES = ["deterministic_multi_step", "direct", "flow_matching", "one_step", "stochastic_multi_step"]
MULTI_STEP = ["deterministic_multi_step", "stochastic_multi_step"]


def latents(seed: int, batch: int = 3) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 4, 6, 5, generator=g), torch.randn(batch, 4, 6, 5, generator=g)


def toy(x: Tensor, t: Tensor) -> Features:
    """A denoiser that depends on all of its input and on t."""
    parts = torch.stack(x.split(4, dim=1)).mean(0)
    return Features(torch.tanh(parts.flip(-1) * 0.7 + x[:, :4] * 0.3 + t[:, None, None, None] / 1000))


# ---- options ---------------------------------------------------------------------------------------------------------


def test_the_folder_holds_the_papers_paradigms() -> None:
    assert set(NAMES) <= set(PARADIGMS.names())


@pytest.mark.parametrize("name", NAMES)
def test_options_survive_json_and_do_not_touch_the_default(name: str) -> None:
    default = PARADIGMS.find(name)
    again = default.with_options(**json.loads(json.dumps(default.options)))
    assert again == default and default.name == name
    first = next(iter(default.options))
    with pytest.raises(FrozenInstanceError):
        setattr(default, first, None)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("one_step", {"timestap": 1}, "no option 'timestap': did you mean 'timestep'"),
        ("one_step", {"betas": (1, 1)}, "no option 'betas': choose one of timestep, random_timestep"),
        ("one_step", {"timestep": 1000}, "integer from 0 to 999"),
        ("one_step", {"timestep": True}, "integer from 0 to 999"),
        ("one_step", {"random_timestep": "no"}, "true or false"),
        ("direct", {"timestep": -1}, "integer from 0 to 999"),
        ("flow_matching", {"noising_step": 1001}, "integer from 0 to 1000"),
        ("flow_matching", {"noising_step": 0.4}, "integer from 0 to 1000"),
        ("flow_matching", {"betas": (0.1, 0.2)}, "no option 'betas': choose one of noising_step"),
        ("deterministic_multi_step", {"betas": (0.1,)}, "two numbers"),
        ("deterministic_multi_step", {"betas": (0.2, 0.1)}, "0 < beta_start <= beta_end <= 1"),
        ("deterministic_multi_step", {"betas": (0.2, float("nan"))}, "0 < beta_start <= beta_end <= 1"),
        ("deterministic_multi_step", {"spacing": "tailing"}, "choose leading, trailing, linspace"),
        ("stochastic_multi_step", {"prediction_type": "v"}, "choose v_prediction, epsilon, sample"),
        ("one_step", {"prediction_type": "epsilon"}, "choose v_prediction, sample"),
        ("stochastic_multi_step", {"start": "ones"}, "choose noise, zeros"),
        ("stochastic_multi_step", {"targets": 0}, "integer from 1 to 64"),
        ("stochastic_multi_step", {"start": "zeros", "sampler": "lcm"}, "take ddim"),
        ("stochastic_multi_step", {"sampler": "euler"}, "choose ddim, lcm"),
        ("stochastic_multi_step", {"multires_strength": 2}, "number from 0 to 1"),
        ("stochastic_multi_step", {"multires_downscale": "half"}, "choose original"),
        ("stochastic_multi_step", {"prediction_type": "epsilon", "zero_terminal_snr": True}, "pure noise"),
        ("stochastic_multi_step", {"betas": (1, 1), "zero_terminal_snr": True}, "pure noise already"),
    ],
)
def test_wrong_options_say_what_to_do(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PARADIGMS.find(name).with_options(**options)


def test_default_steps() -> None:
    steps = {name: PARADIGMS.find(name).default_steps for name in NAMES}
    several = {"deterministic_multi_step": 10, "flow_matching": 2, "stochastic_multi_step": 10}
    assert steps == {"direct": 1, "one_step": 1, **several}
    assert PARADIGMS.find("stochastic_multi_step").with_options(sampler="lcm").default_steps == 4


# ---- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_training_batch_is_its_samples(name: str) -> None:
    paradigm = PARADIGMS.find(name)
    if name == "stochastic_multi_step":
        paradigm = paradigm.with_options(multires_strength=0.9)
    z_x, z_y = latents(0)
    together = paradigm.training_pair(z_x, z_y, Rng(5, 2, [7, 8, 9]))
    alone = [paradigm.training_pair(z_x[i : i + 1], z_y[i : i + 1], Rng(5, 2, [7 + i])) for i in range(3)]
    for i, part in enumerate(together):
        torch.testing.assert_close(part, torch.cat([pair[i] for pair in alone]))
    x, t, target = together
    assert x.shape[1] == paradigm.input_channels(4) and target.shape == z_y.shape
    assert t.dtype == (torch.float32 if name == "flow_matching" else torch.int64)


@pytest.mark.parametrize("name", NAMES)
def test_a_perfect_answer_is_the_label(name: str) -> None:
    """estimate() of the target itself is z_y, at every t that the rng draws."""
    paradigm = PARADIGMS.find(name)
    z_x, z_y = latents(1, batch=8)
    for kind in eq.PREDICTION_TYPES if name == "stochastic_multi_step" else [None]:
        chosen = paradigm if kind is None else paradigm.with_options(prediction_type=kind)
        x, t, target = chosen.training_pair(z_x, z_y, Rng(0, 0, range(8)))
        if name == "direct":
            with pytest.raises(ValueError, match="gives no latent"):
                chosen.estimate(target, x, t)
        else:
            torch.testing.assert_close(chosen.estimate(target, x, t), z_y, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", eq.ONE_STEP_TYPES)
def test_one_step_answers_with_the_label_or_its_opposite(kind: str) -> None:
    """Lotus-D's network answers with z_y itself, GenPercept's with -z_y: in training and in inference alike."""
    paradigm = PARADIGMS.find("one_step").with_options(prediction_type=kind)
    z_x, z_y = latents(1)
    sign = 1 if kind == "sample" else -1
    x, t, target = paradigm.training_pair(z_x, z_y, Rng(0, 0, [0, 1, 2]))
    assert torch.equal(target, sign * z_y) and torch.equal(paradigm.estimate(target, x, t), z_y)
    found = paradigm.predict(lambda x, t: Features(sign * z_y), z_x, 1).require_latent()
    assert torch.equal(found, z_y)


@pytest.mark.parametrize("kind", eq.PREDICTION_TYPES)
def test_from_zeros_training_and_inference_agree(kind: str) -> None:
    """What it is trained to answer is what inference turns into the label: E2E-FT's single step from zeros."""
    options = {"start": "zeros", "spacing": "trailing", "prediction_type": kind}
    paradigm = PARADIGMS.find("stochastic_multi_step").with_options(**options)
    assert not paradigm.stochastic and paradigm.default_steps == 1
    z_x, z_y = latents(1)
    x, t, target = paradigm.training_pair(z_x, z_y, Rng(0, 0, [0, 1, 2]))
    assert t.tolist() == [999] * 3 and torch.equal(x, torch.cat([z_x, torch.zeros_like(z_y)], 1))
    torch.testing.assert_close(paradigm.estimate(target, x, t), z_y, rtol=1e-3, atol=1e-3)

    def trained(seen: torch.Tensor, at: torch.Tensor) -> Features:
        assert torch.equal(seen, x) and at.tolist() == [999] * 3
        return Features(target)

    torch.testing.assert_close(paradigm.predict(trained, z_x, 1).require_latent(), z_y, rtol=1e-3, atol=1e-3)


def test_several_label_images_are_predicted_together() -> None:
    """Marigold's intrinsic images: 4 (1 + n) channels in, 4 n of noise and of the answer."""
    paradigm = PARADIGMS.find("stochastic_multi_step").with_options(targets=3)
    assert paradigm.input_channels(4) == 16 and paradigm.label_channels(4) == 12
    z_x, z_y = latents(1)
    labels = torch.cat([z_y, -z_y, 2 * z_y], 1)
    x, t, target = paradigm.training_pair(z_x, labels, Rng(0, 0, [0, 1, 2]))
    assert x.shape[1] == 16 and target.shape == labels.shape
    torch.testing.assert_close(paradigm.estimate(target, x, t), labels, rtol=1e-3, atol=1e-3)
    seen = []

    def network(x: torch.Tensor, t: torch.Tensor) -> Features:
        seen.append(x.shape[1])
        return Features(x[:, 4:])

    assert paradigm.predict(network, z_x, 2, Rng(0, 0, [0, 1, 2])).require_latent().shape == labels.shape
    assert seen == [16, 16]


def test_training_pairs_are_the_papers_table() -> None:
    z_x, z_y = latents(2)
    rng = Rng(3, 1, [0, 1, 2])
    abar = eq.alphas_cumprod(eq.scaled_linear_betas(0.136, 0.192))
    blend = PARADIGMS.find("deterministic_multi_step").with_options(betas=(0.136, 0.192))
    x, t, target = blend.training_pair(z_x, z_y, rng)
    a = abar[t][:, None, None, None]
    torch.testing.assert_close(x, a.sqrt() * z_y + (1 - a).sqrt() * z_x)
    torch.testing.assert_close(target, a.sqrt() * z_x - (1 - a).sqrt() * z_y)

    noisy = PARADIGMS.find("stochastic_multi_step")
    x, t, target = noisy.training_pair(z_x, z_y, rng)
    a, eps = eq.alphas_cumprod(eq.scaled_linear_betas(*eq.SD_BETAS))[t][:, None, None, None], rng.normal(z_y.shape[1:])
    assert torch.equal(x[:, :4], z_x)
    torch.testing.assert_close(x[:, 4:], a.sqrt() * z_y + (1 - a).sqrt() * eps)
    torch.testing.assert_close(target, a.sqrt() * eps - (1 - a).sqrt() * z_y)


def test_flow_matching_pairs_are_on_the_straight_path() -> None:
    """From the noised image to the label, at times from 0 to 1; the clean image stands behind the state."""
    z_x, z_y = latents(2)
    rng = Rng(3, 1, [0, 1, 2])
    flow = PARADIGMS.find("flow_matching")
    x, t, velocity = flow.training_pair(z_x, z_y, rng)
    start = 0.654502**0.5 * z_x + (1 - 0.654502) ** 0.5 * rng.normal(z_x.shape[1:])
    torch.testing.assert_close(velocity, z_y - start, rtol=0, atol=1e-5)
    torch.testing.assert_close(x[:, :4], start + t[:, None, None, None] * (z_y - start), rtol=0, atol=1e-5)
    assert torch.equal(x[:, 4:], z_x)
    times = torch.cat([flow.training_pair(z_x, z_y, Rng(0, step, [0, 1, 2]))[1] for step in range(1000)])
    assert 0 <= float(times.min()) < 0.01 and 0.99 < float(times.max()) < 1
    assert abs(float(times.mean()) - 0.5) < 0.02
    plain = flow.with_options(noising_step=0)
    assert not plain.stochastic and flow.stochastic
    assert torch.equal(plain.training_pair(z_x, z_y, rng)[2], z_y - z_x)


def test_one_step_timesteps_in_training() -> None:
    z_x, z_y = latents(3)
    one_step = PARADIGMS.find("one_step")
    rng = Rng(0, 0, [0, 1, 2])
    assert one_step.training_pair(z_x, z_y, rng)[1].tolist() == [1, 1, 1]
    assert one_step.with_options(timestep=900).training_pair(z_x, z_y, rng)[1].tolist() == [900, 900, 900]
    random = one_step.with_options(random_timestep=True)
    many = torch.cat([random.training_pair(z_x, z_y, Rng(0, step, [0, 1, 2]))[1] for step in range(1000)])
    assert int(many.min()) < 10 and int(many.max()) > 990 and abs(float(many.float().mean()) - 499.5) < 20


def test_multires_noise_in_training() -> None:
    """Annealed, it is nearly white at small t and far from it at large t; strength 0 is the plain noise."""
    z_x, z_y = torch.zeros(64, 4, 32, 32), torch.zeros(64, 4, 32, 32)
    rng = Rng(0, 0, range(64))
    plain = PARADIGMS.find("stochastic_multi_step")

    def coarse(**options: Any) -> tuple[Tensor, Tensor]:
        """The noise of each sample averaged over 8 x 8 cells: its deviation there, and t."""
        paradigm = plain.with_options(**options)
        x, t, _ = paradigm.training_pair(z_x, z_y, rng)
        noise = x[:, 4:] / (1 - paradigm.abar[t]).sqrt()[:, None, None, None]
        torch.testing.assert_close(noise.flatten(1).std(1), torch.ones(64), rtol=0.05, atol=0)
        return torch.nn.functional.avg_pool2d(noise, 8).flatten(1).std(1), t

    white, t = coarse()
    annealed, _ = coarse(multires_strength=0.9)
    assert float((annealed / white)[t > 800].mean()) > 2 > float((annealed / white)[t < 100].mean())
    for downscale in eq.DOWNSCALES:
        full, _ = coarse(multires_strength=0.9, multires_annealed=False, multires_downscale=downscale)
        assert float((full / white).mean()) > 2


# ---- inference -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_rgb_blending_at_beta_one_is_one_step(steps: int) -> None:
    """abar = 0 throughout: every step starts from z_x anew, and the last one, at t = 1, is the one-step answer."""
    z_x, _ = latents(4)
    limit = PARADIGMS.find("deterministic_multi_step").with_options(betas=(1.0, 1.0))
    want = PARADIGMS.find("one_step").predict(toy, z_x, 1)
    assert torch.equal(limit.predict(toy, z_x, steps).require_latent(), want.require_latent())


def test_rgb_blending_approaches_one_step() -> None:
    """Continuously: the nearer the betas come to 1, the nearer its answer and its training pair come."""
    z_x, z_y = latents(5)
    want = PARADIGMS.find("one_step").predict(toy, z_x, 1).require_latent()
    blend = PARADIGMS.find("deterministic_multi_step")
    distances = []
    for beta in (0.9, 0.99, 0.999, 0.9999):
        limit = blend.with_options(betas=(beta, beta))
        distances.append(float((limit.predict(toy, z_x, 4).require_latent() - want).abs().max()))
    assert distances == sorted(distances, reverse=True) and distances[-1] < 0.03
    x, _, target = blend.with_options(betas=(0.9999, 0.9999)).training_pair(z_x, z_y, Rng(0, 0, [0, 1, 2]))
    torch.testing.assert_close(x, z_x, rtol=0, atol=1e-3)
    torch.testing.assert_close(target, -z_y, rtol=0, atol=1e-3)


@pytest.mark.parametrize("spacing", eq.SPACINGS)
@pytest.mark.parametrize("kind", eq.PREDICTION_TYPES)
@pytest.mark.parametrize(("steps", "to_one"), [(1, True), (4, False), (9, True)])
def test_stochastic_sampling_is_a_loop_over_diffusers(spacing: str, kind: str, steps: int, to_one: bool) -> None:
    z_x, noise = latents(6)
    rescale = kind != "epsilon"
    oracle = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=kind,
        timestep_spacing=spacing,
        steps_offset=1,
        set_alpha_to_one=to_one,
        rescale_betas_zero_snr=rescale,
        clip_sample=False,
    )
    oracle.set_timesteps(steps)
    z_t = noise
    for t in oracle.timesteps:
        output = toy(torch.cat([z_x, z_t], 1), t.expand(3)).require_latent()
        z_t = oracle.step(output, int(t), z_t).prev_sample
    ours = PARADIGMS.find("stochastic_multi_step").with_options(
        spacing=spacing, prediction_type=kind, zero_terminal_snr=rescale, set_alpha_to_one=to_one
    )
    got = ours.predict(toy, z_x, steps, latents=noise).require_latent()
    torch.testing.assert_close(got, z_t, rtol=1e-3, atol=1e-3 * float(z_t.abs().max()))


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 61])
def test_flow_matching_is_eulers_method(steps: int) -> None:
    """n calls at 0, 1/n, ...; at the right velocity any number of steps ends at the label, of a curved flow more end nearer."""
    z_x, z_y = latents(6)
    noise = latents(7)[0]
    flow, seen = PARADIGMS.find("flow_matching"), []
    start = eq.diffuse(z_x, noise, eq.cosine_alpha_bar(0.4))

    def straight(x: Tensor, t: Tensor) -> Features:
        seen.append(t)
        assert torch.equal(x[:, 4:], z_x) and t.dtype == torch.float32 and t.shape == (3,)
        torch.testing.assert_close(x[:, :4], eq.flow_path(start, z_y, t), rtol=0, atol=1e-4)
        return Features(z_y - start)

    end = flow.predict(straight, z_x, steps, latents=noise).require_latent()
    torch.testing.assert_close(end, z_y, rtol=0, atol=1e-4)
    assert [round(float(t[0]) * steps) for t in seen] == list(range(steps)) and float(seen[-1][0]) < 1
    growing = flow.predict(lambda x, t: Features(x[:, :4]), z_x, steps, latents=noise).require_latent()
    torch.testing.assert_close(growing, start * (1 + 1 / steps) ** steps, rtol=1e-4, atol=1e-4)


def test_lcm_sampling_adds_noise_between_its_steps_only() -> None:
    z_x, _ = latents(7)
    lcm = PARADIGMS.find("stochastic_multi_step").with_options(sampler="lcm", prediction_type="sample")
    seen: list[tuple[int, Tensor]] = []

    def spy(x: Tensor, t: Tensor) -> Features:
        seen.append((int(t[0]), x[:, 4:]))
        return Features(torch.zeros_like(x[:, :4]))

    end = lcm.predict(spy, z_x, 4, Rng(0, 0, [0, 1, 2])).require_latent()
    assert [t for t, _ in seen] == [999, 759, 499, 259]
    abar = lcm.abar
    for t, z_t in seen[1:]:  # the network says 0, so what is left is the noise of that step
        assert abs(float(z_t.std()) - float((1 - abar[t]).sqrt())) < 0.1
    assert float(end.abs().max()) < 1e-4
    assert not torch.allclose(seen[1][1] / seen[1][1].std(), seen[2][1] / seen[2][1].std(), atol=0.1)


@pytest.mark.parametrize(
    ("name", "options"),
    [("stochastic_multi_step", {}), ("stochastic_multi_step", {"sampler": "lcm"}), ("flow_matching", {})],
)
def test_an_inference_batch_is_its_samples(name: str, options: dict[str, Any]) -> None:
    z_x, _ = latents(8)
    paradigm = PARADIGMS.find(name).with_options(**options)
    together = paradigm.predict(toy, z_x, 4, Rng(1, 0, [0, 1, 2])).require_latent()
    alone = [paradigm.predict(toy, z_x[i : i + 1], 4, Rng(1, 0, [i])).require_latent() for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))
    other = paradigm.predict(toy, z_x, 4, Rng(2, 0, [0, 1, 2])).require_latent()
    assert not torch.allclose(together, other, atol=1e-2)


@pytest.mark.parametrize(
    ("name", "options", "steps", "message"),
    [
        ("one_step", {}, 4, "exactly 1 step"),
        ("direct", {}, 2, "exactly 1 step"),
        ("deterministic_multi_step", {}, 0, "between 1 and 1000"),
        ("deterministic_multi_step", {"steps_offset": 600}, 2, "beyond 999"),
        ("stochastic_multi_step", {"sampler": "lcm"}, 51, "takes 1 to original_inference_steps=50"),
        ("stochastic_multi_step", {}, 4, "starts from noise: pass rng or latents"),
        ("flow_matching", {}, 0, "between 1 and 1000"),
        ("flow_matching", {}, 1001, "between 1 and 1000"),
        ("flow_matching", {}, 2, "noises the image's latent that it starts from: pass rng or latents"),
    ],
)
def test_impossible_steps_are_refused(name: str, options: dict[str, Any], steps: int, message: str) -> None:
    z_x, noise = latents(9)
    paradigm = PARADIGMS.find(name).with_options(**options)
    with pytest.raises(ValueError, match=message):
        paradigm.predict(toy, z_x, steps, latents=noise if options.get("sampler") else None)
