"""The paper's recipes take a step: as they are but for size, and at full size on the meta device (shapes without memory)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from genpercept import plugins, train
from genpercept import recipe as recipes
from genpercept._training.finetune import Net
from genpercept._training.learn import Parts
from genpercept.backbones.sd21 import SD21_CONFIG
from genpercept.codecs.kl import SD_VAE_CONFIG

ROOT = Path(__file__).parent.parent
PAPER = sorted((ROOT / "recipes" / "paper").glob("*.toml"))
FINETUNED = [path for path in PAPER if recipes.load(path).stage == "finetune"]
BASE = ROOT / "tests" / "golden" / "sd-tiny"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures with a slanted plane each: depth, normals and intrinsics."""
    root, draw = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for kind in ("images", "depth", "normals"):
        (root / kind).mkdir()
    h, w = 40, 48
    for i in range(4):
        Image.fromarray(draw.integers(0, 256, (h, w, 3), np.uint8)).save(root / "images" / f"{i}.png")
        np.save(root / "depth" / f"{i}.npy", 2 + np.linspace(0, 1 + i, h * w, dtype=np.float32).reshape(h, w))
        normals = np.broadcast_to(np.array([0.6, 0, 0.8], np.float32), (h, w, 3))
        np.save(root / "normals" / f"{i}.npy", normals)
    (root / "dataset.toml").write_text("intrinsics = [40, 40, 24, 20]")
    return root


@pytest.mark.parametrize("path", PAPER, ids=lambda p: p.stem)
def test_a_step_on_tiny_shapes(path: Path, data: Path, tmp_path: Path) -> None:
    recipe = recipes.load(path)
    small = {
        "data": f'[{{name = "folder", root = "{data}", split = "all", size = [32, 40]}}]',
        "augment.sizes": "[[32, 40]]",
        "loader.batch_size": "2",
        "optim.accumulation": "1",
        "optim.warmup": "0",
        "steps": "1",
        "precision": "fp32",
        "validation": '{split = "all", count = 2, steps = 1, pictures = 1}',
        "logging.tensorboard": "false",
        "speed.threads": "1",
    }
    if recipe.stage == "finetune":
        small |= {"model.base": f'"{BASE}"', "resolution": "40"}
    else:
        small |= {
            "model.codec_config": "{block_out_channels = [8, 8], layers_per_block = 1, norm_num_groups = 4}",
        }
    if recipe.model.head == "dpt":
        small["model.head_config.fusion_hidden_size"] = "16"
    assert train.main(path, [f"{key}={value}" for key, value in small.items()], tmp_path / "run") == 0
    assert '"step": 1' in (tmp_path / "run" / "log.jsonl").read_text()
    assert any((tmp_path / "run" / "model").rglob("*.safetensors"))


def full_size(recipe: recipes.Recipe) -> Parts:
    """The networks of a recipe at Stable Diffusion 2.1's size, without memory."""
    paradigm = plugins.find("paradigms", recipe.paradigm).with_options(**recipe.paradigm_options)
    with torch.device("meta"):
        vae = plugins.find("codecs", "kl").build(SD_VAE_CONFIG)
        codec = plugins.find("codecs", "kl").wrap(vae)
        channels = paradigm.input_channels(codec.channels)
        unet = plugins.find("backbones", "sd21").build(SD21_CONFIG | {"in_channels": channels})
        name = recipe.model.head or plugins.find("tasks", recipe.task).head
        plugin = plugins.find("heads", name)
        module = plugin.build(recipe.model.head_config) if plugin.class_name else None
    vae.requires_grad_(False)
    return Parts(
        unet, vae, module, codec, plugin.wrap(module), paradigm, cast(Any, None), "sd21", "kl", name
    )  # prompts are given to forward


@pytest.mark.parametrize("path", FINETUNED, ids=lambda p: p.stem)
def test_a_step_at_full_size_on_the_meta_device(path: Path) -> None:
    recipe = recipes.load(path)
    parts = full_size(recipe)
    if recipe.speed.checkpointing:
        cast(Any, parts.denoiser).enable_gradient_checkpointing()
    losses = recipe.loss or plugins.find("tasks", recipe.task).losses
    net = Net(parts, share=float(set(losses) != {"latent"})).train()
    h, w = recipe.sizes()[0]
    tokens = 77 if recipe.prompt.padded else 2
    channels = cast(Any, parts.denoiser).config["in_channels"]
    latent, maps = net(
        torch.empty(1, channels, h // 8, w // 8, device="meta"),
        torch.ones(1, device="meta"),
        torch.empty(1, tokens, 1024, device="meta"),
    )
    assert maps is None or maps.shape == (1, parts.head.channels, h, w)
    assert latent is None or latent.shape == (1, 4, h // 8, w // 8)
    (latent if maps is None else maps).sum().backward()
    first = cast(Any, parts.denoiser).conv_in.weight
    assert first.grad is not None and first.grad.shape == (320, channels, 3, 3)
