"""Miniatures of the five sets of suite depth-zero-shot under one root, frames of the sizes that their protocols want."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

DRAW = np.random.default_rng(0)


def zero_shot(data: Path, count: int = 2) -> Path:
    """data/{kitti,nyuv2,scannet,diode,eth3d}, `count` frames each, ramps of depth with noise. Returns `data`."""
    for i in range(count):
        drive = "2011_09_26_drive_0002_sync"
        metres = _image(data / f"kitti/2011_09_26/{drive}/image_02/data/{i:010d}.png", (375, 1242))
        _uint16(data / f"kitti/{drive}/proj_depth/groundtruth/image_02/{i:010d}.png", metres * 256)
        metres = _image(data / f"nyuv2/test/kitchen_0004/rgb_{i:04d}.png", (480, 640))
        _uint16(data / f"nyuv2/test/kitchen_0004/depth_{i:04d}.png", metres * 1000 / 8)
        metres = _image(data / f"scannet/scans/scene0406_02/color/{i}.jpg", (24, 32))
        _uint16(data / f"scannet/scans/scene0406_02/depth/{i}.png", metres * 1000 / 8)
        stem = data / f"diode/val/indoors/scene_00021/scan_00189/0002{i}_indoors"
        metres = _image(Path(f"{stem}.png"), (24, 32))
        np.save(f"{stem}_depth.npy", metres[..., None])
        np.save(f"{stem}_depth_mask.npy", np.ones_like(metres))
        metres = _image(data / f"eth3d/office/images/dslr_images/DSC_{i:04d}.JPG", (24, 36))
        raw = data / f"eth3d/office/ground_truth_depth/dslr_images/DSC_{i:04d}.JPG"
        raw.parent.mkdir(parents=True, exist_ok=True)
        raw.write_bytes(metres.tobytes())
    (data / "scannet/scannetv2_val.txt").write_text("scene0406_02\n")
    return data


def _image(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Draws a picture; returns a depth map for it, 2 to 50 m, float32."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(DRAW.integers(0, 256, (*size, 3), np.uint8)).save(path)
    ramp = np.linspace(50, 2, size[0], dtype=np.float32)[:, None]
    return (ramp * DRAW.uniform(0.9, 1.0, size)).astype(np.float32)


def _uint16(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint16)).save(path)
