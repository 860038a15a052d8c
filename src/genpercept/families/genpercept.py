"""Checkpoints of the GenPercept release (v2): a folder with the fine-tuned U-Net, everything else from Stable Diffusion 2.1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from genpercept import checkpoint
from genpercept.pipeline import GenPerceptPipeline


class GenPercept:
    """unet_depth_v2 and its like: config.json and diffusion_pytorch_model.safetensors, or a training run's unet/ inside."""

    name = "genpercept"

    def load(
        self, folder: Path, base: str | Path, task: str, torch_dtype: torch.dtype | None, where: dict[str, Any]
    ) -> GenPerceptPipeline:
        """ValueError when the folder holds no U-Net, or one whose weights are the base's own: that would predict noise."""
        if not (folder / "config.json").is_file() and (folder / "unet" / "config.json").is_file():
            folder = folder / "unet"
        unet = checkpoint.load_part("backbones", "sd21", folder, torch_dtype)
        start = GenPerceptPipeline.from_base(base, task, torch_dtype=torch_dtype, **where)
        untouched = start.unet.state_dict()
        if all(torch.equal(t, untouched[k]) for k, t in unet.state_dict().items() if k in untouched):
            raise ValueError(
                f"{folder}: its weights are bit by bit those of the base {base}: not fine-tuned, it would give noise"
            )
        info: dict[str, Any] = {
            "base": str(base),
            "prompt": "",
            "model": str(folder),
            "model_sha256": checkpoint.sha256(folder),
        }
        if task == "normals":
            info["axes"] = None  # the release does not document them
        return GenPerceptPipeline.from_parts(
            unet=unet, vae=start.vae, prompt_embeds=start.prompt_embeds, task=task, resolution=768, **info
        )


PLUGIN = GenPercept()
