"""Public checkpoints: the release's folders and a training run's, over their base; what does not fit is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

import genpercept
from genpercept import GenPerceptPipeline
from genpercept.models.backbones.sd21 import SD21_CONFIG
from genpercept.models.heads import HEADS
from tests.support.paths import GOLDEN, SD_TINY

HEADLESS = "unet_disparity_dpt_head_v2"
HEAD = "dpt_head_identity"
WEIGHTS = "diffusion_pytorch_model.safetensors"
OUTPUT = ("conv_norm_out.weight", "conv_norm_out.bias", "conv_out.weight", "conv_out.bias")


def change(path: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


def without_output(tensors: dict[str, torch.Tensor]) -> None:
    for name in OUTPUT:
        del tensors[name]


def release(root: Path) -> Path:
    """The release's folders: a U-Net without output layers, whose config names the public code's fork, and the head's."""
    shutil.copytree(SD_TINY / "unet", root / HEADLESS)
    shutil.copytree(GOLDEN / HEAD, root / HEAD)
    change(root / HEADLESS / WEIGHTS, without_output)
    config = root / HEADLESS / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"_class_name": "CustomUNet2DConditionModel"}))
    return root / HEADLESS


def load(folder: Path, task: str = "disparity") -> GenPerceptPipeline:
    return genpercept.load(folder, base=SD_TINY, task=task, device="cpu")


def test_released_layout_loads_over_its_base(
    depth: GenPerceptPipeline, tmp_path: Path, official: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """unet_depth_v2/ holds a U-Net and nothing else."""
    tuned = UNet2DConditionModel.from_pretrained(SD_TINY / "unet")
    with torch.no_grad():
        tuned.conv_out.bias.add_(0.1)
    tuned.save_pretrained(tmp_path / "unet_depth_v2")
    monkeypatch.setenv("GENPERCEPT_BASE", str(SD_TINY))
    by_name = genpercept.load(tmp_path / "unet_depth_v2", family="genpercept", task="depth", device="cpu")
    pipe = genpercept.load(tmp_path / "unet_depth_v2", base=SD_TINY, task="depth", device="cpu")
    assert all(torch.equal(a, b) for a, b in zip(by_name.unet.parameters(), pipe.unet.parameters(), strict=True))
    got = pipe(official["image_a"], processing_resolution=0).values
    assert np.abs(got - depth(official["image_a"]).values).max() > 1e-4
    assert pipe.meta["family"] == "genpercept" and pipe.resolution == 768


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"base": SD_TINY, "task": "depth"}, "bit by bit those of the base"),
        ({"base": SD_TINY}, "pass task="),
        ({"family": "genpercept", "task": "depth"}, "pass base= .* or set GENPERCEPT_BASE"),
        (
            {"base": SD_TINY, "task": "depth", "family": "genprecept"},
            "unknown family 'genprecept': did you mean 'genpercept'",
        ),
        ({"task": "dept"}, "unknown task 'dept': did you mean 'depth'"),
    ],
)
def test_public_checkpoints_never_guess(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        genpercept.load(SD_TINY / "unet", **kwargs)


# ---- U-Nets without output layers, and their DPT head ------------------------------------------------------------------


@pytest.mark.parametrize("place", ["beside", "inside", "run", "run/unet"])
def test_dpt_checkpoint_gives_the_official_disparity(
    place: str, tmp_path: Path, official: dict[str, np.ndarray]
) -> None:
    folder = release(tmp_path)
    if place == "inside":
        (tmp_path / HEAD).rename(folder / HEAD)
    elif place.startswith("run"):
        (tmp_path / "run").mkdir()
        folder.rename(tmp_path / "run" / "unet")
        (tmp_path / HEAD).rename(tmp_path / "run" / HEAD)
        folder = tmp_path / place
    pipe = load(folder)
    pred = pipe(official["image_a"], processing_resolution=0)
    np.testing.assert_allclose(pred.values, official["one_step_dpt_disparity_a"], atol=1e-5, rtol=0)
    assert pipe.info["head"] == "dpt" and pipe.resolution == 768


def test_dpt_checkpoint_is_saved_whole(tmp_path: Path, official: dict[str, np.ndarray]) -> None:
    """The output layers, which it lacks, are the base's: plain diffusers reads the saved U-Net."""
    pipe = load(release(tmp_path))
    pipe.save_pretrained(tmp_path / "m")
    again = genpercept.load(tmp_path / "m", device="cpu")
    a, b = (p(official["image_b"], processing_resolution=64).values for p in (pipe, again))
    np.testing.assert_array_equal(a, b)
    plain = UNet2DConditionModel.from_pretrained(tmp_path / "m" / "unet")
    assert torch.equal(plain.conv_out.weight, load_file(SD_TINY / "unet" / WEIGHTS)["conv_out.weight"])


def test_head_without_config_is_the_released_one(tmp_path: Path) -> None:
    """Its sizes are the default ones for the U-Net's pyramid, which at full size is the default configuration itself."""
    dpt = HEADS.find("dpt")
    with torch.device("meta"):
        assert list(dpt.build({}).config["neck_hidden_sizes"]) == SD21_CONFIG["block_out_channels"]  # type: ignore[index]
    folder = release(tmp_path)
    module = dpt.build({"neck_hidden_sizes": [16, 32, 64, 64]})
    save_file(module.state_dict(), tmp_path / HEAD / "model.safetensors")
    (tmp_path / HEAD / "config.json").unlink()
    head = load(folder).head
    assert head is not None
    assert all(torch.equal(t, head.state_dict()[k]) for k, t in module.state_dict().items())


def test_a_head_beside_is_not_for_a_unet_with_output_layers(tmp_path: Path) -> None:
    release(tmp_path)
    shutil.copytree(SD_TINY / "unet", tmp_path / "unet_depth_v2")
    change(tmp_path / "unet_depth_v2" / WEIGHTS, lambda t: t["conv_out.bias"].add_(1))
    assert load(tmp_path / "unet_depth_v2", "depth").info["head"] == "vae"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda r: shutil.rmtree(r / HEAD), f"trained with a DPT head: put the release's {HEAD} folder beside or into"),
        (
            lambda r: change(r / HEADLESS / WEIGHTS, lambda t: t.update({"conv_out.bias": torch.zeros(4)})),
            r"missing conv_norm_out\.bias, conv_norm_out\.weight, conv_out\.weight; nothing was loaded",
        ),
        (lambda r: change(r / HEADLESS / WEIGHTS, lambda t: t.pop("conv_in.bias")), r"missing conv_in\.bias"),
        (lambda r: change(r / HEADLESS / WEIGHTS, lambda t: t.update(x=torch.zeros(1))), "unexpected x; nothing"),
        (
            lambda r: change(r / HEAD / "model.safetensors", lambda t: t.pop("head.projection.bias")),
            r"missing head\.projection\.bias",
        ),
    ],
)
def test_what_does_not_fit_is_named(damage: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    folder = release(tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_download_brings_the_head_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release(tmp_path / "hub")

    def download(repo: str, allow_patterns: list[str], **where: object) -> str:
        folder = allow_patterns[0].split("/")[0]
        shutil.copytree(tmp_path / "hub" / folder, tmp_path / "snapshot" / folder)
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    pipe = genpercept.load("owner/models", subfolder=HEADLESS, base=SD_TINY, task="disparity", device="cpu")
    assert pipe.info["head"] == "dpt"


# ---- training runs ---------------------------------------------------------------------------------------------------


def run_with_decoder(root: Path, depth: GenPerceptPipeline) -> dict[str, torch.Tensor]:
    """A run that trained the U-Net and the codec's decoder; returns the decoder's tensors as they should be loaded."""
    shutil.copytree(SD_TINY / "unet", root / "unet")
    change(root / "unet" / WEIGHTS, lambda t: t["conv_out.bias"].add_(0.1))
    trained = {}
    for folder, prefix in (("vae_decoder", "decoder."), ("vae_post_quant_conv", "post_quant_conv.")):
        part = {k: t + 0.01 for k, t in depth.vae.state_dict().items() if k.startswith(prefix)}
        (root / folder).mkdir()
        save_file({k.removeprefix(prefix): t for k, t in part.items()}, root / folder / "model.safetensors")
        trained |= part
    return trained


def test_trained_decoder_replaces_the_bases(depth: GenPerceptPipeline, tmp_path: Path) -> None:
    trained = run_with_decoder(tmp_path, depth)
    pipe = load(tmp_path, "depth")
    for name, tensor in pipe.vae.state_dict().items():
        assert torch.equal(tensor, trained.get(name, depth.vae.state_dict()[name])), name
    shutil.copytree(tmp_path / "unet", tmp_path / "unet_depth_v2")
    assert pipe.meta["model_sha256"] != load(tmp_path / "unet_depth_v2", "depth").meta["model_sha256"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda r: shutil.rmtree(r / "vae_post_quant_conv"), "vae_post_quant_conv: no weights"),
        (
            lambda r: change(r / "vae_decoder" / "model.safetensors", lambda t: t.pop("conv_in.bias")),
            "decoder.conv_in.bias",
        ),
    ],
)
def test_half_a_decoder_is_refused(
    damage: Callable[[Path], object], message: str, depth: GenPerceptPipeline, tmp_path: Path
) -> None:
    run_with_decoder(tmp_path, depth)
    damage(tmp_path)
    with pytest.raises(ValueError, match=message):
        load(tmp_path, "depth")
