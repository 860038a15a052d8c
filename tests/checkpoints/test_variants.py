"""Names of weight files as diffusers and transformers write them: variants, shards, both spellings of an index."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

import genpercept
from genpercept.checkpoints import hub, weights
from genpercept.commands.inspect.show import inspect
from genpercept.models import text
from tests.support.commands import Call
from tests.support.paths import SD_TINY

PARTS: dict[str, Any] = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}
STEM = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}


@pytest.fixture(scope="module")
def modules() -> dict[str, Any]:
    return {name: kind.from_pretrained(SD_TINY / name) for name, kind in PARTS.items()}


def base(folder: Path, modules: dict[str, Any], **how: Any) -> Path:
    """The tiny base with its weights as the libraries save them so."""
    shutil.copytree(SD_TINY, folder)
    for name, module in modules.items():
        for old in (folder / name).glob("*.safetensors"):
            old.unlink()
        module.save_pretrained(folder / name, **how)
    return folder


def predictor(folder: Path) -> genpercept.GenPerceptPipeline:
    return genpercept.GenPerceptPipeline.from_base(folder, "depth", resolution=0)


@pytest.mark.parametrize(
    ("how", "files"),
    [
        ({"variant": "fp16"}, "{stem}.fp16.safetensors"),
        ({"max_shard_size": "100KB"}, "{stem}.safetensors.index.json"),
        ({"variant": "fp16", "max_shard_size": "100KB"}, "{stem}.safetensors.index.fp16.json"),
    ],
)
def test_what_the_libraries_write_is_found(
    how: dict[str, Any], files: str, modules: dict[str, Any], tmp_path: Path, depth: genpercept.GenPerceptPipeline
) -> None:
    """Alone in its folder it needs no option: it is the only one that there is."""
    folder = base(tmp_path / "base", modules, **how)
    assert [p for p in PARTS if not (folder / p / files.format(stem=STEM[p])).is_file()] == []
    found = predictor(folder)
    pairs: Any = ((found.unet, depth.unet), (found.vae, depth.vae))
    for ours, theirs in pairs:
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert torch.equal(found.prompt_embeds, depth.prompt_embeds)
    assert not inspect(folder).problems


@pytest.mark.parametrize("spelling", ["{stem}.fp16-{n}{end}", "{stem}-{n}.fp16{end}"])
@pytest.mark.parametrize("index", ["{stem}{end}.index.fp16.json", "{stem}.fp16{end}.index.json"])
def test_every_spelling_of_shards_and_index(spelling: str, index: str, tmp_path: Path) -> None:
    stem, end = "diffusion_pytorch_model", ".safetensors"
    names = [spelling.format(stem=stem, n=f"0000{i}-of-00002", end=end) for i in (1, 2)]
    for i, name in enumerate(names):
        save_file({f"t{i}": torch.zeros(1)}, tmp_path / name)
    (tmp_path / index.format(stem=stem, end=end)).write_text(
        json.dumps({"weight_map": {"t0": names[0], "t1": names[1]}})
    )
    with weights.variant("fp16"):
        assert weights.weight_files(tmp_path) == [tmp_path / name for name in names]
    assert weights.weight_files(tmp_path) == [tmp_path / name for name in names]
    listed = sorted(p.name for p in tmp_path.iterdir())
    assert sorted(weights.needed(listed, "fp16")) == listed


def test_the_variant_that_is_asked_for(modules: dict[str, Any], tmp_path: Path, call: Call) -> None:
    """A base with plain weights and two variants; of one part there is the plain one alone, as diffusers' pipelines allow."""
    folder = base(tmp_path / "base", modules)
    unet = tmp_path / "base" / "unet"
    plain = load_file(unet / "diffusion_pytorch_model.safetensors")
    for number, name in enumerate(("fp16", "ema"), 1):
        changed = {k: t + number if k == "conv_out.bias" else t for k, t in plain.items()}
        save_file(changed, unet / f"diffusion_pytorch_model.{name}.safetensors")
    options: dict[str, Any] = {"base": SD_TINY, "family": "genpercept", "task": "depth", "device": "cpu"}
    changed = {k: t + 0.5 if k == "conv_out.bias" else t for k, t in plain.items()}
    save_file(changed, unet / "diffusion_pytorch_model.safetensors")  # differs from the base, which is refused
    for variant, added in ((None, 0.5), ("fp16", 1), ("ema", 2)):
        pipe: Any = genpercept.load(folder / "unet", variant=variant, **options)
        assert torch.equal(pipe.unet.conv_out.bias, plain["conv_out.bias"] + added)
    with pytest.raises(ValueError, match="no part of it has weights in variant 'fp61'; it has ema, fp16"):
        genpercept.load(folder / "unet", variant="fp61", **options)
    with pytest.raises(ValueError, match="is no variant of weights"):
        genpercept.load(folder / "unet", variant="../fp16", **options)
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"has weights in the variants ema, fp16, and no plain ones: pass --variant"):
        genpercept.load(folder / "unet", **options)
    code, out, _ = call("inspect", folder / "unet", "--variant", "ema", "--base", SD_TINY, "--task", "depth")
    assert "part unet" in out and code == 0


@pytest.mark.parametrize("ending", ["bin", "safetensors"])
def test_text_encoders_are_no_exception(ending: str, modules: dict[str, Any], tmp_path: Path) -> None:
    folder = base(tmp_path / "base", modules)
    part = folder / "text_encoder"
    want = text.embed(*text.load(folder))
    (stored,) = part.glob("*.safetensors")
    if ending == "bin":
        torch.save(load_file(stored), part / "pytorch_model.fp16.bin")
    else:
        shutil.copy(stored, part / "model.fp16.safetensors")
    stored.unlink()
    assert torch.equal(text.embed(*text.load(folder, allow_pickle=True)), want)


def test_a_download_brings_one_variant() -> None:
    """As the hub lists them: SD 2.1's repository, and a checkpoint's in a subfolder of another's."""
    shard = "text_encoder/model.fp16-0000{}-of-00002.safetensors"
    repository = [
        "README.md",
        "model_index.json",
        "v2-1_768-ema-pruned.safetensors",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "text_encoder/model.safetensors.index.fp16.json",
        *(shard.format(i) for i in (1, 2)),
        "tokenizer/merges.txt",
        "safety_checker/model.safetensors",
        "other/unet/diffusion_pytorch_model.safetensors",
    ]

    def tensors(**how: Any) -> list[str]:
        return [name for name in hub.select(repository, **how) if name.endswith((".safetensors", ".bin"))]

    main = "diffusion_pytorch_model"
    other = "other/unet/diffusion_pytorch_model.safetensors"
    assert tensors() == [
        f"unet/{main}.safetensors",
        f"vae/{main}.safetensors",
        "text_encoder/model.safetensors",
        other,
    ]
    with weights.variant("fp16"):
        assert tensors() == [
            f"unet/{main}.fp16.safetensors",
            f"vae/{main}.safetensors",
            *(shard.format(i) for i in (1, 2)),
            other,
        ]
    assert tensors(allow_pickle=True) == tensors()  # safetensors come first
    assert tensors(subfolder="other") == [other]
    assert {"README.md", "model_index.json", "tokenizer/merges.txt"} <= set(hub.select(repository))


def test_the_hub_is_asked_for_the_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: dict[str, Any] = {}

    class Api:
        def __init__(self, token: Any) -> None: ...

        def model_info(self, repo: str, revision: str | None) -> SimpleNamespace:
            asked["listed"] = revision
            if revision == "gone":
                raise ConnectionError("no way to it")
            names = ("config.json", "a[1].txt", "diffusion_pytorch_model.safetensors", "x.safetensors")
            return SimpleNamespace(siblings=[SimpleNamespace(rfilename=f"unet/{name}") for name in names])

    def download(repo: str, allow_patterns: list[str], revision: str | None, **where: Any) -> str:
        asked["patterns"], asked["downloaded"], asked["cache"] = allow_patterns, revision, where["local_files_only"]
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert hub.resolve("owner/name", revision="v2") == tmp_path
    assert asked["listed"] == asked["downloaded"] == "v2"
    assert asked["patterns"] == ["unet/a[[]1].txt", "unet/config.json", "unet/diffusion_pytorch_model.safetensors"]
    assert asked["cache"] is False
    assert hub.resolve("owner/name", revision="gone") == tmp_path
    assert asked["cache"] is True  # one wait for the hub is enough
