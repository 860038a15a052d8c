"""The DPT head of the GenPercept release: the U-Net's four up-block outputs -> one map (or three).

Ranftl et al. 2021, "Vision Transformers for Dense Prediction", fig. 1 right, without the reassemble stage; tensors are named
and shaped as in the published `dpt_head_identity`. Layout: FACTS 2 and docs/development/decisions.md. Over a plain
transformer, whose maps have one size, the reassemble stage is there, and the first upsampling, which it makes needless, is
not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from genpercept.checkpoints.schema import check_arguments
from genpercept.core.values import Features
from genpercept.models.codecs import Codec, input_dtype
from genpercept.models.heads import HeadPlugin
from genpercept.models.heads._pyramid import check_pyramid, image_size

if TYPE_CHECKING:
    from transformers import DPTConfig

ACTIVATIONS = ("identity", "elu")
_LAST_CHANNELS = 32


class DPTHead(ModelMixin, ConfigMixin):
    """Fuses a pyramid from coarse to fine; every stage doubles the size, so that the map is 8 times the finest input."""

    @register_to_config
    def __init__(
        self,
        neck_hidden_sizes: Sequence[int] = (320, 640, 1280, 1280),
        fusion_hidden_size: int = 256,
        out_channels: int = 1,
        activation: str = "identity",
        token_map_scales: Sequence[float] = (),
    ) -> None:
        """neck_hidden_sizes: channels of the pyramid, finest first. activation: "identity", or "elu" for ELU + 1 (above 0).

        token_map_scales: of the reassemble stage over maps of one size, finest first (4, 2, 1, 0.5 in DPT); none for a U-Net's.
        ValueError for another activation, for channels other than 1 or 3, for ELU + 1 with 3, and for factors that are not
        one for each map.
        """
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"DPT head activation {activation!r}: choose one of {', '.join(ACTIVATIONS)}")
        if out_channels not in (1, 3):
            raise ValueError(f"DPT head out_channels {out_channels}: choose 1 (depth, disparity, masks) or 3 (normals)")
        if activation == "elu" and out_channels != 1:
            raise ValueError(
                "DPT head: activation 'elu' gives values above 0, for 1 channel only; use 'identity' with 3"
            )
        if token_map_scales and len(token_map_scales) != len(neck_hidden_sizes):
            raise ValueError(
                f"DPT head token_map_scales {list(token_map_scales)}: need one for each of {len(neck_hidden_sizes)} maps"
            )
        self.reassemble: nn.ModuleList | None = None
        if token_map_scales:
            sizes = zip(neck_hidden_sizes, token_map_scales, strict=True)
            self.reassemble = nn.ModuleList(_reassemble(channels, factor) for channels, factor in sizes)
        else:
            self.feature_upsample_0 = _Upsample(neck_hidden_sizes[0])
        self.neck = _Neck(neck_hidden_sizes, fusion_hidden_size)
        self.head = _Output(fusion_hidden_size, out_channels, activation)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """(B, C_i, h_i, w_i), finest last, each half the size of the next but the last two, which are equal -> (B, C, H, W).

        H is 8 times the finest height where its height is a multiple of 4, else up to 24 more; so is W. Maps to reassemble
        have one size, of which H is 16 times as much, or up to 16 more.
        """
        if self.reassemble is not None:
            return self.head(self.neck([layer(x) for layer, x in zip(reversed(self.reassemble), pyramid, strict=True)]))
        *coarse, finest = pyramid
        return self.head(self.neck([*coarse, self.feature_upsample_0(finest)]))


def _reassemble(channels: int, factor: float) -> nn.Module:
    """transformers' reassemble layer of DPT: a 1 x 1 convolution, then a learned scaling. Channels stay."""
    from transformers.models.dpt.modeling_dpt import DPTReassembleLayer

    config = cast("DPTConfig", SimpleNamespace(backbone_config=None, hidden_size=channels))  # it reads these alone
    # typed as whole, but below 1 it shrinks
    return DPTReassembleLayer(config, channels, cast(int, factor if factor < 1 else int(factor)))


class _Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class _Neck(nn.Module):
    def __init__(self, sizes: Sequence[int], width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(n, width, 3, padding=1, bias=False) for n in sizes)
        self.fusion_stage = _FusionStage(len(sizes), width)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        return self.fusion_stage([conv(x) for conv, x in zip(reversed(self.convs), pyramid, strict=True)])


class _FusionStage(nn.Module):
    def __init__(self, stages: int, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Fusion(width, first=i == 0) for i in range(stages))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        fused = self.layers[0](maps[0])
        for layer, finer in zip(list(self.layers)[1:], maps[1:], strict=True):
            fused = layer(fused, finer)
        return fused


class _Fusion(nn.Module):
    def __init__(self, width: int, first: bool) -> None:
        super().__init__()
        self.projection = nn.Conv2d(width, width, 1)
        if not first:
            self.residual_layer1 = _Residual(width)
        self.residual_layer2 = _Residual(width)

    def forward(self, x: Tensor, finer: Tensor | None = None) -> Tensor:
        if finer is not None:
            if finer.shape[-2:] != x.shape[-2:]:  # odd latents
                finer = F.interpolate(finer, x.shape[-2:], mode="bilinear", align_corners=False)
            x = x + self.residual_layer1(finer)
        return self.projection(_double(self.residual_layer2(x)))


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.convolution2 = nn.Conv2d(width, width, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convolution2(F.relu(self.convolution1(F.relu(x))))


class _Output(nn.Module):
    def __init__(self, width: int, channels: int, activation: str) -> None:
        super().__init__()
        self.activation = activation
        self.projection = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Sequential(
            nn.Conv2d(width, width // 2, 3, padding=1),
            _Double(),
            nn.Conv2d(width // 2, _LAST_CHANNELS, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(_LAST_CHANNELS, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(F.relu(self.projection(x)))
        return F.elu(x) + 1 if self.activation == "elu" else x


class _Double(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return _double(x)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)


class WrappedDPT:
    """A DPTHead as a Head. One channel is right up to scale and shift (space "affine"), three are an "image".

    Raw maps are in the units of painted labels, [-1, 1], where losses compare them: behind ELU + 1, which gives [0, 1], too.
    """

    consumes = "pyramid"

    def __init__(self, module: DPTHead) -> None:
        self.module = module
        config = module.config
        self.channels = int(config["out_channels"])
        self.space = "affine" if self.channels == 1 else "image"
        self.sizes = tuple(reversed(config["neck_hidden_sizes"]))
        self.positive = config["activation"] == "elu"

    def __call__(self, features: Features, codec: Codec) -> Tensor:
        """Pyramid, coarsest first -> (B, channels, h stride, w stride), h and w of its finest map. ValueError if unfit."""
        check_pyramid("DPT", self.sizes, features)
        raw = self.module([x.to(input_dtype(self.module)) for x in features.pyramid])
        if self.positive:
            raw = raw * 2 - 1
        size = image_size(features, codec)
        if tuple(raw.shape[-2:]) == size:
            return raw
        return F.interpolate(raw, size, mode="bilinear", align_corners=False)


class DPT(HeadPlugin):
    name = "dpt"
    class_name = DPTHead.__name__
    consumes = "pyramid"
    channels = 1
    space = "affine"
    spaces = ("affine", "image")

    def check(self, config: dict, path: Path) -> None:
        check_arguments(path, config, DPTHead)

    def build(self, config: dict) -> nn.Module:
        """From our config.json or the published one, whose further keys are those of parts the head does not have

        (its token_scales among them: the published head reads a U-Net and reassembles nothing).
        """
        keys = ("neck_hidden_sizes", "fusion_hidden_size", "out_channels", "activation", "token_map_scales")
        return DPTHead(**{key: config[key] for key in keys if key in config})

    def wrap(self, module: nn.Module | None) -> WrappedDPT:
        if not isinstance(module, DPTHead):
            raise ValueError(f"head 'dpt' needs a DPTHead, not {type(module).__name__}: build one with its `build`")
        return WrappedDPT(module)


PLUGIN = DPT()
