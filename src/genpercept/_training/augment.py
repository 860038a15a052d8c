"""Augmentation of one record: crop and resize, mirror, colour, blur, noise, JPEG. Labels stay right.

numpy and Pillow only: they release the interpreter lock, so a thread beside the training step does it. All randomness
comes from one generator keyed by (seed, step, sample), in a fixed order of draws.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFilter

from genpercept._training.records import MAPS, Record
from genpercept.recipe import Augment

# COCO's left and right joints, exchanged by a mirror.
_MIRRORED_JOINTS = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def augment(record: Record, size: tuple[int, int], options: Augment, rng: np.random.Generator) -> Record:
    """The record cropped and resized to `size` (height, width), mirrored or not, its image's colours changed. Boxes go."""
    out = crop({k: v for k, v in record.items() if k != "boxes"}, size, options.crop, rng, options.centre)
    if rng.random() < options.flip:
        out = mirror(out)
    image = out["image"]
    if options.colour or options.grayscale:
        image = colour(image, options.colour, rng.random() < options.grayscale, rng)
    if rng.random() < options.blur:
        image = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 2.0)))))
    if rng.random() < options.noise:
        image = noise(image, float(rng.uniform(0.005, 0.06)), rng)
    if rng.random() < options.jpeg:
        image = jpeg(image, int(rng.integers(25, 91)))
    return {**out, "image": image}


def crop(
    record: Record, size: tuple[int, int], scale: tuple[float, float], rng: np.random.Generator, centre: bool = False
) -> Record:
    """A box of `size`'s aspect, `scale` of the largest that fits, resized to `size`. Angles, so normals, are kept.

    It lies anywhere, or in the middle. Bilinear (antialiased when shrinking) for the image, nearest for the labels: a mean
    across a depth edge is no depth.
    """
    height, width = record["image"].shape[:2]
    largest = min(height / size[0], width / size[1])
    factor = largest * float(rng.uniform(*scale))
    box_h, box_w = size[0] * factor, size[1] * factor
    down, right = (0.5, 0.5) if centre else (float(rng.random()), float(rng.random()))
    top, left = down * (height - box_h), right * (width - box_w)
    if (height, width) == tuple(size) and factor == 1.0:
        return record
    out = dict(record)
    box = (left, top, min(left + box_w, width), min(top + box_h, height))
    image = Image.fromarray(np.ascontiguousarray(record["image"]))
    out["image"] = np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box))
    rows = np.clip((top + (np.arange(size[0]) + 0.5) * factor).astype(np.int64), 0, height - 1)
    columns = np.clip((left + (np.arange(size[1]) + 0.5) * factor).astype(np.int64), 0, width - 1)
    for key in MAPS:
        if record.get(key) is not None:
            out[key] = record[key][rows[:, None], columns]
    if record.get("intrinsics") is not None:
        out["intrinsics"] = _cropped_intrinsics(record["intrinsics"], top, left, factor)
    if record.get("keypoints") is not None:
        out["keypoints"] = _cropped_keypoints(record["keypoints"], top, left, factor, size)
    return out


def _cropped_intrinsics(intrinsics: np.ndarray, top: float, left: float, factor: float) -> np.ndarray:
    """Pixels' centres lie at half-integers: the edge of the image is at 0."""
    k = np.array(intrinsics, np.float32)
    k[0, 2] -= left
    k[1, 2] -= top
    k[:2] /= factor
    return k


def _cropped_keypoints(
    keypoints: np.ndarray, top: float, left: float, factor: float, size: tuple[int, int]
) -> np.ndarray:
    """Joints moved with the box; those outside it become unlabelled (visibility 0)."""
    points = np.array(keypoints, np.float32)
    points[..., :2] = (points[..., :2] - (left, top)) / factor
    x, y = points[..., 0], points[..., 1]
    points[(x < 0) | (y < 0) | (x > size[1]) | (y > size[0]) | (keypoints[..., 2] == 0)] = 0
    return points


def mirror(record: Record) -> Record:
    """Left and right exchanged: normals' x negated, joints swapped, principal point moved."""
    out = dict(record)
    width = record["image"].shape[1]
    for key in ("image", *MAPS):
        if record.get(key) is not None:
            out[key] = np.ascontiguousarray(record[key][:, ::-1])
    if record.get("normals") is not None:
        out["normals"] = out["normals"] * np.array([-1, 1, 1], out["normals"].dtype)
    if record.get("intrinsics") is not None:
        k = np.array(record["intrinsics"], np.float32)
        k[0, 2] = width - k[0, 2]
        out["intrinsics"] = k
    if record.get("keypoints") is not None:
        points = np.array(record["keypoints"], np.float32)[..., _MIRRORED_JOINTS, :]
        labelled = points[..., 2] > 0
        points[..., 0] = np.where(labelled, width - points[..., 0], points[..., 0])
        out["keypoints"] = points
    return out


def colour(image: np.ndarray, strength: float, gray: bool, rng: np.random.Generator) -> np.ndarray:
    """Gamma, white balance, brightness, contrast, saturation and hue, each drawn within `strength`; uint8 in and out."""
    draw = rng.uniform(-1, 1, 9) * strength
    # Gamma, white balance, brightness and contrast act per channel and value: one table of 256 entries does them all.
    table = np.linspace(0, 1, 256, dtype=np.float64)[:, None] ** np.exp(0.7 * draw[0])
    table = table * np.exp(0.3 * draw[1:4])[None] * np.exp(0.5 * draw[4])
    table = ((table - 0.5) * np.exp(0.5 * draw[5]) + 0.5 + 0.15 * draw[6]).clip(0, 1).astype(np.float32)
    x = np.stack([table[:, c][image[..., c]] for c in range(3)], axis=-1)
    matrix = _hue_saturation(np.exp(1.2 * draw[7]) if not gray else 0.0, 0.6 * draw[8] * np.pi)
    return (x @ matrix.T * 255 + 0.5).clip(0, 255).astype(np.uint8)


def _hue_saturation(saturation: float, angle: float) -> np.ndarray:
    """3 x 3: colours turned by `angle` radians about the gray axis, then their distance from gray scaled."""
    c, s = np.cos(angle), np.sin(angle) / np.sqrt(3)
    a = (1 - c) / 3
    turn = np.array([[c + a, a - s, a + s], [a + s, c + a, a - s], [a - s, a + s, c + a]])
    gray = np.tile(_LUMA, (3, 1))
    return ((gray + saturation * (np.eye(3) - gray)) @ turn).astype(np.float32)


def noise(image: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian sensor noise of standard deviation `sigma` of the full range."""
    grain = rng.standard_normal(image.shape, np.float32) * np.float32(255 * sigma)
    return (image + grain + 0.5).clip(0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))
