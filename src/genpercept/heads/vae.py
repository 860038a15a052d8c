"""The codec's own decoder as head: label latent -> 3-channel image of the label, about [-1, 1]."""

from __future__ import annotations

from torch import Tensor

from genpercept.codecs import Codec
from genpercept.types import Features


class VaeHead:
    name = "vae"
    consumes = "latent"
    channels = 3
    space = "image"

    def __call__(self, features: Features, codec: Codec) -> Tensor:
        """Latent (B, 4, h, w) -> (B, 3, h stride, w stride), not clipped. ValueError without a latent."""
        return codec.decode(features.require_latent())


PLUGIN = VaeHead()
