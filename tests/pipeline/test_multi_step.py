"""Multi-step paradigms and ensembles through the pipeline: the public implementations' answers, and diffusers' own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, LCMScheduler, MarigoldDepthPipeline, MarigoldNormalsPipeline
from diffusers.utils import logging as diffusers_logging

import genpercept
from genpercept import GenPerceptPipeline
from genpercept.checkpoints import parts
from genpercept.commands.bench import flops
from genpercept.commands.evaluate import predictions
from genpercept.commands.evaluate.sets import EvalSet, SetSpec
from genpercept.models.backbones import BACKBONES
from genpercept.models.backbones.sd21 import widen
from genpercept.models.heads import HEADS
from genpercept.models.paradigms import PARADIGMS
from genpercept.pipeline import ensemble
from genpercept.pipeline.manifest import read_manifest
from tests.support.paths import GOLDEN

MARIGOLD = {"set_alpha_to_one": False}  # as the schedulers of its checkpoints
diffusers_logging.set_verbosity_error()


@pytest.fixture(scope="module")
def official() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "multi_step.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    with np.load(GOLDEN / "one_step.npz") as file:
        return file["image_a"]


@pytest.fixture(scope="module")
def one_step() -> GenPerceptPipeline:
    return GenPerceptPipeline.from_base(GOLDEN / "sd-tiny", "depth", resolution=0)


def eight_channels(base: GenPerceptPipeline, task: str = "depth", **options: Any) -> GenPerceptPipeline:
    return GenPerceptPipeline.from_parts(
        unet=parts.load_part(BACKBONES.find("sd21"), GOLDEN / "marigold-unet8"),
        vae=base.vae,
        prompt_embeds=base.prompt_embeds,
        task=task,
        paradigm="stochastic_multi_step",
        paradigm_options=options,
        resolution=0,
    )


@pytest.fixture(scope="module")
def depth(one_step: GenPerceptPipeline) -> GenPerceptPipeline:
    return eight_channels(one_step)


@pytest.fixture(scope="module")
def normals(one_step: GenPerceptPipeline) -> GenPerceptPipeline:
    return eight_channels(one_step, "normals")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- golden answers of the public GenPercept code --------------------------------------------------------------------


@pytest.mark.parametrize("betas", [(0.00085, 0.012), (0.136, 0.192)])
def test_rgb_blending_is_the_official_answer(
    one_step: GenPerceptPipeline, official: dict[str, np.ndarray], image: np.ndarray, betas: tuple[float, float]
) -> None:
    pred = one_step(image, paradigm="deterministic_multi_step", num_inference_steps=10, betas=betas)
    np.testing.assert_allclose(pred.values, official[f"rgb_blend10_{betas[0]}_{betas[1]}"], atol=1e-4, rtol=0)
    assert pred.meta["paradigm"] == "deterministic_multi_step" and pred.meta["steps"] == 10


def test_rgb_blending_at_beta_one_is_the_one_step_answer(one_step: GenPerceptPipeline, image: np.ndarray) -> None:
    limit = one_step(image, paradigm="deterministic_multi_step", num_inference_steps=3, betas=(1, 1))
    np.testing.assert_array_equal(limit.values, one_step(image).values)


def test_stochastic_depth_is_the_official_answer(
    depth: GenPerceptPipeline, official: dict[str, np.ndarray], image: np.ndarray
) -> None:
    pred = depth(image, latents=torch.from_numpy(official["noise"]))
    assert pred.meta["steps"] == 10
    np.testing.assert_allclose(pred.values, official["stochastic10"], atol=1e-4, rtol=0)


def test_ensemble_is_the_official_answer_at_its_alignment(
    depth: GenPerceptPipeline, official: dict[str, np.ndarray], image: np.ndarray
) -> None:
    """All but the solver: its steps follow rounding errors of the members (see the test below), so the official answer's own
    scales and shifts, read off its pixels (`ens5_scale`, `ens5_shift`), stand in for ours."""
    noise = torch.from_numpy(official["noise_ens5"])
    runs = [depth(image, num_inference_steps=4, latents=noise[i : i + 1]).values for i in range(5)]
    maps = torch.from_numpy(np.stack(runs))[:, None]
    scale, shift = torch.from_numpy(official["ens5_scale"]), torch.from_numpy(official["ens5_shift"])
    merged, _ = ensemble.combine_affine(maps, scale, shift, "median")
    np.testing.assert_allclose(merged[0].numpy(), official["stochastic4_ens5"], atol=1e-4, rtol=0)


def test_ensembling_itself_follows_rounding_errors(
    depth: GenPerceptPipeline, official: dict[str, np.ndarray], image: np.ndarray
) -> None:
    """diffusers' solver, too: changes of 1e-8 in runs that disagree change its answer by more than 1e-3."""
    noise = torch.from_numpy(official["noise_ens5"])
    runs = [depth(image, num_inference_steps=4, latents=noise[i : i + 1]).values for i in range(5)]
    maps = torch.from_numpy(np.stack(runs))[:, None]
    first = MarigoldDepthPipeline.ensemble_depth(maps)[0]
    moved = [maps + 1e-8 * torch.randn(maps.shape, generator=seeded(s)) for s in range(6)]
    changes = [float((MarigoldDepthPipeline.ensemble_depth(x)[0] - first).abs().max()) for x in moved]
    assert max(changes) > 1e-3


# ---- diffusers' own pipelines ----------------------------------------------------------------------------------------


def marigold(pipe: GenPerceptPipeline, scheduler: Any, cls: Any = MarigoldDepthPipeline) -> Any:
    """diffusers' pipeline over the same modules. It embeds the empty prompt by itself; ours is put in its place."""
    theirs = cls(
        unet=pipe.unet,
        vae=pipe.vae,
        scheduler=scheduler,
        text_encoder=None,
        tokenizer=None,
        default_denoising_steps=4,
        default_processing_resolution=0,
    )
    theirs.empty_text_embedding = pipe.prompt_embeds
    theirs.set_progress_bar_config(disable=True)
    return theirs


def as_input(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


SCHEDULES = [
    {},
    {"spacing": "trailing", "zero_terminal_snr": True},
    {"spacing": "linspace", "prediction_type": "sample"},
    {"prediction_type": "epsilon", "betas": (0.0034, 0.048)},
]


def ddim(options: dict[str, Any]) -> DDIMScheduler:
    start, end = options.get("betas", (0.00085, 0.012))
    return DDIMScheduler(
        beta_start=start,
        beta_end=end,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=options.get("prediction_type", "v_prediction"),
        timestep_spacing=options.get("spacing", "leading"),
        rescale_betas_zero_snr=options.get("zero_terminal_snr", False),
    )


@pytest.mark.parametrize("options", SCHEDULES)
def test_marigold_depth_is_diffusers(
    depth: GenPerceptPipeline, official: dict[str, np.ndarray], image: np.ndarray, options: dict[str, Any]
) -> None:
    noise = torch.from_numpy(official["noise"])
    want = marigold(depth, ddim(options))(
        as_input(image), num_inference_steps=4, latents=noise, match_input_resolution=False
    ).prediction
    got = depth(image, num_inference_steps=4, latents=noise, **MARIGOLD, **options)
    np.testing.assert_allclose(got.values, want[0, :, :, 0], atol=1e-4, rtol=0)


def test_marigold_normals_are_diffusers(
    normals: GenPerceptPipeline, official: dict[str, np.ndarray], image: np.ndarray
) -> None:
    noise = torch.from_numpy(official["noise"])
    theirs = marigold(normals, ddim({}), MarigoldNormalsPipeline)
    want = theirs(as_input(image), num_inference_steps=4, latents=noise, match_input_resolution=False).prediction[0]
    got = normals(image, num_inference_steps=4, latents=noise, **MARIGOLD)
    assert got.raw is not None
    long = np.linalg.norm(np.clip(got.raw, -1, 1), axis=0) > 0.1  # shorter vectors turn under rounding errors
    assert long.mean() > 0.9
    np.testing.assert_allclose(got.values[long], want[long], atol=1e-4, rtol=0)


def test_marigold_ensemble_is_diffusers(
    depth: GenPerceptPipeline, official: dict[str, np.ndarray], image: np.ndarray
) -> None:
    """Its pipeline's runs are ours, and its ensembling of the same runs is ours, with the uncertainty."""
    noise = torch.from_numpy(official["noise_ens5"])
    theirs = marigold(depth, ddim({}))
    runs = [
        theirs(as_input(image), num_inference_steps=4, latents=noise[i : i + 1], match_input_resolution=False)
        for i in range(5)
    ]
    ours = [depth(image, num_inference_steps=4, latents=noise[i : i + 1], **MARIGOLD).values for i in range(5)]
    np.testing.assert_allclose(np.stack(ours), np.stack([r.prediction[0, :, :, 0] for r in runs]), atol=1e-4, rtol=0)
    want, spread = MarigoldDepthPipeline.ensemble_depth(
        torch.from_numpy(np.stack(ours))[:, None], output_uncertainty=True
    )
    got = depth(image, num_inference_steps=4, ensemble_size=5, latents=noise, **MARIGOLD)
    assert got.uncertainty is not None and spread is not None
    np.testing.assert_allclose(got.values, want[0, 0].numpy(), atol=1e-4, rtol=0)
    np.testing.assert_allclose(got.uncertainty, spread[0, 0].numpy(), atol=1e-4, rtol=0)


def test_lcm_is_a_loop_over_diffusers(
    depth: GenPerceptPipeline, official: dict[str, np.ndarray], image: np.ndarray
) -> None:
    """One step, which adds no noise; more steps differ only by where the noise comes from (tests of the equations)."""
    noise = torch.from_numpy(official["noise"])
    scheduler = LCMScheduler(prediction_type="v_prediction", set_alpha_to_one=False)
    want = marigold(depth, scheduler)(
        as_input(image), num_inference_steps=1, latents=noise, match_input_resolution=False
    ).prediction
    got = depth(image, num_inference_steps=1, latents=noise, sampler="lcm")
    np.testing.assert_allclose(got.values, want[0, :, :, 0], atol=1e-4, rtol=0)
    assert depth(image, sampler="lcm").meta["steps"] == 4


# ---- noise -----------------------------------------------------------------------------------------------------------


def test_an_image_gets_the_same_answer_wherever_it_stands(depth: GenPerceptPipeline, image: np.ndarray) -> None:
    """By the continuous solver: the other turns the rounding errors of another batch size into another alignment."""
    small = [image[:64, :64], image[40:104, 70:134], image[64:, 128:]]
    options: dict[str, Any] = {"num_inference_steps": 2, "ensemble_size": 3}
    options["ensembling_kwargs"] = {"solver": "least_squares"}
    alone = [depth(x, **options, generator=seeded(5)) for x in small]
    for order, batch_size in (([0, 1, 2], 2), ([2, 0, 1], 4), ([1, 1, 0], 9)):
        found = depth([small[i] for i in order], **options, generator=seeded(5), batch_size=batch_size)
        for i, pred in zip(order, found, strict=True):
            assert pred.raw is not None and alone[i].raw is not None
            np.testing.assert_allclose(pred.raw, alone[i].raw, atol=1e-4, rtol=0)
            np.testing.assert_allclose(pred.values, alone[i].values, atol=1e-3, rtol=0)


def test_seeds_and_runs_draw_different_noise(depth: GenPerceptPipeline, image: np.ndarray) -> None:
    small = image[:64, :64]
    values = [depth(small, num_inference_steps=2, generator=seeded(s)).values for s in (0, 0, 1)]
    np.testing.assert_array_equal(values[0], values[1])
    assert np.abs(values[0] - values[2]).max() > 0.05
    merged = depth(small, num_inference_steps=2, ensemble_size=3)
    assert merged.uncertainty is not None and merged.uncertainty.max() > 0.01
    assert merged.meta["ensemble_size"] == 3 and merged.meta["seed"] == 0


def test_images_with_noise_of_their_own(depth: GenPerceptPipeline, image: np.ndarray) -> None:
    images, seeds = [image[:64, :64], image[:48, :48], image[:64, :64]], [5, 6, 7]
    options: dict[str, Any] = {"num_inference_steps": 2, "ensemble_size": 2, "flip_test": True}
    options["ensembling_kwargs"] = {"solver": "least_squares"}
    found = depth(images, **options, generator=[seeded(s) for s in seeds], batch_size=3)
    for x, s, pred in zip(images, seeds, found, strict=True):
        alone = depth(x, **options, generator=seeded(s))
        assert pred.raw is not None and alone.raw is not None and pred.meta["seed"] == s
        np.testing.assert_allclose(pred.raw, alone.raw, atol=1e-4, rtol=0)
    assert np.abs(found[0].values - found[2].values).max() > 0.05
    with pytest.raises(ValueError, match="a list of 2 for 3 images: pass one for each"):
        depth(images, **options, generator=[seeded(5), seeded(6)])


def test_ten_runs_of_ten_steps(depth: GenPerceptPipeline, normals: GenPerceptPipeline, image: np.ndarray) -> None:
    small = image[:37, :50]
    for pipe, shape in ((depth, (37, 50)), (normals, (37, 50, 3))):
        pred = pipe(small, ensemble_size=10, batch_size=4, processing_resolution=32)
        assert pred.values.shape == shape and pred.uncertainty is not None and pred.uncertainty.shape == (37, 50)
        assert np.isfinite(pred.uncertainty).all() and pred.uncertainty.min() >= 0
        if pipe is normals:
            np.testing.assert_allclose(np.linalg.norm(pred.values, axis=-1), 1, atol=1e-4)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"ensemble_size": 0}, "at least 1"),
        ({"num_inference_steps": 1001}, "between 1 and 1000"),
        ({"latents": torch.zeros(1, 4, 3, 3)}, r"latents \[1, 4, 3, 3\]: must be \[1, 4, 2, 2\]"),
        ({"latents": torch.zeros(1, 4, 2, 2), "ensemble_size": 2}, r"must be \[2, 4, 2, 2\]"),
        ({"betas": (2, 3)}, "0 < beta_start"),
        ({"spacin": "leading"}, "did you mean 'spacing'"),
        ({"processing_resolutoin": 3}, "unknown argument .*did you mean 'processing_resolution'"),
        ({"paradigm": "one_step"}, "needs a denoiser with 4 input channels; this one has 8"),
        ({"paradigm": "direct"}, "gives no latent"),
        ({"ensembling_kwargs": {"reduction": "mean"}}, "ensemble_size is 1: leave it out, or raise ensemble_size"),
        ({"ensemble_size": 2, "ensembling_kwargs": {"reducton": "mean"}}, "unknown reducton"),
        ({"ensemble_size": 2, "ensembling_kwargs": {"reduction": "max"}}, "choose median, mean"),
        ({"sampler": "lcm", "num_inference_steps": 51}, "takes 1 to original_inference_steps=50"),
    ],
)
def test_impossible_combinations_say_what_to_do(depth: GenPerceptPipeline, kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        depth(np.zeros((16, 16, 3), np.uint8), **kwargs)


def test_deterministic_paradigms_take_no_noise(one_step: GenPerceptPipeline) -> None:
    black = np.zeros((16, 16, 3), np.uint8)
    for paradigm in ("one_step", "deterministic_multi_step"):
        with pytest.raises(ValueError, match="starts from the image, not from noise"):
            one_step(black, paradigm=paradigm, latents=torch.zeros(1, 4, 2, 2))
        with pytest.raises(ValueError, match="every run would be the same"):
            one_step(black, paradigm=paradigm, ensemble_size=2)
    sizes = [black, np.zeros((16, 24, 3), np.uint8)]
    with pytest.raises(ValueError, match="2 different padded sizes"):
        eight_channels(one_step)(sizes, latents=torch.zeros(2, 4, 2, 2))


def test_a_models_own_number_of_steps_is_that_of_its_own_paradigm(one_step: GenPerceptPipeline) -> None:
    """Marigold's files state it. One rule for predictions, for the FLOPs that are counted, and for what evaluate notes."""
    pipe = eight_channels(one_step)
    own, other = pipe.paradigm(), PARADIGMS.find("one_step")
    assert (pipe.default_steps(own), pipe.default_steps(own.with_options(sampler="lcm"))) == (10, 4)
    pipe.info["num_inference_steps"] = 2
    assert (pipe.default_steps(own), pipe.default_steps(own.with_options(sampler="lcm"))) == (2, 2)
    assert pipe.default_steps(other) == 1

    black = np.zeros((16, 16, 3), np.uint8)
    assert [pipe(black).meta["steps"], pipe(black, num_inference_steps=1).meta["steps"]] == [2, 1]
    data = EvalSet(SetSpec("synthetic", "synthetic"), None, "val", (), ())
    assert [predictions.facts(pipe, predictions.Way(steps=steps), data)["steps"] for steps in (None, 1)] == [2, 1]
    counts = [flops.by_stage(pipe, (16, 16))["denoise"]["total"]]
    pipe.info["num_inference_steps"] = 1
    counts.append(flops.by_stage(pipe, (16, 16))["denoise"]["total"])
    assert counts[0] == pytest.approx(2 * counts[1])


# ---- building, saving and loading ------------------------------------------------------------------------------------


def test_options_are_stored_with_the_model(one_step: GenPerceptPipeline, tmp_path: Path, image: np.ndarray) -> None:
    pipe = eight_channels(one_step, spacing="trailing", zero_terminal_snr=True)
    pipe.save_pretrained(tmp_path / "m")
    assert read_manifest(tmp_path / "m")["paradigm_options"]["spacing"] == "trailing"
    again = genpercept.load(tmp_path / "m", device="cpu")
    small = image[:32, :32]
    np.testing.assert_array_equal(again(small, num_inference_steps=2).values, pipe(small, num_inference_steps=2).values)
    leading = again(small, num_inference_steps=2, spacing="leading")
    assert leading.meta["paradigm_options"]["zero_terminal_snr"] is True
    assert np.abs(leading.values - again(small, num_inference_steps=2).values).max() > 1e-3


def test_models_saved_without_options_load(one_step: GenPerceptPipeline, tmp_path: Path) -> None:
    import json

    one_step.save_pretrained(tmp_path / "m")
    path = tmp_path / "m" / "genpercept.json"
    info = json.loads(path.read_text())
    del info["paradigm_options"]
    path.write_text(json.dumps(info))
    pipe = genpercept.load(tmp_path / "m", device="cpu")
    assert pipe.paradigm() == PARADIGMS.find("one_step")


def test_widened_convolution_gives_a_repeated_input_the_old_answer() -> None:
    base = GenPerceptPipeline.from_base(GOLDEN / "sd-tiny", "depth").unet
    wide = GenPerceptPipeline.from_base(GOLDEN / "sd-tiny", "depth", paradigm="stochastic_multi_step")
    assert wide.unet.config.in_channels == 8 and wide.info["paradigm_options"]["prediction_type"] == "v_prediction"
    x, t = torch.randn(1, 4, 8, 8, generator=seeded(0)), torch.tensor([1])
    with torch.inference_mode():
        want = base.forward_features(x, t, wide.prompt_embeds).require_latent()
        got = wide.unet.forward_features(torch.cat([x, x], 1), t, wide.prompt_embeds).require_latent()
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="not a multiple"):
        widen(wide.unet, 12)


def test_a_base_that_predicts_noise_becomes_a_stochastic_model_that_does(tmp_path: Path) -> None:
    import json
    import shutil

    shutil.copytree(GOLDEN / "sd-tiny", tmp_path / "base")
    path = tmp_path / "base" / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": "epsilon"}))
    pipe = GenPerceptPipeline.from_base(tmp_path / "base", "depth", paradigm="stochastic_multi_step")
    assert pipe.info["paradigm_options"]["prediction_type"] == "epsilon"


@pytest.mark.parametrize("paradigm", ["direct", "one_step"])
def test_a_head_with_weights_is_saved_checked_and_loaded(
    one_step: GenPerceptPipeline, tmp_path: Path, image: np.ndarray, paradigm: str
) -> None:
    head = parts.load_part(HEADS.find("dpt"), GOLDEN / "dpt_head_identity")
    pipe = GenPerceptPipeline.from_parts(
        unet=one_step.unet,
        vae=one_step.vae,
        prompt_embeds=one_step.prompt_embeds,
        task="depth",
        paradigm=paradigm,
        head="dpt",
        head_module=head,
        resolution=0,
    )
    assert pipe.components["head"] is head
    pipe.save_pretrained(tmp_path / "m")
    again = genpercept.load(tmp_path / "m", device="cpu")
    np.testing.assert_array_equal(again(image[:64, :64]).values, pipe(image[:64, :64]).values)
    with pytest.raises(ValueError, match="iterates on latents, but head 'dpt' gives none"):
        again(image[:64, :64], paradigm="deterministic_multi_step")
    weights = tmp_path / "m" / "head" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ValueError, match="SHA-256"):
        genpercept.load(tmp_path / "m", device="cpu")
