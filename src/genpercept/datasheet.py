"""Samples as pictures: an image beside its labels, many on a sheet. For looking at, never for measuring."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw

from genpercept import classes
from genpercept.imaging.colour import INVALID, colourise
from genpercept.types import Sample

_HEIGHT, _GAP, _CAPTION = 120, 4, 14
_KINDS = {"depth": "depth_affine", "normals": "normals", "mask": "mask", "alpha": "alpha", "class_ids": "class_ids"}
_TINT = np.array((230, 30, 30), np.float32)  # of defects


def sheet(samples: Sequence[Sample], captions: bool = False, table: str | None = None) -> Image.Image:
    """Each sample's image and labels in a row, its name above where captions are wanted.

    table: the class table whose colours are used where a sample's meta["classes"] names none.
    """
    rows = [[_thumbnail(picture) for picture in pictures(sample, table)] for sample in samples]
    top = _CAPTION if captions else 0
    width = max(sum(p.width + _GAP for p in row) for row in rows)
    page = Image.new("RGB", (width, len(rows) * (_HEIGHT + _GAP + top)), "white")
    draw = ImageDraw.Draw(page)
    for i, (row, sample) in enumerate(zip(rows, samples, strict=True)):
        x, y = 0, i * (_HEIGHT + _GAP + top)
        if captions:
            draw.text((1, y + 1), _plain(sample.name, width), fill=(0, 0, 0))
        for picture in row:
            page.paste(picture, (x, y + top))
            x += picture.width + _GAP
    return page


def pictures(sample: Sample, table: str | None = None) -> list[Image.Image]:
    """The image and a picture of each label that the sample has, of its proportions."""
    image = (sample.image.permute(1, 2, 0).numpy() * 255).round().clip(0, 255).astype(np.uint8)
    found = [Image.fromarray(image)]
    for name, kind in _KINDS.items():
        label = getattr(sample, name)
        if label is None:
            continue
        values, valid = label.numpy(), None
        if name == "depth":
            valid = sample.valid_or_all().numpy() & np.isfinite(values)
            low, high = np.quantile(values[valid], (0.02, 0.98)) if valid.any() else (0.0, 1.0)
            values = ((np.where(valid, values, low) - low) / max(high - low, 1e-6)).clip(0, 1)
        elif name == "normals":
            values = values.transpose(1, 2, 0)
            valid = np.abs(values).sum(-1) > 0
        elif name == "mask":
            values = values.astype(np.float32)
        elif name == "class_ids":
            found.append(_classes(values, str(sample.meta.get("classes") or table or "")))
            continue
        found.append(colourise(values, kind, valid))
    if sample.trimap is not None:
        found.append(Image.fromarray(sample.trimap.numpy()).convert("RGB"))
    if sample.keypoints is not None:
        found.append(_people(sample, found[0]))
    if sample.defect is not None:
        share = np.where(sample.defect.numpy(), 0.6, 0.0)[..., None]
        found.append(Image.fromarray((image * (1 - share) + _TINT * share).astype(np.uint8)))
    return found


def _classes(ids: np.ndarray, table: str) -> Image.Image:
    """In the table's colours, or in colours that are ours where there is no table for these ids; grey: no class."""
    try:
        colours = classes.find(table).colours
    except ValueError:
        return colourise(ids, "class_ids", ids >= 0)
    if ids.max(initial=0) >= len(colours):
        return colourise(ids, "class_ids", ids >= 0)
    rgb = colours[np.maximum(ids, 0)]
    rgb[ids < 0] = INVALID
    return Image.fromarray(rgb)


def _people(sample: Sample, image: Image.Image) -> Image.Image:
    """Skeletons and boxes on the image as small as it is shown, so that lines stay lines; a crowd's box in grey."""
    assert sample.keypoints is not None
    small = image.resize((max(1, round(image.width * 2 * _HEIGHT / image.height)), 2 * _HEIGHT), Image.Resampling.BOX)
    scale = torch.tensor([small.width / image.width, small.height / image.height])
    people = sample.keypoints.clone()
    people[..., :2] *= scale
    canvas = colourise(people.numpy(), "keypoints", image=np.asarray(small))
    if sample.boxes is None:
        return canvas
    draw = ImageDraw.Draw(canvas)
    crowds = sample.meta.get("iscrowd") or [0] * len(sample.boxes)
    for (x, y, w, h), crowd in zip((sample.boxes * scale.repeat(2)).tolist(), crowds, strict=True):
        draw.rectangle((x, y, x + max(w, 0), y + max(h, 0)), outline=INVALID if crowd else (255, 255, 255))
    return canvas


def _thumbnail(picture: Image.Image) -> Image.Image:
    width = max(1, round(picture.width * _HEIGHT / picture.height))
    return picture.resize((width, _HEIGHT), Image.Resampling.BOX)


def _plain(name: str, width: int) -> str:
    """The name's end, as much of it as fits: what Pillow's small font can show."""
    letters = max(8, width // 7)
    text = name.encode("ascii", "replace").decode()
    return text if len(text) <= letters else f"...{text[-(letters - 3) :]}"
