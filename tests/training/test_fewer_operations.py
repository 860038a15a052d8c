"""Fewer operations: decoders that stop early and are brought up along the photograph, and U-Nets without some blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import genpercept
from genpercept import GenPerceptPipeline
from genpercept.commands.bench import build, flops
from genpercept.commands.bench.setting import Setting
from genpercept.commands.export import graph
from genpercept.models.backbones import BACKBONES
from genpercept.models.codecs import CODECS
from genpercept.models.codecs.guided import GuidedUpsampler, brought_up, matching_config
from genpercept.models.codecs.kl import SD_VAE_CONFIG
from genpercept.pipeline import codec_swap
from genpercept.pipeline.call import Run
from genpercept.training import loop
from genpercept.training import recipe as recipes
from genpercept.training.dry_run import plan
from genpercept.training.networks import predictor
from genpercept.training.networks.guided import fit, guided
from genpercept.training.networks.slim_unet import origin, slim_config, slim_unet
from genpercept.training.stages import build as open_stage
from genpercept.training.stages.distil import DistilStage
from tests.support.distilling import images, recipe_of
from tests.support.paths import RECIPES, SD_TINY
from tests.support.planes import planes

GUIDED = ["distil.form=guided", "distil.width=1.0"]
SLIM = ["distil.part=denoiser", "distil.middle=false", "distil.levels=1"]


LEVELS = ("block_out_channels", "down_block_types", "up_block_types")  # of an AutoencoderKL, one entry for each


def picture() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (33, 45, 3), np.uint8)


def loaded(folder: Path | str, **options: Any) -> Any:
    return genpercept.load(folder, device="cpu", **options)


# ---- the guided decoder ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2, 4])
def test_the_upsampler_begins_as_bilinear_interpolation(factor: int) -> None:
    draw = torch.Generator().manual_seed(0)
    low, image = (torch.randn(2, c, 5 * f, 7 * f, generator=draw) for c, f in ((3 + 16, 1), (3, factor)))
    with torch.no_grad():
        found = GuidedUpsampler(3, 16, factor, 8)(low, image)
    wanted = F.interpolate(low[:, :3], scale_factor=factor, mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, wanted, atol=5e-4, rtol=0)


@pytest.mark.parametrize(("levels", "channels"), [(1, 1), (2, 3)])
def test_the_whole_decoders_coarse_levels_are_its_own(levels: int, channels: int, depth: GenPerceptPipeline) -> None:
    vae = cast(Any, depth.vae)
    made = guided(vae, levels, channels=channels)
    whole, own = vae.state_dict(), made.state_dict()
    new = {name for name in own if name not in whole or not torch.equal(own[name], whole[name])}
    assert all(name.startswith(("upsampler.", "decoder.conv_out.", "decoder.conv_norm_out.")) for name in new)
    blocks = len(vae.decoder.up_blocks) - levels
    assert len(made.decoder.up_blocks) == blocks and made.decoder.up_blocks[-1].upsamplers is None
    assert {f"decoder.up_blocks.{i}.resnets.0.conv1.weight" for i in range(blocks)} <= own.keys() - new
    codec = CODECS.find("guided").wrap(made)
    z, image = torch.randn(2, 4, 3, 5), torch.rand(2, 3, 3 * codec.stride, 5 * codec.stride)
    with torch.no_grad():
        assert cast(Any, codec).decode_guided(z, image).shape == image.shape
        assert made(z, image).shape[1] == channels


def test_the_last_convolution_is_fitted_to_the_whole_decoders_answers(depth: GenPerceptPipeline) -> None:
    """What it fitted is nearer to them than a constant is, on other latents, too; the rest is as it was."""
    vae, draw = cast(Any, depth.vae), torch.Generator().manual_seed(0)
    made = guided(vae)
    before = {name: t.clone() for name, t in made.state_dict().items()}
    seen, others = (torch.randn(n, 4, 6, 6, generator=draw) for n in (48, 4))
    with torch.no_grad():
        fit(made, seen, vae.decode(seen).sample)
        wanted = F.avg_pool2d(vae.decode(others).sample, 2)
        found = made.decoder(vae.post_quant_conv(others))[:, :3]
    assert (found - wanted).square().mean() < 0.5 * wanted.var()
    changed = [name for name, t in made.state_dict().items() if not torch.equal(t, before[name])]
    assert changed == ["decoder.conv_out.weight", "decoder.conv_out.bias"]
    assert torch.equal(made.decoder.conv_out.weight[3:], before["decoder.conv_out.weight"][3:])


def test_a_whole_decoder_is_brought_up_to_twice_the_size(depth: GenPerceptPipeline) -> None:
    """The encoder is shown the picture averaged; the answer begins as the whole decoder's, enlarged."""
    made = brought_up(cast(Any, depth.vae))
    name, pair = codec_swap.join(cast(Any, depth.vae), made)
    codec, whole = cast(Any, CODECS.find(name).wrap(pair)), depth._codec
    assert codec.stride == 2 * whole.stride
    image = torch.rand(2, 3, 6 * codec.stride, 5 * codec.stride, generator=torch.Generator().manual_seed(0)) * 2 - 1
    small = F.avg_pool2d(image, 2)
    with torch.no_grad():
        latent = codec.encode(image)
        torch.testing.assert_close(latent, whole.encode(small))
        wanted = F.interpolate(whole.decode(latent), scale_factor=2, mode="bilinear", align_corners=False)
        torch.testing.assert_close(codec.decode_guided(latent, image), wanted, atol=1e-3, rtol=0)


def test_a_model_taught_at_twice_the_size_is_saved_and_taught_further(saved: Path, tmp_path: Path) -> None:
    data = planes(tmp_path / "data", 4, (64, 80))
    table: dict[str, Any] = {
        "stage": "finetune",
        "steps": 3,
        "model": {"base": str(saved), "upsample": 2},
        "learn": {"decoder": "finetune"},
        "data": [{"name": "folder", "root": str(data), "split": "all", "size": (64, 80)}],
        "loader": {"batch_size": 2},
        "validation": {"every": 0, "count": 2, "split": "all"},
        "checkpoint": {"every": 0},
        "logging": {"tensorboard": False},
    }
    loop.Training(recipes.parse(table), tmp_path / "run", resume=False).run()
    first = loaded(tmp_path / "run" / "model")
    assert first.stride == 2 * loaded(saved).stride and first.resolution == 80
    upsampler = cast(Any, first.vae).decoding.upsampler.state_dict()
    assert upsampler["conv_out.weight"].abs().max() > 0
    again = recipes.parse(table | {"model": {"base": str(tmp_path / "run" / "model")}})
    parts = predictor.build(again)
    torch.testing.assert_close(cast(Any, parts.vae).decoding.upsampler.state_dict(), upsampler)
    assert all(p.requires_grad for module in parts.decoder() for p in module.parameters())
    assert not any(p.requires_grad for p in cast(Any, parts.vae).encoding.parameters())


def test_it_is_a_decoder_of_the_models_saved_loaded_specialised_and_exported(
    depth: GenPerceptPipeline, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    pipe = depth.with_codec(decoder=guided(cast(Any, depth.vae)))
    wanted = pipe(picture())
    assert wanted.values.shape == (33, 45)
    pipe.save_pretrained(tmp_path / "m")
    again = loaded(tmp_path / "m")
    np.testing.assert_array_equal(again(picture()).values, wanted.values)
    twice = again([picture(), picture()], batch_size=2)
    np.testing.assert_allclose(twice[1].raw, wanted.raw, atol=1e-5)
    np.testing.assert_allclose(genpercept.specialise(again)(picture()).values, wanted.values, atol=1e-4, rtol=0)
    with torch.no_grad():
        x = torch.rand(1, 3, 4 * pipe.stride, 3 * pipe.stride)
        found = graph.build(again)(x)
        torch.testing.assert_close(found, again._forward(x, Run(again.paradigm(), 1), None), atol=1e-4, rtol=1e-4)


def test_the_photograph_is_seen(depth: GenPerceptPipeline) -> None:
    made = guided(cast(Any, depth.vae))
    nn.init.normal_(made.upsampler.conv_out.weight)
    z, image = torch.randn(1, 4, 3, 4), torch.rand(1, 3, 24, 32)
    with torch.no_grad():
        assert not torch.allclose(made(z, image), made(z, image.flip(-1)), atol=1e-3)


def test_wrong_uses_of_a_guided_decoder_are_refused(depth: GenPerceptPipeline, saved: Path, tmp_path: Path) -> None:
    made = guided(cast(Any, depth.vae))
    pipe = depth.with_codec(decoder=made)
    pipe.save_pretrained(tmp_path / "guided")
    z = torch.zeros(1, 4, 2, 2)
    twice = {"base": str(tmp_path / "guided"), "upsample": 2}
    recipe = recipes.parse({"stage": "finetune", "model": twice, "learn": {"decoder": "finetune"}})
    frozen = recipes.parse({"stage": "finetune", "model": twice})
    config = dict(cast(Any, depth.vae).config)
    coarse = CODECS.find("kl").build(config | {name: [*config[name], config[name][-1]] for name in LEVELS})
    wrong: list[tuple[Any, str]] = [
        (lambda: depth.with_codec(encoder=made), "a GuidedDecoder only decodes: pass it as decoder"),
        (lambda: pipe._codec.decode(z), "decodes beside the photograph"),
        (lambda: CODECS.find("guided").wrap(made).encode(z), "only decodes"),
        (lambda: CODECS.find("guided").wrap(depth.unet), "codec 'guided' needs a GuidedDecoder"),
        (lambda: cast(Any, pipe.vae).enable_tiling(), "does not work in tiles"),
        (lambda: guided(cast(Any, depth.vae), levels=4), "of which at least one must stay"),
        (lambda: guided(made), "a GuidedDecoder cannot be pruned"),
        (lambda: predictor.build(recipe), "only an AutoencoderKL's can be brought up"),
        (
            lambda: predictor.build(frozen),
            'its network is new and learns with the decoder; set learn.decoder = "finetune"',
        ),
        (lambda: codec_swap.join(cast(Any, depth.vae), coarse), "only codecs of one latent space go together"),
    ]
    for use, says in wrong:
        with pytest.raises(ValueError) as error:
            use()
        assert says in str(error.value) and "\n" not in str(error.value)


# ---- the slim U-Net --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unet() -> Any:
    """Two residual blocks a level, three levels with and one without attention."""
    torch.manual_seed(0)
    kind = {"down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"], "layers_per_block": 2}
    kind |= {"up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3, "block_out_channels": [8, 16, 24, 32]}
    kind |= {"cross_attention_dim": 6, "attention_head_dim": [1, 2, 3, 4], "norm_num_groups": 4}
    return cast(Any, BACKBONES.find("sd21").build(kind | {"in_channels": 4, "out_channels": 4})).eval()


@torch.no_grad()
def answer(net: Any) -> Any:
    draw = torch.Generator().manual_seed(1)
    return net.forward_features(torch.randn(2, 4, 9, 16, generator=draw), torch.ones(2), torch.ones(2, 2, 6))


def test_the_blocks_that_are_left_have_the_wholes_weights(unet: Any) -> None:
    slim = slim_unet(unet, blocks=1, levels=1, middle=False, without_attention=1)
    theirs = unet.state_dict()
    fresh = [n for n, t in slim.state_dict().items() if not torch.equal(t, theirs.get(origin(n, 1, 1, 2), -t))]
    # what followed the level that went reads other channels
    layers = ("norm1", "conv1", "conv_shortcut")
    assert {n.rpartition(".")[0] for n in fresh} == {f"up_blocks.0.resnets.0.{name}" for name in layers}
    assert slim.mid_block is None and len(slim.up_blocks) == 3
    assert [len(block.resnets) for block in slim.down_blocks] == [1, 1, 1]
    assert torch.equal(slim.up_blocks[2].resnets[1].conv1.weight, unet.up_blocks[3].resnets[2].conv1.weight)
    assert torch.equal(slim.up_blocks[1].attentions[1].proj_in.weight, unet.up_blocks[2].attentions[2].proj_in.weight)
    features = answer(slim)
    assert features.latent.shape == (2, 4, 9, 16)
    assert [level.shape[1] for level in features.pyramid] == [24, 16, 8] == list(slim.pyramid_channels)


def test_what_adds_nothing_can_go(unet: Any) -> None:
    """The middle, and the finest level's attention, with last layers of zeros: the answer is the same without them."""
    torch.manual_seed(0)
    whole = slim_unet(unet)
    silent = [
        whole.mid_block.resnets[0].conv2,
        whole.mid_block.resnets[1].conv2,
        whole.mid_block.attentions[0].proj_out,
    ]
    silent += [layer.proj_out for block in (whole.down_blocks[0], whole.up_blocks[-1]) for layer in block.attentions]
    for layer in silent:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    slim = slim_unet(whole, middle=False, without_attention=1)
    assert sum(p.numel() for p in slim.parameters()) < 0.9 * sum(p.numel() for p in whole.parameters())
    torch.testing.assert_close(answer(slim).latent, answer(whole).latent, atol=1e-5, rtol=1e-5)


def test_a_slim_unet_is_a_models_saved_loaded_specialised_and_exported(
    depth: GenPerceptPipeline, tmp_path: Path
) -> None:
    slim = slim_unet(depth.unet, middle=False, without_attention=1)
    pipe = GenPerceptPipeline(slim, depth.vae, depth.prompt_embeds, dict(depth.info), None)
    wanted = pipe(picture())
    pipe.save_pretrained(tmp_path / "m")
    again = loaded(tmp_path / "m")
    np.testing.assert_array_equal(again(picture()).values, wanted.values)
    np.testing.assert_allclose(genpercept.specialise(again)(picture()).values, wanted.values, atol=1e-4, rtol=0)


def test_what_cannot_be_left_out_is_refused(unet: Any) -> None:
    for given, says in (
        ({"blocks": 3}, "distil.blocks 3: the U-Net has 2 per level on its way down"),
        ({"levels": 4}, "distil.levels 4: the U-Net has 4; leave out fewer"),
        ({"without_attention": 5}, "distil.without_attention 5: the U-Net has 4 levels"),
    ):
        with pytest.raises(ValueError, match=says):
            slim_config(dict(unet.config), **given)
    with pytest.raises(ValueError, match="a Conv2d cannot lose blocks, only a UNet2DConditionModel"):
        slim_unet(nn.Conv2d(1, 1, 1))


# ---- distilling ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images alone: no label is read."""
    return images(tmp_path_factory.mktemp("data"))


@pytest.fixture
def recipe(data: Path, saved: Path, tmp_path: Path) -> Path:
    return recipe_of(tmp_path, saved, data, steps=12, decay=0.5)


def opened(recipe: Path, *overrides: str) -> DistilStage:
    return cast(DistilStage, open_stage(recipes.load(recipe, overrides), lambda line: None))


QUICK = "guided, cached, three channels"  # of these, for every run
CASES = {
    "guided": GUIDED,
    "guided, cached, three channels": [*GUIDED, "distil.channels=3", "loader.latent_variants=2"],
    "guided at a quarter, slim": ["distil.form=guided", "distil.levels=2", "distil.blocks=1"],
    "denoiser": SLIM,
    "denoiser, cached, losses behind the decoder": [*SLIM, "loader.latent_variants=1", "loss={latent=1.0, l1=1.0}"],
}


@pytest.mark.parametrize(
    "overrides",
    [pytest.param(case, marks=[] if name == QUICK else pytest.mark.slow, id=name) for name, case in CASES.items()],
)
def test_a_few_steps_teach_it_and_the_rest_of_the_model_stays(
    overrides: list[str], recipe: Path, saved: Path, tmp_path: Path
) -> None:
    start = opened(recipe, *overrides)
    start.net.eval()
    before = start.validate(2)[0]["loss"]
    assert loop.main(recipe, overrides, tmp_path / "run") == 0
    after = opened(recipe, *overrides)
    whole, slim = loaded(saved), loaded(tmp_path / "run" / "model")
    denoiser = overrides[0] == "distil.part=denoiser"
    after.net.slim.load_state_dict((slim.unet if denoiser else slim.vae.decoding).state_dict())
    after.net.eval()
    assert after.validate(2)[0]["loss"] < 0.95 * before
    kept = [(slim.vae, whole.vae)] if denoiser else [(slim.unet, whole.unet), (slim.vae.encoding, whole.vae)]
    for module, theirs in kept:
        reference = cast(Any, theirs).state_dict()
        assert all(torch.equal(t, reference[k]) for k, t in module.state_dict().items())
    said = slim(picture()).meta["distilled"]["denoiser" if denoiser else "decoder"]
    assert said["of_sha256"] == whole.info["model_sha256"] and said["steps"] == 12


def test_a_target_is_the_whole_ones_answer_to_the_same_image(recipe: Path) -> None:
    stage = opened(recipe, *SLIM)
    batch = stage.encode(stage.make_batch(0, range(2)))
    base = stage.base
    with torch.no_grad():
        z = base._codec.encode(cast(Any, batch.images))
        wanted = next(base._answers((cast(Any, batch.images) + 1) / 2, Run(base.paradigm(), 1, [0, 0], 1, 2), None))
    torch.testing.assert_close(batch.latents, z)
    torch.testing.assert_close(cast(Any, batch.target).map, wanted.require_latent(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(batch.labels["level_0"], wanted.pyramid[1], atol=1e-5, rtol=1e-5)


def test_normals_have_three_channels(recipe: Path, tmp_path: Path) -> None:
    GenPerceptPipeline.from_base(SD_TINY, "normals", resolution=0).save_pretrained(tmp_path / "normals")
    stage = opened(recipe, *GUIDED, f"model.base={tmp_path / 'normals'}", "task=normals")
    batch = stage.encode(stage.make_batch(0, range(2)))
    pair = stage.training_pair(batch)
    assert pair.target.shape == (2, 3, 32, 40) == stage.net(*pair.inputs).shape


def test_keys_that_nothing_reads_are_refused(recipe: Path) -> None:
    for overrides, says in (
        (["distil.levels=1"], "distil.levels: is read for guided and denoiser alone, and this distils slim"),
        (["distil.middle=false"], "distil.middle: is read for denoiser alone, and this distils slim"),
        ([*SLIM, "distil.width=0.25"], "distil.width: is read for slim and tiny and guided alone"),
        ([*GUIDED, "distil.part=encoder"], 'makes a decoder, not a encoder; set distil.part = "decoder"'),
        (["distil.part=denoiser"], "nothing of the denoiser is left out"),
    ):
        with pytest.raises(ValueError) as error:
            opened(recipe, *overrides)
        assert says in str(error.value) and "\n" not in str(error.value)


NAMES = ("mini/half_depth_decoder", "mini/half_normals_decoder", "mini/slim_depth_unet")
FULL = ("distil/half_depth_decoder", "distil/slim_depth_unet")


@pytest.mark.parametrize("name", [*NAMES, *FULL])
def test_dry_runs_say_what_would_be_left(name: str) -> None:
    said = str(plan(recipes.load(RECIPES / f"{name}.toml")))
    assert " -> " in said if name.startswith("mini/") else "not here yet" in said


# ---- bench -----------------------------------------------------------------------------------------------------------


def test_bench_counts_fewer_operations() -> None:
    whole, half, quarter = (Setting(shape="sd21", resolution=64, decoder=d) for d in ("", "half", "quarter"))
    slim = Setting(shape="sd21", resolution=64, codec="tiny", decoder="quarter", unet="slim")
    assert slim.network == "sd21, codec tiny, head quarter decoder, slim U-Net, 64 px"
    counts = [flops.by_stage(build.networks(of), (64, 64)) for of in (whole, half, quarter, slim)]
    heads = [count["head"]["total"] for count in counts]
    assert heads[0] > 1.4 * heads[1] > 2.1 * heads[2] and heads[2] == heads[3]
    assert counts[0]["denoise"]["total"] / counts[3]["denoise"]["total"] == pytest.approx(1.893, abs=1e-3)
    config = matching_config(SD_VAE_CONFIG, 1)
    assert config["block_out_channels"] == [256, 512, 512] and config["layers_per_block"] == 2
    with pytest.raises(ValueError, match="decoder half: head dpt runs none"):
        Setting(decoder="half", head="dpt")
