"""Cut-outs: the foreground alone, as RGBA, with its own colours estimated where it mixes with the background.

Multi-level foreground estimation (Germer et al. 2020), by PyMatting.
"""

from __future__ import annotations

import numpy as np

from genpercept.imaging import pymatting_parts


def cutout(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Image (H, W, 3) uint8 or float in [0, 1] and alpha (H, W) in [0, 1] -> RGBA (H, W, 4) uint8.

    Without the estimate, hair and glass keep the old background's colours. ValueError for sizes that differ, or when PyMatting
    is missing.
    """
    estimate = pymatting_parts.load("foreground.estimate_foreground_ml", "cut-outs").estimate_foreground_ml
    if image.shape[:2] != alpha.shape:
        raise ValueError(f"an image of {image.shape[:2]} pixels for an alpha of {alpha.shape}: give its own")
    rgb = image.astype(np.float64) / (255 if image.dtype == np.uint8 else 1)
    a = alpha.astype(np.float64).clip(0, 1)
    # One pixel has no neighbours to tell its colours from, and PyMatting divides by its size less one.
    foreground = rgb if a.size == 1 else np.asarray(estimate(rgb, a))
    return np.rint(np.concatenate([foreground.clip(0, 1), a[..., None]], -1) * 255).astype(np.uint8)
