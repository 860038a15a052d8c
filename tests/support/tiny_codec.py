"""TAESD's layout with few channels and random weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from genpercept.models.codecs import CODECS

SMALL: dict[str, Any] = {
    "_class_name": "AutoencoderTiny",
    "encoder_block_out_channels": [8] * 4,
    "decoder_block_out_channels": [8] * 4,
    "num_encoder_blocks": [1, 1, 1, 1],
    "num_decoder_blocks": [1, 1, 1, 1],
}


def tiny(seed: int = 0, **changes: Any) -> nn.Module:
    torch.manual_seed(seed)
    return CODECS.find("tiny").build(SMALL | changes).eval()
