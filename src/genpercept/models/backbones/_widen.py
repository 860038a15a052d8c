"""More input channels for a denoiser: its first convolution repeated and divided."""

from __future__ import annotations

import torch
from torch import nn


def widen_convolution(conv: nn.Conv2d, channels: int) -> None:
    """Let a convolution take `channels` input channels, in place.

    As Marigold does for 8 out of 4 (Ke et al. 2024, section 3.2): an input that repeats the old one gets the old answer, so
    activations keep their size. ValueError unless `channels` is a multiple of what it takes now.
    """
    times, rest = divmod(channels, conv.in_channels)
    if rest or times < 1:
        raise ValueError(f"cannot widen a denoiser of {conv.in_channels} input channels to {channels}: not a multiple")
    with torch.no_grad():
        weight = nn.Parameter(conv.weight.repeat(1, times, 1, 1) / times, requires_grad=conv.weight.requires_grad)
    conv.in_channels, conv.weight = channels, weight
