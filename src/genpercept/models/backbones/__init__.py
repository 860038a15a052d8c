"""Backbones: latents (or pixels) -> Features.

A backbone takes an input of so many channels, whose height and width are multiples of its `patch`: cells of a latent, or pixels
in [-1, 1] where the plugin's `input` says so. Who pairs it with a codec, a paradigm and a head reads what it declares here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, cast

from torch import Tensor, nn

from genpercept.checkpoints.parts import PartPlugin
from genpercept.core.registry import Registry
from genpercept.core.values import Features
from genpercept.models.adapters import ATTENTION


class Backbone(Protocol):
    in_channels: int  # of its input
    patch: int  # cells of the input, along each edge, that make one token; 1 for convolutional networks
    context_width: int | None  # of the tokens its cross-attention reads; None: it reads no text
    pyramid_channels: tuple[int, ...]  # of Features.pyramid, coarsest first
    pyramid_strides: tuple[int, ...]  # pixels of the image per cell, same order; behind an 8 x codec for latents
    empty_prompt: Tensor | None  # the embedding of "" that it knows by itself (1, tokens, width); most know none

    def forward_features(self, x: Tensor, t: Tensor, context: Tensor, *, latent: bool = True) -> Features:
        """x (B, in_channels, h, w), t (B,), context (B, tokens, width) -> Features; `latent=False` leaves the output out."""
        ...

    def choose_blocks(self, blocks: Sequence[int]) -> None:
        """Read the pyramid behind these blocks from now on; for plugins that `chooses_blocks`. ValueError for unknown ones."""
        ...

    def output_parameters(self) -> Iterable[nn.Parameter]:
        """Those that only the output latent reads: they get no gradient from a head on the pyramid."""
        ...


class BackbonePlugin(PartPlugin, Protocol):
    """Of each backbone's `PLUGIN`. class_name is transformers' architecture for one of its models."""

    input: str  # "latent" or "pixels"
    folder: str  # where a base and a saved model keep it; "" in a base: the base is the backbone alone
    lora_targets: tuple[str, ...] = ATTENTION  # ends of the names of its attention projections
    null_caption: str = ""  # the tensor of its files that is the empty prompt's embedding (tokens, width), where one is
    controlled: str = ""  # name of the backbone that is this one with a ControlNet beside it, where there is one
    # Whether its modules can be told behind which blocks to read, by choose_blocks(numbers)
    chooses_blocks: bool = False
    foldable: bool = False  # whether specialising can make constants of its timestep and its prompt

    def recognise(self, config: dict) -> bool:
        """Whether a config.json is of a base's module that this plugin takes."""
        ...

    def adapt(self, module: nn.Module, channels: int) -> nn.Module:
        """A base's module, in place, as a predictor's: for so many input channels. ValueError where it cannot be."""
        ...

    def control(self, module: nn.Module) -> nn.Module:
        """The module of the backbone that names this one in `controlled`, frozen, with a fresh ControlNet beside it.

        ValueError, by default, for a backbone that has none.
        """
        raise ValueError(f"backbone {self.name!r} has no ControlNet")


BACKBONES = Registry[BackbonePlugin](__name__, "backbone", "genpercept.backbones", BackbonePlugin)
find = BACKBONES.find


def as_backbone(module: nn.Module) -> Backbone:
    """The same module, of which it is known that a backbone's plugin built it."""
    return cast(Backbone, module)
