"""The codec's own decoder as head: label latent -> 3-channel image of the label, about [-1, 1]; several -> several."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genpercept.core.values import Features
from genpercept.models import codecs
from genpercept.models.codecs import Codec
from genpercept.models.heads import HeadPlugin


class VaeHead(HeadPlugin):
    """Plugin and Head in one: it has no weights of its own."""

    name = "vae"
    class_name = None
    consumes = "latent"
    channels = 3
    space = "image"
    spaces = ("image",)

    def build(self, config: dict) -> nn.Module:
        raise ValueError("head 'vae' is the codec's decoder and has no weights of its own: leave its configuration out")

    def wrap(self, module: nn.Module | None) -> VaeHead:
        if module is not None:
            raise ValueError(
                f"head 'vae' is the codec's decoder and takes no module, but got a {type(module).__name__}"
            )
        return self

    def __call__(self, features: Features, codec: Codec) -> Tensor:
        """Latent (B, k C, h, w) of k images -> (B, 3 k, h stride, w stride), image after image, not clipped.

        ValueError without a latent, or for channels that are not the codec's C, or k times as many; and without an image
        for a codec that is guided by one.
        """
        latent = features.require_latent()
        if latent.shape[1] % codec.channels:
            raise ValueError(
                f"head 'vae': a latent of {latent.shape[1]} channels, but the codec decodes {codec.channels} at a time"
            )
        parts = latent.split(codec.channels, dim=1)
        return torch.cat([codecs.decode(codec, part, features.image) for part in parts], dim=1)


PLUGIN = VaeHead()
