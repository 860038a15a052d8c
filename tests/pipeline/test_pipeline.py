"""The pipeline: equal to the public implementation, to its parents' forward, to itself in batches and after saving."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file

import genpercept
from genpercept import GenPerceptPipeline
from genpercept.checkpoints.parts import load_part
from genpercept.commands.inspect import show
from genpercept.core.values import Geometry
from genpercept.models.backbones import BACKBONES
from genpercept.models.backbones.sd21 import SD21_CONFIG, SD21UNet
from genpercept.models.codecs import CODECS
from genpercept.models.codecs.kl import SD_VAE_CONFIG
from genpercept.models.heads import HEADS
from genpercept.pipeline.manifest import read_manifest
from tests.support.paths import GOLDEN


@pytest.fixture(scope="module")
def normals() -> GenPerceptPipeline:
    return GenPerceptPipeline.from_base(GOLDEN / "sd-tiny", "normals", resolution=0)


# ---- golden answers of the public GenPercept code --------------------------------------------------------------------


@pytest.mark.parametrize("image", ["a", "b"])
def test_depth_is_the_official_answer(depth: GenPerceptPipeline, official: dict[str, np.ndarray], image: str) -> None:
    pred = depth(official[f"image_{image}"])
    assert pred.kind == "depth_affine"
    np.testing.assert_allclose(pred.values, official[f"one_step_depth_{image}"], atol=1e-5, rtol=0)


def test_resized_depth_is_the_official_answer(depth: GenPerceptPipeline, official: dict[str, np.ndarray]) -> None:
    """image_c at processing resolution 192: sizes truncated, 8-bit rounding, no padding, resized back."""
    pred = depth(official["image_c"], processing_resolution=192, resize_mode="official")
    np.testing.assert_allclose(pred.values, official["one_step_depth_res192_c"], atol=1e-5, rtol=0)
    ours = depth(official["image_c"], processing_resolution=192)
    np.testing.assert_allclose(ours.values, official["one_step_depth_res192_c"], atol=0.02, rtol=0)


@pytest.mark.parametrize("image", ["a", "b"])
def test_normals_are_the_official_answer(
    normals: GenPerceptPipeline, official: dict[str, np.ndarray], image: str
) -> None:
    """That code gives (n + 1) / 2 without making n unit length: compared raw, and as angles where n is not near zero."""
    pred, want = normals(official[f"image_{image}"]), official[f"one_step_normal_{image}"]
    assert pred.raw is not None
    painted = (np.clip(np.moveaxis(pred.raw, 0, -1), -1, 1) + 1) / 2
    np.testing.assert_allclose(painted, want, atol=1e-5, rtol=0)
    n = want * 2 - 1
    length = np.linalg.norm(n, axis=-1)
    cosine = (pred.values * n).sum(-1)[length > 0.1] / length[length > 0.1]
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() < 0.1


@pytest.mark.parametrize("paradigm", ["one_step", "direct"])
def test_dpt_disparity_is_the_official_answer_also_after_saving(
    depth: GenPerceptPipeline,
    official: dict[str, np.ndarray],
    paradigm: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pipe = GenPerceptPipeline.from_parts(
        unet=depth.unet,
        vae=depth.vae,
        prompt_embeds=depth.prompt_embeds,
        task="disparity",
        paradigm=paradigm,
        head="dpt",
        head_module=load_part(HEADS.find("dpt"), GOLDEN / "dpt_head_identity"),
        resolution=0,
    )
    pred = pipe(official["image_a"])
    with np.load(GOLDEN / "dpt.npz") as file:
        np.testing.assert_allclose(pred.values, file["one_step_dpt_disparity_a"], atol=1e-5, rtol=0)
    pipe.save_pretrained(tmp_path / "m")
    again = genpercept.load(tmp_path / "m", device="cpu")
    np.testing.assert_array_equal(again(official["image_a"]).values, pred.values)
    assert again.meta["paradigm"] == paradigm and pred.kind == "disparity_affine"
    assert show.main(str(tmp_path / "m")) == 0
    said = capsys.readouterr().out
    assert "head        dpt" in said and "part head" in said
    drop(tmp_path / "m" / "head" / "diffusion_pytorch_model.safetensors", "head.projection.bias")
    assert show.main(str(tmp_path / "m")) == 1
    assert "missing head.projection.bias" in capsys.readouterr().out


def drop(path: Path, name: str) -> None:
    tensors = load_file(path)
    del tensors[name]
    save_file(tensors, path)


def test_depth_labels_are_the_official_ones(official: dict[str, np.ndarray]) -> None:
    from genpercept.tasks.depth import normalise

    raw = torch.from_numpy(official["depth_raw"][0])
    np.testing.assert_allclose(normalise(raw, raw > 0), official["depth_norm"][0], atol=1e-6, rtol=0)


# ---- parts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(16, 24), (15, 20), (1, 1), (7, 5)])
def test_forward_features_is_the_parents_forward(depth: GenPerceptPipeline, size: tuple[int, int]) -> None:
    unet = depth.unet
    assert isinstance(unet, SD21UNet)
    x = torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(1))
    context = depth.prompt_embeds.expand(2, -1, -1)
    t = torch.tensor([1, 500])
    with torch.inference_mode():
        ours = unet.forward_features(x, t, context)
        parent = UNet2DConditionModel.forward(unet, x, t, context).sample
        bare = unet.forward_features(x, t, context, latent=False)
    assert ours.latent is not None and torch.equal(ours.latent, parent)
    assert bare.latent is None and len(bare.pyramid) == 4
    assert tuple(p.shape[1] for p in ours.pyramid) == unet.pyramid_channels


def test_pyramid_strides_are_declared_right(depth: GenPerceptPipeline) -> None:
    unet = depth.unet
    assert isinstance(unet, SD21UNet)
    features = unet.forward_features(torch.zeros(1, 4, 16, 16), torch.tensor([1]), depth.prompt_embeds)
    assert tuple(128 // p.shape[-1] for p in features.pyramid) == unet.pyramid_strides


def test_full_size_parameter_counts() -> None:
    with torch.device("meta"):
        unet = BACKBONES.find("sd21").build(SD21_CONFIG)
        vae = CODECS.find("kl").build(SD_VAE_CONFIG)
    assert sum(p.numel() for p in unet.parameters()) == 865_910_724
    assert sum(p.numel() for p in vae.parameters()) == 83_653_863


def test_tiny_codec_has_the_published_layout_and_round_trips_shapes() -> None:
    config = {"encoder_block_out_channels": [8] * 4, "decoder_block_out_channels": [8] * 4}
    plugin = CODECS.find("tiny")
    module = plugin.build(config)
    assert isinstance(module, AutoencoderTiny)
    codec = plugin.wrap(module.eval())
    assert (codec.stride, codec.channels) == (8, 4)
    image = torch.rand(1, 3, 24, 40) * 2 - 1
    with torch.inference_mode():
        z = codec.encode(image)
        assert z.shape == (1, 4, 3, 5)
        torch.testing.assert_close(z, module.encoder(image))  # no second scaling: its latents are scaled already
        assert codec.decode(z).shape == image.shape


def test_codec_refuses_the_other_module() -> None:
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)
    with pytest.raises(ValueError, match="needs an AutoencoderTiny, not a AutoencoderKL"):
        CODECS.find("tiny").wrap(vae)


# ---- inputs and batches ----------------------------------------------------------------------------------------------


def test_batches_do_not_change_the_answer(depth: GenPerceptPipeline, official: dict[str, np.ndarray]) -> None:
    images = [
        official["image_a"],
        official["image_b"],
        official["image_a"][:, ::-1].copy(),
        official["image_b"][::-1].copy(),
    ]
    together = depth(images, batch_size=4)
    for image, pred in zip(images, together, strict=True):
        assert pred.values.shape == image.shape[:2]
        np.testing.assert_allclose(pred.values, depth(image).values, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (37, 1), (13, 29), (8, 8), (65, 33)])
def test_any_size_works_and_keeps_its_size(depth: GenPerceptPipeline, size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    pred = depth(image)
    assert pred.values.shape == size and np.isfinite(pred.values).all()
    assert depth(image, processing_resolution=32).values.shape == size


def test_accepts_what_users_have(depth: GenPerceptPipeline, tmp_path: Path, official: dict[str, np.ndarray]) -> None:
    array = official["image_b"]
    Image.fromarray(array).save(tmp_path / "x.png")
    want = depth(array).values
    tensor = torch.from_numpy(array).permute(2, 0, 1).float() / 255
    for source in (tmp_path / "x.png", str(tmp_path / "x.png"), Image.fromarray(array), tensor):
        np.testing.assert_allclose(depth(source).values, want, atol=1e-5)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_inference_steps": 4}, "exactly 1 step"),
        ({"ensemble_size": 5}, "deterministic"),
        ({"paradigm": "one_stap"}, "did you mean 'one_step'"),
        ({"processing_resolution": -1}, "must be positive"),
        ({"resize_mode": "stretch"}, "resize_mode='stretch': choose fit, area, official"),
        ({"batch_size": 0}, "at least 1"),
        ({"ensembling_kwargs": {"reduction": "mean"}}, "ensemble_size is 1: leave it out$"),
    ],
)
def test_wrong_arguments_say_what_to_do(depth: GenPerceptPipeline, kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        depth(np.zeros((16, 16, 3), np.uint8), **kwargs)


def test_padding_never_shifts_a_pixel() -> None:
    image = torch.rand(1, 3, 13, 21)
    geometry = Geometry.plan((13, 21), None, 8)
    assert geometry.padded == (16, 24)
    assert torch.equal(geometry.invert(geometry.apply(image)), image)


# ---- saving and loading ----------------------------------------------------------------------------------------------


def test_saved_model_gives_the_same_bits(
    normals: GenPerceptPipeline, tmp_path: Path, official: dict[str, np.ndarray]
) -> None:
    normals.save_pretrained(tmp_path / "m")
    again = genpercept.load(tmp_path / "m", device="cpu")
    a, b = normals(official["image_a"]), again(official["image_a"])
    np.testing.assert_array_equal(a.values, b.values)
    assert b.meta["task"] == "normals" and len(b.meta["model_sha256"]) == 64
    assert not list(tmp_path.glob(".*"))  # no temporary folders
    plain = UNet2DConditionModel.from_pretrained(tmp_path / "m" / "unet")  # diffusers reads the part by itself
    assert plain.config.in_channels == 4


def test_what_a_model_wants_to_be_known_is_said_at_every_use(
    normals: GenPerceptPipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    info = normals.info | {"caution": "seen in synthetic scenes alone;\nphotographs mislead it"}
    said = "seen in synthetic scenes alone; photographs mislead it"
    GenPerceptPipeline(normals.unet, normals.vae, normals.prompt_embeds, info).save_pretrained(tmp_path / "model")
    pipes = [genpercept.load(tmp_path / "model", device="cpu") for _ in range(2)]
    assert capsys.readouterr().err == f"note: {tmp_path / 'model'}: {said}\n"  # once in a process
    assert pipes[0](np.zeros((32, 32, 3), np.uint8)).meta["caution"] == info["caution"]
    assert show.inspect(str(tmp_path / "model")).facts["caution"] == info["caution"]
    assert "caution" not in normals(np.zeros((32, 32, 3), np.uint8)).meta
    changed = json.loads((tmp_path / "model" / "genpercept.json").read_text()) | {"caution": 3}
    (tmp_path / "model" / "genpercept.json").write_text(json.dumps(changed))
    with pytest.raises(ValueError, match="caution is 3: must be a text"):
        genpercept.load(tmp_path / "model")


def test_dtype_and_overwrite(depth: GenPerceptPipeline, tmp_path: Path) -> None:
    depth.save_pretrained(tmp_path / "m")
    half = GenPerceptPipeline.from_pretrained(tmp_path / "m", torch_dtype=torch.bfloat16)
    assert half.unet_dtype == torch.bfloat16
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    pred = half(image)
    assert pred.values.dtype == np.float32
    assert np.abs(pred.values - depth(image).values).mean() < 0.05
    depth.save_pretrained(tmp_path / "m")  # over an existing model
    assert read_manifest(tmp_path / "m")["task"] == "depth"


def test_legacy_attention_names_load(depth: GenPerceptPipeline, tmp_path: Path) -> None:
    """Stable Diffusion's published VAE files name the mid-block attention query / key / value / proj_attn."""
    depth.save_pretrained(tmp_path / "m")
    path = tmp_path / "m" / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, tensor in load_file(path).items():
        for new, legacy in old.items():
            name = name.replace(f".{new}.", f".{legacy}.") if ".attentions." in name else name
        tensors[name] = tensor
    assert any(".proj_attn." in name for name in tensors)
    save_file(tensors, path)
    vae = load_part(CODECS.find("kl"), tmp_path / "m" / "vae")
    for name, tensor in depth.vae.state_dict().items():
        assert torch.equal(tensor, vae.state_dict()[name])


def test_base_that_predicts_noise_is_refused(tmp_path: Path) -> None:
    import shutil

    shutil.copytree(GOLDEN / "sd-tiny", tmp_path / "base")
    path = tmp_path / "base" / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": "epsilon"}))
    with pytest.raises(ValueError, match="'epsilon'; one_step needs a v-prediction base"):
        GenPerceptPipeline.from_base(tmp_path / "base", "depth")


def test_untrained_base_is_not_loaded_as_a_predictor() -> None:
    with pytest.raises(ValueError, match="not trained to predict anything"):
        genpercept.load(GOLDEN / "sd-tiny")


def test_a_model_for_another_task_is_refused(depth: GenPerceptPipeline, tmp_path: Path) -> None:
    depth.save_pretrained(tmp_path / "m")
    with pytest.raises(ValueError, match="is a model for depth, not normals"):
        genpercept.load(tmp_path / "m", task="normals")
