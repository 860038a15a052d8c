"""UperNet on the denoiser's pyramid: class logits (Xiao et al. 2018, "Unified Perceptual Parsing"; transformers' head)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from genpercept.checkpoints.schema import check_arguments
from genpercept.core.values import Features, resize
from genpercept.models.codecs import Codec, input_dtype
from genpercept.models.heads import HeadPlugin
from genpercept.models.heads._pyramid import check_pyramid, image_size


class UperNet(ModelMixin, ConfigMixin):
    """transformers' UperNetHead with a configuration of its own: pyramid pooling on the coarsest map, then top-down fusion."""

    @register_to_config
    def __init__(
        self,
        neck_hidden_sizes: Sequence[int] = (320, 640, 1280, 1280),
        out_channels: int = 40,
        hidden_size: int = 512,
        pool_scales: Sequence[int] = (1, 2, 3, 6),
    ) -> None:
        """neck_hidden_sizes: channels of the pyramid, finest first. out_channels: classes. ValueError for fewer than two."""
        from transformers.models.upernet.modeling_upernet import UperNetHead

        super().__init__()
        if out_channels < 2:
            raise ValueError(f"UperNet out_channels {out_channels}: classes to tell apart are two or more")
        config = SimpleNamespace(pool_scales=tuple(pool_scales), hidden_size=hidden_size, num_labels=out_channels)
        self.decode_head = UperNetHead(config, list(neck_hidden_sizes))

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """(B, C_i, h_i, w_i), finest last -> logits (B, classes, h, w) at the finest map's size."""
        return self.decode_head(list(reversed(pyramid)))


class WrappedUperNet:
    """An UperNet as a Head. Raw maps are logits."""

    consumes = "pyramid"
    space = "classes"

    def __init__(self, module: UperNet) -> None:
        self.module = module
        self.channels = int(module.config["out_channels"])
        self.sizes = tuple(reversed(module.config["neck_hidden_sizes"]))

    def __call__(self, features: Features, codec: Codec) -> Tensor:
        """Pyramid, coarsest first -> (B, classes, h stride, w stride), bilinear. ValueError if unfit."""
        check_pyramid("UperNet", self.sizes, features)
        logits = self.module([x.to(input_dtype(self.module)) for x in features.pyramid])
        return resize(logits.float(), image_size(features, codec))


class PluginUperNet(HeadPlugin):
    name = "upernet"
    class_name = UperNet.__name__
    consumes = "pyramid"
    channels = 40
    space = "classes"
    spaces = ("classes",)

    def check(self, config: dict, path: Path) -> None:
        check_arguments(path, config, UperNet)

    def build(self, config: dict) -> nn.Module:
        keys = ("neck_hidden_sizes", "out_channels", "hidden_size", "pool_scales")
        return UperNet(**{key: config[key] for key in keys if key in config})

    def wrap(self, module: nn.Module | None) -> WrappedUperNet:
        if not isinstance(module, UperNet):
            raise ValueError(f"head 'upernet' needs a UperNet, not {type(module).__name__}: build one with its `build`")
        return WrappedUperNet(module)


PLUGIN = PluginUperNet()
