"""DINOv2 (Oquab et al. 2023): transformers' Dinov2Model, pixels -> feature maps. The giant model unless configured."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model

from genpercept.checkpoints.schema import check_arguments
from genpercept.models.backbones import BackbonePlugin
from genpercept.models.backbones._blocks import check as check_blocks
from genpercept.models.backbones._tokens import PixelBackbone, plain_pixels, settings

# facebook/dinov2-giant: 1,136,480,768 parameters. facebook/dinov2-large: 304,368,640.
GIANT_CONFIG: dict[str, Any] = {
    "hidden_size": 1536,
    "num_hidden_layers": 40,
    "num_attention_heads": 24,
    "mlp_ratio": 4,
    "image_size": 518,
    "patch_size": 14,
    "use_swiglu_ffn": True,
}
LARGE_CONFIG: dict[str, Any] = GIANT_CONFIG | {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "use_swiglu_ffn": False,
}

# Names in the published files -> transformers' own of today, which some versions write
_RENAMED = {
    ".attention.attention.query.": ".attention.q_proj.",
    ".attention.attention.key.": ".attention.k_proj.",
    ".attention.attention.value.": ".attention.v_proj.",
    ".attention.output.dense.": ".attention.o_proj.",
    ".mlp.weights_out.": ".mlp.down_proj.",
}
_FUSED, _GATE, _UP = ".mlp.weights_in.", ".mlp.gate_proj.", ".mlp.up_proj."


class Dinov2Backbone(PixelBackbone, Dinov2Model):
    """Every chosen block's tokens go through the final norm, as DINOv2's own dense heads read them."""

    label = "dinov2"
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def embed(self, pixels: Tensor) -> Tensor:
        return self.embeddings(pixels)  # position embeddings interpolated (bicubic) by the parent

    def blocks(self) -> nn.ModuleList:
        return self.encoder.layer

    def finish(self, tokens: Tensor) -> Tensor:
        return self.layernorm(tokens)

    def unread(self) -> Iterable[nn.Parameter]:
        token = self.embeddings.mask_token  # of masked pretraining
        return () if token is None else (token,)


class Dinov2(BackbonePlugin):
    name = "dinov2"
    class_name = Dinov2Model.__name__
    input = "pixels"
    folder = "backbone"
    chooses_blocks = True
    lora_targets = ("q_proj", "k_proj", "v_proj", "o_proj")

    def recognise(self, config: dict) -> bool:
        return config.get("model_type") == "dinov2"

    def check(self, config: dict, path: Path) -> None:
        check_arguments(path, config, Dinov2Config)
        check_blocks(config, path)

    def build(self, config: dict) -> nn.Module:
        """From a config.json of transformers, with its defaults; the giant model where nothing is configured."""
        return Dinov2Backbone(Dinov2Config(**(settings(config, Dinov2Config) or GIANT_CONFIG)))

    def skip(self, tensor: str) -> bool:
        """A classifier's head."""
        return tensor.startswith("classifier.")

    def convert(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Published names and the fused first layer of the SwiGLU blocks -> today's."""
        found: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            name = name.removeprefix("dinov2.")
            for old, new in _RENAMED.items():
                name = name.replace(old, new)
            if _FUSED in name:
                found[name.replace(_FUSED, _GATE)], found[name.replace(_FUSED, _UP)] = tensor.chunk(2)
            else:
                found[name] = tensor
        return found

    def adapt(self, module: nn.Module, channels: int) -> nn.Module:
        return plain_pixels(module, channels)


PLUGIN = Dinov2()
