"""Heads: Features -> raw map at the padded image's size."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from genpercept.codecs import Codec
from genpercept.types import Features


class Head(Protocol):
    consumes: str  # "latent" or "pyramid"

    def __call__(self, features: Features, codec: Codec) -> Tensor:
        """Features -> raw map (B, C, H, W)."""
        ...


class HeadPlugin(Head, Protocol):
    name: str
    channels: int  # of the raw map
    space: str  # of the Target it is trained against
