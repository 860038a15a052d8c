"""Line charts with Pillow, which is there anyway: panels side by side, one legend."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

_SCALE = 2  # drawn larger, then reduced: Pillow's lines are not anti-aliased
_PANEL, _LEFT, _TOP, _BOTTOM, _GAP = (440, 330), 62, 34, 46, 58  # pixels
_ROW = 18
_INK, _SOFT, _GRID = (34, 36, 40), (104, 110, 118), (226, 228, 231)
# Okabe & Ito's colours, told apart with any colour vision; then they come again, dashed, then dotted
_COLOURS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (230, 159, 0), (90, 90, 90))
_DASHES = ((1, 0), (9, 6), (3, 4))  # drawn, left out
_DOTS = 12  # points of a line up to which they are marked

Point = tuple[float, float]


@dataclass
class Panel:
    """Lines by name, each a list of (x, y) with rising x above 0. Equal names have equal colours in all panels."""

    title: str
    lines: Mapping[str, Sequence[Point]] = field(default_factory=dict)


def draw(path: Path, panels: Sequence[Panel], x_label: str, y_label: str = "", *, powers: bool = False) -> None:
    """Write a PNG; x is logarithmic. ValueError without a single point.

    Axes are shared by the panels. powers: y is logarithmic, too, and each panel has its own.
    """
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    points = [p for panel in panels for line in panel.lines.values() for p in line]
    if not points:
        raise ValueError(f"{path}: nothing to draw")
    style = {name: (_COLOURS[i % len(_COLOURS)], _DASHES[i // len(_COLOURS) % 3]) for i, name in enumerate(names)}
    legend = max(_width(name) for name in names) + 60
    w, h = _PANEL
    width = _LEFT + len(panels) * (w + _GAP) + legend
    height = max(_TOP + h + _BOTTOM, _TOP + _ROW * len(names) + 12)
    image = Image.new("RGB", (width * _SCALE, height * _SCALE), "white")
    pen = _Pen(ImageDraw.Draw(image))
    x_ticks = log_ticks(min(x for x, _ in points), max(x for x, _ in points))
    for number, panel in enumerate(panels):
        box = (_LEFT + number * (w + _GAP), _TOP, _LEFT + number * (w + _GAP) + w, _TOP + h)
        ys = [y for line in panel.lines.values() for _, y in line] if powers else [y for _, y in points]
        y_ticks = (log_ticks if powers else ticks)(min(ys), max(ys))
        _axes(pen, box, x_ticks, y_ticks, powers)
        pen.text((box[0], _TOP - 26), panel.title, _INK)
        pen.text(((box[0] + box[2]) / 2, box[3] + 24), x_label, _SOFT, centre=True)
        for name, line in panel.lines.items():
            places = [(math.log10(x), math.log10(y) if powers else y) for x, y in line]
            pen.line([_place(place, box, x_ticks, y_ticks) for place in places], *style[name])
    pen.text((4, _TOP - 26), y_label, _SOFT)
    _legend(pen, (width - legend + 8, _TOP), style)
    image.reduce(_SCALE).save(path, optimize=True)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, `about` so many steps apart."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / about))
    step = next(power * m for m in (1, 2, 5, 10) if power * m * about >= span * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * i, 10) for i in range(first, max(last, first + 1) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Logarithms of 1, 2, 5, 10, 20, ... from at or below `low` to at or above `high`, two at least."""
    rounds = [m * 10.0**k for k in range(-6, 10) for m in (1, 2, 5)]
    first = max(i for i, value in enumerate(rounds) if value <= low)
    last = next(i for i, value in enumerate(rounds) if value >= high and i > first)
    return [math.log10(value) for value in rounds[first : last + 1]]


class _Pen:
    """Draws in pixels of the finished picture."""

    def __init__(self, draw: ImageDraw.ImageDraw) -> None:
        self._draw, self._font = draw, _font(_SCALE)

    def text(
        self, at: Point, text: str, colour: tuple[int, int, int], centre: bool = False, right: bool = False
    ) -> None:
        anchor = "ma" if centre else "ra" if right else "la"
        self._draw.text((at[0] * _SCALE, at[1] * _SCALE), text, colour, self._font, anchor)

    def rule(self, a: Point, b: Point) -> None:
        self._draw.line([_scaled(a), _scaled(b)], _GRID, _SCALE)

    def line(self, points: Sequence[Point], colour: tuple[int, int, int], dash: tuple[int, int]) -> None:
        """A polyline, solid or dashed, with a dot at each point where there are few."""
        for a, b in _dashes(points, *dash) if dash[1] else pairwise(points):
            self._draw.line([_scaled(a), _scaled(b)], colour, 2 * _SCALE)
        for x, y in points if len(points) <= _DOTS else ():
            self._draw.ellipse([_scaled((x - 2.2, y - 2.2)), _scaled((x + 2.2, y + 2.2))], colour)


def _dashes(points: Sequence[Point], drawn: int, left_out: int) -> Iterator[tuple[Point, Point]]:
    """The drawn pieces of a polyline; the pattern goes on around its corners."""
    travelled = 0.0
    for a, b in pairwise(points):
        length = math.dist(a, b)
        start = -(travelled % (drawn + left_out))  # where the dash under way began, before a
        while start < length:
            end = min(start + drawn, length)
            if end > max(start, 0.0):
                yield _between(a, b, max(start, 0.0) / length), _between(a, b, end / length)
            start += drawn + left_out
        travelled += length


def _axes(
    pen: _Pen, box: tuple[int, int, int, int], x_ticks: Sequence[float], y_ticks: Sequence[float], powers: bool
) -> None:
    for y in y_ticks:
        a = _place((x_ticks[0], y), box, x_ticks, y_ticks)
        pen.rule(a, (box[2], a[1]))
        pen.text((a[0] - 6, a[1] - 7), f"{10**y if powers else y:g}", _SOFT, right=True)
    for x in x_ticks:
        a = _place((x, y_ticks[0]), box, x_ticks, y_ticks)
        pen.text((a[0], a[1] + 6), f"{10**x:g}", _SOFT, centre=True)


def _legend(pen: _Pen, at: tuple[int, int], style: Mapping[str, tuple[tuple[int, int, int], tuple[int, int]]]) -> None:
    for row, (name, (colour, dash)) in enumerate(style.items()):
        y = at[1] + row * _ROW
        pen.line([(at[0], y + 7), (at[0] + 28, y + 7)], colour, dash)
        pen.text((at[0] + 36, y), name, _INK)


def _place(p: Point, box: tuple[int, int, int, int], x_ticks: Sequence[float], y_ticks: Sequence[float]) -> Point:
    u = (p[0] - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
    v = (p[1] - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
    return box[0] + u * (box[2] - box[0]), box[3] - v * (box[3] - box[1])


def _between(a: Point, b: Point, share: float) -> Point:
    return a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])


def _scaled(p: Point) -> Point:
    return p[0] * _SCALE, p[1] * _SCALE


def _font(scale: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(12 * scale)


def _width(text: str) -> int:
    return math.ceil(_font(1).getlength(text))
