"""DepthFM's checkpoint: answers of its own code, its two ways of attention, what is asked of a base, and what is refused.

tests/golden/depthfm holds a tiny checkpoint in its layout and what its own code (github.com/CompVis/depth-fm at da632c8)
answers: torch 2.13.0 on a CPU in float32, diffusers 0.29.2, torchdiffeq 0.2.5.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file

import genpercept
from genpercept import GenPerceptPipeline
from genpercept.checkpoints.parts import write_config
from genpercept.commands.cli import cli
from genpercept.commands.export.run import main as export
from genpercept.commands.inspect.show import inspect
from genpercept.models.backbones import BACKBONES
from genpercept.models.codecs.kl import SD_VAE_CONFIG
from genpercept.pipeline.families import FAMILIES
from genpercept.pipeline.families._latent_diffusion import config_of, names_of
from tests.support.paths import GOLDEN, SD_TINY

ROOT = GOLDEN / "depthfm"
FILE, BASE = ROOT / "depthfm-v1.ckpt", ROOT / "base"
WAYS = ("plain", "rescaled")
# of the published file, by a project that prints them
FULL_SIZE: dict[str, Any] = {
    "image_size": 32,
    "in_channels": 8,
    "out_channels": 4,
    "model_channels": 320,
    "num_heads": 8,
    "attention_resolutions": [4, 2, 1],
    "num_res_blocks": 2,
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": 1,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": True,
    "context_dim": 1024,
    "legacy": False,
}


def load(model: Path = FILE, way: str = "", **options: Any) -> GenPerceptPipeline:
    family = {"family": f"depthfm,attention={way}"} if way else {}
    return genpercept.load(model, **{"base": BASE, "allow_pickle": True, "device": "cpu", **family, **options})


@pytest.fixture(scope="module")
def answers() -> dict[str, np.ndarray]:
    with np.load(ROOT / "answers.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def pipes() -> dict[str, GenPerceptPipeline]:
    return {way: load(way=way) for way in WAYS}


def noise(answers: dict[str, np.ndarray], key: str) -> torch.Tensor:
    return torch.from_numpy(answers[f"noise_{key}"])


def key(way: str, rest: str) -> str:
    return f"depth{'' if way == 'plain' else '_rescaled'}_{rest}"


def near(found: np.ndarray, wanted: np.ndarray, atol: float = 1e-4) -> None:
    np.testing.assert_allclose(found, wanted, atol=atol, rtol=0)


# ---- answers of its own code -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_one_call_of_the_network(way: str, pipes: dict, answers: dict[str, np.ndarray]) -> None:
    unet, prompt = pipes[way].unet, pipes[way].prompt_embeds
    x = torch.from_numpy(np.concatenate([answers["unet_x"], answers["unet_context"]], 1))
    with torch.no_grad():
        found = unet.forward_features(x, torch.from_numpy(answers["unet_t"]), prompt.expand(2, -1, -1)).latent
    near(found.numpy(), answers["unet_out" if way == "plain" else "unet_out_rescaled"], 2e-5)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("steps", [1, 2, 4, 10])
def test_depth(way: str, steps: int, pipes: dict, answers: dict[str, np.ndarray]) -> None:
    found = pipes[way](answers["image_a"], num_inference_steps=steps, latents=noise(answers, "a"))
    near(found.values, answers[key(way, f"steps{steps}_a")])
    other = answers[key(WAYS[way == "plain"], f"steps{steps}_a")]
    assert np.abs(found.values - other).max() > 1e-2  # the other way of attention is told apart


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("steps", [1, 2])
def test_an_ensemble_is_averaged_as_logarithms(
    way: str, steps: int, pipes: dict, answers: dict[str, np.ndarray]
) -> None:
    z = noise(answers, "ens3_a")
    found = pipes[way](answers["image_a"], num_inference_steps=steps, latents=z, ensemble_size=3)
    near(found.values, answers[key(way, f"steps{steps}_ens3_a")])
    together = pipes[way](answers["image_a"], num_inference_steps=steps, latents=z, ensemble_size=3, batch_size=3)
    near(together.values, found.values)
    assert found.uncertainty is not None and 0 < found.uncertainty.mean() < 0.5


def test_an_ensemble_takes_no_options(pipes: dict, answers: dict[str, np.ndarray]) -> None:
    options = {"ensemble_size": 2, "ensembling_kwargs": {"reduction": "mean"}}
    with pytest.raises(ValueError, match="averaged, without options"):
        pipes["plain"](answers["image_a"], **options)


@pytest.mark.parametrize("way", WAYS)
def test_without_noise(way: str, pipes: dict, answers: dict[str, np.ndarray]) -> None:
    found = pipes[way](answers["image_a"], noising_step=0)
    near(found.values, answers[key(way, "steps2_noising0_a")])
    assert found.meta["seed"] is None
    with pytest.raises(ValueError, match="flow_matching is deterministic"):
        pipes[way](answers["image_a"], noising_step=0, ensemble_size=2)


@pytest.mark.parametrize(("name", "resolution", "size"), [("b", 0, (128, 128)), ("b_res64", 64, (64, 64))])
@pytest.mark.parametrize("way", WAYS)
def test_odd_sizes_as_its_code_has_them(
    way: str, name: str, resolution: int, size: tuple[int, int], pipes: dict, answers: dict[str, np.ndarray]
) -> None:
    """Its input, its depth at the size of the network, and back at the image's as close as 8 bits of it tell."""
    options = {"latents": noise(answers, name), "processing_resolution": resolution}
    found = pipes[way](answers["image_b"], resize_mode="official", **options)
    assert found.meta["resolution"] == list(size) and found.values.shape == (100, 150)
    logs = found.raw.astype(np.float64).mean(0)
    depth = np.exp(logs)
    near((depth - depth.min()) / (depth.max() - depth.min()), answers[key(way, f"steps2_{name}")])
    if way == "plain":
        assert np.abs(found.values * 255 - answers[f"gray8_steps2_{name}"]).max() < 2
    resized = np.round((answers[f"input_{name}"][0].transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8)
    near(pipes[way](resized, latents=noise(answers, name)).values, answers[key(way, f"steps2_{name}")])


def test_fit_is_ours(pipes: dict, answers: dict[str, np.ndarray]) -> None:
    """Padded to a multiple of 8, no further, and the aspect is the image's."""
    found = pipes["plain"](answers["image_b"])
    assert found.meta["resolution"] == [104, 152] and found.values.shape == (100, 150)


# ---- through the command -----------------------------------------------------------------------------------------------


def predict(tmp_path: Path, image: np.ndarray, *options: str, model: Path = FILE) -> np.ndarray:
    Image.fromarray(image).save(tmp_path / "photo.png")
    words = ["predict", str(tmp_path / "photo.png"), "-m", str(model), "--base", str(BASE), "--allow-pickle"]
    words += ["-o", str(tmp_path / "out"), "--format", "npy", "--device", "cpu", *options]
    assert cli.main(words, standalone_mode=False) == 0
    return np.load(tmp_path / "out" / "photo_depth.npy")


def noise_file(tmp_path: Path, answers: dict[str, np.ndarray], name: str) -> tuple[str, str]:
    np.save(tmp_path / "noise.npy", answers[f"noise_{name}"])
    return "--noise", str(tmp_path / "noise.npy")


def test_predict(tmp_path: Path, answers: dict[str, np.ndarray]) -> None:
    found = predict(tmp_path, answers["image_a"], *noise_file(tmp_path, answers, "a"))
    near(found, answers["depth_steps2_a"])


def test_predict_an_ensemble_by_rescaled_attention(tmp_path: Path, answers: dict[str, np.ndarray]) -> None:
    options = (
        *noise_file(tmp_path, answers, "ens3_a"),
        "--ensemble-size",
        "3",
        "--family",
        "depthfm,attention=rescaled",
    )
    near(predict(tmp_path, answers["image_a"], *options), answers["depth_rescaled_steps2_ens3_a"])


def test_predict_an_odd_size_as_its_command_line(tmp_path: Path, answers: dict[str, np.ndarray]) -> None:
    options = (*noise_file(tmp_path, answers, "b_res64"), "--resize-mode", "official", "--processing-resolution", "64")
    found = predict(tmp_path, answers["image_b"], *options)
    assert np.abs(found * 255 - answers["gray8_steps2_b_res64"]).max() < 2


def test_predict_without_noise_from_a_folder(tmp_path: Path, answers: dict[str, np.ndarray]) -> None:
    shutil.copytree(BASE / "vae", tmp_path / "mine" / "vae")
    shutil.copy(FILE, tmp_path / "mine" / FILE.name)
    found = predict(tmp_path, answers["image_a"], "--family", "depthfm,noising_step=0", model=tmp_path / "mine")
    near(found, answers["depth_steps2_noising0_a"])


def test_the_seed_keys_the_noise(tmp_path: Path, answers: dict[str, np.ndarray]) -> None:
    first = predict(tmp_path, answers["image_a"], "--seed", "1", "--steps", "1", "--overwrite")
    again = predict(tmp_path, answers["image_a"], "--seed", "1", "--steps", "1", "--overwrite")
    other = predict(tmp_path, answers["image_a"], "--seed", "2", "--steps", "1", "--overwrite")
    assert np.array_equal(first, again) and np.abs(first - other).max() > 1e-3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((4, 8, 16), np.float32), r"holds float32 \[4, 8, 16\]: it must be floats"),
        (np.zeros((1, 4, 8, 16), np.int64), "it must be floats"),
        (np.full((1, 4, 8, 16), np.nan), "NaN or infinite"),
        (None, "not a readable .npy file"),
    ],
)
def test_wrong_noise_is_refused(content: np.ndarray | None, message: str, tmp_path: Path) -> None:
    from genpercept.commands.predict.model import read_noise

    if content is None:
        (tmp_path / "x.npy").write_bytes(b"no array")
    else:
        np.save(tmp_path / "x.npy", content)
    with pytest.raises(ValueError, match=message):
        read_noise(tmp_path / "x.npy")


# ---- what it says of itself, saved ---------------------------------------------------------------------------------------


def test_what_was_decided(pipes: dict) -> None:
    info = pipes["rescaled"].info
    assert (info["paradigm"], info["paradigm_options"]) == ("flow_matching", {"noising_step": 400})
    assert info["official_size"] == {"multiple": 64, "pillow": "bilinear"} and info["resolution"] == 0
    decided = pipes["rescaled"].meta["decided"]
    assert decided["heads"].startswith("8 on every level") and decided["attention"].startswith("rescaled")
    assert load(family="depthfm").meta["decided"]["attention"].startswith("plain")


@pytest.mark.parametrize("way", WAYS)
def test_a_saved_model_gives_the_same_bits(
    way: str, pipes: dict, answers: dict[str, np.ndarray], tmp_path: Path
) -> None:
    """With its attention, its sizes and its noising; no pickle, no base."""
    pipes[way].save_pretrained(tmp_path / "m")
    again = genpercept.load(tmp_path / "m", family=f"depthfm,attention={way}", device="cpu")
    options = {"resize_mode": "official", "processing_resolution": 64, "latents": noise(answers, "b_res64")}
    a, b = (pipe(answers["image_b"], **options).values for pipe in (pipes[way], again))
    np.testing.assert_array_equal(a, b)
    config = json.loads((tmp_path / "m" / "unet" / "config.json").read_text())
    assert config.get("self_attention", "plain") == way and config["attention_head_dim"] == 8
    other = WAYS[way == "plain"]
    with pytest.raises(ValueError, match=f"was saved with attention '{way}': load the checkpoint"):
        genpercept.load(tmp_path / "m", family=f"depthfm,attention={other}", device="cpu")
    write_config(tmp_path / "m" / "unet" / "config.json", config | {"self_attention": "squared"})
    with pytest.raises(ValueError, match="self_attention is 'squared': must be one of plain, rescaled"):
        genpercept.load(tmp_path / "m", device="cpu")


def test_another_processor_keeps_the_way_of_attention(answers: dict[str, np.ndarray]) -> None:
    """Training sets a plain processor where the fused kernel is slow."""
    from diffusers.models.attention_processor import AttnProcessor

    pipe = load(way="rescaled")
    pipe.unet.set_attn_processor(AttnProcessor())
    found = pipe(answers["image_a"], latents=noise(answers, "a")).values
    near(found, answers["depth_rescaled_steps2_a"])


def test_diffusers_own_network_gives_the_same(pipes: dict, answers: dict[str, np.ndarray], tmp_path: Path) -> None:
    pipes["plain"].save_pretrained(tmp_path / "m")
    plain: Any = UNet2DConditionModel.from_pretrained(tmp_path / "m" / "unet")
    x = torch.from_numpy(np.concatenate([answers["unet_x"], answers["unet_context"]], 1))
    with torch.no_grad():
        found = plain(x, torch.from_numpy(answers["unet_t"]), pipes["plain"].prompt_embeds.expand(2, -1, -1)).sample
    near(found.numpy(), answers["unet_out"], 2e-5)


def test_heads_of_stable_diffusion_2_would_fit_and_be_wrong(pipes: dict, answers: dict[str, np.ndarray]) -> None:
    """The silent failure: 4 and 8 heads by level have the same tensors. Nothing here may load it so."""
    unet = pipes["plain"].unet
    other: Any = BACKBONES.find("sd21").build(dict(unet.config) | {"attention_head_dim": [4, 8]})
    other.load_state_dict(unet.state_dict())
    x = torch.from_numpy(np.concatenate([answers["unet_x"], answers["unet_context"]], 1))
    with torch.no_grad():
        found = other.eval().forward_features(
            x, torch.from_numpy(answers["unet_t"]), pipes["plain"].prompt_embeds.expand(2, -1, -1)
        )
    assert np.abs(found.latent.numpy() - answers["unet_out"]).max() > 0.02


def test_full_size() -> None:
    config = config_of(Path("depthfm-v1.ckpt"), FULL_SIZE)
    assert config["block_out_channels"] == [320, 640, 1280, 1280] and config["attention_head_dim"] == 8
    with torch.device("meta"):
        unet: Any = BACKBONES.find("sd21").build(config)
        vae = genpercept.models.codecs.CODECS.find("kl").build(SD_VAE_CONFIG)  # type: ignore[attr-defined]
    assert sum(p.numel() for p in unet.parameters()) == 865_922_244 and len(unet.state_dict()) == 686
    assert sum(p.numel() for p in vae.parameters()) == 83_653_863
    assert {m.heads for n, m in unet.named_modules() if n.endswith(("attn1", "attn2"))} == {8}
    theirs = names_of_latent_diffusion(FULL_SIZE)
    assert set(names_of(FILE, theirs, config).values()) == unet.state_dict().keys() and len(theirs) == 686


def names_of_latent_diffusion(arguments: dict[str, Any]) -> list[str]:
    """Names of the tensors of latent diffusion's U-Net: residual blocks, transformers, and what changes the size."""
    both = ("weight", "bias")
    layers = [
        f"{n}.{b}" for n in ("in_layers.0", "in_layers.2", "emb_layers.1", "out_layers.0", "out_layers.3") for b in both
    ]
    block = "transformer_blocks.0."
    attention = [f"{n}.{b}" for n in ("norm", "proj_in", "proj_out") for b in both]
    inner = ("norm1", "norm2", "norm3", "ff.net.0.proj", "ff.net.2", "attn1.to_out.0", "attn2.to_out.0")
    attention += [f"{block}{n}.{b}" for n in inner for b in both]
    attention += [f"{block}attn{i}.to_{x}.weight" for i in (1, 2) for x in "qkv"]
    skip = [f"skip_connection.{b}" for b in both]
    found = [f"{n}.{b}" for n in ("time_embed.0", "time_embed.2", "input_blocks.0.0", "out.0", "out.2") for b in both]
    times, count = arguments["channel_mult"], arguments["num_res_blocks"]
    attends = [2**i in arguments["attention_resolutions"] for i in range(len(times))]
    number, before = 1, 1
    for level, width in enumerate(times):
        for _ in range(count):
            inside = layers + (skip if width != before else [])
            found += [f"input_blocks.{number}.0.{n}" for n in inside]
            found += [f"input_blocks.{number}.1.{n}" for n in attention if attends[level]]
            number, before = number + 1, width
        if level + 1 < len(times):
            found += [f"input_blocks.{number}.0.op.{b}" for b in both]
            number += 1
    found += [f"middle_block.{i}.{n}" for i in (0, 2) for n in layers] + [f"middle_block.1.{n}" for n in attention]
    number = 0
    for level in reversed(range(len(times))):
        for i in range(count + 1):
            found += [f"output_blocks.{number}.0.{n}" for n in layers + skip]
            found += [f"output_blocks.{number}.1.{n}" for n in attention if attends[level]]
            if level and i == count:
                found += [f"output_blocks.{number}.{1 + attends[level]}.conv.{b}" for b in both]
            number += 1
    return found


# ---- recognised, inspected ---------------------------------------------------------------------------------------------


def test_without_permission_the_pickle_is_not_read(tmp_path: Path) -> None:
    shutil.copy(FILE, tmp_path)
    for model in (FILE, tmp_path):
        with pytest.raises(ValueError, match=r"holds only depthfm-v1\.ckpt, a pickle, .* or pass --allow-pickle"):
            genpercept.load(model, base=BASE)


def test_it_needs_a_base() -> None:
    with pytest.raises(ValueError, match=r"without vae, .* pass base= \(a Stable Diffusion 1\.5 folder"):
        genpercept.load(FILE, allow_pickle=True)


def test_inspect(tmp_path: Path) -> None:
    report = inspect(FILE, allow_pickle=True)
    assert report.facts["family"] == "depthfm" and report.facts["task"] == "depth" and not report.problems
    assert report.parts[0].parameters == 788_996 and report.parts[0].dtypes == ("float32",)
    assert [need for need in report.needs if "for vae: Stable Diffusion 1.5" in need]
    whole = inspect(FILE, base=BASE, allow_pickle=True)
    assert whole.loads
    refused = inspect(FILE, base=BASE)
    assert "a pickle, which can run code" in refused.problems[0] and not refused.loads


def test_files_that_are_none(tmp_path: Path) -> None:
    torch.save({"state_dict": {"w": torch.zeros(3)}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"other\.ckpt: is a file of weights without a config\.json"):
        load(tmp_path / "other.ckpt")
    save_file({"w": torch.zeros(3)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"x\.safetensors: is a file of weights without a config\.json"):
        load(tmp_path / "x.safetensors")
    assert inspect(tmp_path / "x.safetensors").problems
    with pytest.raises(ValueError, match=r"no genpercept\.json, model_index\.json or config\.json in it"):
        load(tmp_path)  # two files
    (tmp_path / "other.ckpt").unlink()
    with pytest.raises(ValueError, match=r"x\.safetensors: is a file of weights without a config\.json"):
        load(tmp_path)
    with pytest.raises(ValueError, match="no checkpoint of family 'depthfm', which is one file"):
        load(SD_TINY, family="depthfm", task="depth")
    with pytest.raises(ValueError, match="has no normals of this kind"):
        load(task="normals", family="depthfm")


def test_other_families_do_not_take_it(answers: dict[str, np.ndarray]) -> None:
    for name in set(FAMILIES.names()) - {"depthfm"}:
        assert FAMILIES.find(name).recognise(FILE, allow_pickle=True) is None
        with pytest.raises(ValueError, match=r"depthfm-v1\.ckpt"):
            load(family=name, task="depth")


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("depthfm,attention=wide", "attention='wide': choose plain, rescaled"),
        ("depthfm,noising_step=1001", "integer from 0 to 1000"),
        ("depthfm,atention=plain", "family 'depthfm' has no option 'atention': did you mean 'attention'"),
        ("depthfm,plain", "'plain' is no choice: write NAME,KEY=VALUE"),
        ("lotus,attention=plain", "family 'lotus' has no option 'attention': it has none"),
    ],
)
def test_choices_are_checked(family: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(family=family)


# ---- its base ------------------------------------------------------------------------------------------------------------


def base(tmp_path: Path, unet: dict | None = None, scheduler: dict | None = None, **vae: Any) -> Path:
    shutil.copytree(BASE, tmp_path / "base")
    for part, config in (("unet", unet), ("scheduler", scheduler)):
        if config is not None:
            (tmp_path / "base" / part).mkdir()
            name = "config.json" if part == "unet" else "scheduler_config.json"
            (tmp_path / "base" / part / name).write_text(json.dumps(config))
    path = tmp_path / "base" / "vae" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | vae))
    return tmp_path / "base"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unet": {"cross_attention_dim": 16}}, r"Stable Diffusion 1\.5's autoencoder: take that"),
        ({"scheduler": {"prediction_type": "v_prediction"}}, r"Stable Diffusion 1\.5's autoencoder: take that"),
        ({"scaling_factor": 0.13025}, "scaling_factor 0.13025, but"),
        ({"latent_channels": 16}, "their|latents of .* have 16"),
    ],
)
def test_a_wrong_autoencoder_is_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = base(tmp_path, **options)
    with pytest.raises(ValueError, match=message):
        load(base=folder)
    assert inspect(FILE, base=folder, allow_pickle=True).problems


def test_text_of_another_width_is_none_of_its_business(tmp_path: Path) -> None:
    """Stable Diffusion 1.5 reads text of 768, and predicts noise."""
    folder = base(tmp_path, unet={"cross_attention_dim": 768}, scheduler={"prediction_type": "epsilon"})
    assert load(base=folder).info["base"] == str(folder)


# ---- other forms of the file, and damage -----------------------------------------------------------------------------------


def changed(tmp_path: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    from genpercept.checkpoints import pickles

    content = pickles.read_content(FILE)
    content["state_dict"] = {k: t.clone() for k, t in content["state_dict"].items()}
    edit(content)
    torch.save(content, tmp_path / "depthfm.ckpt")
    return tmp_path / "depthfm.ckpt"


def test_an_embedding_may_be_a_tensor(tmp_path: Path, pipes: dict) -> None:
    again = load(changed(tmp_path, lambda c: None))  # as it is read, arrays are tensors
    assert torch.equal(again.prompt_embeds, pipes["plain"].prompt_embeds)
    array = load(changed(tmp_path, lambda c: c.update(empty_text_embedding=c["empty_text_embedding"].numpy())))
    assert torch.equal(array.prompt_embeds, pipes["plain"].prompt_embeds)


def test_half_precision(tmp_path: Path, answers: dict[str, np.ndarray]) -> None:
    """A pruned file in fp16, as others made one."""

    def halve(content: dict[str, Any]) -> None:
        content["state_dict"] = {k: t.half() for k, t in content["state_dict"].items()}
        content["empty_text_embedding"] = content["empty_text_embedding"].half().numpy()

    pipe = load(changed(tmp_path, halve))
    assert pipe.unet.dtype == torch.float32
    found = pipe(answers["image_a"], latents=noise(answers, "a")).values
    near(found, answers["depth_steps2_a"], 5e-3)


def arguments(**new: Any) -> Callable[[dict[str, Any]], object]:
    return lambda c: c["ldm_hparams"].update(new)


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no noising": (lambda c: c.pop("noising_step"), "lacks noising_step, which DepthFM's checkpoint has"),
    "no prompt": (lambda c: c.pop("empty_text_embedding"), "lacks empty_text_embedding"),
    "no arguments": (lambda c: c.pop("ldm_hparams"), "lacks ldm_hparams"),
    "no weights": (lambda c: c.pop("state_dict"), "lacks state_dict"),
    "noising too far": (lambda c: c.update(noising_step=1001), "noising_step=1001: must be an integer from 0 to 1000"),
    "noising in words": (lambda c: c.update(noising_step="far"), "its noising_step is a str"),
    "zero text": (lambda c: c["empty_text_embedding"].zero_(), "is all zeros"),
    "no finite text": (lambda c: c["empty_text_embedding"].fill_(torch.nan), "or not finite"),
    "text of another width": (
        lambda c: c.update(empty_text_embedding=torch.ones(1, 77, 1024)),
        r"\[1, 77, 1024\], but the U-Net reads text of \(1, tokens, 16\)",
    ),
    "heads of Stable Diffusion 2": (
        arguments(num_heads=-1, num_head_channels=8),
        r"num_heads is -1: must be an integer|num_head_channels=8 changes the U-Net",
    ),
    "heads not said": (lambda c: c["ldm_hparams"].pop("num_heads"), "lack num_heads"),
    "heads that do not divide": (arguments(num_heads=7), "with num_heads 7: each must be a multiple"),
    "another level": (arguments(channel_mult=[1, 2, 4]), "the weights do not fit its ldm_hparams"),
    "text width not the weights'": (
        lambda c: (arguments(context_dim=32)(c), c.update(empty_text_embedding=torch.ones(1, 77, 32))),
        "do not fit its ldm_hparams: misshaped",
    ),
    "wide": (arguments(model_channels=3200), "does not fit its weights|do not fit"),
    "other attention": (arguments(use_spatial_transformer=False), "use_spatial_transformer is False, which is not run"),
    "unknown argument": (arguments(use_scale_shift_norm=True), "use_scale_shift_norm=True changes the U-Net into one"),
    "an argument that is a tensor": (
        arguments(channel_mult=torch.ones(2)),
        "its argument 'channel_mult' .* no plain value",
    ),
    "a name of two lines": (lambda c: c["state_dict"].update({"a\nb": torch.ones(1)}), r"no tensor by name: 'a\\nb'"),
    "one tensor less": (
        lambda c: c["state_dict"].pop("time_embed.0.bias"),
        r"do not fit its ldm_hparams: missing time_embedding\.linear_1\.bias",
    ),
    "one tensor more": (
        lambda c: c["state_dict"].update({"label_emb.0.0.weight": torch.zeros(3)}),
        r"tensors that no such U-Net has: label_emb\.0\.0\.weight",
    ),
    "a block more": (
        lambda c: c["state_dict"].update({"input_blocks.9.0.in_layers.0.bias": torch.zeros(3)}),
        "do not fit its ldm_hparams|no such U-Net has",
    ),
    "another shape": (
        lambda c: c["state_dict"].update({"out.2.bias": torch.zeros(3)}),
        r"misshaped conv_out\.bias is \[3\], needs \[4\]",
    ),
    "NaN": (lambda c: c["state_dict"]["out.2.bias"].fill_(torch.nan), r"NaN or infinite values in conv_out\.bias"),
    "no tensor": (
        lambda c: c["state_dict"].update({"out.2.bias": 3}),
        r"state_dict holds what is no tensor by name|not a plain tensor",
    ),
}


@pytest.mark.parametrize(("edit", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_named(edit: Callable[[dict[str, Any]], object], message: str, tmp_path: Path) -> None:
    file = changed(tmp_path, edit)
    with pytest.raises(ValueError, match=message) as error:
        load(file, family="depthfm")
    assert "\n" not in str(error.value)


def test_a_cut_file(tmp_path: Path) -> None:
    (tmp_path / "depthfm.ckpt").write_bytes(FILE.read_bytes()[:100_000])
    with pytest.raises(ValueError, match=r"not a readable pickle|refused"):
        load(tmp_path / "depthfm.ckpt")


def test_a_file_that_runs_code(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return open, (str(tmp_path / "ran"), "w")

    file = changed(tmp_path, lambda c: c.update(empty_text_embedding=Payload()))
    with pytest.raises(ValueError, match=r"refused: it asks for io\.open"):
        load(file)
    assert not (tmp_path / "ran").exists()


def test_names_are_diffusers_own() -> None:
    """Every tensor has a place, and no two have one."""
    from genpercept.checkpoints import pickles

    content = pickles.read_content(FILE)
    names = names_of(FILE, content["state_dict"], config_of(FILE, content["ldm_hparams"]))
    assert len(set(names.values())) == len(names) == len(content["state_dict"])
    assert names["input_blocks.0.0.weight"] == "conv_in.weight" and names["out.2.bias"] == "conv_out.bias"


# ---- what it cannot do ---------------------------------------------------------------------------------------------------


def test_export_says_why_not(pipes: dict, tmp_path: Path) -> None:
    pipes["plain"].save_pretrained(tmp_path / "m")
    with pytest.raises(ValueError, match="no public layout runs paradigm 'flow_matching'"):
        export(str(tmp_path / "m"), "diffusers", tmp_path / "out")
    with pytest.raises(ValueError, match=r"cannot be exported as a graph: .*flow_matching") as error:
        export(str(tmp_path / "m"), "onnx", tmp_path / "out")
    assert "\n" not in str(error.value)
