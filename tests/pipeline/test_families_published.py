"""Published checkpoints of four families: answers of their own code through `genpercept predict`, and diffusers' pipelines."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    LCMScheduler,
    MarigoldDepthPipeline,
    MarigoldIntrinsicsPipeline,
    MarigoldNormalsPipeline,
    UNet2DConditionModel,
)
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

import genpercept
from genpercept import GenPerceptPipeline
from genpercept.commands.cli import cli
from genpercept.core.rng import Rng
from tests.support.paths import GOLDEN

BASE, UNET8, LOTUS = GOLDEN / "sd-tiny", GOLDEN / "marigold-unet8", GOLDEN / "lotus-unet"
TO_OURS = np.array([-1, 1, 1])  # of normals whose x points left
diffusers_logging.set_verbosity_error()


@pytest.fixture(scope="module")
def answers() -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for name in ("one_step", "dpt", "families"):
        with np.load(GOLDEN / f"{name}.npz") as file:
            found |= dict(file)
    return found


def load(folder: Path, **options: Any) -> GenPerceptPipeline:
    return genpercept.load(folder, device="cpu", **options)


# ---- answers of the families' own code, through the command ------------------------------------------------------------


def predict(tmp_path: Path, image: np.ndarray, task: str, *options: str) -> np.ndarray:
    """`genpercept predict` at the image's own size: the array it writes."""
    Image.fromarray(image).save(tmp_path / "photo.png")
    words = ["predict", str(tmp_path / "photo.png"), "--out", str(tmp_path / "out"), "--task", task, "--format", "npy"]
    words += ["--processing-resolution", "0", "--device", "cpu", *options]
    assert cli.main(words, standalone_mode=False) == 0
    return np.load(tmp_path / "out" / f"photo_{task}.npy")


def headless(tmp_path: Path) -> Path:
    """The release's U-Net without output layers, beside its head."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "unet_disparity_dpt_head_v2"
    shutil.copytree(BASE / "unet", folder)
    shutil.copytree(GOLDEN / "dpt_head_identity", tmp_path / "dpt_head_identity")
    weights = folder / "diffusion_pytorch_model.safetensors"
    save_file({k: t for k, t in load_file(weights).items() if not k.startswith(("conv_norm_out", "conv_out"))}, weights)
    return folder


def same_directions(found: np.ndarray, wanted: np.ndarray, atol: float) -> None:
    """Unit vectors against vectors of any length; short ones turn under rounding errors."""
    length = np.linalg.norm(wanted, axis=-1, keepdims=True)
    long = length[..., 0] > 0.1
    assert long.mean() > 0.9
    np.testing.assert_allclose(found[long], (wanted / length.clip(1e-6))[long], atol=atol, rtol=0)


def test_genpercept_depth(tmp_path: Path, answers: dict[str, np.ndarray]) -> None:
    found = predict(tmp_path, answers["image_a"], "depth", "--model", str(BASE), "--family", "genpercept")
    np.testing.assert_allclose(found, answers["one_step_depth_a"], atol=1e-5, rtol=0)


def test_genpercept_normals(tmp_path: Path, answers: dict[str, np.ndarray]) -> None:
    found = predict(tmp_path, answers["image_a"], "normals", "--model", str(BASE), "--family", "genpercept")
    same_directions(found, answers["one_step_normal_a"] * 2 - 1, 2e-4)


def test_genpercept_disparity_with_its_head(tmp_path: Path, answers: dict[str, np.ndarray]) -> None:
    options = ("--model", str(headless(tmp_path)), "--base", str(BASE))
    found = predict(tmp_path, answers["image_a"], "disparity", *options)
    np.testing.assert_allclose(found, answers["one_step_dpt_disparity_a"], atol=1e-5, rtol=0)


def test_e2e_ft_depth(tmp_path: Path, answers: dict[str, np.ndarray]) -> None:
    options = ("--model", str(UNET8), "--base", str(BASE), "--family", "e2e_ft")
    found = predict(tmp_path, answers["image"], "depth", *options)
    np.testing.assert_allclose(found, answers["e2e_ft_depth"], atol=1e-5, rtol=0)


def test_e2e_ft_normals(tmp_path: Path, answers: dict[str, np.ndarray]) -> None:
    """Its own have x to the left, and are as much shorter than 1 as 1e-5 is beside their length."""
    options = ("--model", str(UNET8), "--base", str(BASE), "--family", "e2e_ft")
    found = predict(tmp_path, answers["image"], "normals", *options)
    wanted = answers["e2e_ft_normals"].transpose(1, 2, 0) * TO_OURS
    pipe = load(UNET8, base=BASE, family="e2e_ft", task="normals")
    raw = pipe(answers["image"], processing_resolution=0).raw
    assert raw is not None
    long = np.linalg.norm(raw, axis=0) > 0.1
    assert long.mean() > 0.95
    np.testing.assert_allclose(found[long], wanted[long], atol=1e-4, rtol=0)


def test_lotus_d_depth(tmp_path: Path, answers: dict[str, np.ndarray]) -> None:
    options = ("--model", str(LOTUS), "--base", str(BASE))  # its family is in its shapes
    found = predict(tmp_path, answers["image"], "depth", *options)
    np.testing.assert_allclose(found, answers["lotus_d_depth"], atol=1e-5, rtol=0)


def test_lotus_d_normals(answers: dict[str, np.ndarray]) -> None:
    pipe = load(LOTUS, base=BASE, task="normals")
    pred = pipe(answers["image"], processing_resolution=0)
    wanted = (answers["lotus_d"] * 2 - 1) * TO_OURS
    assert pred.raw is not None
    np.testing.assert_allclose(pred.raw.clip(-1, 1).transpose(1, 2, 0), wanted, atol=2e-5, rtol=0)
    same_directions(pred.values, wanted, 2e-4)
    assert pred.meta["axes"] == [[-1, 0, 0], [0, 1, 0], [0, 0, 1]] and "x left" in pred.meta["decided"]["axes"]


# ---- diffusers' Marigold pipelines -------------------------------------------------------------------------------------

V1_0 = DDIMScheduler(
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    clip_sample=False,
    set_alpha_to_one=False,
    steps_offset=1,
    prediction_type="v_prediction",
)
V1_1 = DDIMScheduler.from_config(V1_0.config, timestep_spacing="trailing", rescale_betas_zero_snr=True)
LCM = LCMScheduler(prediction_type="v_prediction", set_alpha_to_one=False)
APPEARANCE = {
    "target_names": ["albedo", "material"],
    "albedo": {"prediction_space": "srgb"},
    "material": {"prediction_space": "stack", "sub_target_names": ["roughness", "metallicity", None]},
    "roughness": {"prediction_space": "linear", "up_to_scale": False},
    "metallicity": {"prediction_space": "linear", "up_to_scale": False},
}
LIGHTING = {
    "target_names": ["albedo", "shading", "residual"],
    "albedo": {"prediction_space": "linear", "up_to_scale": False},
    "shading": {"prediction_space": "linear", "up_to_scale": True},
    "residual": {"prediction_space": "linear", "up_to_scale": True},
}


def marigold(cls: Any, scheduler: Any, steps: int, **more: Any) -> Any:
    """diffusers' pipeline over tiny parts; intrinsic images get a U-Net of random weights."""
    if cls is MarigoldIntrinsicsPipeline:
        n = len(more["target_properties"]["target_names"])
        config = UNet2DConditionModel.load_config(UNET8) | {"in_channels": 4 * (n + 1), "out_channels": 4 * n}
        torch.manual_seed(n)
        unet = UNet2DConditionModel.from_config(config).eval()
        with torch.no_grad():
            unet.conv_out.weight.mul_(20)  # untrained, it would answer next to nothing
    else:
        unet = UNet2DConditionModel.from_pretrained(UNET8)
    kind = {MarigoldDepthPipeline: "depth", MarigoldNormalsPipeline: "normals"}.get(cls, "intrinsics")
    pipe = cls(
        unet=unet,
        vae=AutoencoderKL.from_pretrained(BASE / "vae"),
        scheduler=scheduler,
        text_encoder=CLIPTextModel.from_pretrained(BASE / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(BASE / "tokenizer"),
        prediction_type=kind,
        default_denoising_steps=steps,
        default_processing_resolution=64,
        **more,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pair(folder: Path, theirs: Any, task: str) -> GenPerceptPipeline:
    theirs.save_pretrained(folder)
    return load(folder, family="marigold", task=task)


def picture() -> np.ndarray:
    """A multiple of 8 wide and high at 64 pixels, so that both resize it alike."""
    with np.load(GOLDEN / "one_step.npz") as file:
        return file["image_a"][:48, :64]


def noise(runs: int, channels: int = 4) -> torch.Tensor:
    return torch.randn(runs, channels, 6, 8, generator=torch.Generator().manual_seed(7))


def as_input(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize(("scheduler", "steps"), [(V1_0, 3), (V1_1, 3), (LCM, 1)], ids=["v1-0", "v1-1", "lcm"])
def test_marigold_depth_is_diffusers(tmp_path: Path, scheduler: Any, steps: int) -> None:
    """Steps and resolution are model_index.json's. A median ensemble hangs on the last bit of its runs (ensemble.align_affine):
    diffusers with batch_size 1 and 5 answers up to 0.05 apart. So: runs, the merging of equal runs, and the mean end to end."""
    theirs = marigold(MarigoldDepthPipeline, scheduler, steps)
    ours, image, z = pair(tmp_path, theirs, "depth"), picture(), noise(5)
    want = np.stack([theirs(as_input(image), latents=z[i : i + 1]).prediction[0, :, :, 0] for i in range(5)])
    runs = [ours(image, latents=z[i : i + 1]) for i in range(5)]
    assert runs[0].meta["steps"] == steps and runs[0].meta["resolution"] == [48, 64]
    np.testing.assert_allclose(np.stack([r.values for r in runs]), want, atol=1e-4, rtol=0)
    maps = torch.from_numpy(np.stack([r.values for r in runs]))[:, None]
    merged, spread = MarigoldDepthPipeline.ensemble_depth(maps, output_uncertainty=True)
    got = ours(image, latents=z, ensemble_size=5)
    assert got.uncertainty is not None and spread is not None
    np.testing.assert_allclose(got.values, merged[0, 0].numpy(), atol=1e-4, rtol=0)
    np.testing.assert_allclose(got.uncertainty, spread[0, 0].numpy(), atol=1e-4, rtol=0)
    options: dict[str, Any] = {"ensemble_size": 5, "ensembling_kwargs": {"reduction": "mean"}, "batch_size": 1}
    whole = theirs(as_input(image), latents=z, **options).prediction[0, :, :, 0]
    np.testing.assert_allclose(ours(image, latents=z, **options).values, whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("scheduler", "steps"), [(V1_0, 3), (V1_1, 3), (LCM, 1)], ids=["v1-0", "v1-1", "lcm"])
def test_marigold_normals_are_diffusers(tmp_path: Path, scheduler: Any, steps: int) -> None:
    theirs = marigold(MarigoldNormalsPipeline, scheduler, steps)
    ours, image, z = pair(tmp_path, theirs, "normals"), picture(), noise(5)
    want = theirs(as_input(image), latents=z[:1]).prediction[0]
    got = ours(image, latents=z[:1])
    assert got.raw is not None
    long = np.linalg.norm(got.raw.clip(-1, 1), axis=0) > 0.1
    np.testing.assert_allclose(got.values[long], want[long], atol=1e-4, rtol=0)
    runs = [ours(image, latents=z[i : i + 1]) for i in range(5)]
    members = torch.stack([torch.from_numpy(r.values) for r in runs])
    # Near length 0, of a run or of their mean, a direction is rounding: there nobody's answer can be reproduced.
    long = np.all([np.linalg.norm(r.raw.clip(-1, 1), axis=0) > 0.2 for r in runs if r.raw is not None], axis=0)
    clear = long & (members.mean(0).norm(dim=-1) > 0.3).numpy()
    nearest = (members * F.normalize(members.mean(0), dim=-1)).sum(-1).sort(0, descending=True).values
    decided = (nearest[0] - nearest[1] > 1e-3).numpy()  # else two runs are equally near, and either may be chosen
    assert (clear & decided).mean() > 0.25
    for reduction, sure in (("mean", clear), ("closest", clear & decided)):
        options: dict[str, Any] = {"ensemble_size": 5, "ensembling_kwargs": {"reduction": reduction}, "batch_size": 5}
        merged = theirs(as_input(image), latents=z, output_uncertainty=True, **options)
        found = ours(image, latents=z, **options)
        assert found.uncertainty is not None
        np.testing.assert_allclose(found.values[sure], merged.prediction[0][sure], atol=1e-4, rtol=0)
        np.testing.assert_allclose(found.uncertainty[clear], merged.uncertainty[0, :, :, 0][clear], atol=1e-4, rtol=0)


@pytest.mark.parametrize("properties", [APPEARANCE, LIGHTING], ids=["appearance", "lighting"])
@pytest.mark.parametrize(("scheduler", "steps"), [(V1_0, 2), (V1_1, 2), (LCM, 1)], ids=["v1-0", "v1-1", "lcm"])
def test_marigold_intrinsics_are_diffusers(tmp_path: Path, properties: dict, scheduler: Any, steps: int) -> None:
    theirs = marigold(MarigoldIntrinsicsPipeline, scheduler, steps, target_properties=properties)
    theirs.save_pretrained(tmp_path / "m")
    ours = load(tmp_path / "m")  # family and task are in its shapes
    names = properties["target_names"]
    image, z = picture(), noise(5, 4 * len(names))
    want = np.concatenate(list(theirs(as_input(image), latents=z[:1]).prediction), axis=-1)
    got = ours(image, latents=z[:1])
    assert want.std() > 0.02 and [t["name"] for t in got.meta["targets"]] == names
    np.testing.assert_allclose(got.values, want, atol=1e-4, rtol=0)
    for reduction in ("median", "mean"):
        options: dict[str, Any] = {"ensemble_size": 5, "ensembling_kwargs": {"reduction": reduction}}
        merged = theirs(as_input(image), latents=z, output_uncertainty=True, **options)
        found = ours(image, latents=z, **options)
        assert found.uncertainty is not None
        np.testing.assert_allclose(found.values, np.concatenate(list(merged.prediction), -1), atol=1e-4, rtol=0)
        np.testing.assert_allclose(found.uncertainty, np.concatenate(list(merged.uncertainty), -1), atol=1e-4, rtol=0)


def test_lcm_of_several_steps_is_diffusers_with_the_same_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It adds noise between its steps; diffusers draws it from torch, we key it by the step: ours is put in its place."""
    theirs = marigold(MarigoldDepthPipeline, LCM, 4)
    ours, image, z = pair(tmp_path, theirs, "depth"), picture(), noise(1)
    drawn = iter(range(1, 4))

    def ours_instead(shape: Any, **_: Any) -> torch.Tensor:
        return Rng(0, next(drawn), [0]).normal(tuple(shape)[1:])

    monkeypatch.setattr("diffusers.schedulers.scheduling_lcm.randn_tensor", ours_instead)
    want = theirs(as_input(image), latents=z).prediction[0, :, :, 0]
    assert next(drawn, None) is None
    np.testing.assert_allclose(ours(image, latents=z).values, want, atol=1e-4, rtol=0)


def test_intrinsics_are_written_and_shown(tmp_path: Path) -> None:
    theirs = marigold(MarigoldIntrinsicsPipeline, V1_1, 1, target_properties=APPEARANCE)
    ours, image = pair(tmp_path / "m", theirs, "intrinsics"), picture()
    pred = ours(image)
    pred.save(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as file:
        assert file.size == (2 * 64, 48)  # albedo and material, 16 bits
    again = genpercept.Prediction.load(tmp_path / "x.npz")
    np.testing.assert_array_equal(again.values, pred.values)
    shown = pred.colourise()
    assert shown.size == (3 * 64, 48)  # albedo, roughness, metallicity
    rough = np.asarray(shown)[:, 64:128, 0] / 255
    np.testing.assert_allclose(rough, pred.values[..., 3] ** (1 / 2.2), atol=3e-3)
    assert json.loads((tmp_path / "x.json").read_text())["meta"]["targets"][1]["maps"][0]["name"] == "roughness"


# ---- whole checkpoints, told apart and saved ---------------------------------------------------------------------------


def copied(root: Path, unet: Path, index: dict[str, Any] | None = None, **scheduler: Any) -> Path:
    """A repository of a whole pipeline around this U-Net."""
    shutil.copytree(unet, root / "unet")
    for part in ("vae", "text_encoder", "tokenizer"):
        shutil.copytree(BASE / part, root / part)
    (root / "scheduler").mkdir()
    config = json.loads((BASE / "scheduler" / "scheduler_config.json").read_text()) | scheduler
    (root / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    (root / "model_index.json").write_text(json.dumps(index or {}))
    return root


@pytest.mark.parametrize(
    ("unet", "options", "variant", "paradigm"),
    [
        (UNET8, {"family": "marigold", "task": "depth"}, "DDIM leading", "stochastic_multi_step"),
        (UNET8, {"family": "e2e_ft", "task": "normals"}, None, "stochastic_multi_step"),
        (LOTUS, {"task": "disparity"}, "D", "one_step"),
        (BASE / "unet", {"family": "genpercept", "task": "normals"}, "v2", "one_step"),
    ],
    ids=["marigold", "e2e_ft", "lotus", "genpercept"],
)
def test_saved_and_loaded_again_the_same_bits(
    tmp_path: Path, unet: Path, options: dict, variant: str | None, paradigm: str
) -> None:
    pipe = load(copied(tmp_path / "public", unet), **options)
    assert pipe.info.get("variant") == variant and pipe.info["paradigm"] == paradigm
    assert pipe.meta["decided"]["task"] == "as asked for" and "base" not in pipe.info
    pipe.save_pretrained(tmp_path / "ours")
    shutil.rmtree(tmp_path / "public")
    again = load(tmp_path / "ours")
    image = picture()
    a, b = (p(image, num_inference_steps=1, processing_resolution=0) for p in (pipe, again))
    np.testing.assert_array_equal(a.values, b.values)
    assert {k: v for k, v in a.meta.items() if not k.startswith("model")} == {
        k: v for k, v in b.meta.items() if not k.startswith("model")
    }


def test_lotus_g_starts_from_noise(tmp_path: Path) -> None:
    """A U-Net of 8 channels with Lotus' class embedding; its answer is the label's latent itself."""
    config = UNet2DConditionModel.load_config(LOTUS) | {"in_channels": 8}
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_config(config).eval()
    unet.save_pretrained(tmp_path / "lotus")
    with pytest.raises(ValueError, match=r"could be of family geowizard .* or lotus"):  # GeoWizard v2 has its shapes
        load(tmp_path / "lotus", base=BASE, task="depth")
    pipe = load(tmp_path / "lotus", base=BASE, task="depth", family="lotus")
    image, z = picture(), noise(1)
    got = pipe(image, latents=z, processing_resolution=0)
    assert got.meta["variant"] == "G" and got.meta["steps"] == 1 and pipe.paradigm().stochastic
    x = as_input(image) * 2 - 1
    with torch.inference_mode():
        z_x = pipe.vae.encode(x).latent_dist.mean * 0.18215  # type: ignore[union-attr, operator]
        switch = torch.tensor([[np.sin(1), np.sin(0), np.cos(1), np.cos(0)]], dtype=torch.float32)
        z_y = unet(torch.cat([z_x, z], 1), 999, pipe.prompt_embeds, class_labels=switch).sample
        decoded = pipe.vae.decode(z_y / 0.18215).sample  # type: ignore[union-attr, operator]
    want = ((decoded.clamp(-1, 1) + 1) / 2).mean(1)[0].numpy()
    np.testing.assert_allclose(got.values, want, atol=1e-5, rtol=0)


def test_zeros_are_deterministic() -> None:
    pipe = load(UNET8, base=BASE, family="e2e_ft", task="depth")
    image = picture()
    a = pipe(image, processing_resolution=0)
    b = pipe(image, processing_resolution=0, generator=torch.Generator().manual_seed(3))
    np.testing.assert_array_equal(a.values, b.values)
    assert a.meta["seed"] is None and a.meta["steps"] == 1
    with pytest.raises(ValueError, match="deterministic, every run would be the same"):
        pipe(image, ensemble_size=2)
    with pytest.raises(ValueError, match="leave them out"):
        pipe(image, latents=noise(1))


Build = Callable[[Path], Path]
DEPTH = {"_class_name": "MarigoldDepthPipeline"}


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (lambda p: UNET8, {"base": BASE}, r"family e2e_ft \(depth, normals\) or marigold .*pass family= \(e2e_ft, m"),
        (lambda p: copied(p, UNET8, DEPTH), {}, r"family e2e_ft \(depth\) or marigold \(depth, disparity\)"),
        (lambda p: UNET8, {"base": BASE, "family": "marigold"}, "pass task= .depth, disparity, normals"),
        (lambda p: LOTUS, {"base": BASE}, "family 'lotus' does not say what it predicts: pass task="),
        (lambda p: LOTUS, {"base": BASE, "task": "dis"}, "family 'lotus' has no dis of this kind .*: choose depth, disparity"),
        (lambda p: LOTUS, {"task": "depth"}, "without vae and text_encoder, which come from its base: pass base="),
        (lambda p: other(p), {"base": BASE, "task": "depth"}, "a stock text-to-image model, .* or of family genpercept"),
        (lambda p: BASE, {}, "a StableDiffusionPipeline, which is not trained to predict anything"),
        (lambda p: UNET8, {"base": BASE, "family": "lotus", "task": "depth"}, "no checkpoint of family 'lotus': a U-Net"),
        (lambda p: release(p, "unet_normal_v2"), {"base": BASE, "task": "depth"}, "'genpercept' has no depth of this kind"),
    ],
)  # fmt: skip
def test_what_looks_alike_is_asked_for(
    build: Build, options: dict, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GENPERCEPT_BASE", raising=False)
    with pytest.raises(ValueError, match=message) as error:
        load(build(tmp_path / "x"), **options)
    assert "\n" not in str(error.value)


def other(folder: Path) -> Path:
    """A U-Net as any Stable Diffusion's, which is not the base's."""
    unet = UNet2DConditionModel.from_pretrained(BASE / "unet")
    with torch.no_grad():
        unet.conv_out.bias.add_(0.1)
    unet.save_pretrained(folder)
    return folder


def release(folder: Path, name: str) -> Path:
    return other(folder / name)


@pytest.mark.parametrize(
    ("build", "family", "task"),
    [
        (lambda p: copied(p, UNET8, DEPTH, _class_name="LCMScheduler"), "marigold", "depth"),
        (lambda p: release(p, "unet_normal_v2"), "genpercept", "normals"),
        (lambda p: copied(p, BASE / "unet", {"_class_name": "GenPerceptPipeline"}), "genpercept", "dis"),
    ],
    ids=["lcm", "release", "pipeline"],
)
def test_what_its_files_tell(build: Build, family: str, task: str, tmp_path: Path) -> None:
    folder = build(tmp_path / "x")
    options: dict[str, Any] = {"task": task} if task != "normals" else {"base": BASE}
    pipe = load(folder, **options)
    assert pipe.meta["family"] == family and pipe.task == task and pipe.meta["decided"]["family"] != "as asked for"


def test_published_repositories_are_known_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """E2E-FT looks like Marigold, but nobody else publishes under its name."""
    import huggingface_hub

    copied(tmp_path / "snapshot", UNET8)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path / "snapshot"))
    pipe = load(Path("GonzaloMG/marigold-e2e-ft-normals"))
    assert pipe.meta["family"] == "e2e_ft" and pipe.task == "normals" and "published" in pipe.meta["decided"]["family"]
    with pytest.raises(ValueError, match="is published for normals, not depth"):
        load(Path("GonzaloMG/marigold-e2e-ft-normals"), task="depth")


def test_first_release_has_77_tokens(tmp_path: Path) -> None:
    folder = release(tmp_path, "unet_depth_v1")
    pipe = load(folder, base=BASE)
    assert pipe.prompt_embeds.shape == (1, 77, 32) and pipe.meta["variant"] == "v1"
    values = pipe(picture(), processing_resolution=0).values
    assert values.min() == 0 and values.max() == 1
    np.save(tmp_path / "empty_text_embed.npy", pipe.prompt_embeds[0].numpy() + 1)
    shutil.copytree(BASE / "vae", tmp_path / "vae")
    alone = load(folder)  # it brings all that it needs
    torch.testing.assert_close(alone.prompt_embeds, pipe.prompt_embeds + 1)
    np.save(tmp_path / "empty_text_embed.npy", np.zeros((77, 8), np.float32))
    with pytest.raises(ValueError, match=r"an array of \[77, 8\], but the U-Net reads text of \(tokens, 32\)"):
        load(folder)


# ---- what does not belong together -------------------------------------------------------------------------------------


def base_with(folder: Path, part: str, file: str, **values: Any) -> Path:
    shutil.copytree(BASE, folder)
    path = folder / part / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("unet", "config.json", {"cross_attention_dim": 48}), "reads text of width 32, but the base .* has 48"),
        (
            ("vae", "config.json", {"latent_channels": 16}),
            "takes 8 channels and gives 4, but the latents of .* have 16",
        ),
        (("vae", "config.json", {"scaling_factor": 0.13025}), "scaling_factor 0.13025, but .* was trained .* 0.18215"),
        (("scheduler", "scheduler_config.json", {"prediction_type": "epsilon"}), "predicts epsilon, but .* predicts v"),
    ],
)
@pytest.mark.parametrize("family", ["marigold", "e2e_ft"])
def test_a_base_that_does_not_fit_is_refused(change: tuple, message: str, family: str, tmp_path: Path) -> None:
    part, file, values = change
    base = base_with(tmp_path / "base", part, file, **values)
    with pytest.raises(ValueError, match=message) as error:
        load(UNET8, base=base, family=family, task="depth")
    assert "\n" not in str(error.value)


def test_its_own_vae_must_be_scaled_as_its_bases(tmp_path: Path) -> None:
    folder = copied(tmp_path / "x", UNET8)
    with pytest.raises(ValueError, match=r"vae: scaling_factor 0.18215, but the base .* has 0.13025"):
        base = base_with(tmp_path / "base", "vae", "config.json", scaling_factor=0.13025)
        load(folder, base=base, family="marigold", task="depth")


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (
            {"_class_name": "PNDMScheduler"},
            "a PNDMScheduler; checkpoints of this family are sampled by DDIMScheduler or LCM",
        ),
        ({"clip_sample": True}, "clip_sample is True, which is not sampled here"),
        ({"beta_schedule": "linear"}, "beta_schedule is 'linear'"),
    ],
)
def test_schedulers_that_are_not_sampled_here(scheduler: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load(copied(tmp_path / "x", UNET8, **scheduler), family="marigold", task="depth")


def test_intrinsic_images_need_their_names(tmp_path: Path) -> None:
    theirs = marigold(MarigoldIntrinsicsPipeline, V1_1, 1, target_properties=APPEARANCE)
    theirs.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    index["target_properties"]["target_names"] = ["albedo"]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"name 1 intrinsic images \(albedo\), but the U-Net predicts 2"):
        load(tmp_path)
