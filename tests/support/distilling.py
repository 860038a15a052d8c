"""A small run of the stage distil: images without labels, and a recipe over them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def images(root: Path) -> Path:
    """The folder, with eight images of 40 x 32 pixels."""
    (root / "images").mkdir()
    draw = np.random.default_rng(0)
    for i in range(8):
        coarse = Image.fromarray(draw.integers(0, 256, (4, 5, 3), np.uint8))
        coarse.resize((40, 32), Image.Resampling.BICUBIC).save(root / "images" / f"{i}.png")
    return root


def recipe_of(folder: Path, base: Path, data: Path, *, steps: int, decay: float, distil: str = "") -> Path:
    """A recipe in `folder`, which caches latents beside it. decay: of the average; distil: lines of its section."""
    path = folder / "r.toml"
    path.write_text(
        f"""
stage = "distil"
steps = {steps}
[model]
base = "{base}"
[distil]
{distil}
[[data]]
name = "folder"
root = "{data}"
split = "all"
size = [32, 40]
[loader]
batch_size = 4
cache_dir = "{folder / "cache"}"
[optim]
lr = 3e-3
warmup = 2
[ema]
decay = {decay}
[validation]
every = 0
count = 4
split = "all"
[checkpoint]
every = 0
[speed]
threads = 1
[logging]
tensorboard = false
""",
        encoding="utf-8",
    )
    return path
