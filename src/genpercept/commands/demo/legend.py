"""What the colours of a picture mean, for the page: a bar from one word to another, names of colours, or a sphere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genpercept.imaging import html
from genpercept.imaging.colour import colourise
from genpercept.imaging.prediction import KINDS, Prediction
from genpercept.metrics import Scale

_STOPS = 33  # of a bar's gradient
_LEAST = 0.02  # of the pixels, from where on a class is named
_ENDS = {"depth": ("near", "far")}  # of other kinds of distance it is the other way round
_SPHERE = 64  # pixels


@dataclass(frozen=True)
class Bar:
    """CSS colours from left to right, and the words at both ends."""

    stops: Sequence[str]
    low: str
    high: str


@dataclass(frozen=True)
class Names:
    """CSS colours with the share and the name of what has them."""

    entries: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Sphere:
    """A ball in the colours of its normals."""

    picture: html.Picture


Legend = Bar | Names | Sphere | None


def of(prediction: Prediction) -> Legend:
    """By what its kind is; None where the picture speaks for itself."""
    row = KINDS[prediction.kind]
    if row.ids:
        return _names(prediction)
    if row.directions:
        return Sphere(html.picture(_sphere(prediction.kind), "left and right, up and down, towards you"))
    if not row.gray:
        return None
    if row.distance is not None:
        low, high = _ENDS.get(row.distance, ("far", "near"))
    else:
        low, high = (
            ("usual", "strange") if row.scores else ("background", "foreground") if row.foreground else ("0", "1")
        )
    return bar(prediction.kind, low, high)


def of_scale(scale: Scale) -> Bar:
    """The range in its unit that prediction and truth share."""
    return bar(scale.kind, f"{scale.low:.1f} {scale.unit}", f"{scale.high:.1f} {scale.unit}")


def bar(kind: str, low: str, high: str) -> Bar:
    """Of a kind of one value per pixel, from 0 to 1."""
    ramp = np.linspace(0, 1, _STOPS, dtype=np.float32)[None]
    return Bar([_css(c) for c in np.asarray(colourise(ramp, kind))[0]], low, high)


def _names(prediction: Prediction) -> Names | None:
    """The classes that are seen, those of most pixels first."""
    names, colours = prediction.meta.get("classes"), prediction.meta.get("colours")
    if names is None or colours is None:
        return None
    ids, counts = np.unique(prediction.values[prediction.values >= 0], return_counts=True)
    share = counts / prediction.values.size
    seen = [(i, s) for i, s in sorted(zip(ids, share, strict=True), key=lambda one: -one[1]) if s >= _LEAST]
    return Names([(_css(colours[i]), f"{names[i]} {s:.0%}") for i, s in seen])


def _sphere(kind: str) -> np.ndarray:
    """(_SPHERE, _SPHERE, 3): the colours of normals on the half of a ball that is seen."""
    axis = (np.arange(_SPHERE) + 0.5) / _SPHERE * 2 - 1
    x, y = np.meshgrid(axis, -axis)
    inside = x**2 + y**2 < 1
    normals = np.stack([x, y, np.sqrt(np.where(inside, 1 - x**2 - y**2, 0))], -1).astype(np.float32)
    normals[~inside] = (0, 0, 1)
    return np.asarray(colourise(normals, kind))


def _css(colour: Sequence[int] | np.ndarray) -> str:
    return "#" + "".join(f"{int(c):02x}" for c in colour)
