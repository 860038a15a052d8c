"""ViTPose's keypoint heads on the denoiser's pyramid: joint heatmaps (Xu et al. 2022; transformers' decoders).

ViTPose decodes one map at 1/16 of the image. The U-Net gives four, so that they are first brought to one grid and one width.
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
from genpercept.core.values import Features, resize
from genpercept.models.codecs import Codec, input_dtype
from genpercept.models.heads import HeadPlugin
from genpercept.models.heads._pyramid import check_pyramid, image_size

if TYPE_CHECKING:
    from transformers import VitPoseConfig

DECODERS = ("classic", "simple")
HEATMAP_STRIDE = 4  # image pixels per heatmap pixel


class Keypoints(ModelMixin, ConfigMixin):
    """A 1 x 1 convolution per pyramid level, their sum at the grid of level `grid`, then ViTPose's decoder."""

    @register_to_config
    def __init__(
        self,
        neck_hidden_sizes: Sequence[int] = (320, 640, 1280, 1280),
        out_channels: int = 17,
        hidden_size: int = 768,
        decoder: str = "classic",
        grid: int = 2,
    ) -> None:
        """neck_hidden_sizes: channels, finest first. decoder: "classic" (two deconvolutions, x4) or "simple" (bilinear x4).

        grid: the level, counted from the finest, whose size the decoder starts from; 2 is 1/16 of the image with the
        8 x codec of Stable Diffusion. ValueError for another decoder or a level that is not there.
        """
        from transformers.models.vitpose import modeling_vitpose

        super().__init__()
        if decoder not in DECODERS:
            raise ValueError(f"keypoint head decoder {decoder!r}: choose one of {', '.join(DECODERS)}")
        if not 0 <= grid < len(neck_hidden_sizes):
            raise ValueError(f"keypoint head grid {grid}: the pyramid has levels 0 to {len(neck_hidden_sizes) - 1}")
        kind = modeling_vitpose.VitPoseClassicDecoder if decoder == "classic" else modeling_vitpose.VitPoseSimpleDecoder
        self.laterals = nn.ModuleList(nn.Conv2d(n, hidden_size, 1) for n in neck_hidden_sizes)
        sizes = SimpleNamespace(backbone_config=SimpleNamespace(hidden_size=hidden_size), num_labels=out_channels)
        sizes.scale_factor = 4
        self.decode_head = kind(cast("VitPoseConfig", sizes))  # of which it reads these alone

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """(B, C_i, h_i, w_i), finest last -> heatmaps (B, joints, 4 h, 4 w) of level `grid`'s h and w."""
        levels = list(reversed(pyramid))
        grid = levels[self.config["grid"]].shape[-2:]
        size = (int(grid[0]), int(grid[1]))
        maps = [F.interpolate(conv(x), size, mode="bilinear") for conv, x in zip(self.laterals, levels, strict=True)]
        return self.decode_head(sum(maps))


class WrappedKeypoints:
    """Keypoints as a Head. Raw maps have a quarter of the image's size."""

    consumes = "pyramid"
    space = "heatmaps"

    def __init__(self, module: Keypoints) -> None:
        self.module = module
        self.channels = int(module.config["out_channels"])
        self.sizes = tuple(reversed(module.config["neck_hidden_sizes"]))

    def __call__(self, features: Features, codec: Codec) -> Tensor:
        """Pyramid, coarsest first -> (B, joints, H / 4, W / 4) of the padded image. ValueError if unfit."""
        check_pyramid("keypoint", self.sizes, features)
        maps = self.module([x.to(input_dtype(self.module)) for x in features.pyramid])
        h, w = image_size(features, codec)
        return resize(maps.float(), (max(1, h // HEATMAP_STRIDE), max(1, w // HEATMAP_STRIDE)))


class PluginKeypoints(HeadPlugin):
    name = "keypoints"
    class_name = Keypoints.__name__
    consumes = "pyramid"
    channels = 17
    space = "heatmaps"
    spaces = ("heatmaps",)

    def check(self, config: dict, path: Path) -> None:
        check_arguments(path, config, Keypoints)

    def build(self, config: dict) -> nn.Module:
        keys = ("neck_hidden_sizes", "out_channels", "hidden_size", "decoder", "grid")
        return Keypoints(**{key: config[key] for key in keys if key in config})

    def wrap(self, module: nn.Module | None) -> WrappedKeypoints:
        if not isinstance(module, Keypoints):
            raise ValueError(
                f"head 'keypoints' needs a Keypoints, not {type(module).__name__}: build one with its `build`"
            )
        return WrappedKeypoints(module)


PLUGIN = PluginKeypoints()
