"""A folder of images with slanted planes as their labels, as the data set `folder` reads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

NORMAL = (0.6, 0.0, 0.8)


def planes(
    root: Path, count: int, size: tuple[int, int], normals: bool = False, intrinsics: Sequence[float] = ()
) -> Path:
    """`root` with `count` images of random pixels, and depths in metres that rise to the right and, from 1 on, downwards.

    size: (height, width). normals: also NORMAL everywhere. intrinsics: fx, fy, cx, cy of all of them.
    """
    draw = np.random.default_rng(0)
    for kind in ("images", "depth", *(["normals"] if normals else [])):
        (root / kind).mkdir(parents=True)
    h, w = size
    for i in range(count):
        Image.fromarray(draw.integers(0, 256, (h, w, 3), np.uint8)).save(root / "images" / f"{i}.png")
        depth = 2 + np.add.outer(np.linspace(0, i, h), np.linspace(0, 1, w))
        np.save(root / "depth" / f"{i}.npy", depth.astype(np.float32))
        if normals:
            np.save(root / "normals" / f"{i}.npy", np.broadcast_to(np.float32(NORMAL), (h, w, 3)))
    if intrinsics:
        (root / "dataset.toml").write_text(f"intrinsics = {list(intrinsics)}")
    return root
