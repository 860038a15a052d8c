"""Detectors: find the people whose pose is asked for. Each module's PLUGIN loads a model and answers boxes."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from genpercept.core.registry import Registry


class Detector(Protocol):
    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Image (H, W, 3) uint8 -> boxes of people (N, 5) float32: x, y, width, height in pixels, score in [0, 1]."""
        ...


class DetectorPlugin(Protocol):
    name: str
    model: str  # the default hub id

    def load(self, model: str | None = None, device: str = "cpu", threshold: float = 0.5) -> Detector:
        """The detector of a folder or hub id (None: the default). ValueError when there is none, or none that knows people."""
        ...


DETECTORS = Registry[DetectorPlugin](__name__, "detector", "genpercept.detectors", DetectorPlugin)
find = DETECTORS.find
