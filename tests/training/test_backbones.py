"""`genpercept train` with every backbone: what learns changes, the model is saved, loaded and predicts the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import genpercept
from genpercept.checkpoints import parts
from genpercept.models.backbones import BACKBONES
from genpercept.pipeline.folder import read_base
from genpercept.training import loop
from genpercept.training import recipe as recipes
from genpercept.training.stages.finetune import FinetuneStage
from tests.support.bases import clip_base, dinov2_base, pixart_base
from tests.support.paths import SD_TINY
from tests.support.planes import planes

SIZES = {"dinov2": (28, 42), "clip": (28, 42), "pixart_alpha": (32, 48)}
PIXELS = ("dinov2", "clip")
DPT = {"head": "dpt", "head_config": {"fusion_hidden_size": 8}}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bases")
    return {
        "dinov2": dinov2_base(root / "dinov2"),
        "clip": clip_base(root / "clip"),
        "pixart_alpha": pixart_base(root / "pixart_alpha"),
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planes(tmp_path_factory.mktemp("data"), 4, (48, 64))


def table(bases: dict[str, Path], root: Path, name: str, **more: Any) -> dict[str, Any]:
    pixels = name in PIXELS
    model = {"base": str(bases[name])} | (DPT if pixels else {}) | more.pop("model", {})
    usual: dict[str, Any] = {
        "stage": "finetune",
        "steps": 2,
        "paradigm": "direct" if pixels else "one_step",
        "paradigm_options": {} if pixels else {"prediction_type": "sample"},
        "loss": {"mse": 1.0},
        "data": [{"name": "folder", "root": str(root), "split": "all", "size": SIZES[name]}],
        "validation": {"split": "all", "count": 2, "pictures": 1},
        "loader": {"batch_size": 2},
        "optim": {"lr": 1e-2, "warmup": 0},
        "ema": {"decay": 0.0},
        "logging": {"tensorboard": False},
    }
    return usual | {"model": model} | more


CASES: list[tuple[str, dict[str, Any], set[str]]] = [
    ("dinov2", {}, {"backbone", "head"}),
    ("dinov2", {"learn": {"denoiser": "frozen"}}, {"head"}),
    ("dinov2", {"learn": {"denoiser": "scratch"}}, {"backbone", "head"}),
    (
        "dinov2",
        {"learn": {"denoiser": "lora"}, "lora": {"rank": 2}, "speed": {"checkpointing": True}},
        {"backbone", "head"},
    ),
    ("clip", {"optim": {"lr": 3e-6, "lr_head": 1e-4, "warmup": 0}}, {"backbone", "head"}),
    ("clip", {"learn": {"denoiser": "lora"}, "lora": {"rank": 2}}, {"backbone", "head"}),
    ("clip", {"model": {"pyramid_blocks": [0, 1, 2, 3]}, "speed": {"checkpointing": True}}, {"backbone", "head"}),
    ("pixart_alpha", {}, {"backbone"}),
    ("pixart_alpha", {"loss": {"latent": 1.0}, "speed": {"checkpointing": True}}, {"backbone"}),
    ("pixart_alpha", {"loss": {"latent": 1.0}, "learn": {"denoiser": "lora"}, "lora": {"rank": 2}}, {"backbone"}),
    ("pixart_alpha", {"loss": {"latent": 1.0}, "learn": {"denoiser": "scratch"}}, {"backbone"}),
    ("pixart_alpha", {"model": DPT, "paradigm": "direct", "paradigm_options": {}}, {"backbone", "head"}),
    (
        "pixart_alpha",
        {"paradigm": "stochastic_multi_step", "paradigm_options": {}, "loss": {"latent": 1.0}},
        {"backbone"},
    ),
]


def write(path: Path, settings: dict[str, Any]) -> Path:
    """The settings as TOML, whose values JSON's are, but for tables in one line."""

    def text(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{key} = {text(each)}" for key, each in value.items()) + "}"
        if isinstance(value, list | tuple):
            return "[" + ", ".join(map(text, value)) + "]"
        return json.dumps(value)

    path.write_text("\n".join(f"{key} = {text(value)}" for key, value in settings.items()))
    return path


@pytest.mark.parametrize(("name", "more", "learned"), CASES)
def test_two_steps_save_load_predict(
    bases: dict[str, Path], data: Path, tmp_path: Path, name: str, more: dict[str, Any], learned: set[str]
) -> None:
    path = write(tmp_path / "r.toml", table(bases, data, name, **more))
    assert loop.main(path, [], tmp_path / "run") == 0
    folder = tmp_path / "run" / "model"
    pipe = genpercept.load(folder, device="cpu")
    assert pipe.info["backbone"] == name and (pipe.vae is None) == (name in PIXELS)
    start = read_base(bases[name], "direct", {}, "", None, widen=False).unet.state_dict()
    changed = {k for k, v in pipe.unet.state_dict().items() if not torch.equal(v, start.get(k, torch.empty(0)))}
    assert bool(changed) == ("backbone" in learned) and (pipe.head is not None) == ("head" in learned)
    image = np.random.default_rng(1).integers(0, 256, (37, 53, 3), np.uint8)
    prediction = pipe(image)
    assert prediction.values.shape == (37, 53) and np.isfinite(prediction.values).all()
    pipe.save_pretrained(tmp_path / "again")
    assert np.array_equal(genpercept.load(tmp_path / "again", device="cpu")(image).values, prediction.values)
    if more.get("learn", {}).get("denoiser") == "lora":
        assert (folder / "lora" / "adapter_model.safetensors").is_file()
        merged: Any = parts.load_part(BACKBONES.find(name), folder / pipe_folder(name))
        assert {k for k in merged.state_dict() if "lora" in k} == set()


def pipe_folder(name: str) -> str:
    return "backbone" if name in PIXELS else "transformer"


def test_rates_of_backbone_and_head_are_their_own(bases: dict[str, Path], data: Path) -> None:
    rates = {"lr": 3e-6, "lr_head": 1e-4, "warmup": 0}
    stage = FinetuneStage(recipes.parse(table(bases, data, "clip", optim=rates)), lambda line: None)
    groups = stage.groups()
    assert [group["lr"] for group in groups] == [3e-6, 1e-4]
    tower = {id(p) for p in cast(Any, stage.parts.denoiser).parameters()}
    assert all(id(p) in tower for p in groups[0]["params"]) and not any(id(p) in tower for p in groups[1]["params"])


WRONG: list[tuple[str, dict[str, Any], str]] = [
    (
        "dinov2",
        {"data": [{"name": "folder", "split": "all", "size": (30, 42)}]},
        r"30 x 42: backbone 'dinov2' .* take 28 x 42",
    ),
    ("pixart_alpha", {"data": [{"name": "folder", "split": "all", "size": (40, 48)}]}, "needs multiples of 16 pixels"),
    ("dinov2", {"paradigm": "one_step"}, "'one_step' works on latents, but backbone 'dinov2' takes pixels"),
    ("dinov2", {"loss": {"latent": 1.0}}, "there is no latent to compare"),
    ("dinov2", {"learn": {"decoder": "finetune"}}, "so the decoder never runs"),
    ("clip", {"learn": {"denoiser": "controlnet"}}, "a ControlNet copies a U-Net's encoder, which clip has not"),
    ("clip", {"prompt": {"kind": "fixed", "text": "a room"}}, "takes pixels and reads no text"),
    ("clip", {"model": {"pyramid_blocks": [1, 9]}}, "must rise and lie between 0 and 4"),
    ("clip", {"model": {"codec": "x"}}, "takes pixels, which nothing encodes"),
    ("pixart_alpha", {"paradigm_options": {}}, r"predicts 'epsilon'; one_step needs .* prediction_type = \"sample\""),
    (
        "pixart_alpha",
        {"paradigm_options": {"prediction_type": "v_prediction"}, "loss": {"latent": 1.0}},
        "predicts 'epsilon'",
    ),
    ("pixart_alpha", {"model": {"backbone": "sd21"}}, "only the denoiser stage makes one"),
]


@pytest.mark.parametrize(("name", "more", "said"), WRONG)
def test_what_cannot_be_paired_is_said_before_anything_is_trained(
    bases: dict[str, Path], data: Path, name: str, more: dict[str, Any], said: str
) -> None:
    more = dict(more)
    if "data" in more:
        more["data"] = [more["data"][0] | {"root": str(data)}]
    with pytest.raises(ValueError, match=said):
        FinetuneStage(recipes.parse(table(bases, data, name, **more)), lambda line: None)


DENOISER = """
stage = "denoiser"
steps = 3
[model]
codec = "{codec}"
backbone = "pixart_alpha"
[model.backbone_config]
num_attention_heads = 2
attention_head_dim = 8
num_layers = 4
cross_attention_dim = 16
caption_channels = 12
[[data]]
count = 8
size = [32, 48]
[denoiser]
sample_steps = 2
[loader]
batch_size = 4
cache = false
cache_dir = "{cache}"
[validation]
every = 2
count = 4
pictures = 2
[logging]
tensorboard = false
"""


def test_a_transformer_is_pretrained_and_fine_tuned_by_the_unets_recipe(tmp_path: Path) -> None:
    vae = SD_TINY / "vae"
    text = DENOISER.replace("{codec}", str(vae)).replace("{cache}", str(tmp_path / "cache"))
    (tmp_path / "base.toml").write_text(text)
    assert loop.main(tmp_path / "base.toml", [], tmp_path / "base") == 0
    base = tmp_path / "base" / "model"
    assert {p.name for p in base.iterdir()} == {
        *("model_index.json", "scheduler", "text_encoder", "tokenizer", "transformer", "vae")
    }
    index = json.loads((base / "model_index.json").read_text())
    assert index["_class_name"] == "PixArtAlphaPipeline"
    assert index["transformer"] == ["diffusers", "PixArtTransformer2DModel"]
    (tmp_path / "more.toml").write_text(text.replace("[model]", f'[model]\nbase = "{base}"'))
    assert loop.main(tmp_path / "more.toml", ["steps=1"], tmp_path / "more") == 0  # goes on from it
    tune = f'stage = "finetune"\nsteps = 2\nloss = {{ latent = 1.0 }}\nmodel = {{ base = "{base}" }}\n'
    tune += text[text.index("[[data]]") :].replace("[denoiser]\nsample_steps = 2\n", "")
    (tmp_path / "depth.toml").write_text(tune)
    assert loop.main(tmp_path / "depth.toml", [], tmp_path / "depth") == 0
    pipe = genpercept.load(tmp_path / "depth" / "model", device="cpu")
    assert pipe.info["paradigm_options"]["prediction_type"] == "v_prediction" and pipe.prompt_embeds.shape == (1, 2, 12)
    assert pipe(np.zeros((20, 30, 3), np.uint8)).values.shape == (20, 30)
    before = load_file(base / "transformer" / "diffusion_pytorch_model.safetensors")
    after = load_file(tmp_path / "depth" / "model" / "transformer" / "diffusion_pytorch_model.safetensors")
    assert before.keys() == after.keys() and any(not torch.equal(before[k], after[k]) for k in before)


def test_the_denoiser_stage_makes_two_backbones(tmp_path: Path) -> None:
    text = DENOISER.replace("{codec}", str(SD_TINY / "vae"))
    (tmp_path / "r.toml").write_text(text.replace("{cache}", str(tmp_path)).replace('"pixart_alpha"', '"dinov2"'))
    with pytest.raises(ValueError, match=r"model\.backbone 'dinov2': the denoiser stage makes sd21 or pixart_alpha"):
        loop.main(tmp_path / "r.toml", [], tmp_path / "run")
