"""Codecs: image <-> latent. A codec is a torch module in diffusers' layout, wrapped so that scaling is never forgotten."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from genpercept.core.registry import Registry


def ends(config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Configurations of what encodes and of what decodes: of a pair its halves', of another codec its own twice."""
    if {"encoder", "decoder"} <= config.keys():
        return config["encoder"], config["decoder"]
    return config, config


class Codec(Protocol):
    stride: int  # pixels per latent cell
    channels: int  # of the latent

    def encode(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1], H and W multiples of `stride` -> scaled latent (B, channels, H / stride, W / stride)."""
        ...

    def decode(self, latent: Tensor) -> Tensor:
        """Scaled latent (B, channels, h, w) -> (B, 3, h stride, w stride), about [-1, 1], not clipped."""
        ...


class CodecPlugin(Protocol):
    name: str
    class_name: str | None  # of the diffusers module, as config.json says it; None for a codec without weights
    output: str  # what it encodes to, which is a backbone's `input`: "latent" or "pixels"

    def build(self, config: dict) -> nn.Module:
        """The module with random weights. On the meta device under `torch.device("meta")`. ValueError when there is none."""
        ...

    def wrap(self, module: nn.Module | None) -> Codec:
        """The module (None for a codec without weights) as a Codec; shares its weights. ValueError for another module."""
        ...


CODECS = Registry[CodecPlugin](__name__, "codec", "genpercept.codecs")
find = CODECS.find


def input_dtype(module: nn.Module) -> torch.dtype:
    """The dtype in which a module takes its input."""
    return next(module.parameters()).dtype
