"""Stable Diffusion's U-Net on rows of one image that see each other: joint depth and normals (GeoWizard, Fu et al. 2024).

Each row denoises the map of one task beside the same image. In every self-attention the tokens of all rows of an image are
joined; what tells the rows apart is a class embedding. The rows of a batch of B images are the first task's of all of them,
then the second's, so that rows i and i + B belong together. Tensors and config.json are diffusers' own, whose class takes them
without a word and lets no row see another.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from genpercept.core.values import Features
from genpercept.models.backbones import BACKBONES, BackbonePlugin
from genpercept.models.backbones._unet import SD21UNet

ROWS = 2  # of one image


class JointAttention(Attention):
    """Self-attention over the tokens of all rows of an image; whatever processor computes it."""

    @classmethod
    def of(cls, attention: Attention) -> JointAttention:
        """The same layer, over its weights, joined."""
        joined = cls.__new__(cls)
        joined.__dict__ = attention.__dict__
        return joined

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """(ROWS B, N, C) -> the same shape; queries, keys and values of rows i, i + B, ... are one sequence, in this order.

        ValueError for rows that are not pairs, and for what self-attention does not have.
        """
        if encoder_hidden_states is not None or attention_mask is not None:
            raise ValueError("joint attention is of an image's own tokens: it takes neither a context nor a mask")
        if len(hidden_states) % ROWS:
            raise ValueError(f"{len(hidden_states)} rows: joint attention needs {ROWS} of each image")
        rows = hidden_states.unflatten(0, (ROWS, -1)).transpose(0, 1)  # (B, ROWS, N, C)
        answer: Tensor = super().forward(rows.flatten(1, 2), **kwargs)
        return answer.unflatten(1, (ROWS, -1)).transpose(0, 1).flatten(0, 1)


class JointUNet(SD21UNet):
    """The maps of ROWS tasks lie beside each other in the channels of its input and its output, as a paradigm has them."""

    def join(self) -> JointUNet:
        """Every self-attention of its transformer blocks joined, in place. Returns it."""
        for block in self.modules():
            if isinstance(block, BasicTransformerBlock) and block.attn1 is not None:
                block.attn1 = JointAttention.of(block.attn1)
        return self

    @property
    def in_channels(self) -> int:
        """The image's latent and one of each row."""
        return self._cells * (1 + ROWS)

    @property
    def pyramid_channels(self) -> tuple[int, ...]:
        return tuple(ROWS * channels for channels in super().pyramid_channels)

    @property
    def _cells(self) -> int:
        """Channels of one latent."""
        return int(self.config["in_channels"]) // 2

    def forward_features(
        self,
        x: Tensor,
        t: Tensor,
        context: Tensor,
        *,
        latent: bool = True,
        class_labels: Tensor | None = None,
        residuals: Sequence[Tensor] = (),
    ) -> Features:
        """x (B, C + ROWS C, h, w): the image's latent, then each row's; t (B,) or (); context (B, tokens, width).

        class_labels (B, ROWS L): the rows' labels beside each other. Returns the rows' outputs beside each other, (B, ROWS C,
        h, w), and pyramids likewise. ValueError without labels.
        """
        if class_labels is None:
            raise ValueError("a U-Net of joint rows needs class_labels, which tell it which row is which")
        image, *rows = x.split(self._cells, dim=1)
        stacked = torch.cat([torch.cat([image, row], dim=1) for row in rows])
        labels = torch.cat(class_labels.chunk(ROWS, dim=1))
        times = t.repeat(ROWS) if t.ndim else t
        found = super().forward_features(
            stacked, times, context.repeat(ROWS, 1, 1), latent=latent, class_labels=labels, residuals=residuals
        )
        pyramid = tuple(_beside(level) for level in found.pyramid)
        return Features(None if found.latent is None else _beside(found.latent), pyramid, found.size)


def _beside(rows_BCHW: Tensor) -> Tensor:
    """(ROWS B, C, h, w) -> (B, ROWS C, h, w)."""
    return torch.cat(rows_BCHW.chunk(ROWS), dim=1)


class SD21Joint(BackbonePlugin):
    name = "sd21_joint"
    class_name = "UNet2DConditionModel"
    input = "latent"
    folder = "unet"

    def recognise(self, config: dict) -> bool:
        """Never: no base has rows."""
        return False

    def check(self, config: dict, path: Path) -> None:
        BACKBONES.find("sd21").check(config, path)

    def build(self, config: dict) -> nn.Module:
        if config.get("class_embed_type") != "projection":
            raise ValueError("a U-Net of joint rows has a class embedding, class_embed_type 'projection'")
        return cast(JointUNet, JointUNet.from_config(config)).join()

    def adapt(self, module: nn.Module, channels: int) -> nn.Module:
        """ValueError for another number of channels: which rows would be new, nothing says."""
        if cast(JointUNet, module).in_channels != channels:
            raise ValueError(f"a denoiser of {ROWS} joint rows cannot be given {channels} input channels")
        return module


PLUGIN = SD21Joint()
