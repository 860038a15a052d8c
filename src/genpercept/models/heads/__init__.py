"""Heads: Features -> raw map at the padded image's size (heatmaps: a quarter of it).

A plugin declares, builds and wraps; a Head is what it wraps: a module with weights, or none (the codec's own decoder).
Spaces of raw maps, which also name what they are trained against (`Target.space`):

- "image": 3 channels in [-1, 1], the label as a codec paints it.
- "affine": 1 channel, right up to scale and shift, trained against the label in [-1, 1]; min-max per image when it becomes a
  Prediction of depth or disparity.
- "classes": logits of classes, trained against their ids.
- "heatmaps": one channel per joint, at a quarter of the image's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from genpercept.checkpoints.parts import PartPlugin
from genpercept.core.registry import Registry
from genpercept.core.values import Features
from genpercept.models.codecs import Codec


class Head(Protocol):
    consumes: str  # "latent" or "pyramid"
    channels: int  # of the raw map
    space: str  # of the raw map and of the Target it is trained against

    def __call__(self, features: Features, codec: Codec) -> Tensor:
        """Features -> raw map (B, channels, H, W) at the padded image's size. ValueError where they lack what it consumes."""
        ...


class HeadPlugin(PartPlugin, Protocol):
    """Of each head's `PLUGIN`. Its module has `.config` and `save_pretrained`."""

    consumes: str
    channels: int  # of the default configuration; a wrapped Head says its own
    space: str  # of the default configuration; a wrapped Head says its own
    spaces: tuple[str, ...]  # that a configuration may give

    def wrap(self, module: nn.Module | None) -> Head:
        """The module (None for a head without weights) as a Head; shares its weights. ValueError for another module."""
        ...


HEADS = Registry[HeadPlugin](__name__, "head", "genpercept.heads", HeadPlugin)
find = HEADS.find


REASSEMBLE = (4.0, 2.0, 1.0, 0.5)  # DPT's scales of four equal token maps, finest first


def neck_config(channels: Sequence[int], strides: Sequence[int]) -> dict[str, Any]:
    """What a head on a backbone's pyramid is built by; both coarsest first, as backbones declare them.

    Maps of one size, which plain transformers give, are to be reassembled by heads that need several (Ranftl et al. 2021).
    """
    config: dict[str, Any] = {"neck_hidden_sizes": list(reversed(channels))}
    if len(strides) == len(REASSEMBLE) and len(set(strides)) == 1:
        config["token_map_scales"] = list(REASSEMBLE)
    return config
