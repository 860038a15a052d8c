"""No codec: backbones that take pixels see the image itself. It has no weights, and nothing can be decoded."""

from __future__ import annotations

from torch import Tensor, nn

from genpercept.models.codecs import CodecPlugin


class Pixels(CodecPlugin):
    """Plugin and Codec in one: the image in [-1, 1] is its own "latent" of 3 channels; backbones normalise it themselves."""

    name = "pixels"
    class_name = None
    output = "pixels"
    stride = 1
    channels = 3

    def build(self, config: dict) -> nn.Module:
        raise ValueError("codec 'pixels' has no weights: leave its configuration out")

    def wrap(self, module: nn.Module | None) -> Pixels:
        if module is not None:
            raise ValueError(
                f"codec 'pixels' takes no module, but got a {type(module).__name__}: use codec 'kl' for it"
            )
        return self

    def encode(self, image: Tensor) -> Tensor:
        """The same tensor."""
        return image

    def decode(self, latent: Tensor) -> Tensor:
        """ValueError: there is no latent of a label."""
        raise ValueError("codec 'pixels' decodes nothing: use a pyramid head, such as dpt, and paradigm direct")


PLUGIN = Pixels()
