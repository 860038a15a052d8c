"""Backbones: latents (or pixels) -> Features."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from genpercept.types import Features


class Backbone(Protocol):
    pyramid_channels: tuple[int, ...]  # of Features.pyramid, coarsest first
    pyramid_strides: tuple[int, ...]  # pixels of the image per cell, same order

    def forward_features(self, x: Tensor, t: Tensor, context: Tensor, *, latent: bool = True) -> Features:
        """x (B, C, h, w), t (B,), context (B, tokens, width) -> Features; `latent=False` leaves the output convolution out."""
        ...


class BackbonePlugin(Protocol):
    name: str
    class_name: str  # of the module, as config.json says it
    input: str  # "latent" or "pixels"

    def build(self, config: dict) -> nn.Module:
        """The module with random weights. On the meta device under `torch.device("meta")`."""
        ...
