"""Slim ends of a codec: what pruning keeps, what the distilling stage teaches, and what it saves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import nn

import genpercept
from genpercept import GenPerceptPipeline
from genpercept.commands.inspect.show import inspect
from genpercept.core import said
from genpercept.models.codecs import CODECS
from genpercept.models.codecs.kl import SD_VAE_CONFIG
from genpercept.models.heads import HEADS
from genpercept.training import loop
from genpercept.training import recipe as recipes
from genpercept.training.dry_run import plan
from genpercept.training.networks.prune import Part, prune, slim_config
from genpercept.training.networks.tiny import tiny_config
from genpercept.training.stages.base import PredictorStage
from genpercept.training.stages.distil import DistilStage
from tests.support.commands import Call
from tests.support.distilling import images, recipe_of
from tests.support.paths import RECIPES, SD_TINY

MINI = ("distil_depth_decoder", "tiny_depth_decoder", "tiny_depth_encoder")
RECIPES = [
    *sorted((RECIPES / "distil").glob("*.toml")),
    *(RECIPES / "mini" / f"{name}.toml" for name in MINI),
]
PARTS: list[Part] = ["encoder", "decoder"]


def codec(seed: int = 0, **changes: Any) -> AutoencoderKL:
    """A small autoencoder with everything that Stable Diffusion's has: equal and unequal levels, attention, scales."""
    torch.manual_seed(seed)
    config = {"block_out_channels": [16, 32, 32], "layers_per_block": 2, "norm_num_groups": 8, "latent_channels": 4}
    config |= {"down_block_types": ["DownEncoderBlock2D"] * 3, "up_block_types": ["UpDecoderBlock2D"] * 3} | changes
    module = cast(AutoencoderKL, CODECS.find("kl").build(config)).eval()
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.GroupNorm):
                layer.weight.copy_(0.5 + torch.rand(layer.weight.shape))
                layer.bias.copy_(torch.randn(layer.bias.shape) / 4)
    return module


@torch.no_grad()
def answer(module: Any, part: Part) -> torch.Tensor:
    draw = torch.Generator().manual_seed(1)
    if part == "decoder":
        return module.decode(torch.randn(2, 4, 3, 5, generator=draw)).sample
    return module.encode(torch.rand(2, 3, 24, 20, generator=draw) * 2 - 1).latent_dist.mean


def count(module: nn.Module, part: Part) -> int:
    return sum(p.numel() for p in getattr(module, part).parameters())


# ---- pruning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", PARTS)
def test_all_that_is_kept_answers_the_same(part: Part) -> None:
    whole = codec()
    torch.testing.assert_close(answer(prune(whole, part, 1.0), part), answer(whole, part), atol=1e-6, rtol=0)


def test_one_channel_is_the_mean_of_three() -> None:
    whole = codec()
    mean = answer(whole, "decoder").mean(1, keepdim=True)
    torch.testing.assert_close(answer(prune(whole, "decoder", 1.0, channels=1), "decoder"), mean, atol=1e-6, rtol=0)


@pytest.mark.parametrize("part", PARTS)
def test_channels_that_nobody_reads_are_what_goes(part: Part) -> None:
    """A wide end whose second half of groups is written but never read is pruned to its first half, exactly."""
    narrow, wide = codec(block_out_channels=[8, 16, 16], norm_num_groups=4), codec(1)
    fill_with(cast(Any, wide), cast(Any, narrow), part)
    torch.testing.assert_close(answer(wide, part), answer(narrow, part), atol=1e-5, rtol=0)
    torch.testing.assert_close(answer(prune(wide, part, 0.5), part), answer(narrow, part), atol=1e-5, rtol=0)


@torch.no_grad()
def fill_with(wide: Any, narrow: Any, part: Part) -> None:
    """The narrow end in the first half of the wide one's channels; the other half, still written, is read with weight 0."""
    theirs = narrow.state_dict()
    for name, tensor in wide.state_dict().items():
        small = theirs[name]
        if name.startswith(part) and tensor.ndim > 1 and small.shape[1] < tensor.shape[1]:
            tensor[:, small.shape[1] :] = 0
        tensor[tuple(slice(0, n) for n in small.shape)] = small
        if ".to_q." in name:  # scores are divided by the square root of twice as many channels
            tensor *= 2**0.5
        if ".to_q." in name or ".to_k." in name:  # of these all are read; they matter by what they add to the scores
            tensor[len(small) :] = 0


@pytest.mark.parametrize("part", PARTS)
def test_blocks_that_add_least_are_what_goes(part: Part) -> None:
    """A block whose last convolution is zero passes on what it gets: leaving it out changes nothing."""
    whole = codec()
    levels: Any = whole.encoder.down_blocks if part == "encoder" else whole.decoder.up_blocks
    with torch.no_grad():
        for level in levels:
            level.resnets[1].conv2.weight.zero_()
            level.resnets[1].conv2.bias.zero_()
    fewer = prune(whole, part, 1.0, blocks=len(levels[0].resnets) - 1)
    assert count(fewer, part) < count(whole, part)
    torch.testing.assert_close(answer(fewer, part), answer(whole, part), atol=1e-6, rtol=0)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("width", [0.01, 0.25, 0.3, 0.5, 0.8])
def test_any_width_is_legal_and_smaller_is_smaller(part: Part, width: float) -> None:
    whole = codec()
    slim = prune(whole, part, width, blocks=1, attention=False)
    groups = slim.config["norm_num_groups"]
    assert groups == max(1, round(8 * width)) and slim.config["block_out_channels"] == [
        2 * groups,
        4 * groups,
        4 * groups,
    ]
    assert answer(slim, part).shape == answer(whole, part).shape
    assert count(slim, part) < count(whole, part) * (width + 0.1)
    other = "encoder" if part == "decoder" else "decoder"
    assert getattr(slim, other) is None and getattr(whole, other) is not None


# part, width, blocks, channels -> parameters of the end; SD 2.1's has 34,163,592 and 49,490,179
SIZES: list[tuple[Part, float, int, int, int]] = [
    ("decoder", 1.0, 0, 3, 49_490_179),
    ("decoder", 0.5, 0, 1, 12_386_305),
    ("decoder", 0.25, 0, 1, 3_103_745),
    ("decoder", 0.25, 1, 1, 1_735_553),
    ("encoder", 1.0, 0, 3, 34_163_592),
    ("encoder", 0.5, 0, 3, 8_558_024),
    ("encoder", 0.25, 1, 3, 1_463_976),
]


@pytest.mark.parametrize(("part", "width", "blocks", "channels", "numbers"), SIZES)
def test_sizes_of_stable_diffusions_codec(part: Part, width: float, blocks: int, channels: int, numbers: int) -> None:
    with torch.device("meta"):
        slim = CODECS.find("kl").build(slim_config(SD_VAE_CONFIG, part, width, blocks, channels))
    assert count(slim, part) == numbers
    encoder: Any = slim
    shape = (1, 4, 2, 3) if part == "decoder" else (1, 3, 16, 24)
    run = encoder.decode if part == "decoder" else encoder.encode
    out = run(torch.empty(shape, device="meta"))
    assert (out.sample if part == "decoder" else out.latent_dist.mean).shape == (
        (1, channels, 16, 24) if part == "decoder" else (1, 4, 2, 3)
    )


@pytest.mark.parametrize("part", PARTS)
def test_the_tiny_form_at_full_width_is_the_published_one(part: Part) -> None:
    published = CODECS.find("tiny").build({"_class_name": "AutoencoderTiny"})
    built = CODECS.find("tiny").build(tiny_config(SD_VAE_CONFIG, part, 1.0))
    shapes = [{k: t.shape for k, t in module.state_dict().items()} for module in (published, built)]
    assert shapes[0] == shapes[1]


def test_what_cannot_be_pruned_is_refused() -> None:
    whole = codec()
    with pytest.raises(ValueError, match=r"distil\.blocks 4: the decoder has 3 residual blocks per level"):
        prune(whole, "decoder", 0.5, blocks=4)
    with pytest.raises(ValueError, match="a AutoencoderTiny cannot be pruned"):
        prune(CODECS.find("tiny").build({"_class_name": "AutoencoderTiny"}), "decoder", 0.5)
    with pytest.raises(ValueError, match="a AutoencoderKL cannot be pruned, only an AutoencoderKL that has one"):
        prune(prune(whole, "decoder", 0.5), "encoder", 0.5)
    with pytest.raises(ValueError, match="a decoder of 3 channels can answer with these or their mean, not 2"):
        prune(whole, "decoder", 0.5, channels=2)


# ---- the stage -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images alone: no label is read."""
    return images(tmp_path_factory.mktemp("data"))


@pytest.fixture
def recipe(data: Path, saved: Path, tmp_path: Path) -> Path:
    """The decoder of a predictor whose answers are in range, as a trained one's are: random decoders are not."""
    return recipe_of(tmp_path, saved, data, steps=30, decay=0.9, distil="width = 0.5\nblocks = 1")


def open_stage(recipe: Path, *overrides: str) -> DistilStage:
    return DistilStage(recipes.load(recipe, overrides), lambda line: None)


def logged(run: Path) -> dict[str, float]:
    """The last validation."""
    return json.loads((run / "log.jsonl").read_text().splitlines()[-1])


def loaded(folder: Path, **options: Any) -> Any:
    return genpercept.load(folder, device="cpu", **options)


def picture() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (33, 45, 3), np.uint8)


CASES = [
    ["distil.part=decoder"],
    ["distil.part=decoder", "loader.latent_variants=2", "distil.channels=3", "distil.attention=false"],
    ["distil.part=encoder"],
    ["distil.part=encoder", "loader.latent_variants=2", "augment.crop=[0.7, 1.0]"],
    ["distil.part=decoder", "distil.form=tiny"],
    ["distil.part=encoder", "distil.form=tiny"],
]


@pytest.mark.parametrize(
    "overrides", CASES, ids=["decoder", "decoder, cached", "encoder", "encoder, cached", "tiny decoder", "tiny encoder"]
)
def test_it_learns_and_the_rest_of_the_model_stays(
    overrides: list[str], recipe: Path, saved: Path, tmp_path: Path
) -> None:
    start = open_stage(recipe, *overrides)
    start.net.eval()
    before = start.validate(2)[0]["loss"]
    assert isinstance(start, PredictorStage) and np.isfinite(start.pipeline()(picture()).values).all()
    assert loop.main(recipe, overrides, tmp_path / "run") == 0
    assert logged(tmp_path / "run")["loss"] < 0.85 * before
    part = overrides[0].removeprefix("distil.part=")
    whole, slim = (loaded(folder) for folder in (saved, tmp_path / "run" / "model"))
    halves = {"encoder": slim.vae.encoding, "decoder": slim.vae.decoding}
    kept, new = cast(Any, halves.pop("decoder" if part == "encoder" else "encoder")), cast(Any, halves.popitem()[1])
    for module, theirs in ((slim.unet, whole.unet), (kept, whole.vae)):
        reference = cast(Any, theirs).state_dict()
        assert all(torch.equal(t, reference[k]) for k, t in module.state_dict().items())
    assert torch.equal(slim.prompt_embeds, whole.prompt_embeds)
    assert {k: slim.info[k] for k in ("task", "paradigm_options", "resolution")} == {
        k: whole.info[k] for k in ("task", "paradigm_options", "resolution")
    }
    said = slim(picture()).meta["distilled"][part]
    assert said["of"] == str(saved) and said["of_sha256"] == whole.info["model_sha256"] and said["width"] == 0.5
    assert said["parameters"] == {
        "before": count(cast(Any, whole.vae), cast(Part, part)),
        "after": count(new, cast(Part, part)),
    }
    assert said["channels"] == {"decoder": 3 if "distil.channels=3" in overrides else 1, "encoder": 4}[part]


def test_cached_answers_are_those_of_the_step(recipe: Path) -> None:
    """The same variant's latent, out of the cache or made afresh; half precision apart."""
    for part in PARTS:
        stage = open_stage(recipe, f"distil.part={part}", "loader.latent_variants=2", "augment.crop=[0.6, 1.0]")
        assert stage._answers is not None
        for index, variant in ((0, 0), (0, 1), (5, 1)):
            image, latent = stage._answers[0].image(index, variant), stage._answers[0].latent(index, variant)
            torch.testing.assert_close(latent[None], stage._latents(image[None]), atol=2e-3, rtol=2e-3)
        first, again = (stage.make_batch(3, range(4)).latents for _ in range(2))
        assert first is not None and torch.equal(first, cast(Any, again))


@pytest.mark.parametrize("part", PARTS)
def test_a_stopped_run_goes_on_bit_by_bit(part: Part, recipe: Path, tmp_path: Path) -> None:
    common = [f"distil.part={part}", "optim.decay_steps=6", "loader.latent_variants=1", "checkpoint.every=3"]
    assert loop.main(recipe, [*common, "steps=6"], tmp_path / "whole") == 0
    assert loop.main(recipe, [*common, "steps=3"], tmp_path / "parts") == 0
    assert loop.main(recipe, [*common, "steps=6"], tmp_path / "parts", resume=True) == 0
    a, b = (loaded(tmp_path / run / "model").vae for run in ("whole", "parts"))
    theirs = b.state_dict()
    assert all(torch.equal(t, theirs[k]) for k, t in a.state_dict().items())


def test_a_saved_model_answers_as_the_trained_one_does(recipe: Path, tmp_path: Path) -> None:
    """Both ends, one after the other; then saved again, specialised, and through the command line."""
    threads = torch.get_num_threads()
    assert loop.main(recipe, ["steps=2", f"speed.threads={threads + 1}"], tmp_path / "d") == 0
    assert torch.get_num_threads() == threads  # the caller's
    told = said.told.result()  # what --json prints
    assert (told["steps"], told["model"], told["exit_code"]) == (2, str(tmp_path / "d" / "model"), 0)
    decoder = loaded(tmp_path / "d" / "model")
    stage = open_stage(recipe, "distil.part=encoder", f"model.base={tmp_path / 'd' / 'model'}")
    stage.save(tmp_path / "both")
    codec = next(part for part in inspect(tmp_path / "both").parts if part.name == "vae")
    assert codec.details == "4 latent channels, AutoencoderKL's encoder and AutoencoderKL's decoder"
    both = loaded(tmp_path / "both")
    assert set(both.info["distilled"]) == {"encoder", "decoder"} and both.info["codec"] == "pair"
    assert torch.equal(both.vae.decoding.decoder.conv_out.weight, decoder.vae.decoding.decoder.conv_out.weight)
    x = torch.rand(1, 3, 16, 24) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(both._codec.encode(x), stage.net.eval()(x), atol=1e-6, rtol=0)
    want = both(picture())
    assert want.raw.shape[0] == 3 and np.ptp(want.raw, axis=0).max() == 0  # one channel, painted on three
    np.testing.assert_allclose(want.values, (np.clip(want.raw.mean(0), -1, 1) + 1)[:33, :45] / 2, atol=1e-6)
    both.save_pretrained(tmp_path / "again")
    np.testing.assert_array_equal(loaded(tmp_path / "again")(picture()).values, want.values)
    np.testing.assert_allclose(genpercept.specialise(both)(picture()).values, want.values, atol=1e-5, rtol=0)


def test_predict_and_a_change_of_decoder(recipe: Path, saved: Path, tmp_path: Path, call: Call) -> None:
    open_stage(recipe).save(tmp_path / "slim")
    Image.fromarray(picture()).save(tmp_path / "a.png")
    for name, flags in (
        ("own", ["--model", tmp_path / "slim"]),
        ("given", ["--model", saved, "--decoder", tmp_path / "slim"]),
    ):
        words = ("predict", tmp_path / "a.png", *flags, "--format", "npy", "--out", tmp_path / name, "--device", "cpu")
        code, _, err = call(*words)
        assert code == 0, err
    own, given = (np.load(tmp_path / name / "a_depth.npy") for name in ("own", "given"))
    np.testing.assert_array_equal(own, given)
    meta = json.loads((tmp_path / "own" / "a_depth.json").read_text())["meta"]
    assert meta["distilled"]["decoder"]["width"] == 0.5
    back = loaded(tmp_path / "slim", decoder=saved)
    assert "distilled" not in back.info
    np.testing.assert_array_equal(back(picture()).values, loaded(saved)(picture()).values)


def test_a_target_for_a_task_that_clips_its_channels(recipe: Path, tmp_path: Path) -> None:
    """The mean of clipped channels, which is what such a task (Lotus) makes of them."""
    pipe = GenPerceptPipeline.from_base(SD_TINY, "depth", resolution=0)
    pipe.info["task_options"] = {"clip": "channels", "stretch": False}
    pipe.save_pretrained(tmp_path / "lotus")
    stage = open_stage(recipe, f"model.base={tmp_path / 'lotus'}")
    latents = torch.randn(1, 4, 4, 5) * 20
    with torch.no_grad():
        three = cast(Any, stage.base.vae).decode(latents / 0.18215).sample
        assert three.abs().max() > 1
        torch.testing.assert_close(stage._whole_answer(latents), three.clamp(-1, 1).mean(1, keepdim=True))


def test_three_channels_for_normals(recipe: Path, tmp_path: Path) -> None:
    GenPerceptPipeline.from_base(SD_TINY, "normals", resolution=0).save_pretrained(tmp_path / "normals")
    stage = open_stage(recipe, f"model.base={tmp_path / 'normals'}", "task=normals")
    batch = stage.encode(stage.make_batch(0, range(4)))
    assert cast(Any, batch.target).map.shape == (4, 3, 32, 40) and stage.net(batch.latents).shape == (4, 3, 32, 40)


def test_what_cannot_be_distilled_is_refused(recipe: Path, saved: Path, tmp_path: Path) -> None:
    pipe = loaded(saved)
    neck = {"neck_hidden_sizes": list(reversed(cast(Any, pipe.unet).pyramid_channels)), "fusion_hidden_size": 8}
    head = HEADS.find("dpt").build(neck)
    GenPerceptPipeline(pipe.unet, pipe.vae, pipe.prompt_embeds, pipe.info | {"head": "dpt"}, head).save_pretrained(
        tmp_path / "dpt"
    )
    tiny = CODECS.find("tiny").build({"_class_name": "AutoencoderTiny"})
    pipe.with_codec(tiny, tiny).save_pretrained(tmp_path / "tiny")
    for overrides, says in (
        (["task=normals"], 'is a model for depth; set task = "depth"'),
        ([f"model.base={tmp_path / 'dpt'}"], "so the decoder never runs"),
        ([f"model.base={SD_TINY}"], "not trained to predict anything"),
        (["loss.vnl=1.0"], "reads intrinsics of a label, and none is read here"),
        (["model.head=dpt"], "keeps all parts of its base but one; leave it out"),
        (["distil.width=0"], "distil.width"),
        (
            [f"model.base={tmp_path / 'tiny'}", "distil.form=tiny"],
            "learns from an AutoencoderKL, not from a AutoencoderTiny",
        ),
        (["augment.sizes=[[32, 40], [40, 32]]", "loader.latent_variants=1"], "cached latents have one size"),
    ):
        with pytest.raises(ValueError) as error:
            open_stage(recipe, *overrides)
        assert says in str(error.value) and "\n" not in str(error.value)
    assert open_stage(recipe, f"model.base={tmp_path / 'dpt'}", "distil.part=encoder").samples == 8


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_recipes_take_a_step_and_say_what_they_would_do(path: Path, data: Path, saved: Path, tmp_path: Path) -> None:
    small = [
        f"model.base={saved}",
        "steps=1",
        "optim.warmup=0",
        "loader.batch_size=2",
        "precision=fp32",
        "speed.threads=1",
    ]
    small += [
        f'data=[{{name = "folder", root = "{data}", split = "all", size = [32, 40]}}]',
        "augment.sizes=[[32, 40]]",
    ]
    small += ['validation={split = "all", count = 2, pictures = 1}', "logging.tensorboard=false"]
    small += [f"loader.cache_dir={tmp_path / 'cache'}"]
    settings = recipes.load(path, small)
    said = str(plan(settings))
    first = "blocks" if settings.distil.part == "denoiser" else "width"
    assert " -> " in said and f"({settings.task}, {settings.distil.part}: {first}" in said
    assert "not here yet" in str(plan(recipes.load(path))) or settings.model.base != recipes.load(path).model.base
    assert loop.main(path, small, tmp_path / "run") == 0
    assert loaded(tmp_path / "run" / "model")(picture()).values.shape == (33, 45)
