"""Materials and colours: what things are made of, drawn with the statistics of photographs."""

from __future__ import annotations

import colorsys
import math
import random

RGB = tuple[float, float, float]

# Kind: (texture groups, repeats per metre low/high, specular, mirror, bump, dirt).
KINDS: dict[str, tuple[tuple[str, ...], float, float, float, float, float, float]] = {
    "paint": (("plaster", "noise"), 0.4, 1.5, 0.1, 0.0, 0.15, 0.15),
    "wallpaper": (("paper_wall", "stripes", "plaster", "fabric"), 0.5, 1.6, 0.0, 0.0, 0.2, 0.2),
    "plaster": (("plaster", "noise", "marble"), 0.3, 1.2, 0.0, 0.0, 0.5, 0.3),
    "wood": (("wood", "wood", "planks"), 0.6, 2.0, 0.25, 0.03, 0.5, 0.4),
    "floor": (("planks", "planks", "tile", "wood", "marble", "fabric", "checker"), 0.3, 0.9, 0.2, 0.04, 0.4, 0.35),
    "carpet": (("fabric", "plaster", "stripes", "paper_wall", "noise", "spots"), 0.5, 2.0, 0.0, 0.0, 0.8, 0.3),
    "fabric": (
        ("fabric", "stripes", "noise", "paper_wall", "plaster", "checker", "spots"),
        1.5,
        5.0,
        0.0,
        0.0,
        0.6,
        0.25,
    ),
    "leather": (("plaster", "ridged"), 2.0, 5.0, 0.4, 0.02, 0.6, 0.3),
    "plastic": (("plaster",), 1.0, 3.0, 0.5, 0.04, 0.05, 0.1),
    "ceramic": (("plaster", "stripes", "noise", "speckle"), 2.0, 8.0, 0.8, 0.07, 0.05, 0.1),
    "metal": (("plaster", "noise"), 1.0, 4.0, 0.9, 0.45, 0.15, 0.3),
    "rust": (("ridged", "noise", "speckle"), 1.0, 4.0, 0.2, 0.05, 0.9, 0.6),
    "car": (("plaster",), 0.3, 1.0, 1.0, 0.14, 0.0, 0.1),
    "glass": (("plaster",), 0.5, 1.0, 1.0, 0.35, 0.0, 0.1),
    "brick": (("brick",), 0.35, 0.7, 0.0, 0.0, 1.2, 0.5),
    "stone": (("stone", "gravel", "moon", "noise", "ridged"), 0.4, 1.2, 0.0, 0.0, 1.2, 0.6),
    "facade": (("facade",), 0.07, 0.12, 0.1, 0.02, 0.4, 0.3),
    "roof": (("roof", "planks"), 0.3, 0.6, 0.05, 0.0, 1.0, 0.5),
    "road": (("speckle", "noise", "plaster", "gravel"), 0.3, 0.9, 0.05, 0.0, 0.5, 0.7),
    "paving": (("tile", "brick", "stone", "gravel"), 0.3, 0.7, 0.0, 0.0, 0.8, 0.6),
    "grass": (("grass", "grass", "leaf_grey"), 0.6, 1.5, 0.0, 0.0, 0.8, 0.8),
    "dirt": (("gravel", "noise", "ridged", "moon"), 0.3, 1.0, 0.0, 0.0, 1.0, 0.7),
    "leaves": (("leaves",), 0.7, 2.0, 0.1, 0.0, 1.4, 0.7),
    "leaf": (("leaves", "noise", "plaster"), 4.0, 10.0, 0.25, 0.02, 0.4, 0.3),
    "bark": (("bark", "ridged"), 0.6, 1.5, 0.0, 0.0, 1.5, 0.5),
    "skin": (("plaster", "noise"), 2.0, 4.0, 0.12, 0.0, 0.1, 0.15),
    "hair": (("hair",), 3.0, 6.0, 0.3, 0.0, 0.8, 0.4),
    "fur": (("hair", "noise", "spots", "leaf_grey"), 1.0, 4.0, 0.05, 0.0, 0.7, 0.5),
    "paper": (("paper",), 2.0, 5.0, 0.0, 0.0, 0.1, 0.15),
    "picture": (("photo", "leaves_rgb", "fbm_rgb", "marble", "moon"), 0.6, 1.6, 0.05, 0.0, 0.0, 0.1),
    "fruit": (("plaster", "noise", "speckle"), 4.0, 9.0, 0.5, 0.03, 0.1, 0.35),
    "glow": (("plaster",), 0.5, 1.0, 0.0, 0.0, 0.0, 0.0),
    "snow": (("noise", "plaster"), 0.2, 0.6, 0.1, 0.0, 0.6, 0.2),
    "any": (
        (
            "noise",
            "ridged",
            "spots",
            "brick",
            "stone",
            "tile",
            "checker",
            "stripes",
            "marble",
            "fabric",
            "gravel",
            "paper",
            "leaf_grey",
            "moon",
            "leaves_rgb",
            "leaves_rgb",
            "fbm_rgb",
            "photo",
            "wood",
            "speckle",
        ),
        0.6,
        4.0,
        0.25,
        0.03,
        0.5,
        0.4,
    ),
}

# Kind: hue centre, hue spread, saturation low/high, value low/high. Anything else draws from natural().
TINTS: dict[str, tuple[float, float, float, float, float, float]] = {
    "wood": (0.075, 0.02, 0.25, 0.7, 0.2, 0.75),
    "brick": (0.03, 0.03, 0.25, 0.6, 0.3, 0.65),
    "stone": (0.1, 0.06, 0.02, 0.25, 0.3, 0.75),
    "roof": (0.03, 0.05, 0.1, 0.6, 0.2, 0.55),
    "road": (0.6, 0.2, 0.0, 0.1, 0.25, 0.55),
    "paving": (0.09, 0.05, 0.02, 0.2, 0.4, 0.75),
    "grass": (0.24, 0.05, 0.3, 0.7, 0.3, 0.6),
    "dirt": (0.08, 0.03, 0.2, 0.5, 0.3, 0.65),
    "leaves": (0.25, 0.06, 0.35, 0.75, 0.25, 0.6),
    "leaf": (0.28, 0.06, 0.35, 0.75, 0.3, 0.65),
    "bark": (0.08, 0.03, 0.15, 0.4, 0.2, 0.5),
    "skin": (0.055, 0.015, 0.3, 0.55, 0.35, 0.95),
    "hair": (0.07, 0.03, 0.1, 0.6, 0.08, 0.6),
    "fur": (0.08, 0.03, 0.05, 0.55, 0.15, 0.85),
    "metal": (0.6, 0.1, 0.0, 0.12, 0.35, 0.8),
    "rust": (0.05, 0.02, 0.3, 0.7, 0.25, 0.55),
    "paper": (0.12, 0.02, 0.0, 0.15, 0.85, 0.98),
    "plaster": (0.11, 0.05, 0.02, 0.3, 0.55, 0.92),
    "facade": (0.1, 0.05, 0.03, 0.35, 0.45, 0.85),
    "floor": (0.08, 0.03, 0.05, 0.5, 0.25, 0.75),
    "snow": (0.6, 0.05, 0.0, 0.06, 0.85, 0.97),
    "glass": (0.57, 0.06, 0.1, 0.4, 0.08, 0.3),
}


SMOOTH = frozenset(
    ("paint", "plaster", "plastic", "car", "ceramic", "skin", "road", "leather", "metal", "glass", "wallpaper")
)


def linear(r: float, g: float, b: float) -> RGB:
    return r**2.2, g**2.2, b**2.2


def natural(r: random.Random, low: float = 0.12, high: float = 0.95) -> RGB:
    """A linear colour: mostly muted, warm or blue hues most often, now and then strong."""
    hue = r.choice((0.02, 0.06, 0.09, 0.12, 0.3, 0.55, 0.6, r.random(), r.random())) + r.gauss(0, 0.02)
    sat = min(r.random(), r.random())
    return linear(*colorsys.hsv_to_rgb(hue % 1, sat, low + (high - low) * 0.5 * (r.random() + r.random())))


def tint(r: random.Random, kind: str) -> RGB:
    """A linear colour fit for a kind of material."""
    if kind not in TINTS or r.random() < 0.06:
        return natural(r, 0.5, 0.95) if kind in ("paint", "wallpaper", "ceramic") and r.random() < 0.6 else natural(r)
    hue, spread, s0, s1, v0, v1 = TINTS[kind]
    return linear(*colorsys.hsv_to_rgb((hue + r.gauss(0, spread)) % 1, r.uniform(s0, s1), r.uniform(v0, v1)))


def mix(a: RGB, b: RGB, w: float) -> RGB:
    return a[0] + (b[0] - a[0]) * w, a[1] + (b[1] - a[1]) * w, a[2] + (b[2] - a[2]) * w


def _three_colours(r: random.Random, kind: str, colour: RGB | None, mode: int) -> tuple[RGB, RGB, RGB]:
    """Both colours of a material's pattern and that of its mask; `colour` asks for the first."""
    c0 = colour or tint(r, kind)
    other = tint(r, kind) if kind != "any" else natural(r)
    # Most patterns are close shades of one colour; some are two colours outright.
    if kind in SMOOTH and kind != "wallpaper":
        gap = r.uniform(0.02, 0.15)
    else:
        gap = (
            r.uniform(0.3, 1.0)
            if kind in ("any", "fabric", "carpet", "brick", "fur", "facade")
            else r.uniform(0.08, 0.4)
        )
    c1 = mix(c0, other, gap)
    # Painted and moulded things are nearly one tone; grown and woven ones are not.
    shade = r.uniform(0.82, 1.0) if kind in SMOOTH and r.random() < 0.85 else r.uniform(0.35, 0.9)
    c0 = (
        (c0[0] * shade, c0[1] * shade, c0[2] * shade)
        if colour is None or kind in ("skin", "hair", "fur", "leaves")
        else c0
    )
    c2 = mix(c1, natural(r), r.uniform(0.2, 0.8))
    if kind == "facade":
        c0, c2 = (0.02, 0.03, 0.04), natural(r, 0.5, 0.95)
        c1 = colour or other
    if kind == "paper":
        c0, c1 = (0.03, 0.03, 0.04), c1 if r.random() < 0.8 else natural(r, 0.6, 0.95)
    if mode == 0:
        c0 = mix((1.0, 1.0, 1.0), natural(r, 0.5, 1.0), 0.3 * r.random())
    return c0, c1, c2


def material(
    r: random.Random,
    groups: dict[str, list[tuple[int, int]]],
    kind: str,
    colour: RGB | None,
    scale: float,
    glow: float,
    heldout: bool,
) -> tuple[float, ...]:
    """One material row (columns in shade.py)."""
    names, lo, hi, spec, mirror, bump, dirt = KINDS[kind]
    tile, mode = r.choice(groups["heldout" if heldout else r.choice(names)])
    c0, c1, c2 = _three_colours(r, kind, colour, mode)
    turn = (
        0.0
        if kind in ("brick", "facade", "roof", "wallpaper", "planks")
        else r.choice((0.0, 0.0, math.pi / 2, r.uniform(0, 6.3)))
    )
    rep = math.exp(r.uniform(math.log(lo), math.log(hi))) * scale
    offset = (0.0, 0.0) if kind == "facade" else (r.random(), r.random())
    tile2 = r.choice(groups["noise"])[0]
    return (
        tile,
        mode,
        rep,
        math.cos(turn),
        math.sin(turn),
        *offset,
        *c0,
        *c1,
        *c2,
        spec * r.uniform(0.3, 1.3),
        math.exp(r.uniform(2.0, 5.0)),
        glow,
        bump * r.uniform(0.4, 1.6),
        dirt * r.uniform(0.3, 1.2),
        tile2,
        mirror * r.uniform(0.3, 1.2),
    )
