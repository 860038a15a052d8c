"""What heads on the denoiser's pyramid share."""

from __future__ import annotations

from genpercept.core.values import Features, Size
from genpercept.models.codecs import Codec


def check_pyramid(head: str, sizes: tuple[int, ...], features: Features) -> None:
    """ValueError unless the feature maps have these channels, coarsest first."""
    found = tuple(x.shape[1] for x in features.pyramid)
    if found != sizes:
        raise ValueError(
            f"{head} head for feature maps of {list(sizes)} channels, coarsest first, got {list(found)}: "
            "set its neck_hidden_sizes to the backbone's pyramid_channels, finest first"
        )


def image_size(features: Features, codec: Codec) -> Size:
    """Height and width of the padded image that the pyramid was made of."""
    h, w = features.size or features.pyramid[-1].shape[-2:]
    return h * codec.stride, w * codec.stride
