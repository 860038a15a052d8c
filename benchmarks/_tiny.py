"""A run small enough to be repeated: an autoencoder of 3,000 parameters on pictures of noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

RECIPE = """
stage = "autoencoder"
steps = {steps}
[model.codec_config]
block_out_channels = [8, 8]
norm_num_groups = 4
[[data]]
name = "folder"
root = "{data}"
split = "all"
size = [16, 16]
[autoencoder]
paint = {{ depth = 0.3 }}
[augment]
crop = [0.6, 1.0]
colour = 0.5
noise = 0.5
[loader]
batch_size = {batch}
micro_batch = {micro}
[optim]
lr = 3e-3
warmup = 5
[ema]
decay = 0.9
[validation]
every = 0
count = 2
split = "all"
[checkpoint]
every = {every}
[speed]
threads = 1
[logging]
tensorboard = false
seconds = 1000
"""


def write(folder: Path, steps: int, every: int, batch: int = 8, micro: int = 4) -> Path:
    """Pictures and a recipe under `folder`; the recipe's path."""
    draw = np.random.default_rng(0)
    for kind in ("images", "depth"):
        (folder / "data" / kind).mkdir(parents=True, exist_ok=True)
    for i in range(12):
        Image.fromarray(draw.integers(0, 256, (24, 24, 3), np.uint8)).save(folder / "data" / "images" / f"{i}.png")
        np.save(folder / "data" / "depth" / f"{i}.npy", draw.uniform(1, 5, (24, 24)).astype(np.float32))
    path = folder / "recipe.toml"
    path.write_text(
        RECIPE.format(steps=steps, every=every, batch=batch, micro=micro, data=folder / "data"), encoding="utf-8"
    )
    return path
