"""DepthMaster: answers of its own code through the public API and the command line, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from safetensors.torch import load_file

import genpercept
from genpercept import GenPerceptPipeline, Prediction
from genpercept.commands.cli import cli
from genpercept.commands.inspect.facts import Given, look
from genpercept.core.values import Features
from genpercept.models.backbones import as_backbone
from genpercept.models.backbones.sd21_fourier import FourierBlock
from genpercept.training.networks.slim_unet import slim_unet
from tests.support.depthmaster import ANSWERS, BLOCK, FACTS, WEIGHTS, checkpoint, edit
from tests.support.paths import SD_TINY

SIZES = ("square", "odd", "tall", "wide")
diffusers_logging.set_verbosity_error()


@pytest.fixture(scope="module")
def answers() -> dict[str, np.ndarray]:
    with np.load(ANSWERS) as file:
        return dict(file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("public") / "depthmaster")


@pytest.fixture(scope="module")
def pipe(folder: Path) -> GenPerceptPipeline:
    return genpercept.load(folder, device="cpu")


def load(folder: Path, **options: Any) -> GenPerceptPipeline:
    return genpercept.load(folder, device="cpu", **options)


def answer(pipe: GenPerceptPipeline, image: np.ndarray, resolution: int = 0) -> np.ndarray:
    found = pipe(image, processing_resolution=resolution, resize_mode="official")
    assert isinstance(found, Prediction)
    return found.values


# ---- its own code's answers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_answers_are_those_of_its_own_code(size: str, pipe: GenPerceptPipeline, answers: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(answer(pipe, answers[f"image_{size}"]), answers[f"answer_{size}"], atol=2e-5, rtol=0)


@pytest.mark.parametrize(("key", "resolution"), [("official", 50), ("enlarged", 128)])
def test_its_rule_of_sizes(key: str, resolution: int, pipe: GenPerceptPipeline, answers: dict[str, np.ndarray]) -> None:
    found = answer(pipe, answers["image_odd"], resolution)
    np.testing.assert_allclose(found, answers[f"answer_{key}"], atol=2e-5, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_the_block_and_the_network_on_the_way(
    size: str, pipe: GenPerceptPipeline, answers: dict[str, np.ndarray]
) -> None:
    before, after, latent, output = (
        torch.from_numpy(answers[f"{k}_{size}"]) for k in ("before", "after", "latent", "output")
    )
    unet: Any = pipe.unet
    with torch.inference_mode():
        torch.testing.assert_close(unet.bottleneck(before), after, atol=1e-4, rtol=0)
        found = unet.forward_features(latent, torch.tensor([1]), pipe.prompt_embeds).latent
    torch.testing.assert_close(found, output, atol=1e-4, rtol=0)
    np.testing.assert_allclose(pipe.prompt_embeds, answers["prompt"], atol=1e-5, rtol=0)


def test_the_command_gives_them_too(tmp_path: Path, folder: Path, answers: dict[str, np.ndarray]) -> None:
    Image.fromarray(answers["image_wide"]).save(tmp_path / "photo.png")
    words = ["predict", str(tmp_path / "photo.png"), "--model", str(folder), "--out", str(tmp_path / "out")]
    words += ["--processing-resolution", "0", "--device", "cpu", "--format", "npy,png,ply"]
    assert cli.main(words, standalone_mode=False) == 0
    found = np.load(tmp_path / "out" / "photo_disparity.npy")
    np.testing.assert_allclose(found, answers["answer_wide"], atol=1e-4, rtol=0)
    sidecar = json.loads((tmp_path / "out" / "photo_disparity.json").read_text())
    assert sidecar["kind"] == "root_disparity_affine" and sidecar["meta"]["family"] == "depthmaster"
    assert b"distance = 1 / (0.5 + value)^2 of" in (tmp_path / "out" / "photo_disparity.ply").read_bytes()[:300]


# ---- wrong variants, as far from the right answer as theirs are ------------------------------------------------------


@contextmanager
def having(owner: Any, name: str, value: Any) -> Iterator[None]:
    own = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, own)


def without_frequencies(block: FourierBlock) -> Any:
    return having(block, "_filtered", torch.zeros_like)


VARIANTS: dict[str, Callable[[FourierBlock], Any]] = {
    "nothing from the frequencies": without_frequencies,
    "normalised in 32 groups": lambda block: having(block, "norm", torch.nn.GroupNorm(32, 64)),
    "without conv_f4": lambda block: having(block, "conv_f4", torch.nn.Identity()),
}


@pytest.mark.parametrize("variant", [*VARIANTS, "block left out"])
def test_a_wrong_block_gives_what_it_gives_there(variant: str, folder: Path, answers: dict[str, np.ndarray]) -> None:
    """To the largest difference, so that what is told apart is what their code would have computed."""
    stated = json.loads(FACTS.read_text())["largest difference of wrong variants"][variant]
    pipe = load(folder)
    block: Any = as_backbone(pipe.unet).bottleneck  # type: ignore[attr-defined]
    context = VARIANTS[variant](block) if variant in VARIANTS else having(block, "forward", lambda x: x)
    with context:
        found = answer(pipe, answers["image_wide"])
    assert stated > 0.03
    assert np.abs(found - answers["answer_wide"]).max() == pytest.approx(stated, abs=1e-4)
    if variant not in VARIANTS:
        np.testing.assert_allclose(found, answers["answer_wide_stock"], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("variant", "options"),
    [
        ("timestep 0", {"timestep": 0}),
        ("timestep 2", {"timestep": 2}),
        ("timestep 999", {"timestep": 999}),
        ("sign flipped, as GenPercept's", {"prediction_type": "v_prediction"}),
    ],
)
def test_a_wrong_step_gives_what_it_gives_there(
    variant: str, options: dict[str, Any], pipe: GenPerceptPipeline, answers: dict[str, np.ndarray]
) -> None:
    stated = json.loads(FACTS.read_text())["largest difference of wrong variants"][variant]
    found = pipe(answers["image_wide"], processing_resolution=0, resize_mode="official", **options)
    assert isinstance(found, Prediction) and stated > 0.05
    assert np.abs(found.values - answers["answer_wide"]).max() == pytest.approx(stated, abs=1e-4)


# ---- recognised, completed, saved ------------------------------------------------------------------------------------


def test_its_tensors_tell_it(pipe: GenPerceptPipeline, folder: Path) -> None:
    info = pipe.info
    assert (info["family"], info["task"], info["backbone"]) == ("depthmaster", "disparity", "sd21_fourier")
    assert pipe.paradigm().options == {"timestep": 1, "random_timestep": False, "prediction_type": "sample"}
    assert pipe.resolution == 768 and "fftblock" in pipe.meta["decided"]["family"]
    with pytest.raises(ValueError, match=r"'depthmaster' has no depth of this kind .*choose disparity"):
        load(folder, task="depth")


def test_inspect_says_what_it_is_whatever_its_index_calls_it(tmp_path: Path) -> None:
    """Its own code loads the folder by diffusers' classes first, so that an index may name a stock pipeline."""
    folder = checkpoint(tmp_path / "m")
    for name in ("DepthMasterPipeline", "StableDiffusionPipeline"):
        (folder / "model_index.json").write_text(json.dumps({"_class_name": name}))
        report = look(str(folder), folder, Given())
        assert report.loads and report.kind == "public checkpoint", report
        assert (report.facts["family"], report.facts["task"]) == ("depthmaster", "disparity")
        assert load(folder).meta["family"] == "depthmaster"
    edit(folder, lambda t: t.pop(f"{BLOCK}norm.bias"))
    report = look(str(folder), folder, Given())
    assert not report.loads and "missing fftblock.norm.bias" in report.problems[0]


def test_its_repository_is_known_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint(tmp_path / "m")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path / "m"))
    pipe = load(Path("zysong212/DepthMaster"))
    assert pipe.task == "disparity" and "published" in pipe.meta["decided"]["family"]
    with pytest.raises(ValueError, match="is published for disparity, not depth"):
        load(Path("zysong212/DepthMaster"), task="depth")


def test_what_makes_it_smaller_would_drop_its_block(pipe: GenPerceptPipeline) -> None:
    with pytest.raises(ValueError, match="a U-Net with a block behind its middle cannot lose others"):
        slim_unet(pipe.unet, blocks=1)


def test_an_index_says_the_resolution(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m")
    (folder / "model_index.json").write_text(json.dumps({"default_processing_resolution": 640}))
    assert load(folder).resolution == 640


@pytest.mark.parametrize("place", ["", "unet"])
def test_a_base_gives_what_it_does_not_bring(
    place: str, tmp_path: Path, pipe: GenPerceptPipeline, answers: dict[str, np.ndarray]
) -> None:
    folder = checkpoint(tmp_path / "m", parts=()) / place
    found = load(folder, base=SD_TINY)
    np.testing.assert_array_equal(answer(found, answers["image_odd"]), answer(pipe, answers["image_odd"]))
    with pytest.raises(ValueError, match="without vae and text_encoder, which come from its base: pass base="):
        load(folder)


def test_saved_and_loaded_again_the_same_bits(
    tmp_path: Path, pipe: GenPerceptPipeline, answers: dict[str, np.ndarray]
) -> None:
    pipe.save_pretrained(tmp_path / "ours")
    again = load(tmp_path / "ours")
    np.testing.assert_array_equal(answer(again, answers["image_odd"]), answer(pipe, answers["image_odd"]))
    assert again.info["backbone"] == "sd21_fourier" and again.meta["family"] == "depthmaster"


def test_specialised_it_answers_alike(pipe: GenPerceptPipeline, answers: dict[str, np.ndarray]) -> None:
    quick = genpercept.specialise(pipe)
    np.testing.assert_allclose(answer(quick, answers["image_wide"]), answers["answer_wide"], atol=2e-5, rtol=0)


def test_in_half_precision_it_answers_nearly_alike(folder: Path, answers: dict[str, np.ndarray]) -> None:
    """The transforms are computed in float32, whatever the weights are."""
    found = answer(load(folder, torch_dtype="bf16"), answers["image_wide"])
    assert np.abs(found - answers["answer_wide"]).mean() < 0.02


# ---- what is refused -------------------------------------------------------------------------------------------------

DAMAGE: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str]] = {
    "a layer of the block is missing": (
        lambda t: [t.pop(f"{BLOCK}conv_f4.{k}") for k in ("weight", "bias")],
        r"missing fftblock\.conv_f4\.bias, fftblock\.conv_f4\.weight; nothing was loaded",
    ),
    "a block of another width": (
        lambda t: t.update({f"{BLOCK}norm.weight": torch.ones(32)}),
        r"misshaped fftblock\.norm\.weight is \[32\], needs \[64\]",
    ),
    "a layer that it does not have": (
        lambda t: t.update({f"{BLOCK}conv_f5.weight": torch.ones(1)}),
        r"unexpected fftblock\.conv_f5\.weight",
    ),
    "a value that is no number": (
        lambda t: t[f"{BLOCK}fuse.bias"].fill_(float("nan")),
        r"NaN or infinite values in fftblock\.fuse\.bias",
    ),
    "a layer of the U-Net is missing": (lambda t: t.pop("conv_in.bias"), r"missing conv_in\.bias"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_one_line(damage: str, tmp_path: Path) -> None:
    change, message = DAMAGE[damage]
    folder = checkpoint(tmp_path / "m")
    edit(folder, change)
    with pytest.raises(ValueError, match=message) as error:
        load(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"family": "genpercept", "task": "disparity"}, r"unexpected fftblock\..*; nothing was loaded"),
        ({"family": "marigold", "task": "depth"}, "no checkpoint of family 'marigold'"),
    ],
)
def test_another_family_does_not_take_it(options: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load(folder, **options)


def test_a_u_net_without_the_block_is_none(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m")
    edit(folder, lambda t: [t.pop(name) for name in list(t) if name.startswith(BLOCK)])
    with pytest.raises(ValueError, match="no checkpoint of family 'depthmaster': a U-Net with 4 input channels"):
        load(folder, family="depthmaster", task="disparity")
    with pytest.raises(ValueError, match=r"a stock text-to-image model, .* or of family genpercept"):
        load(folder, task="disparity")


def test_a_stock_loader_leaves_the_block_out_and_ours_never_does(
    tmp_path: Path, folder: Path, pipe: GenPerceptPipeline
) -> None:
    stock = UNet2DConditionModel.from_pretrained(folder / "unet")  # no error, no word but in its log
    assert not any(name.startswith(BLOCK) for name in stock.state_dict())
    base = shutil.copytree(folder, tmp_path / "base")
    shutil.copytree(SD_TINY / "scheduler", base / "scheduler")
    with pytest.raises(ValueError, match=r"unexpected fftblock"):
        GenPerceptPipeline.from_base(base, "disparity")
    with pytest.raises(ValueError, match="fftblock is no part of diffusers' forward"):
        pipe.unet(torch.zeros(1, 4, 8, 8), 1, pipe.prompt_embeds)


# ---- exported --------------------------------------------------------------------------------------------------------


def test_its_layout_comes_back(tmp_path: Path, folder: Path) -> None:
    words = ["export", str(folder), "--to", "diffusers", "--out", str(tmp_path / "out"), "--base", str(SD_TINY)]
    assert cli.main(words, standalone_mode=False) == 0
    index = json.loads((tmp_path / "out" / "model_index.json").read_text())
    assert index["_class_name"] == "DepthMasterPipeline" and "scheduler" not in index
    ours, theirs = (load_file(root / WEIGHTS) for root in (tmp_path / "out", folder))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in theirs)
    assert load(tmp_path / "out").resolution == 768


def test_what_its_layout_cannot_say_is_refused(tmp_path: Path, folder: Path) -> None:
    pipe = load(folder)
    pipe.info["paradigm_options"] = {**pipe.info["paradigm_options"], "timestep": 2}
    pipe.save_pretrained(tmp_path / "m")
    words = ["export", str(tmp_path / "m"), "--to", "diffusers", "--out", str(tmp_path / "out"), "--base", str(SD_TINY)]
    with pytest.raises(Exception, match="DepthMaster's code runs one step with"):
        cli.main(words, standalone_mode=False)


@pytest.mark.slow
def test_a_graph_of_it_answers_alike_at_any_size(tmp_path: Path, folder: Path, answers: dict[str, np.ndarray]) -> None:
    """Odd sizes, too: the transforms are products with matrices that the graph makes for each size."""
    pytest.importorskip("onnxruntime")
    path = tmp_path / "m.onnx"
    assert cli.main(["export", str(folder), "--to", "onnx", "--out", str(path)], standalone_mode=False) == 0
    graph = load(path)
    for size in ("square", "wide"):
        found = graph(answers[f"image_{size}"], processing_resolution=0)
        assert isinstance(found, Prediction)
        np.testing.assert_allclose(found.values, answers[f"answer_{size}"], atol=1e-4, rtol=0)


def test_features_have_the_pyramid(pipe: GenPerceptPipeline) -> None:
    """A head on the up blocks reads them behind the block."""
    unet: Any = pipe.unet
    x = torch.randn(1, 4, 9, 7, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = unet.forward_features(x, torch.tensor([1]), pipe.prompt_embeds, latent=False)
        with having(unet.bottleneck, "forward", lambda x: x):
            without = unet.forward_features(x, torch.tensor([1]), pipe.prompt_embeds, latent=False)
    assert isinstance(found, Features) and [level.shape[1] for level in found.pyramid] == [64, 64, 32, 16]
    assert not torch.allclose(found.pyramid[0], without.pyramid[0])
