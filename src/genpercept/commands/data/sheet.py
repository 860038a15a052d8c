"""Samples as pictures: an image beside its labels, many on a sheet. For looking at, never for measuring."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw

from genpercept.core import classes
from genpercept.core.labels import LABELS, Label, finite
from genpercept.core.names import choose
from genpercept.core.values import Sample
from genpercept.imaging.colour import INVALID, colourise
from genpercept.imaging.prediction import KINDS

_HEIGHT, _GAP, _CAPTION = 120, 4, 14
_QUANTILES = (0.02, 0.98)  # between which a label without limits fills the range of its picture
_OPACITY = 0.6  # of a label that is laid over the image


def sheet(
    samples: Sequence[Sample], captions: bool = False, table: str | None = None, overlaid: bool = False
) -> Image.Image:
    """Each sample's image and labels in a row, its name above where captions are wanted.

    table: the class table whose colours are used where a sample's meta["classes"] names none. overlaid: maps lie on the
    image, so that a shift or an inversion is seen.
    """
    rows = [[_thumbnail(picture) for picture in pictures(sample, table, overlaid)] for sample in samples]
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


def pictures(sample: Sample, table: str | None = None, overlaid: bool = False) -> list[Image.Image]:
    """The image and a picture of each label that the sample has, of its proportions; see `sheet`."""
    image = (sample.image.permute(1, 2, 0).numpy() * 255).round().clip(0, 255).astype(np.uint8)
    found = [Image.fromarray(image)]
    there = sample.labels()
    for name, row in LABELS.items():
        if not row.kind or name not in there:
            continue
        choose("kind", row.kind, KINDS, f"label {name!r}: ")
        values = row.last(there[name].numpy())
        if not row.channels:
            found.append(_on_image(row, values, sample, found[0]))
        elif row.tint:
            share = (_OPACITY * values)[..., None]
            found.append(
                Image.fromarray((image * (1 - share) + np.asarray(row.tint, np.float32) * share).astype(np.uint8))
            )
        else:
            known = row.where(values, sample.valid_or_all().numpy()) & finite(values)
            colours = _colours(values, str(sample.meta.get("classes") or table or "")) if row.classes else None
            found.append(colourise(_as_kind(row, values, known), row.kind, known, None, colours))
            if overlaid and (row.channels == 1 or row.axes):  # colours show for themselves where they lie
                found[-1] = _laid_over(image, row, values, known, found[-1])
    return found


def _laid_over(
    image: np.ndarray, row: Label, values: np.ndarray, known: np.ndarray, picture: Image.Image
) -> Image.Image:
    """The image in grey, under the label: a share of the pixels in red, all else in its colours where it is known."""
    grey = np.repeat(np.asarray(Image.fromarray(image).convert("L"))[..., None], 3, -1).astype(np.float32)
    if row.summary == "share":
        colours, opacity = np.array([230, 30, 30], np.float32), _OPACITY * values.astype(np.float32)
    else:
        colours, opacity = np.asarray(picture.convert("RGB"), np.float32), _OPACITY * known.astype(np.float32)
    share = opacity[..., None]
    return Image.fromarray((grey * (1 - share) + colours * share).round().astype(np.uint8))


def _as_kind(row: Label, values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Values of a map as its kind has them: from the label's limits, or its quantiles, to those of the kind."""
    limits = KINDS[row.kind].limits
    if limits is None or row.limits == limits:
        return values.astype(np.float32) if values.dtype == np.bool_ else values
    inside = values[known]
    low, high = row.limits or (np.quantile(inside, _QUANTILES) if inside.size else (0.0, 1.0))
    filled = np.where(known if values.ndim == 2 else known[..., None], values, low)
    unit = ((filled - low) / max(high - low, 1e-6)).clip(0, 1)
    return unit * (limits[1] - limits[0]) + limits[0]


def _colours(ids: np.ndarray, table: str) -> np.ndarray | None:
    """The table's colours; None where there is no table for these ids: then they get ours."""
    try:
        colours = classes.find(table).colours
    except ValueError:
        return None
    return colours if ids.max(initial=0) < len(colours) else None


def _on_image(row: Label, values: np.ndarray, sample: Sample, image: Image.Image) -> Image.Image:
    """Points and boxes on the image as small as it is shown, so that lines stay lines; a crowd's box in grey."""
    small = image.resize((max(1, round(image.width * 2 * _HEIGHT / image.height)), 2 * _HEIGHT), Image.Resampling.BOX)
    scale = torch.tensor([small.width / image.width, small.height / image.height])
    points = torch.from_numpy(values).clone()
    points[..., :2] *= scale
    canvas = colourise(points.numpy(), row.kind, image=np.asarray(small))
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
