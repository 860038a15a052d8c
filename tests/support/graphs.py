"""Small models of random weights, and the graphs that `genpercept export` writes of them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

import genpercept
from genpercept import GenPerceptPipeline
from genpercept.commands.export import run as export
from genpercept.models.backbones import BACKBONES
from genpercept.models.codecs import CODECS
from genpercept.models.heads import HEADS


def lacks(*packages: str) -> Any:
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(absent), reason=f"not installed: {', '.join(absent)}")


ONNX = lacks("onnx", "onnxscript", "onnxruntime")
OPENVINO = lacks("onnx", "onnxscript", "openvino")


def small(task: str = "depth", head: dict[str, Any] | None = None, **options: Any) -> GenPerceptPipeline:
    """Random weights, few layers: tracing is quick. head: the configuration of a DPT head."""
    torch.manual_seed(0)
    unet = {"block_out_channels": [16, 32], "layers_per_block": 1, "attention_head_dim": 8, "cross_attention_dim": 16}
    unet |= {"down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "norm_num_groups": 4}
    unet |= {"up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"], "use_linear_projection": True}
    vae = {"block_out_channels": [8, 16], "norm_num_groups": 4, "layers_per_block": 1, "latent_channels": 4}
    vae |= {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    parts: dict[str, Any] = {
        "unet": BACKBONES.find("sd21").build(unet),
        "prompt_embeds": torch.randn(1, 2, 16),
    }
    parts["vae"] = CODECS.find("kl").build(vae)
    if head is not None:
        parts["head_module"] = HEADS.find("dpt").build({"neck_hidden_sizes": [16, 32], **head})
        parts["head"] = "dpt"
    return GenPerceptPipeline.from_parts(**parts, task=task, resolution=32, **options)


def written(pipe: GenPerceptPipeline, to: str, out: Path, folder: Path, **options: Any) -> GenPerceptPipeline:
    pipe.save_pretrained(folder / "m")
    assert export.main(str(folder / "m"), to, out, **options) == 0
    return genpercept.load(out, device="cpu")
