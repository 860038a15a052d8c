"""From radiance to 8 bits: exposure, tone, white balance, contrast, vignette, blur, sensor noise."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from genpercept.world.jit import JIT
from genpercept.world.noise import lattice

# Look vector: key, highlight white, white balance (3), saturation, contrast, gamma, vignette, blur (pixels), luma
# noise, chroma noise, seed, haze (lifted blacks).
KEY, WHITE, BALANCE, SATURATION, CONTRAST, GAMMA, VIGNETTE, BLUR, LUMA, CHROMA, SEED, LIFT = (
    0,
    1,
    2,
    5,
    6,
    7,
    8,
    9,
    10,
    11,
    12,
    13,
)
LOOK = 14


@njit(**JIT)
def _tone(rgb, gain, look):
    """Radiance to display value in [0, 1], in place, (3,)."""
    for c in range(3):
        x = rgb[c] * gain * look[2 + c]
        x = x * (1 + x / (look[1] * look[1])) / (1 + x)
        rgb[c] = min(max(x, 0.0), 1.0) ** look[7]
    grey = 0.3 * rgb[0] + 0.59 * rgb[1] + 0.11 * rgb[2]
    for c in range(3):
        x = min(max(grey + look[5] * (rgb[c] - grey), 0.0), 1.0)
        x += look[6] * (x * x * (3 - 2 * x) - x)
        rgb[c] = look[13] + (1 - look[13]) * min(max(x, 0.0), 1.0)


@njit(**JIT)
def _blur(x, sigma):
    """Separable Gaussian of (H, W, C), replicated at the border."""
    height, width, channels = x.shape
    r = max(math.ceil(2.5 * sigma), 1)
    w = np.exp(-0.5 * (np.arange(-r, r + 1) / sigma) ** 2)
    w /= w.sum()
    tmp = np.zeros_like(x)
    for i in range(height):
        for j in range(width):
            for k in range(-r, r + 1):
                jj = min(max(j + k, 0), width - 1)
                for c in range(channels):
                    tmp[i, j, c] += w[k + r] * x[i, jj, c]
    out = np.zeros_like(x)
    for i in range(height):
        for k in range(-r, r + 1):
            ii = min(max(i + k, 0), height - 1)
            for j in range(width):
                for c in range(channels):
                    out[i, j, c] += w[k + r] * tmp[ii, j, c]
    return out


@njit(**JIT)
def expose(layers, alpha, look):
    """Develop both layers. Gives image, foreground, background (H, W, 3) uint8 and alpha (H, W) as composed.

    The layers are developed first and blended as display values, so image = alpha fg + (1 - alpha) bg holds up to
    sensor noise and rounding. Blur acts on the premultiplied layers, which keeps that true.
    """
    _, height, width, _ = layers.shape
    total = 0.0
    for i in range(height):
        for j in range(width):
            k = 1 if alpha[i, j] >= 0.5 else 0
            y = 0.3 * layers[k, i, j, 0] + 0.59 * layers[k, i, j, 1] + 0.11 * layers[k, i, j, 2]
            total += math.log(0.02 + y)
    gain = look[0] / math.exp(total / (height * width))
    pre = np.zeros((height, width, 7))
    rgb = np.zeros(3)
    for i in range(height):
        for j in range(width):
            dy, dx = (i + 0.5) / height - 0.5, (j + 0.5) / width - 0.5
            g = gain * (1 - look[8] * (dx * dx + dy * dy) * 2)
            a = alpha[i, j]
            for k in range(2):
                w = a if k == 1 else 1 - a
                if layers[k, i, j, 0] < 0:
                    continue
                for c in range(3):
                    rgb[c] = layers[k, i, j, c]
                _tone(rgb, g, look)
                # A hidden background still has its colour: kept unweighted where the object covers it whole.
                for c in range(3):
                    pre[i, j, 3 * k + c] = w * rgb[c] if 0 < a < 1 or w > 0 else 0.0
            pre[i, j, 6] = a
    if look[9] > 0.05:
        pre = _blur(pre, look[9])
    image, fg, bg = (
        np.zeros((height, width, 3), np.uint8),
        np.zeros((height, width, 3), np.uint8),
        np.zeros((height, width, 3), np.uint8),
    )
    out_alpha = np.zeros((height, width), np.float32)
    seed = int(look[12])
    for i in range(height):
        for j in range(width):
            a = min(max(pre[i, j, 6], 0.0), 1.0)
            a = 0.0 if a < 2e-3 else (1.0 if a > 0.998 else a)
            out_alpha[i, j] = a
            luma = _gauss(i, j, seed) * look[10]
            for c in range(3):
                f, b = pre[i, j, 3 + c], pre[i, j, c]
                x = f + b
                noise = (luma + _gauss(i, j, seed + 11 + c) * look[11]) * (0.35 + 0.65 * math.sqrt(max(x, 0.0)))
                image[i, j, c] = int(min(max(x + noise, 0.0), 1.0) * 255 + 0.5)
                if a > 0:
                    fg[i, j, c] = int(min(max(f / a, 0.0), 1.0) * 255 + 0.5)
                if a < 1:
                    bg[i, j, c] = int(min(max(b / (1 - a), 0.0), 1.0) * 255 + 0.5)
                elif layers[0, i, j, 0] >= 0:
                    bg[i, j, c] = _hidden(layers, look, gain, i, j, c, rgb)
    return image, fg, bg, out_alpha


@njit(**JIT)
def _hidden(layers, look, gain, i, j, c, rgb):
    """Display value of channel c of the background behind an opaque foreground."""
    for k in range(3):
        rgb[k] = layers[0, i, j, k]
    _tone(rgb, gain, look)
    return int(rgb[c] * 255 + 0.5)


@njit(**JIT)
def _gauss(i, j, seed):
    """Nearly normal noise of unit variance, from a hash of the pixel."""
    s = lattice(i, j, 0, seed) + lattice(i, j, 1, seed) + lattice(i, j, 2, seed) + lattice(i, j, 3, seed)
    return (s - 2.0) * 1.732
