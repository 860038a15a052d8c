"""CLIP's vision tower (Radford et al. 2021): transformers' CLIPVisionModel, pixels -> feature maps. ViT-bigG-14 by default."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from genpercept.checkpoints.schema import check_arguments
from genpercept.models.backbones import BackbonePlugin
from genpercept.models.backbones._blocks import check as check_blocks
from genpercept.models.backbones._tokens import PixelBackbone, plain_pixels, settings, stays_on_cpu

# laion/CLIP-ViT-bigG-14-laion2B-39B-b160k without the projection to the text's space: 1,842,777,344 parameters.
BIGG_CONFIG: dict[str, Any] = {
    "hidden_size": 1664,
    "intermediate_size": 8192,
    "num_hidden_layers": 48,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "gelu",
    "projection_dim": 1280,
}

_TEXT = ("text_model.", "text_projection.", "visual_projection.", "logit_scale")


class CLIPBackbone(PixelBackbone, CLIPVisionModel):
    """A chosen block's tokens are read as they are: the tower's last norm was trained on the class token alone."""

    label = "clip"
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

    def embed(self, pixels: Tensor) -> Tensor:
        return self.pre_layrnorm(self.embeddings(pixels, interpolate_pos_encoding=True))

    def blocks(self) -> nn.ModuleList:
        return self.encoder.layers

    def unread(self) -> Iterable[nn.Parameter]:
        return self.post_layernorm.parameters()


class CLIP(BackbonePlugin):
    name = "clip"
    class_name = CLIPVisionModel.__name__
    input = "pixels"
    folder = "backbone"
    chooses_blocks = True
    lora_targets = ("q_proj", "k_proj", "v_proj", "out_proj")

    def recognise(self, config: dict) -> bool:
        return config.get("model_type") in ("clip", "clip_vision_model")

    def check(self, config: dict, path: Path) -> None:
        tower = config.get("vision_config", config)
        if not isinstance(tower, dict):
            raise ValueError(f"{path}: vision_config is no object: must be the tower's settings; copy it again")
        check_arguments(path, tower, CLIPVisionConfig)
        check_blocks(tower, path)

    def build(self, config: dict) -> nn.Module:
        """From a config.json of transformers, of the tower or of the whole model, with its defaults; ViT-bigG-14 for none."""
        tower = config.get("vision_config", config)
        net = CLIPBackbone(CLIPVisionConfig(**(settings(tower, CLIPVisionConfig) or BIGG_CONFIG)))
        places = net.embeddings
        places.register_buffer("position_ids", stays_on_cpu(places.num_positions), persistent=False)
        return net

    def skip(self, tensor: str) -> bool:
        """The text tower, both projections into the common space, and the indices that older files hold."""
        return tensor.startswith(_TEXT) or tensor.endswith(".position_ids")

    def convert(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name.removeprefix("vision_model."): tensor for name, tensor in tensors.items()}

    def adapt(self, module: nn.Module, channels: int) -> nn.Module:
        return plain_pixels(module, channels)


PLUGIN = CLIP()
