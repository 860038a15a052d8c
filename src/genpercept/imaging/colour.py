"""Predictions as pictures to look at: never for measuring (that is what png16, npy and exr are for)."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from genpercept.imaging.kinds import KINDS
from genpercept.imaging.painters import INVALID

__all__ = ["INVALID", "colourise", "painted"]


def colourise(
    values: np.ndarray,
    kind: str,
    valid: np.ndarray | None = None,
    image: np.ndarray | None = None,
    legend: Any = None,
) -> Image.Image:
    """A Prediction's values as an RGB picture of their size; pixels that are not valid are grey (`INVALID`).

    Depth and disparity: near red, far blue. Normals: (n + 1) / 2. Classes: one colour each, of `legend` (C, 3) where
    given. Intrinsic images: side by side, light gamma-encoded, as `legend` (meta["targets"]) describes them. Masks and
    alpha: grey. Anomaly: dark to bright; scores outside [0, 1] from their lowest to their highest. Keypoints: skeletons
    on `image` (H, W, 3), on black without one. Other kinds: as their rows say. Raises ValueError for an unknown kind,
    and for one whose maps have no colours.
    """
    return Image.fromarray(painted(values, kind, valid, image, legend))


def painted(
    values: np.ndarray,
    kind: str,
    valid: np.ndarray | None = None,
    image: np.ndarray | None = None,
    legend: Any = None,
) -> np.ndarray:
    """What `colourise` makes a picture of, (H, W, 3) uint8."""
    paint = KINDS[kind].painter if kind in KINDS else None
    if paint is None:
        painted = (name for name, row in KINDS.items() if row.painter is not None)
        raise ValueError(f"kind {kind!r} has no colours: choose one of {', '.join(painted)}")
    return paint(values, valid, image, legend)
