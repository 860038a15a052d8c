"""Synthetic defects on images of good products: blots, scratches and misplaced patches of the image's own texture.

After the ideas of CutPaste (Li et al. 2021) and DRAEM (Zavrtanik et al. 2021).
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

_LEAST = 4  # pixels that a defect has at least


def spoil(image_HWC: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W, 3) float in [0, 1] -> (image float32, defect (H, W) bool) with one to three defects on it."""
    image = np.array(image_HWC, np.float32)
    size = (image.shape[0], image.shape[1])
    defect = np.zeros(size, bool)
    for _ in range(int(rng.integers(1, 4))):
        mask = _blot(size, rng) if rng.random() < 0.6 else _scratch(size, rng)
        if mask.sum() < _LEAST:
            continue
        filling = _texture(image, rng) if rng.random() < 0.7 else _stain(image.shape, rng)
        opacity = rng.uniform(0.4, 1.0)
        soft = ndimage.gaussian_filter(mask.astype(np.float32), rng.uniform(0.3, 1.0))[..., None] * opacity
        image = image * (1 - soft) + filling * soft
        defect |= mask
    return image.clip(0, 1).astype(np.float32), defect


def _blot(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A ragged ellipse: noise of a few pixels' wavelength moves its edge."""
    h, w = size
    y, x = np.mgrid[:h, :w].astype(np.float32)
    radius = np.exp(rng.uniform(np.log(0.02), np.log(0.18))) * min(h, w)
    cy, cx = rng.uniform(0.1, 0.9) * h, rng.uniform(0.1, 0.9) * w
    angle, stretch = rng.uniform(0, np.pi), rng.uniform(1, 2.5)
    u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
    v = ((y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)) * stretch
    noise = ndimage.gaussian_filter(rng.standard_normal(size).astype(np.float32), max(1.0, radius / 3))
    noise /= noise.std() + 1e-6
    return np.hypot(u, v) < radius * (1 + 0.35 * noise)


def _scratch(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A wandering line of one to a few pixels."""
    h, w = size
    steps = int(rng.uniform(0.1, 0.6) * max(h, w))
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.08, steps))
    y = rng.uniform(0.1, 0.9) * h + np.cumsum(np.sin(heading))
    x = rng.uniform(0.1, 0.9) * w + np.cumsum(np.cos(heading))
    inside = (y >= 0) & (x >= 0) & (y < h) & (x < w)
    mask = np.zeros(size, bool)
    mask[y[inside].astype(int), x[inside].astype(int)] = True
    width = int(rng.integers(1, max(2, min(h, w) // 48) + 1))
    return ndimage.binary_dilation(mask, iterations=width)


def _texture(image_HWC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image itself, shifted and turned, its colours changed."""
    h, w = image_HWC.shape[:2]
    shifted = np.roll(image_HWC, (int(rng.integers(h)), int(rng.integers(w))), (0, 1))
    shifted = shifted[:: rng.choice((-1, 1)), :: rng.choice((-1, 1))]
    return (shifted * np.exp(rng.normal(0, 0.25, 3)) + rng.normal(0, 0.12)).astype(np.float32)


def _stain(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """One colour with some grain."""
    return (rng.uniform(0, 1, 3) + rng.normal(0, 0.05, shape)).astype(np.float32)
