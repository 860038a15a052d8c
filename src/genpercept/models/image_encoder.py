"""CLIP's vision tower with its projection, which embeds an image for a denoiser that is told of it (`image_prompt`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from genpercept.checkpoints.parts import PartPlugin, write_config
from genpercept.checkpoints.schema import check_arguments, known
from genpercept.core.modules import config_of

_WEIGHTS = "model.safetensors"
# ViT-L/14 with its projection to the common space of 768: 303,966,208 parameters.
VIT_L_CONFIG: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "projection_dim": 768,
    "hidden_act": "quick_gelu",
}


class ImageEncoder(CLIPVisionModelWithProjection):
    """transformers' module, saved as such."""

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """config.json and model.safetensors, as transformers reads them as the parent's class."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        config = config_of(self) | {"architectures": [CLIPVisionModelWithProjection.__name__]}
        write_config(folder / "config.json", config, sort_keys=True)
        state = {name: t.detach().cpu().contiguous() for name, t in self.state_dict().items()}
        save_file(state, folder / _WEIGHTS)


class ClipImage(PartPlugin):
    name = "clip_image"
    class_name = CLIPVisionModelWithProjection.__name__

    def check(self, config: dict, path: Path) -> None:
        check_arguments(path, config, CLIPVisionConfig)

    def build(self, config: dict) -> nn.Module:
        net = ImageEncoder(CLIPVisionConfig(**known(config, CLIPVisionConfig)))
        places: Any = net.vision_model.embeddings
        # what files do not hold must not stay on the meta device
        numbers = torch.arange(places.num_positions, device="cpu").expand(1, -1)
        places.register_buffer("position_ids", numbers, persistent=False)
        return net

    def skip(self, tensor: str) -> bool:
        """The indices that older files hold."""
        return tensor.endswith(".position_ids")


PLUGIN = ClipImage()
