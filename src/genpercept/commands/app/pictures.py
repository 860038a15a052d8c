"""What the page shows of a photograph and of an answer, at the size of screens."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageOps

from genpercept.commands.app.store import Answer
from genpercept.imaging import painters
from genpercept.imaging.cutout import cutout
from genpercept.imaging.kinds import KINDS, Kind

EDGE = 1280  # pixels, of the longest edge of what is shown
_LEAST_SHARE = 0.002  # of a picture, from which a class is in its legend
_MOST_CLASSES = 12


def preview(image: np.ndarray) -> Image.Image:
    """(H, W, 3) uint8 or float in [0, 1] -> a picture no larger than screens."""
    pixels = image if image.dtype == np.uint8 else np.rint(image * 255).astype(np.uint8)
    picture = Image.fromarray(pixels)
    picture.thumbnail((EDGE, EDGE), Image.Resampling.LANCZOS)
    return picture


def painted(answer: Answer) -> Image.Image:
    """The answer in colours, of the preview's size; stacks side by side."""
    row = KINDS[answer.prediction.kind]
    picture = answer.prediction.colourise(answer.photograph.image)
    if row.layout == "stack":
        picture.thumbnail((EDGE, EDGE))
        return picture
    size = answer.photograph.preview.size
    kept = Image.Resampling.NEAREST if row.ids else Image.Resampling.LANCZOS
    return picture if picture.size == size else picture.resize(size, kept)


def doubt(answer: Answer) -> Image.Image | None:
    """Where the runs of an ensemble disagree, dark to bright, the most being white; None without an ensemble."""
    spread = answer.prediction.uncertainty
    if spread is None:
        return None
    mean = spread if spread.ndim == 2 else spread.mean(-1)
    picture = Image.fromarray(painters.heat(mean / max(float(mean.max()), 1e-12), np.isfinite(mean), None, None))
    return picture.resize(answer.photograph.preview.size, Image.Resampling.LANCZOS)


def lead(kind: Kind) -> str:
    """What the colours of a kind say, by the properties of its row."""
    if kind.layout == "points":
        return "Joints, and the bones between them."
    if kind.ids:
        return "A class for each pixel, in its colour."
    if kind.distance is not None:
        unit = "In metres." if kind.metric else "Up to scale and shift."
        return f"How far away everything is: near is red, far is blue. {unit}"
    if kind.directions:
        return "Which way surfaces face: right is red, up is green, towards the viewer is blue."
    if kind.foreground:
        return "How much of each pixel is foreground: white is all of it, black is none."
    if kind.scores:
        return "How strange each pixel is: the stranger, the brighter."
    return f"{kind.meaning[:1].upper()}{kind.meaning[1:]}."


def legend(prediction: Any) -> str:
    """HTML: the classes that are there with their colours and shares, largest first; "" for what has none."""
    names, colours = prediction.meta.get("classes"), prediction.meta.get("colours")
    if not KINDS[prediction.kind].ids or not names or not colours:
        return ""
    ids = prediction.values[prediction.values >= 0]
    shares = np.bincount(ids.ravel(), minlength=len(names)) / max(prediction.values.size, 1)
    largest = [i for i in np.argsort(-shares)[:_MOST_CLASSES] if shares[i] >= _LEAST_SHARE]
    items = [
        f'<li><span style="background: rgb({", ".join(map(str, colours[i]))})"></span>'
        f"{html.escape(str(names[i]))} {100 * shares[i]:.0f} %</li>"
        for i in largest
    ]
    return f'<ul class="legend">{"".join(items)}</ul>'


def facts(answer: Answer, seconds: float, title: str = "") -> str:
    """HTML: sizes, time, and what the model says of the photograph as a whole."""
    meta: Mapping[str, Any] = answer.prediction.meta
    height, width = answer.photograph.image.shape[:2]
    parts = [*([title] if title else []), f"{width} × {height} pixels"]
    if seen := meta.get("resolution"):
        parts.append(f"the network saw {seen[1]} × {seen[0]}")
    parts.append(f"{seconds:.2f} s")
    if "anomalous" in meta:
        parts.append("anomalous" if meta["anomalous"] else "nothing strange")
    elif "image_score" in meta:
        parts.append(f"score {meta['image_score']:.2f}")
    if meta.get("caution"):
        parts.append(str(meta["caution"]))
    return f'<p class="facts">{html.escape(" · ".join(parts))}</p>'


# ---- cut-outs


def cut(answer: Answer) -> Image.Image:
    """The foreground as RGBA at the photograph's size. ValueError where PyMatting is missing."""
    return Image.fromarray(cutout(answer.photograph.image, answer.prediction.values))


def behind(foreground: Image.Image, background: Image.Image | str | None) -> Image.Image:
    """The foreground on another photograph (cropped to fit), on a colour such as "#2458c5", or (None) as it is."""
    if background is None:
        return foreground
    if isinstance(background, str):
        under = Image.new("RGBA", foreground.size, (*colour(background), 255))
    else:
        under = ImageOps.fit(background.convert("RGBA"), foreground.size, Image.Resampling.LANCZOS)
    return Image.alpha_composite(under, foreground).convert("RGB")


def colour(text: str) -> tuple[int, int, int]:
    """What a colour picker gives: "#2458c5", or "rgba(36.2, 88, 197, 1)". ValueError for anything else."""
    if text.startswith("rgb"):
        red, green, blue, *_ = (round(float(n)) for n in re.findall(r"[\d.]+", text))
        return min(red, 255), min(green, 255), min(blue, 255)
    red, green, blue, *_ = ImageColor.getrgb(text)
    return red, green, blue
