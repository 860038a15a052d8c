"""Augmentation of one record: crop and resize, mirror, colour, blur, noise, JPEG. Labels stay right.

numpy and Pillow only: they release the interpreter lock, so a thread beside the training step does it. All randomness
comes from one generator keyed by (seed, step, sample), in a fixed order of draws.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFilter

from genpercept.core.label_rules import Crop, gone
from genpercept.core.labels import Label
from genpercept.training.recipe import Augment
from genpercept.training.samples.records import Record, labels_of

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def augment(record: Record, size: tuple[int, int], options: Augment, rng: np.random.Generator) -> Record:
    """The record cropped and resized to `size` (height, width), mirrored or not, its image's colours changed."""
    out = crop(record, size, options.crop, rng, options.centre)
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

    It lies anywhere, or in the middle. Bilinear (antialiased when shrinking) for the image, as its row says for a label: for
    most the nearest pixel's, since a mean across a depth edge is no depth. What is no map goes by the rule of its row.
    """
    height, width = record["image"].shape[:2]
    largest = min(height / size[0], width / size[1])
    factor = largest * float(rng.uniform(*scale))
    box_h, box_w = size[0] * factor, size[1] * factor
    down, right = (0.5, 0.5) if centre else (float(rng.random()), float(rng.random()))
    top, left = down * (height - box_h), right * (width - box_w)
    lost = [name for name, row, _ in labels_of(record) if row.crop is gone]
    out = {key: value for key, value in record.items() if key not in lost}
    if (height, width) == tuple(size) and factor == 1.0:
        return out
    box = (left, top, min(left + box_w, width), min(top + box_h, height))
    rows = np.clip((top + (np.arange(size[0]) + 0.5) * factor).astype(np.int64), 0, height - 1)
    columns = np.clip((left + (np.arange(size[1]) + 0.5) * factor).astype(np.int64), 0, width - 1)
    for name, row, value in labels_of(out):
        if row.crop is not None:
            out[name] = row.crop(value, Crop(left, top, factor, size))
        elif row.resampling == "bilinear":
            out[name] = _resized(row, value, size, box)
        else:
            out[name] = value[rows[:, None], columns]
    image = Image.fromarray(np.ascontiguousarray(record["image"]))
    out["image"] = np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box))
    return out


def _resized(
    row: Label, values: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float]
) -> np.ndarray:
    """A map (H, W[, C]) resized as the image is. A pixel without a value (NaN) leaves none in its surroundings."""
    planes = np.atleast_3d(np.asarray(values, np.float32))
    resized = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(planes[..., c])).resize(
                (size[1], size[0]), Image.Resampling.BILINEAR, box=box
            )
        )
        for c in range(planes.shape[-1])
    ]
    return (np.stack(resized, -1) if row.channels > 1 else resized[0]).astype(row.dtype)


def mirror(record: Record) -> Record:
    """Left and right exchanged, and what that does to the values of a label: normals' x negated, joints swapped."""
    out = dict(record)
    width = record["image"].shape[1]
    out["image"] = np.ascontiguousarray(record["image"][:, ::-1])
    for name, row, value in labels_of(record):
        mirrored = np.ascontiguousarray(value[:, ::-1]) if row.channels else value
        out[name] = row.mirror(mirrored, width) if row.mirror else mirrored
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
