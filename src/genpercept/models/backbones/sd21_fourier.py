"""Stable Diffusion's U-Net with a block behind its middle that filters frequencies, too (DepthMaster, Song et al. 2025).

The block is a Fourier branch beside a spatial one, "Fourier Enhancement" in the paper. Written from the facts in
tests/golden/depthmaster/README.md, and tested against the public code's answers.
"""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genpercept.core.modules import config_of
from genpercept.models.backbones import BACKBONES, BackbonePlugin

_GROUPS = 8  # of the normalisation
# Imaginary part of a frequency whose own is 0: its square is 0 in float32, and the angle of a negative real one is +pi for
# sure. Rounding errors, or a zero's sign, would choose between +pi and -pi, by machine and runtime.
_NOTHING = 1e-30


class FourierBlock(nn.Module):
    """(B, C, h, w) -> (B, C, h, w), any h and w: two branches over the normalised map, joined by a 1 x 1 convolution.

    Spatial: two convolutions beside an identity. Fourier: amplitude and angle of the map's spectrum, each through a
    convolution over the frequencies, and back. Tensors are named as DepthMaster's files name them.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()

        def conv(edge: int, inputs: int = channels) -> nn.Conv2d:
            return nn.Conv2d(inputs, channels, edge, padding=edge // 2)

        self.norm = nn.GroupNorm(_GROUPS, channels)
        self.conv_f1, self.conv_f2, self.conv_f3, self.conv_f4 = conv(3), conv(3), conv(1), conv(3)
        self.conv_s1, self.conv_s2 = conv(3), conv(3)
        self.fuse = conv(1, 2 * channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = self.norm(x_BCHW)
        spatial = x + self.conv_s2(F.silu(self.conv_s1(x)))
        y = F.silu(self.conv_f1(x))
        fourier = self.conv_f3(y + self._filtered(y))
        return self.fuse(torch.cat([spatial, fourier], 1))

    def _filtered(self, y_BCHW: Tensor) -> Tensor:
        """The map whose amplitudes and angles are those of `y`, filtered. The transforms are computed in float32."""
        own = y_BCHW.dtype
        with _full_precision(y_BCHW.device.type):
            re, im = spectrum(y_BCHW.float())
            power = re * re + im * im
            none = power == 0
            amplitude = torch.where(none, 0.0, torch.where(none, 1.0, power).sqrt())  # whose gradients are finite
            angle = torch.atan2(im, torch.where(none, 1.0, re))
        amplitude = F.silu(self.conv_f2(amplitude.to(own))).float()
        angle = F.silu(self.conv_f4(angle.to(own))).float()
        with _full_precision(y_BCHW.device.type):
            return image_of(amplitude * angle.cos(), amplitude * angle.sin(), y_BCHW.shape[-1]).to(own)


def spectrum(x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Real and imaginary part, (B, C, H, W // 2 + 1) each, of the orthonormal real Fourier transform in H and W, float32.

    As `torch.fft.rfft2(x, norm="ortho")`, by products with small matrices: the maps behind a U-Net's middle are small, and
    graphs for other runtimes have no complex numbers. Imaginary parts that are 0 for any map are a tiny positive number.
    """
    h, w = x_BCHW.shape[-2:]
    (cos_y, sin_y), (cos_x, sin_x) = _waves(h, h, x_BCHW.device), _waves(w, w // 2 + 1, x_BCHW.device)
    re, im = x_BCHW @ cos_x, -(x_BCHW @ sin_x)
    re, im = cos_y.mT @ re + sin_y.mT @ im, cos_y.mT @ im - sin_y.mT @ re
    real_y, real_x = (_is_real(size, count, im.device) for size, count in ((h, h), (w, w // 2 + 1)))
    return re, torch.where(real_y[:, None] & real_x, _NOTHING, im)


def image_of(re: Tensor, im: Tensor, width: int) -> Tensor:
    """The map (B, C, H, `width`) of such a spectrum, as `torch.fft.irfft2(..., norm="ortho")` gives it."""
    h, columns = re.shape[-2:]
    (cos_y, sin_y), (cos_x, sin_x) = _waves(h, h, re.device), _waves(width, columns, re.device)
    re, im = cos_y @ re - sin_y @ im, cos_y @ im + sin_y @ re
    # the other half of the columns mirrors these, but for those that are real
    twice = torch.where(_is_real(width, columns, re.device), 1.0, 2.0)
    return (re * twice) @ cos_x.mT - (im * twice) @ sin_x.mT


def _waves(size: int, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines (size, count) of `count` frequencies over `size` places, orthonormal; zeros are exact."""
    turn = torch.outer(torch.arange(size, device=device), torch.arange(count, device=device)) % size
    angle = turn.float() * (2 * math.pi / size)
    sine = torch.where(turn * 2 % size == 0, 0.0, angle.sin())
    return angle.cos() / size**0.5, sine / size**0.5


def _is_real(size: int, count: int, device: torch.device) -> Tensor:
    """(count,) bool: the frequencies that are their own mirror image."""
    return torch.arange(count, device=device) * 2 % size == 0


def _full_precision(device: str) -> contextlib.AbstractContextManager[object]:
    """Without autocast, which would compute the transforms in half precision."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else contextlib.nullcontext()


class SD21Fourier(BackbonePlugin):
    name = "sd21_fourier"
    class_name = (
        "UNet2DConditionModel"  # as DepthMaster's own code calls its class; diffusers' would leave the block out
    )
    input = "latent"
    folder = "unet"
    foldable = True

    def recognise(self, config: dict) -> bool:
        """Never: its config.json is Stable Diffusion's, and no base has the block."""
        return False

    def check(self, config: dict, path: Path) -> None:
        BACKBONES.find("sd21").check(config, path)

    def build(self, config: dict) -> nn.Module:
        unet: Any = BACKBONES.find("sd21").build(config)
        unet.add_bottleneck(FourierBlock(int(config_of(unet)["block_out_channels"][-1])))
        return unet

    def adapt(self, module: nn.Module, channels: int) -> nn.Module:
        return BACKBONES.find("sd21").adapt(module, channels)


PLUGIN = SD21Fourier()
