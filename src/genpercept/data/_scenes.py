"""Scenes of the synthetic world, rendered: what the data sets made of it share. It needs the extra `genpercept[synthetic]`."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from genpercept.core.values import Sample

if TYPE_CHECKING:
    from genpercept.world.stage import Shot

DOMAINS = ("indoor", "outdoor", "closeup", "mixed", "heldout_shapes", "heldout_textures")
SPLITS = ("train", "val", "test")


@dataclass
class Scenes:
    """A batch of pictures with their labels, numpy, batch first.

    image, foreground, background (B, H, W, 3) uint8; alpha (B, H, W) float32: alpha foreground + (1 - alpha)
    background is the image up to sensor noise and rounding (the background behind an opaque object is black unless
    rendered with mattes=True). depth (B, H, W) float32, metres along the optical axis, infinity at the sky. normals
    (B, H, W, 3) float32, unit, x right, y up, z towards the viewer, 0 at the sky. class_ids (B, H, W) uint8, indices
    of CLASSES. mask (the foreground object), defect, valid (B, H, W) bool. keypoints (B, 17, 3) float32: x, y in
    pixels and COCO visibility, all zero without a figure. box (B, 4) float32: x0, y0, x1, y1 of the figure's visible
    part. intrinsics (B, 3, 3) float32 in pixels; pixel (row i, column j) has its centre at (j + 0.5, i + 0.5).
    """

    image: np.ndarray
    depth: np.ndarray
    normals: np.ndarray
    class_ids: np.ndarray
    mask: np.ndarray
    alpha: np.ndarray
    foreground: np.ndarray
    background: np.ndarray
    keypoints: np.ndarray
    box: np.ndarray
    defect: np.ndarray
    valid: np.ndarray
    intrinsics: np.ndarray
    caption: list[str]
    domain: list[str]
    name: list[str]


def _shoot(seed: int, split: str, domain: str, index: int, size: tuple[int, int], mattes: bool) -> Shot:
    try:
        from genpercept.world import stage
    except ImportError as e:
        if (e.name or "").split(".")[0] not in ("numba", "skimage", "scipy"):
            raise
        raise ImportError(f"the synthetic world needs {e.name}: pip install 'genpercept[synthetic]'") from None
    return stage.shoot(seed, split, domain, index, *size, mattes)


def render(
    indices: Sequence[int],
    domain: str = "mixed",
    split: str = "train",
    size: tuple[int, int] = (128, 128),
    seed: int = 0,
    *,
    mattes: bool = False,
    workers: int = 1,
) -> Scenes:
    """Render pictures `indices` of a domain and split at size (height, width).

    mattes: also the background behind opaque foreground. workers: threads; the result does not depend on them. Raises
    ValueError for an unknown domain or split, a negative index or a size under 8 pixels; ImportError without the extra.
    """
    if domain not in DOMAINS:
        raise ValueError(f"domain {domain!r}: choose one of {', '.join(DOMAINS)}")
    if split not in SPLITS:
        raise ValueError(f"split {split!r}: choose one of {', '.join(SPLITS)}")
    if min(size) < 8:
        raise ValueError(f"size {size[0]} x {size[1]}: both edges must be at least 8 pixels")
    if len(indices) == 0 or min(indices) < 0:
        raise ValueError("indices must be a non-empty sequence of numbers from 0 up")
    jobs = [(seed, split, domain, int(i), size, mattes) for i in indices]
    if workers > 1 and len(jobs) > 1:
        shots = [_shoot(*jobs[0])]  # compiles and loads the textures before the threads start
        with ThreadPoolExecutor(workers) as pool:
            shots += pool.map(lambda job: _shoot(*job), jobs[1:])
    else:
        shots = [_shoot(*job) for job in jobs]
    stacked: dict[str, Any] = {
        f.name: np.stack([getattr(s, f.name) for s in shots])
        for f in fields(Scenes)
        if f.name not in ("caption", "domain", "name", "valid")
    }
    return Scenes(
        **stacked,
        valid=np.isfinite(stacked["depth"]),
        caption=[s.caption for s in shots],
        domain=[s.domain for s in shots],
        name=[f"{domain}-{split}-{seed}-{int(i):06d}" for i in indices],
    )


def sample_of(s: Scenes, i: int) -> Sample:
    figure = s.keypoints[i, :, 2].any()
    t = torch.from_numpy
    box = np.concatenate([s.box[i, :2], s.box[i, 2:] - s.box[i, :2]])[None]  # corners -> corner and size
    return Sample(
        name=s.name[i],
        image=t(s.image[i].transpose(2, 0, 1).astype(np.float32) / 255),
        depth=t(s.depth[i]),
        normals=t(s.normals[i].transpose(2, 0, 1).copy()),
        class_ids=t(s.class_ids[i].astype(np.int64)),
        mask=t(s.mask[i]),
        alpha=t(s.alpha[i]),
        keypoints=t(s.keypoints[i][None] if figure else np.zeros((0, 17, 3), np.float32)),
        boxes=t(box if figure else np.zeros((0, 4), np.float32)),
        defect=t(s.defect[i]),
        valid=t(s.valid[i]),
        intrinsics=t(s.intrinsics[i]),
        caption=s.caption[i],
        domain=s.domain[i],
    )


def samples(scenes: Scenes) -> list[Sample]:
    """The same pictures as Samples (channels first, tensors)."""
    return [sample_of(scenes, i) for i in range(len(scenes.name))]
