"""Photographs whose red goes from left to right, and what a model that is their red channel says of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FOCAL_35 = 0xA405
METRES = {"scale": 6.0, "shift": 2.0}  # of the red channel in [0, 1]


def load_of(fake: Any) -> Callable[..., Any]:
    return lambda model, **options: fake


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("the model was loaded")


def ramp(seed: int = 0) -> np.ndarray:
    """(24, 32, 3) uint8 whose red goes from left to right."""
    image = np.zeros((24, 32, 3), np.uint8)
    image[..., 0] = np.linspace(10 + seed, 240, 32).astype(np.uint8)
    return image


def metres_of(image: np.ndarray) -> np.ndarray:
    return METRES["scale"] * image[..., 0] / 255.0 + METRES["shift"]


def save(folder: Path, name: str, exif: bool = False, orientation: int = 1, seed: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    tags = Image.Exif()
    tags[0x0112] = orientation
    if exif:
        tags.get_ifd(0x8769)[FOCAL_35] = 26
    Image.fromarray(ramp(seed)).save(folder / name, exif=tags)
    return folder / name
