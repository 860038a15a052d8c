"""The tiny checkpoint of tests/golden/depthmaster, put together as the published one is laid out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.support.paths import GOLDEN, SD_TINY

ANSWERS = GOLDEN / "depthmaster" / "answers.npz"
FACTS = GOLDEN / "depthmaster" / "facts.json"
WEIGHTS = Path("unet") / "diffusion_pytorch_model.safetensors"
BLOCK = "fftblock."


def checkpoint(folder: Path, parts: tuple[str, ...] = ("vae", "text_encoder", "tokenizer")) -> Path:
    """unet/ with the block, and these parts of sd-tiny; an index with any part at all. See make.py there."""
    for part in ("unet", *parts):
        shutil.copytree(SD_TINY / part, folder / part)
    block = load_file(GOLDEN / "depthmaster" / "block.safetensors")
    edit(folder, lambda t: (t["conv_out.bias"].add_(0.125), t.update({BLOCK + k: v for k, v in block.items()})))
    if parts:
        (folder / "model_index.json").write_text(json.dumps({"_class_name": "DepthMasterPipeline"}))
    return folder


def edit(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change tensors of the U-Net."""
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)
