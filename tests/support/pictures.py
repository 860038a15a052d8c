"""Images of random pixels."""

from __future__ import annotations

import numpy as np


def picture(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """(height, width, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
