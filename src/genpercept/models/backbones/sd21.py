"""The denoiser of Stable Diffusion 1, 2 and XL, as a backbone. The network itself is in `_unet`."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import nn

from genpercept.checkpoints.schema import check_arguments
from genpercept.models.backbones import BackbonePlugin
from genpercept.models.backbones import _self_attention as self_attention
from genpercept.models.backbones._unet import BOTTLENECK, SD15_CONFIG, SD21_CONFIG, SDXL_CONFIG, SD21UNet
from genpercept.models.backbones._widen import widen_convolution

__all__ = ["BOTTLENECK", "PLUGIN", "SD15_CONFIG", "SD21_CONFIG", "SDXL_CONFIG", "SD21UNet", "widen"]


def widen(unet: nn.Module, channels: int) -> nn.Module:
    """Let a denoiser take `channels` input channels, in place; see `widen_convolution`. Returns it."""
    net = cast(SD21UNet, unet)
    widen_convolution(net.conv_in, channels)
    net.register_to_config(in_channels=channels)
    return unet


class SD21(BackbonePlugin):
    name = "sd21"
    class_name = "UNet2DConditionModel"
    input = "latent"
    folder = "unet"
    controlled = "sd21_controlnet"
    foldable = True

    def recognise(self, config: dict) -> bool:
        return config.get("_class_name") == self.class_name

    def check(self, config: dict, path: Path) -> None:
        check_arguments(path, config, UNet2DConditionModel)
        if (way := config.get(self_attention.KEY, self_attention.PLAIN)) not in self_attention.WAYS:
            known = ", ".join(self_attention.WAYS)
            raise ValueError(
                f"{path}: {self_attention.KEY} is {way!r}: must be one of {known}; copy or download it again"
            )

    def build(self, config: dict) -> nn.Module:
        """config: of UNet2DConditionModel, and how self-attention is computed."""
        way = config.get(self_attention.KEY, self_attention.PLAIN)
        unet = cast(SD21UNet, SD21UNet.from_config({k: v for k, v in config.items() if k != self_attention.KEY}))
        if way != self_attention.PLAIN:
            unet.register_to_config(**{self_attention.KEY: way})
            unet.set_attn_processor(AttnProcessor2_0())
        return unet

    def adapt(self, module: nn.Module, channels: int) -> nn.Module:
        """The first convolution is widened where it must be."""
        return module if cast(SD21UNet, module).in_channels == channels else widen(module, channels)


PLUGIN = SD21()
