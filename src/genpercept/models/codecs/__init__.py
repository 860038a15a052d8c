"""Codecs: image <-> latent. A codec is a torch module in diffusers' layout, wrapped so that scaling is never forgotten."""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from genpercept.checkpoints.parts import PartPlugin
from genpercept.core.registry import Registry

HALVES = {"encoder": "encoding", "decoder": "decoding"}  # of a pair: which of its modules is which end


def ends(config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Configurations of what encodes and of what decodes: of a pair its halves', of another codec its own twice."""
    if {"encoder", "decoder"} <= config.keys():
        return config["encoder"], config["decoder"]
    return config, config


def half(module: nn.Module, end: str) -> nn.Module:
    """The module that is a codec's `end`, "encoder" or "decoder": of a pair that half, of another codec the whole."""
    return getattr(module, HALVES[end], module)


class Codec(Protocol):
    stride: int  # pixels per latent cell
    channels: int  # of the latent

    def encode(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1], H and W multiples of `stride` -> scaled latent (B, channels, H / stride, W / stride)."""
        ...

    def decode(self, latent: Tensor) -> Tensor:
        """Scaled latent (B, channels, h, w) -> (B, 3, h stride, w stride), about [-1, 1], not clipped."""
        ...


class GuidedCodec(Codec, Protocol):
    """A codec whose decoder sees the photograph beside the latent; `decode`, which has none, is a ValueError."""

    def decode_guided(self, latent: Tensor, image: Tensor) -> Tensor:
        """As `decode`; image (B, 3, h stride, w stride) in [-1, 1] is what the latent was predicted for."""
        ...


def is_guided(codec: Codec) -> bool:
    return hasattr(codec, "decode_guided")


def decode(codec: Codec, latent: Tensor, image: Tensor | None) -> Tensor:
    """`codec.decode`, with the image beside it where the codec wants one. ValueError where there is none then."""
    if not is_guided(codec):
        return codec.decode(latent)
    if image is None:
        raise ValueError("this codec's decoder is guided by the photograph, and there is none beside the latent")
    return cast(GuidedCodec, codec).decode_guided(latent, image)


class CodecPlugin(PartPlugin, Protocol):
    """Of each codec's `PLUGIN`."""

    output: str  # what it encodes to, which is a backbone's `input`: "latent" or "pixels"
    encodes: bool = True  # False: a decoder alone, for a pair

    def wrap(self, module: nn.Module | None) -> Codec:
        """The module (None for a codec without weights) as a Codec; shares its weights. ValueError for another module."""
        ...


CODECS = Registry[CodecPlugin](__name__, "codec", "genpercept.codecs", CodecPlugin)
find = CODECS.find


def input_dtype(module: nn.Module) -> torch.dtype:
    """The dtype in which a module takes its input."""
    return next(module.parameters()).dtype
