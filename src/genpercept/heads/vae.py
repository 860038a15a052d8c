"""The codec's own decoder as head: label latent -> 3-channel image of the label, about [-1, 1]."""

from __future__ import annotations

from torch import Tensor, nn

from genpercept.codecs import Codec
from genpercept.types import Features


class VaeHead:
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
        """Latent (B, 4, h, w) -> (B, 3, h stride, w stride), not clipped. ValueError without a latent."""
        return codec.decode(features.require_latent())


PLUGIN = VaeHead()
