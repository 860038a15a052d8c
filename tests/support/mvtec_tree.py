"""MVTec AD in miniature: three categories in the published layout, each a product of its own with defects easy to see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CATEGORIES = ("cable", "grid", "wood")
KINDS = ("blot", "scratch")


def write(root: Path, size: int = 64, good: int = 10, tested: int = 4) -> Path:
    """`good` images in train/good; `tested` in test/good and in test/KIND of each kind, these with masks."""
    for number, category in enumerate(CATEGORIES):
        rng = np.random.default_rng(number)
        for part, count in (("train/good", good), ("test/good", tested)):
            for i in range(count):
                _save(root / category / part / f"{i:03d}.png", _product(number, size, rng))
        for kind in KINDS:
            for i in range(tested):
                image, mask = _spoilt(_product(number, size, rng), kind, rng)
                _save(root / category / "test" / kind / f"{i:03d}.png", image)
                _save(root / category / "ground_truth" / kind / f"{i:03d}_mask.png", mask)
    return root


def _product(number: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) uint8: a disc, a grid of bars, or rings, slightly different each time."""
    y, x = np.mgrid[:size, :size] / size - 0.5 + rng.uniform(-0.03, 0.03, (2, 1, 1))
    pattern = (
        np.clip(8 * (0.35 - np.hypot(x, y)), 0, 1),
        (np.cos(x * 40) > 0.3) * 0.5 + (np.cos(y * 40) > 0.3) * 0.5,
        0.5 + 0.5 * np.cos(60 * np.hypot(x + 0.6, y)),
    )[number]
    colour = np.array(((0.3, 0.5, 0.8), (0.7, 0.7, 0.6), (0.7, 0.5, 0.3))[number])
    image = 0.15 + 0.6 * pattern[..., None] * colour + rng.normal(0, 0.015, (size, size, 3))
    return np.rint(255 * image.clip(0, 1)).astype(np.uint8)


def _spoilt(image: np.ndarray, kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The image with a magenta blot or a white scratch, and where it is (0 or 255)."""
    size = len(image)
    y, x = np.mgrid[:size, :size]
    cy, cx = rng.uniform(0.3, 0.7, 2) * size
    if kind == "blot":
        defect, colour = np.hypot(y - cy, x - cx) < size * 0.12, (230, 20, 200)
    else:
        slope = rng.uniform(-1, 1)
        defect, colour = (np.abs(y - cy - slope * (x - cx)) < 1.6) & (np.abs(x - cx) < size * 0.3), (255, 255, 255)
    return np.where(defect[..., None], np.uint8(colour), image), np.where(defect, 255, 0).astype(np.uint8)


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
