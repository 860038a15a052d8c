"""Bases of random weights, tiny, in the layouts that DINOv2, CLIP and PixArt-alpha are published in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import PixArtTransformer2DModel
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, Dinov2Config, Dinov2Model

from genpercept.checkpoints import parts
from genpercept.models.codecs import CODECS
from tests.support.paths import SD_TINY

PIXART: dict[str, Any] = {
    "num_attention_heads": 3,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 5,
    "cross_attention_dim": 36,
    "caption_channels": 10,
    "sample_size": 8,
    "patch_size": 2,
    "use_additional_conditions": False,
}
VIT: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 5,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
CLIP_VIT = VIT | {"intermediate_size": 48, "hidden_act": "gelu"}


def dinov2_base(folder: Path, swiglu: bool = True) -> Path:
    torch.manual_seed(0)
    Dinov2Model(Dinov2Config(**VIT, use_swiglu_ffn=swiglu)).save_pretrained(folder)
    return folder


def clip_base(folder: Path) -> Path:
    torch.manual_seed(0)
    text = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 9}
    text |= {"max_position_embeddings": 4, "bos_token_id": 1, "eos_token_id": 2}
    CLIPModel(CLIPConfig(vision_config=CLIP_VIT, text_config=text)).save_pretrained(folder)
    return folder


def pixart_base(folder: Path, kind: str = "epsilon", **config: Any) -> Path:
    """PixArt's layout as it was published: under diffusers' older class, with the null caption among the weights."""
    torch.manual_seed(0)
    PixArtTransformer2DModel(**(PIXART | config)).save_pretrained(folder / "transformer")
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    null = torch.randn(5, 10)
    save_file(load_file(path) | {"caption_projection.y_embedding": null}, path)
    edit(folder / "transformer" / "config.json", _class_name="Transformer2DModel", only_cross_attention=False)
    parts.load_part(CODECS.find("kl"), SD_TINY / "vae").save_pretrained(folder / "vae")  # type: ignore[operator]
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"prediction_type": kind}))
    return folder


def edit(path: Path, **values: Any) -> None:
    """Change values of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
