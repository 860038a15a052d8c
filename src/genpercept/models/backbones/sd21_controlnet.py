"""A denoiser with a ControlNet beside it (Zhang et al. 2023): a trained copy of the encoder adds to a frozen U-Net's skips."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, cast

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.models.attention_processor import AttentionProcessor
from safetensors.torch import save_file
from torch import Tensor, nn

from genpercept.checkpoints.parts import write_config
from genpercept.checkpoints.weights import MAIN
from genpercept.core.modules import config_of, pretrained
from genpercept.core.values import Features
from genpercept.models.backbones import BACKBONES, BackbonePlugin, as_backbone

# One convolution at latent resolution: the condition is the network's own input, not pixels, so that any codec's stride fits.
_EMBEDDING_CHANNELS = (16,)


class TakesResiduals(Protocol):
    """The U-Net that a ControlNet goes with: it adds `residuals` to its skip connections, and the last one to its middle."""

    def forward_features(
        self, x: Tensor, t: Tensor, context: Tensor, *, latent: bool = True, residuals: Sequence[Tensor] = ()
    ) -> Features: ...


class ControlledUNet(nn.Module):
    """`unet` frozen, `controlnet` reading the same latent and adding to the U-Net's skip connections and middle."""

    def __init__(self, unet: nn.Module, copy_weights: bool) -> None:
        """copy_weights: the ControlNet starts as a copy of the U-Net's encoder and, by its zero convolutions, adds nothing."""
        super().__init__()
        self.unet = unet.requires_grad_(False)
        self.controlnet = ControlNetModel.from_unet(
            cast(UNet2DConditionModel, unet),
            conditioning_embedding_out_channels=_EMBEDDING_CHANNELS,
            conditioning_channels=as_backbone(unet).in_channels,
            load_weights_from_unet=copy_weights,
        )

    @property
    def config(self) -> object:
        return pretrained(self.unet).config

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    @property
    def in_channels(self) -> int:
        return as_backbone(self.unet).in_channels

    @property
    def patch(self) -> int:
        return as_backbone(self.unet).patch

    @property
    def context_width(self) -> int | None:
        return as_backbone(self.unet).context_width

    @property
    def empty_prompt(self) -> Tensor | None:
        return as_backbone(self.unet).empty_prompt

    @property
    def pyramid_channels(self) -> tuple[int, ...]:
        return as_backbone(self.unet).pyramid_channels

    @property
    def pyramid_strides(self) -> tuple[int, ...]:
        return as_backbone(self.unet).pyramid_strides

    def output_parameters(self) -> Iterable[nn.Parameter]:
        return as_backbone(self.unet).output_parameters()

    def forward_features(self, x: Tensor, t: Tensor, context: Tensor, *, latent: bool = True) -> Features:
        """As the U-Net's: x (B, in_channels, h, w), t (B,), context (B, tokens, width)."""
        down, middle = self.controlnet(x, t, context, controlnet_cond=x, return_dict=False)
        unet = cast(TakesResiduals, self.unet)
        return unet.forward_features(x, t, context, latent=latent, residuals=(*down, middle))

    def set_attn_processor(self, processor: AttentionProcessor) -> None:
        cast(UNet2DConditionModel, self.unet).set_attn_processor(processor)
        self.controlnet.set_attn_processor(processor)

    def enable_gradient_checkpointing(self) -> None:
        pretrained(self.unet).enable_gradient_checkpointing()
        self.controlnet.enable_gradient_checkpointing()

    def save_pretrained(self, save_directory: str | Path, safe_serialization: bool = True) -> None:
        """config.json (the U-Net's) and both networks' weights in one file; always safetensors."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        config = {k: v for k, v in config_of(self).items() if not k.startswith("_")}
        write_config(folder / "config.json", {"_class_name": type(self).__name__} | config, sort_keys=True)
        state = {name: t.detach().cpu().contiguous() for name, t in self.state_dict().items()}
        save_file(state, folder / MAIN)


class SD21ControlNet(BackbonePlugin):
    name = "sd21_controlnet"
    class_name = ControlledUNet.__name__
    input = "latent"
    folder = "unet"

    def recognise(self, config: dict) -> bool:
        """Never: no base has one."""
        return False

    def check(self, config: dict, path: Path) -> None:
        BACKBONES.find("sd21").check(config, path)

    def build(self, config: dict) -> nn.Module:
        return ControlledUNet(BACKBONES.find("sd21").build(config), copy_weights=False)

    def adapt(self, module: nn.Module, channels: int) -> nn.Module:
        """ValueError for another number of channels: its U-Net is frozen, and a widened convolution must learn."""
        if cast(ControlledUNet, module).in_channels != channels:
            raise ValueError(
                f"a denoiser with a ControlNet cannot be given {channels} input channels: start from a base"
            )
        return module

    def control(self, module: nn.Module) -> nn.Module:
        """The U-Net, shared and frozen, with a fresh ControlNet: at first it answers as the U-Net alone."""
        return ControlledUNet(module, copy_weights=True)


PLUGIN = SD21ControlNet()
