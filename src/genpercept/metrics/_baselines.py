"""Answers that look at no image: what a model must beat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def constant(shape: tuple[int, int]) -> NDArray[np.float32]:
    """(H, W): one depth everywhere. Least squares turns it into the mean of the truth."""
    return np.zeros(shape, np.float32)


def vertical_ramp(shape: tuple[int, int]) -> NDArray[np.float32]:
    """(H, W) in [0, 1]: far at the top, near at the bottom, as most photographs are. Aligned like a prediction."""
    return np.broadcast_to(np.linspace(1, 0, shape[0], dtype=np.float32)[:, None], shape)


def facing(shape: tuple[int, int], direction: tuple[float, float, float] = (0.0, 0.0, 1.0)) -> NDArray[np.float32]:
    """(H, W, 3): one normal everywhere, by default towards the viewer."""
    unit = np.asarray(direction, np.float32) / np.linalg.norm(direction)
    return np.broadcast_to(unit.astype(np.float32), (*shape, 3))
