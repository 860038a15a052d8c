"""The paper's recipes take a step: as they are but for size, and at full size on the meta device (shapes without memory)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from genpercept.data import DATASETS
from genpercept.tasks import PreparedTask
from genpercept.training import loop
from genpercept.training import recipe as recipes
from genpercept.training.networks.predictor import find_task
from genpercept.training.stages.base import Draw
from genpercept.training.stages.finetune import Net
from tests.support.bases import clip_base, dinov2_base, pixart_base
from tests.support.full_size import full_size
from tests.support.other_trees import coco
from tests.support.paths import RECIPES, SD_TINY
from tests.support.planes import planes

PAPER = sorted((RECIPES / "paper").glob("*.toml"))
FINETUNED = [path for path in PAPER if recipes.load(path).stage == "finetune"]
# base of a recipe -> its small stand-in; Stable Diffusion 2.1's for the others
SMALL = {
    "PixArt-alpha/PixArt-XL-2-512x512": pixart_base,
    "facebook/dinov2-giant": dinov2_base,
    "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k": clip_base,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures with every label that a recipe reads."""
    draw, (h, w) = np.random.default_rng(0), (40, 48)
    root = planes(tmp_path_factory.mktemp("data"), 4, (h, w), normals=True, intrinsics=(40, 40, 24, 20))
    for kind in ("class_ids", "mask", "alpha", "defect"):
        (root / kind).mkdir()
    for i in range(4):
        np.save(root / "class_ids" / f"{i}.npy", draw.integers(0, 40, (h, w)))
        np.save(root / "alpha" / f"{i}.npy", draw.random((h, w), np.float32))
        for kind in ("mask", "defect"):
            Image.fromarray(draw.integers(0, 2, (h, w), np.uint8) * 255).save(root / kind / f"{i}.png")
    return root


@pytest.mark.parametrize("path", PAPER, ids=lambda p: p.stem)
def test_the_data_sets_exist_and_have_the_labels(path: Path) -> None:
    recipe = recipes.load(path)
    for data in recipe.data:
        plugin = cast(Any, DATASETS.find(data.name)).with_options(**data.options)
        assert data.split in plugin.about.splits
        if recipe.stage == "finetune":
            task = find_task(recipe)
            read = data.options.get("labels", plugin.about.provides)
            assert set(task.labels) <= set(plugin.about.provides) & set(read)
            assert recipe.task != "segmentation" or plugin.about.classes == task.options["classes"]


@pytest.mark.parametrize("path", PAPER, ids=lambda p: p.stem)
def test_a_step_on_tiny_shapes(path: Path, data: Path, tmp_path: Path) -> None:
    recipe = recipes.load(path)
    small = {
        "data": f'[{{name = "folder", root = "{data}", split = "all", size = [32, 40]}}]',
        "augment.sizes": "[[32, 40]]",
        "loader.batch_size": "2",
        "optim.warmup": "0",
        "steps": "1",
        "precision": "fp32",
        "validation": '{split = "all", count = 2, steps = 1, pictures = 1}',
        "logging.tensorboard": "false",
        "speed.threads": "1",
    }
    if recipe.stage == "finetune":
        make = SMALL.get(recipe.model.base)
        small |= {"model.base": f'"{make(tmp_path / "base") if make else SD_TINY}"', "resolution": "40"}
    else:
        small |= {
            "model.codec_config": "{block_out_channels = [8, 8], layers_per_block = 1, norm_num_groups = 4}",
        }
    if recipe.model.base in SMALL:
        small["augment.sizes"] = "[[28, 42]]" if recipe.paradigm == "direct" else "[[32, 48]]"
    sizes = {"dpt": "fusion_hidden_size", "upernet": "hidden_size"}
    if recipe.task == "pose":  # the folder of pictures has no people
        small["data"] = '[{name = "synthetic", count = 4, size = [48, 64], domain = "closeup"}]'
        small |= {"validation": '{split = "val", count = 2, pictures = 1}', "loader.cache": "false"}
        small |= {"task_options": "{height = 32, width = 40}", "model.head_config.hidden_size": "16"}
    elif recipe.model.head in sizes:
        small[f"model.head_config.{sizes[recipe.model.head]}"] = "16"
    assert loop.main(path, [f"{key}={value}" for key, value in small.items()], tmp_path / "run") == 0
    assert '"step": 1' in (tmp_path / "run" / "log.jsonl").read_text()
    assert any((tmp_path / "run" / "model").rglob("*.safetensors"))


@pytest.mark.parametrize("path", FINETUNED, ids=lambda p: p.stem)
def test_a_step_at_full_size_on_the_meta_device(path: Path) -> None:
    recipe = recipes.load(path)
    parts = full_size(recipe)
    if recipe.speed.checkpointing:
        cast(Any, parts.denoiser).enable_gradient_checkpointing()
    if recipe.learn.denoiser == "frozen":
        parts.denoiser.requires_grad_(False)
    losses = recipe.loss or find_task(recipe).losses[parts.head.space]
    net = Net(parts, maps=set(losses) != {"latent"}).train()
    h, w = recipe.sizes()[0]
    tokens = 77 if recipe.prompt.padded else 2
    denoiser: Any = parts.denoiser
    channels, stride = denoiser.in_channels, parts.codec.stride
    latent, maps = net(
        torch.empty(2, channels, h // stride, w // stride, device="meta"),
        torch.ones(2, device="meta"),
        torch.empty(2, tokens, denoiser.context_width or 0, device="meta"),
    )
    scale = 4 if parts.head.space == "heatmaps" else 1
    assert maps is None or maps.shape == (2, parts.head.channels, h // scale, w // scale)
    assert latent is None or latent.shape == (2, 4, h // 8, w // 8)
    cast(Any, latent if maps is None else maps).sum().backward()
    unread = {id(p) for p in denoiser.output_parameters()}
    if recipe.learn.denoiser != "frozen" and parts.backbone != "sd21":
        assert all((p.grad is not None) or id(p) in unread for p in denoiser.parameters())
        return
    if recipe.learn.denoiser == "frozen":
        assert all(p.grad is None for p in denoiser.parameters()) and parts.head_module is not None
        assert all(p.grad is not None for p in parts.head_module.parameters())
        return
    first = denoiser.conv_in.weight
    assert first.grad is not None and first.grad.shape == (320, channels, 3, 3)


# ---- as the texts have them --------------------------------------------------------------------------------------------


def differences(name: str, partner: str) -> set[str]:
    """Keys, "section.key", in which two recipes differ, but for their names."""
    ours, theirs = ({**recipes.load(RECIPES / f"paper/{n}.toml").resolved(), "name": ""} for n in (name, partner))
    flat: list[dict[str, Any]] = []
    for table in (ours, theirs):
        sections = {k: v for k, v in table.items() if isinstance(v, dict) and k != "loss"}
        keys = {f"{s}.{k}": v for s, section in sections.items() for k, v in section.items()}
        flat.append({k: v for k, v in table.items() if k not in sections} | keys)
    return {key for key in flat[0].keys() | flat[1].keys() if flat[0].get(key) != flat[1].get(key)}


TRANSFORMER = {"model.base", "precision"}
PATCHES = TRANSFORMER | {"resolution", "augment.sizes"}  # 770 for 768


@pytest.mark.parametrize(
    ("name", "partner", "keys"),
    [
        ("depth_dinov2", "v1_depth_dpt_hypersim", PATCHES | {"paradigm", "prompt.padded"}),
        ("depth_clip", "v1_depth_dpt_hypersim", PATCHES | {"paradigm", "prompt.padded", "optim.lr", "optim.lr_head"}),
        ("depth_pixart", "v1_depth", TRANSFORMER | {"paradigm_options.prediction_type", "prompt.padded"}),
        ("segmentation_dinov2", "segmentation", PATCHES),
        ("segmentation_dinov2_frozen", "segmentation_frozen", PATCHES),
        ("segmentation_frozen", "segmentation", {"learn.denoiser"}),
        ("v1_depth_dpt_hypersim", "v1_depth_dpt", {"data"}),
        ("v1_depth_dpt_hypersim", "v1_depth", {"loss", "model.head", "model.head_config"}),
        ("dis_1024", "dis", {"resolution", "augment.sizes", "loader.micro_batch"}),
        ("disparity_dpt", "disparity", {"model.head"}),
    ],
)
def test_rows_of_a_table_differ_in_what_the_table_compares(name: str, partner: str, keys: set[str]) -> None:
    assert differences(name, partner) == keys
    for one in (name, partner):
        recipe = recipes.load(RECIPES / f"paper/{one}.toml")
        assert all(abs(size - 768) <= 2 or one == "dis_1024" for sizes in recipe.sizes() for size in sizes)


@pytest.mark.parametrize("path", FINETUNED, ids=lambda p: p.stem)
def test_no_text_clips_gradients_or_leaves_out_steps(path: Path) -> None:
    recipe = recipes.load(path)
    assert recipe.optim.grad_clip == 0 and recipe.guard.spike == 0 and recipe.optim.weight_decay == 0
    assert recipe.loader.batch_size == (16 if path.stem in SIXTEEN else 32) and recipe.ema.decay == 0


# v1's depth and normals (section 3.1), its ablations (3.5); anomaly's is ours
SIXTEEN = {path.stem for path in FINETUNED if path.stem.startswith(("v1_depth", "v1_normals", "depth_"))} - {
    "depth_gaussian",
    "depth_rgb_blending",
} | {"anomaly"}


def test_an_epoch_of_pose_sees_every_labelled_person_once(tmp_path: Path) -> None:
    """Of three photographs one has two people with joints, one a person without, one nobody: two samples, not three."""
    coco(tmp_path)
    file = tmp_path / "annotations/person_keypoints_val2017.json"
    table = json.loads(file.read_text())
    table["annotations"].append(table["annotations"][0] | {"id": 15})
    file.with_name("person_keypoints_train2017.json").write_text(json.dumps(table))
    (tmp_path / "train2017").symlink_to(tmp_path / "val2017")
    recipe = recipes.load(RECIPES / "paper/pose.toml", [f'data.0.root="{tmp_path}"', "loader.batch_size=2"])
    task = find_task(recipe)
    assert isinstance(task, PreparedTask)
    draw = Draw(recipe, print, task.prepare)
    assert draw.samples == 2
    for step in range(3):
        names = {str(record["name"]) for record in draw.records(step, [0, 1])}
        assert names == {"train2017/000000000007#11", "train2017/000000000007#15"}
    assert all(record["image"].shape == (256, 192, 3) for record in draw.records(0, [0, 1]))
