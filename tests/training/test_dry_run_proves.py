"""A dry run fails wherever the run would: a table of faults, each of which both meet."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.commands import Call
from tests.support.paths import SD_TINY
from tests.support.planes import planes
from tests.support.studies import RECIPE

SMALL = (
    *("steps=1", "max_minutes=0", "data.0.count=2", "data.0.size=[16,16]", "augment.sizes=[[16,16]]", "optim.warmup=0"),
    *("loader.batch_size=2", "loader.cache=false", "loader.latent_variants=0", "denoiser.cached_latents=false"),
    *("validation.count=2", "validation.every=0", "speed.processes=1", "speed.threads=1", "logging.tensorboard=false"),
)
OWN = "r.toml"  # a predictor on planes from a tiny base, which is beside it
# fault -> the recipe, and what is set in it
FAULTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "a base that is not there": (OWN, ("model.base=stable-diffusion-2-1",)),
    "a base that another recipe makes": (OWN, ("model.base=runs/base/model",)),
    "a base that is a file": (OWN, ("model.base=file",)),
    "a base that is an empty folder": (OWN, ("model.base=empty",)),
    "a base without a U-Net": (OWN, ("model.base=no_unet",)),
    "a base without a codec": (OWN, ("model.base=no_vae",)),
    "a base without a tokenizer": (OWN, ("model.base=no_tokenizer",)),
    "a base whose U-Net is cut off": (OWN, ("model.base=cut_unet",)),
    "a base whose codec is cut off": (OWN, ("model.base=cut_vae",)),
    "an embedded base that there is not": (OWN, ("model.base=mini/dept",)),
    "a codec that is not there": (OWN, ("model.codec=runs/codec/model",)),
    "a codec that is an empty folder": (OWN, ("model.codec=empty",)),
    "data that are not there": (OWN, ("data.0.root=nowhere",)),
    "data in an empty folder": (OWN, ("data.0.root=empty",)),
    "data in a file": (OWN, ("data.0.root=file",)),
    "an image that is none": (OWN, ("data.0.root=bad_image",)),
    "a sample without its label": (OWN, ("data.0.root=no_label",)),
    "a split that there is not": (OWN, ("validation.split=vali",)),
    "a set to score on that is not there": (OWN, ('validation.sets=[{name="folder",root="nowhere",title="x"}]',)),
    "a figure that there is not": (OWN, ("validation.best=nothing",)),
    "a package that is not installed": (OWN, ("optim.kind=8bit",)),
    "a tracker that is not installed": (OWN, ('logging.trackers=["trackio"]',)),
    "a loss that there is not": (OWN, ("loss={nothing=1}",)),
    "a loss that reads no latents": (OWN, ("loss={l1=1}", "loader.latent_variants=1")),
    "a decoder that learns from nothing": (OWN, ("learn.decoder=finetune",)),
    "adapters of no layer": (OWN, ("learn.denoiser=lora", 'lora.targets=["nothing"]')),
    "a task's option that there is not": (OWN, ("task_options={nothing=1}",)),
    "fewer samples than processes": (OWN, ("speed.processes=3",)),
    "a cache that cannot be written": (OWN, ("loader.latent_variants=1", "loader.cache_dir=file/cache")),
    "scenes that cannot be kept": ("mini/depth", (*SMALL, "loader.cache=true", "loader.cache_dir=file/cache")),
    "a domain that there is not": ("mini/depth", (*SMALL, 'data.0.domain="space"')),
    "a domain to validate on that there is not": ("mini/depth", (*SMALL, 'validation.domain="space"')),
    "a label that scenes have not": ("mini/dis", (*SMALL, 'data.0.having="nothing"')),
    "latents of several sizes": (
        *("mini/depth", (*SMALL, "loader.latent_variants=1", "augment.sizes=[[16,16],[24,16]]")),
    ),
    "a predictor to be that is none": ("mini/distil_depth_decoder", (*SMALL, "model.base=mini/base")),
    "a predictor of another task": ("mini/distil_depth_decoder", (*SMALL, "model.base=mini/normals")),
    "a decoder that never runs": ("mini/distil_depth_decoder", (*SMALL, "model.base=mini/pose", "task=pose")),
    "channels that a decoder has not": ("mini/distil_depth_decoder", (*SMALL, "distil.channels=2")),
    "a distilling loss of a label": ("mini/distil_depth_decoder", (*SMALL, "loss={vnl=1}")),
    "a codec's sizes": ("mini/codec", (*SMALL, "augment.sizes=[[15,16]]")),
    "a codec's groups": ("mini/codec", (*SMALL, "model.codec_config.norm_num_groups=7")),
    "paint of no label": ("mini/codec", (*SMALL, "autoencoder.paint={nothing=0.1}")),
    "a denoiser's codec": ("mini/base", (*SMALL, "model.codec=runs/codec/model")),
    "a denoiser's backbone": ("mini/base", (*SMALL, "model.backbone=dinov2")),
    "a text encoder of another width": ("mini/base", (*SMALL, "model.backbone_config.cross_attention_dim=64")),
    "a text encoder's heads": ("mini/base", (*SMALL, "model.text_config.num_attention_heads=3")),
    "patches that do not fill the latent": ("mini/base_transformer", (*SMALL, "augment.sizes=[[20,20]]")),
}
OUTS = {"a file": "file", "below a file": "file/run", "that nobody can make": "/proc/nowhere/run", "of a run": "begun"}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe of its own, data, bases that are damaged, and a run that has begun."""
    work = tmp_path_factory.mktemp("machine")
    data = planes(work / "data", 4, (16, 16))
    (work / OWN).write_text(RECIPE.replace("DATA", str(data)))
    (work / "file").write_text("text")
    (work / "empty").mkdir()
    for name in ("unet", "vae", "tokenizer"):
        shutil.copytree(SD_TINY, work / f"no_{name}", ignore=shutil.ignore_patterns(name))
    for name in ("unet", "vae"):
        shutil.copytree(SD_TINY, work / f"cut_{name}")
        (weights,) = (work / f"cut_{name}" / name).glob("*.safetensors")
        weights.write_bytes(weights.read_bytes()[:-8])
    shutil.copytree(data, work / "bad_image")
    (work / "bad_image" / "images" / "0.png").write_text("no image")
    shutil.copytree(data, work / "no_label")
    (work / "no_label" / "depth" / "2.npy").unlink()
    (work / "begun" / "checkpoints" / "step-0000001").mkdir(parents=True)
    return work


def both(call: Call, recipe: str, sets: tuple[str, ...], out: str) -> tuple[int, int, str, str]:
    """Exit codes of the dry run and of the run, and what each says."""
    words = [recipe, *(word for text in sets for word in ("--set", text)), "--out", out]
    dry, said, refused = call("train", *words, "--dry-run")
    real, _, error = call("train", *words)
    return dry, real, said + refused, error


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault(fault: str, machine: Path, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(machine)
    dry, real, said, error = both(call, *FAULTS[fault], str(tmp_path / "run"))
    assert real != 0, "no fault: the run runs"
    assert dry in (2, 3), said
    assert "not on this machine: " in said if dry == 3 else said.startswith("genpercept: error: ")
    assert "Traceback" not in error


@pytest.mark.parametrize("out", OUTS)
def test_a_folder(out: str, machine: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(machine)
    dry, real, said, error = both(call, OWN, (), OUTS[out])
    assert real == 2 and error.count("\n") == 1
    assert dry in (2, 3) and OUTS[out] in said


@pytest.mark.parametrize(
    "recipe", [OWN, "mini/depth", "mini/distil_depth_decoder", "mini/tiny_depth_encoder", "mini/codec", "mini/base"]
)
def test_no_fault(recipe: str, machine: Path, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What has none of them runs: by the package's own recipes, which start from embedded models."""
    monkeypatch.chdir(machine)
    dry, real, said, error = both(call, recipe, () if recipe == OWN else SMALL, str(tmp_path / "run"))
    assert (dry, real) == (0, 0), said + error
    assert (tmp_path / "run" / "model").is_dir()
