"""`genpercept inspect` and `doctor`: every kind of model, told from headers."""

from __future__ import annotations

import json
import math
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from genpercept import GenPerceptPipeline
from genpercept.checkpoints import hub
from genpercept.checkpoints.parts import MANIFEST, write_config
from genpercept.commands.doctor import run
from genpercept.commands.inspect.show import inspect, main
from genpercept.core import said
from genpercept.models import adapters
from genpercept.models.backbones import BACKBONES
from genpercept.models.backbones.sd21 import SD21_CONFIG
from genpercept.pipeline import base_model
from genpercept.pipeline.manifest import SEAL, read_manifest
from tests.support.bases import pixart_base
from tests.support.paths import GOLDEN

BASE, UNET8 = GOLDEN / "sd-tiny", GOLDEN / "marigold-unet8"


def test_kinds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = GenPerceptPipeline.from_base(BASE, "depth", resolution=0)
    pipe.save_pretrained(tmp_path / "run" / "model")
    adapters.add_lora(pipe.unet, 4)
    adapters.save_lora(pipe.unet, tmp_path / "lora")
    (tmp_path / "run" / "checkpoints").mkdir()
    (tmp_path / "run" / "recipe.json").write_text('{"name": "mine", "task": "depth"}')
    kinds = {name: inspect(tmp_path / name) for name in ("run/model", "run", "lora")}
    assert [r.kind for r in kinds.values()] == ["predictor", "training run", "LoRA adapter"]
    assert [r.loads for r in kinds.values()] == [True, False, False]
    assert not any(r.problems for r in kinds.values())
    assert kinds["lora"].facts["rank"] == 4 and kinds["run"].facts["recipe name"] == "mine"
    assert str(tmp_path / "run" / "model") in kinds["run"].needs[0]
    assert inspect("mini/base").kind == "base" and inspect("mini/depth").facts["licence"] == "Apache-2.0"
    assert main(str(tmp_path / "run" / "model")) == 0
    assert said.told.result["loads"] is True and "problem" not in capsys.readouterr().out
    config = tmp_path / "lora" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"r": 8}))
    assert "says rank 8, its tensors have [4]" in inspect(tmp_path / "lora").problems[0]


def test_public_unet_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GENPERCEPT_BASE", raising=False)
    report = inspect(UNET8)
    assert report.facts["family"] == "e2e_ft or marigold" and not report.problems and not report.loads
    assert "pass family= (e2e_ft, marigold)" in report.needs[0] and "--base B" in report.needs[1]
    assert "8 channels in, 4 out, cross-attention 32" in report.parts[0].details
    assert inspect(UNET8, base=BASE, family="marigold", task="depth").loads
    wrong = inspect(UNET8, base="mini/base", family="marigold", task="depth")
    assert not wrong.loads and "reads text of width 32, but the base mini/base has 128" in wrong.problems[0]
    monkeypatch.setenv("GENPERCEPT_BASE", str(BASE))
    report = inspect(UNET8, family="marigold", task="depth")
    assert report.loads and "by GENPERCEPT_BASE" in report.facts["base"]


@pytest.mark.parametrize("damage", ["missing", "shape", "pickle", "lfs", "head"])
def test_problems_are_named(damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "m"
    shutil.copytree(BASE / "unet", folder)
    weights = folder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    says = {
        "missing": "missing conv_in.bias",
        "shape": "misshaped conv_in.bias",
        "pickle": "--allow-pickle",
        "lfs": "Git LFS pointer",
        "head": "trained with a DPT head",
    }
    if damage == "missing":
        del tensors["conv_in.bias"]
    elif damage == "shape":
        tensors["conv_in.bias"] = torch.zeros(3)
    elif damage == "head":
        tensors = {k: t for k, t in tensors.items() if not k.startswith(("conv_norm_out", "conv_out"))}
    save_file(tensors, weights)
    if damage == "pickle":
        torch.save(tensors, folder / "diffusion_pytorch_model.bin")
        weights.unlink()
        assert not inspect(folder, allow_pickle=True).problems
    if damage == "lfs":
        weights.write_text("version https://git-lfs.github.com/spec/v1\n")
    assert main(str(folder)) == 1
    said = capsys.readouterr().out
    assert says[damage] in said and "it would not load" in said


def test_what_was_saved_whole_is_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "m"
    GenPerceptPipeline.from_base(BASE, "depth", resolution=0).save_pretrained(folder)
    built: list[str] = []
    check = base_model.problem_of
    monkeypatch.setattr(base_model, "problem_of", lambda *given: [built.append(given[0].name), check(*given)][1])
    assert inspect(folder).loads and not built
    manifest = read_manifest(folder)
    write_config(folder / MANIFEST, {k: v for k, v in manifest.items() if k != SEAL})  # as older versions wrote it
    assert inspect(folder).loads and built == ["sd21", "kl"]
    write_config(folder / MANIFEST, manifest)
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"cross_attention_dim": 48}))
    built.clear()
    assert "misshaped" in inspect(folder).problems[0] and built == ["sd21", "kl"]


def test_a_changed_manifest_is_looked_at_whole(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    GenPerceptPipeline.from_base(BASE, "depth", resolution=0).save_pretrained(folder)
    path = folder / MANIFEST
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"paradigm": "stochastic_multi_step", "paradigm_options": {}}))
    assert "needs 8 input channels; its U-Net has 4" in inspect(folder).problems[0]
    path.write_text(json.dumps(manifest | {SEAL: 3}))
    with pytest.raises(ValueError, match="sha256 is 3"):
        inspect(folder)
    manifest["parts"]["unet"]["config_sha256"] = "none"
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"parts\.unet\.config_sha256"):
        inspect(folder)


@pytest.mark.slow
def test_full_size_weights_stay_on_disk(tmp_path: Path) -> None:
    """A U-Net of Stable Diffusion 2.1, 3.5 GB in a file with holes: its process stays well under that."""
    with torch.device("meta"):
        shapes = {k: tuple(v.shape) for k, v in BACKBONES.find("sd21").build(SD21_CONFIG).state_dict().items()}
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    (tmp_path / "config.json").write_text(json.dumps(SD21_CONFIG | {"_class_name": "UNet2DConditionModel"}))
    with (tmp_path / "diffusion_pytorch_model.safetensors").open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + end)
    code = (
        "import resource, sys; from genpercept.commands.inspect.show import main; code = main(sys.argv[1]);"
        "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "865,910,724 parameters, float32, 3463." in done.stdout and "Stable Diffusion 2" in done.stdout
    assert int(done.stdout.split("peak")[1]) < 2000  # a forked child's peak begins at its parent's


def test_doctor_names_the_base(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def lines() -> list[run.Line]:
        return list(run._base())

    monkeypatch.delenv("GENPERCEPT_BASE", raising=False)
    monkeypatch.setattr(hub, "cached", lambda repo, cache_dir=None: None)
    assert "not set" in lines()[0].text and not lines()[0].problem
    monkeypatch.setenv("GENPERCEPT_BASE", str(BASE))
    assert "v_prediction, 4 input channels, cross-attention 32" in lines()[0].text and not lines()[0].problem
    base = tmp_path / "b"
    shutil.copytree(BASE, base)
    scheduler = base / "scheduler" / "scheduler_config.json"
    scheduler.write_text(scheduler.read_text().replace("v_prediction", "epsilon"))
    shutil.rmtree(base / "tokenizer")
    monkeypatch.setenv("GENPERCEPT_BASE", str(base))
    found = lines()
    assert found[0].problem and any("no tokenizer/" in line.text for line in found)
    assert any("predicts epsilon" in line.text for line in found)
    monkeypatch.setenv("GENPERCEPT_BASE", "nobody/here")
    assert "it would be downloaded from" in lines()[0].text or "HF_HUB_OFFLINE" in lines()[0].text


def test_a_base_with_a_transformer(tmp_path: Path) -> None:
    """PixArt's published layout; its null caption stands in for the text encoder."""
    base = pixart_base(tmp_path / "base")
    (base / "model_index.json").write_text('{"_class_name": "PixArtAlphaPipeline"}')
    report = inspect(base)
    assert report.kind == "base" and report.problems == []
    assert [part.name for part in report.parts] == ["transformer", "vae"]
    assert (
        report.facts["shape"] == "a PixArtTransformer2DModel" and report.facts["paradigm"] == "text to image, epsilon"
    )
    shutil.rmtree(base / "transformer")
    with pytest.raises(ValueError, match=r"no base: it needs unet/ or transformer/, and vae/"):
        inspect(base)
