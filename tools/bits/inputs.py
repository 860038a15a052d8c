"""What the program is given: images, golden checkpoints, layouts of public checkpoints, a folder of images with labels.

Made without the program, from fixed seeds, in the present folder and under relative paths, so that no path is in any output.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "src" / "genpercept" / "training" / "recipes"
GOLDEN = Path("golden")
BASE, UNET8, LOTUS = GOLDEN / "sd-tiny", GOLDEN / "marigold-unet8", GOLDEN / "lotus-unet"
EPOCH = 1_700_000_000  # when the images say that they were made
SIZES = ((48, 64), (37, 53), (101, 67), (96, 128), (7, 5), (1, 1))  # height, width
WEIGHTS = "diffusion_pytorch_model.safetensors"
_OUTPUT = ("conv_norm_out", "conv_out")  # layers that the published U-Net with a DPT head lacks


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8: smooth shapes with noise."""
    draw = np.random.default_rng([seed, height, width])
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(2 * np.pi * (a * x + b * y) + c) for a, b, c in draw.uniform(-3, 3, (3, 3))]
    shapes = np.stack(waves, -1) * 80 + 128 + draw.normal(0, 12, (height, width, 3))
    return shapes.clip(0, 255).astype(np.uint8)


def photographs() -> Iterator[tuple[str, np.ndarray]]:
    """Those that come with scikit-image, (H, W, 3) uint8."""
    from skimage import data

    for name in ("astronaut", "coffee", "chelsea"):
        yield name, getattr(data, name)()


def images(folder: Path = Path("images")) -> Path:
    """The pictures of SIZES as PNG, but for the single pixel, and a photograph, small, as JPEG."""
    folder.mkdir(parents=True, exist_ok=True)
    for height, width in SIZES[:-1]:
        Image.fromarray(picture(height, width)).save(folder / f"p{height}x{width}.png")
    photo = next(photographs())[1]
    Image.fromarray(photo[::4, ::4]).save(folder / "astronaut.jpg", quality=95)
    for path in folder.iterdir():
        os.utime(path, (EPOCH, EPOCH))  # a sidecar holds when its image was changed
    return folder


def golden() -> Path:
    """A copy of the tests' golden checkpoints and arrays."""
    shutil.copytree(ROOT / "tests" / "golden", GOLDEN)
    return GOLDEN


def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


# ---- layouts of public checkpoints


def headless() -> Path:
    """The published layout of a U-Net without output layers, beside its DPT head."""
    from safetensors.torch import load_file, save_file

    folder = Path("release/unet_disparity_dpt_head_v2")
    shutil.copytree(BASE / "unet", folder)
    shutil.copytree(GOLDEN / "dpt_head_identity", folder.with_name("dpt_head_identity"))
    kept = {k: t for k, t in load_file(folder / WEIGHTS).items() if not k.startswith(_OUTPUT)}
    save_file(kept, folder / WEIGHTS)
    return folder


def tuned() -> Path:
    """A U-Net alone, which differs from its base's by a bias."""
    from safetensors.torch import load_file, save_file

    folder = Path("tuned/unet_depth_v2")
    shutil.copytree(BASE / "unet", folder)
    tensors = load_file(folder / WEIGHTS)
    tensors["conv_out.bias"] += 0.1
    save_file(tensors, folder / WEIGHTS)
    return folder


def whole(name: str, unet: Path, **scheduler: Any) -> Path:
    """A repository of a whole pipeline around this U-Net."""
    root = Path("whole") / name
    shutil.copytree(unet, root / "unet")
    for part in ("vae", "text_encoder", "tokenizer"):
        shutil.copytree(BASE / part, root / part)
    (root / "scheduler").mkdir()
    config = json.loads((BASE / "scheduler" / "scheduler_config.json").read_text()) | scheduler
    (root / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    (root / "model_index.json").write_text("{}")
    return root


def random_unet(name: str, like: Path, seed: int, gain: float = 1.0, **config: Any) -> Path:
    """A U-Net of random weights. gain: of its last layer, since an untrained one answers next to nothing."""
    import torch
    from diffusers import UNet2DConditionModel

    torch.manual_seed(seed)
    unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(like) | config)
    with torch.no_grad():
        unet.conv_out.weight.mul_(gain)
    unet.save_pretrained(Path("unets") / name)
    return Path("unets") / name


def intrinsics() -> Path:
    """Marigold's layout for intrinsic images, which its model_index.json describes."""
    unet = random_unet("intrinsics", UNET8, 2, 20, in_channels=12, out_channels=8)
    schedule = {"prediction_type": "v_prediction", "timestep_spacing": "trailing", "rescale_betas_zero_snr": True}
    root = whole("intrinsics", unet, **schedule)
    linear = {"prediction_space": "linear", "up_to_scale": False}
    targets = {
        "target_names": ["albedo", "material"],
        "albedo": {"prediction_space": "srgb"},
        "material": {"prediction_space": "stack", "sub_target_names": ["roughness", "metallicity", None]},
        **dict.fromkeys(("roughness", "metallicity"), linear),
    }
    index = {
        "_class_name": "MarigoldIntrinsicsPipeline",
        "default_denoising_steps": 2,
        "default_processing_resolution": 64,
        "prediction_type": "intrinsics",
        "target_properties": targets,
    }
    (root / "model_index.json").write_text(json.dumps(index))
    return root


# ---- bases of other backbones, of random weights


def dinov2() -> Path:
    import torch
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 5, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    Dinov2Model(Dinov2Config(**sizes, use_swiglu_ffn=True)).save_pretrained("bases/dinov2")
    return Path("bases/dinov2")


def clip() -> Path:
    import torch
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    vision: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 5, "num_attention_heads": 2, "image_size": 28}
    vision |= {"patch_size": 14, "intermediate_size": 48, "hidden_act": "gelu"}
    text = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 9}
    text |= {"max_position_embeddings": 4, "bos_token_id": 1, "eos_token_id": 2}
    CLIPModel(CLIPConfig(vision_config=vision, text_config=text)).save_pretrained("bases/clip")
    return Path("bases/clip")


def yolos() -> Path:
    """A detector of people of random weights, large enough that it finds some."""
    import torch
    from transformers import YolosConfig, YolosForObjectDetection

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    sizes |= {"image_size": [64, 64], "patch_size": 16, "num_detection_tokens": 7}
    config = YolosConfig(**sizes, id2label={0: "cat", 1: "person"}, label2id={"cat": 0, "person": 1})
    model = YolosForObjectDetection(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained("bases/yolos")
    return Path("bases/yolos")


# ---- a data set in a folder


def labelled(folder: Path = Path("data"), count: int = 6, size: tuple[int, int] = (48, 64)) -> Path:
    """Images with depth, normals and a mask of valid pixels, as the data set "folder" reads them."""
    draw = np.random.default_rng(11)
    for name in ("images", "depth", "normals", "valid"):
        (folder / name).mkdir(parents=True)
    height, width = size
    for i in range(count):
        Image.fromarray(picture(height, width, i)).save(folder / "images" / f"s{i}.png")
        slope = np.linspace(2, 3 + i, height)[:, None] + np.linspace(0, 1, width)[None]
        depth = (slope + draw.random(size) * 0.2).astype(np.float32)
        normals = np.stack([*draw.normal(0, 0.4, (2, height, width)), np.ones(size)], -1)
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
        if i % 2:
            np.save(folder / "depth" / f"s{i}.npy", depth)
            np.save(folder / "normals" / f"s{i}.npy", normals.astype(np.float32))
        else:
            Image.fromarray((depth * 1000).astype(np.uint16)).save(folder / "depth" / f"s{i}.png")
            Image.fromarray(((normals + 1) * 127.5).round().astype(np.uint8)).save(folder / "normals" / f"s{i}.png")
        known = (draw.random(size) > 0.1).astype(np.uint8) * 255
        Image.fromarray(known).save(folder / "valid" / f"s{i}.png")
    (folder / "dataset.toml").write_text("intrinsics = [60, 60, 32, 24]\n")
    return folder
