"""Exports: what diffusers' own classes read out of them, and what comes back, bit by bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, MarigoldDepthPipeline, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file

import genpercept
from genpercept import GenPerceptPipeline
from genpercept.checkpoints.parts import load_part
from genpercept.commands.export.run import MARKER, main
from genpercept.core import said
from genpercept.models.heads import HEADS
from tests.support.paths import GOLDEN, SD_TINY

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)


def tuned(task: str = "depth", **options: Any) -> GenPerceptPipeline:
    """A predictor whose U-Net is not its base's."""
    pipe = GenPerceptPipeline.from_base(SD_TINY, task, resolution=0, **options)
    with torch.no_grad():
        pipe.unet.conv_out.bias.add_(0.1)
    return pipe


def exported(pipe: GenPerceptPipeline, tmp_path: Path, **options: Any) -> Path:
    pipe.save_pretrained(tmp_path / "m")
    assert main(str(tmp_path / "m"), "diffusers", tmp_path / "out", **options) == 0
    assert said.told.result["out"] == str(tmp_path / "out") and said.told.result["to"] == "diffusers"
    return tmp_path / "out"


def same(a: GenPerceptPipeline, b: GenPerceptPipeline, **options: Any) -> None:
    x, y = (p(IMAGE, processing_resolution=0, **options).values for p in (a, b))
    np.testing.assert_array_equal(x, y)


def test_genpercept_unet(tmp_path: Path) -> None:
    pipe = tuned()
    out = exported(pipe, tmp_path, base=str(SD_TINY))
    assert sorted(p.name for p in out.iterdir()) == [MARKER, "unet"]
    plain: Any = UNet2DConditionModel.from_pretrained(out / "unet")
    x, context = torch.randn(1, 4, 8, 8), pipe.prompt_embeds
    theirs, ours = (net(x, 1, context).sample for net in (plain, pipe.unet))  # mapped weights round differently: 1e-6
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=0)
    assert all(torch.equal(t, pipe.unet.state_dict()[k]) for k, t in plain.state_dict().items())
    again = genpercept.load(out, base=SD_TINY, family="genpercept", task="depth", device="cpu")
    same(pipe, again)


def test_genpercept_trained_decoder(tmp_path: Path) -> None:
    pipe = tuned()
    with torch.no_grad():
        pipe.vae.decoder.conv_out.bias.add_(0.1)  # type: ignore[union-attr]
    out = exported(pipe, tmp_path, base=str(SD_TINY))
    assert (out / "vae_decoder").is_dir() and (out / "vae_post_quant_conv").is_dir()
    same(pipe, genpercept.load(out, base=SD_TINY, family="genpercept", task="depth", device="cpu"))


def test_genpercept_dpt_head(tmp_path: Path) -> None:
    module = load_part(HEADS.find("dpt"), GOLDEN / "dpt_head_identity")
    base = tuned("disparity")
    pipe = GenPerceptPipeline.from_parts(
        unet=base.unet, vae=base.vae, prompt_embeds=base.prompt_embeds, task="disparity", head="dpt", head_module=module
    )
    out = exported(pipe, tmp_path)
    released = load_file(GOLDEN / "dpt_head_identity" / "model.safetensors")
    written = load_file(out / "dpt_head_identity" / "model.safetensors")
    assert released.keys() == written.keys() and all(torch.equal(t, written[k]) for k, t in released.items())
    (unet,) = (out / "unet").glob("*.safetensors")
    assert "conv_out.weight" not in load_file(unet)  # as the release: their absence says that there is a head
    same(pipe, genpercept.load(out, base=SD_TINY, task="disparity", device="cpu"))


@pytest.mark.parametrize("sampler", ["ddim", "lcm"])
def test_marigold_gives_diffusers_numbers(tmp_path: Path, sampler: str) -> None:
    options = {"spacing": "trailing", "zero_terminal_snr": True} if sampler == "ddim" else {"sampler": "lcm"}
    pipe = tuned(paradigm="stochastic_multi_step", paradigm_options={**options, "set_alpha_to_one": False})
    out = exported(pipe, tmp_path, base=str(SD_TINY))
    theirs: Any = MarigoldDepthPipeline.from_pretrained(out)
    theirs.set_progress_bar_config(disable=True)
    assert isinstance(theirs.vae, AutoencoderKL) and type(theirs.unet) is UNet2DConditionModel
    noise = torch.randn(1, 4, 5, 7, generator=torch.Generator().manual_seed(0))
    kwargs = {"num_inference_steps": 1 if sampler == "lcm" else 3, "latents": noise}
    expected = theirs(
        Image.fromarray(IMAGE), processing_resolution=0, match_input_resolution=False, **kwargs
    ).prediction[0, ..., 0]
    ours = pipe(IMAGE, processing_resolution=0, **kwargs).values
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    named = {} if sampler == "lcm" else {"family": "marigold"}
    again = genpercept.load(out, task="depth", device="cpu", **named)
    same(pipe, again, **kwargs)


def test_published_layouts_come_back(tmp_path: Path) -> None:
    """E2E-FT's from a bare U-Net: written out in full, and loaded without a base."""
    unet = tmp_path / "unet8"
    shutil.copytree(GOLDEN / "marigold-unet8", unet)
    named = {"family": "e2e_ft", "task": "depth"}
    assert main(str(unet), "diffusers", tmp_path / "out", base=str(SD_TINY), **named) == 0
    assert (tmp_path / "out" / "tokenizer").is_dir()
    pipe = genpercept.load(unet, base=SD_TINY, device="cpu", **named)
    same(pipe, genpercept.load(tmp_path / "out", device="cpu", **named))
    index = json.loads((tmp_path / "out" / "model_index.json").read_text())
    for part in ("unet", "vae", "scheduler"):
        library, name = index[part]
        assert library == "diffusers"
        getattr(diffusers, name).from_pretrained(tmp_path / "out", subfolder=part)


def refuses(pipe: GenPerceptPipeline, tmp_path: Path, message: str, **options: Any) -> None:
    with pytest.raises(ValueError, match=message) as error:
        exported(pipe, tmp_path, **options)
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_what_a_layout_cannot_say_is_refused(tmp_path: Path) -> None:
    refuses(tuned(paradigm="deterministic_multi_step"), tmp_path, "no public layout runs paradigm")
    pipe = tuned()
    pipe.prompt_embeds = pipe.prompt_embeds + 1
    refuses(pipe, tmp_path, "another prompt than the empty one", base=str(SD_TINY))
    pipe = tuned()
    with torch.no_grad():
        pipe.vae.encoder.conv_out.bias.add_(0.1)  # type: ignore[union-attr]
    refuses(pipe, tmp_path, "image encoder is not its base's", base=str(SD_TINY))
    normals = tuned("normals", paradigm="stochastic_multi_step")
    normals.info["axes"] = [[-1, 0, 0], [0, 1, 0], [0, 0, 1]]
    refuses(normals, tmp_path, "other axes", base=str(SD_TINY))
    with pytest.raises(ValueError, match=r"scaled by 0\.2049.*, and 0\.18215 is fixed"):
        main("mini/depth", "diffusers", tmp_path / "out")
    with pytest.raises(ValueError, match="unknown export target 'difusers': did you mean 'diffusers'"):
        main("mini/depth", "difusers", tmp_path / "out")


def test_only_an_export_is_replaced(tmp_path: Path) -> None:
    out = exported(tuned(), tmp_path, base=str(SD_TINY))
    assert main(str(tmp_path / "m"), "diffusers", out, base=str(SD_TINY)) == 0
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="something else than an export"):
        main(str(tmp_path / "m"), "diffusers", foreign, base=str(SD_TINY))
    with pytest.raises(ValueError, match="is a file"):
        main(str(tmp_path / "m"), "diffusers", foreign / "notes.txt")
    assert (foreign / "notes.txt").read_text() == "mine"
