"""Light, sky and the camera's look: the settings of a whole picture."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from genpercept.world import camera as look
from genpercept.world import shade as E
from genpercept.world.builder import World
from genpercept.world.palette import RGB, linear, natural


def _set(w: World, at: int, *values: float) -> None:
    w.env[at : at + len(values)] = values


def common(w: World, reach: float) -> None:
    """Settings that every scene has; reach is the radius of contact shadows in metres."""
    _set(w, E.AO, w.r.uniform(0.7, 1.5), reach, w.r.randrange(1 << 20))


class Weather(NamedTuple):
    """One kind of daylight: how often it comes, a caption's words for it, sunlight, and the sky's linear colours."""

    weight: int
    words: str
    sun: float
    zenith: RGB
    horizon: RGB


WEATHERS = {
    "clear": Weather(30, "sunny", 3.2, (0.16, 0.33, 0.72), (0.62, 0.76, 0.92)),
    "partly": Weather(28, "bright light", 2.4, (0.22, 0.4, 0.72), (0.7, 0.78, 0.88)),
    "overcast": Weather(20, "cloudy", 0.35, (0.55, 0.6, 0.66), (0.78, 0.8, 0.82)),
    "fog": Weather(8, "fog", 0.5, (0.6, 0.63, 0.66), (0.72, 0.74, 0.75)),
    "dusk": Weather(9, "evening light", 1.6, (0.13, 0.16, 0.34), (0.9, 0.52, 0.3)),
    "night": Weather(5, "at night", 0.15, (0.01, 0.015, 0.04), (0.06, 0.05, 0.06)),
}


def daylight(w: World) -> None:
    """Sun, clouds, haze, dusk or night, with a sky to match."""
    r = w.r
    common(w, r.uniform(0.4, 0.9))
    kind = r.choices(tuple(WEATHERS), tuple(weather.weight for weather in WEATHERS.values()))[0]
    weather = WEATHERS[kind]
    w.light_words = weather.words
    el, az = math.radians(r.uniform(12, 65) if kind != "dusk" else r.uniform(3, 12)), r.uniform(0, 6.28)
    _set(
        w,
        E.LIGHT,
        0,
        math.cos(el) * math.sin(az),
        math.sin(el),
        math.cos(el) * math.cos(az),
        0.01 if kind != "overcast" else 0.25,
    )
    warm = max(0.0, 1 - el / 0.9)
    sun = weather.sun * r.uniform(0.8, 1.2)
    _set(w, E.LIGHT_RGB, sun, sun * (0.95 - 0.25 * warm), sun * (0.88 - 0.5 * warm))
    level = r.uniform(0.7, 1.35)
    zen = [level * c * r.uniform(0.85, 1.15) for c in weather.zenith]
    hor = [level * c * r.uniform(0.9, 1.1) for c in weather.horizon]
    _set(w, E.ZENITH, *zen)
    _set(w, E.HORIZON, *hor)
    amb = [0.55 * (a + b) * 0.9 for a, b in zip(zen, hor, strict=True)]
    _set(w, E.AMBIENT_UP, *amb)
    _set(w, E.AMBIENT_DOWN, *(0.35 * c * k for c, k in zip(amb, (1.05, 1.0, 0.75), strict=True)))
    _clouds_and_haze(w, kind, hor)
    _set(w, E.FILL, 0, 50, 0, 0, 0, 0)


def _clouds_and_haze(w: World, kind: str, horizon: list[float]) -> None:
    """Clouds, the sun's disc and fog of a kind of daylight. Every kind takes the same number of draws for its cover."""
    r = w.r
    cover = {
        "clear": r.choice((0.0, 0.35)),
        "partly": r.uniform(0.45, 0.75),
        "overcast": r.uniform(0.7, 1.0),
        "fog": 0.0,
        "dusk": r.uniform(0.3, 0.7),
        "night": 0.3,
    }[kind]
    white = 1.25 if kind in ("clear", "partly") else 0.85
    tile = r.choice(w.groups["cloud"])[0]
    _set(
        w,
        E.CLOUD,
        cover,
        tile,
        r.uniform(0.04, 0.16),
        *(min(white * (0.4 * a + 0.6), 1.4) * (0.06 if kind == "night" else 1) for a in horizon),
    )
    w.env[E.SUN] = 1.0 if kind in ("clear", "dusk", "partly") else 0.0
    density = {"fog": r.uniform(0.008, 0.035), "overcast": r.uniform(0, 0.004)}.get(
        kind, r.choice((0.0, r.uniform(0, 0.004)))
    )
    _set(w, E.FOG, density, *horizon)


def lamplight(w: World, lo: tuple[float, float, float], hi: tuple[float, float, float]) -> None:
    """A lamp or a window inside the box lo..hi, and a weaker second light."""
    r = w.r
    common(w, r.uniform(0.25, 0.6))
    kind = r.choices(("warm light", "soft light", "bright light", "cold light", "dim light"), (30, 30, 20, 12, 8))[0]
    w.light_words = kind
    tone = {
        "warm light": (1, 0.8, 0.55),
        "soft light": (1, 0.93, 0.84),
        "bright light": (1, 0.97, 0.92),
        "cold light": (0.85, 0.95, 1.1),
        "dim light": (1, 0.7, 0.42),
    }[kind]
    span = [hi[k] - lo[k] for k in range(3)]
    at = [lo[k] + span[k] * r.uniform(0.15, 0.85) for k in range(3)]
    at[1] = lo[1] + span[1] * r.uniform(0.72, 0.95)
    if r.random() < 0.5:  # as from a window: near one wall, lower
        axis = r.choice((0, 2))
        at[axis] = lo[axis] + span[axis] * r.choice((0.06, 0.94))
        at[1] = lo[1] + span[1] * r.uniform(0.5, 0.8)
    d2 = max(span[0] * span[2] * 0.3, 0.3)
    power = d2 * r.uniform(1.5, 3.5)
    ambient = r.uniform(0.25, 1.1) * (0.4 if kind == "dim light" else 1.0)
    _set(w, E.LIGHT, 1, *at, r.choice((0.05, 0.15, 0.3)) * min(1.0, span[1] / 2))
    _set(w, E.LIGHT_RGB, *(power * c for c in tone))
    _set(w, E.AMBIENT_UP, *(ambient * (0.5 * c + 0.5) for c in tone))
    _set(w, E.AMBIENT_DOWN, *(ambient * (0.5 * c + 0.5) * r.uniform(0.5, 0.9) for c in tone))
    other = [lo[k] + span[k] * r.uniform(0.1, 0.9) for k in range(3)]
    _set(w, E.FILL, *other, *(0.4 * power * r.random() * c for c in natural(r, 0.5, 1)))
    base = natural(r, 0.2, 0.8)
    _set(w, E.ZENITH, *(ambient * 1.4 * c for c in tone))
    _set(w, E.HORIZON, *(ambient * (0.4 * c + 0.3) for c in base))
    _set(w, E.CLOUD, 0, 0, 0.1, 0, 0, 0)
    _set(w, E.FOG, 0, 0, 0, 0)


def backdrop(w: World) -> None:
    """Out-of-focus colours for what lies beyond a close view: soft blotches instead of a blue sky."""
    a, b = natural(w.r, 0.1, 0.9), natural(w.r, 0.1, 0.9)
    _set(w, E.ZENITH, *a)
    _set(w, E.HORIZON, *b)
    _set(w, E.CLOUD, 0.8, w.r.choice(w.groups["cloud"])[0], 0.1, *natural(w.r, 0.2, 0.9))


def camera_look(w: World, seed: int) -> np.ndarray:
    """The look vector (columns in camera.py)."""
    r = w.r
    v = np.zeros(look.LOOK)
    v[look.KEY] = math.exp(r.gauss(math.log(0.34), 0.33))
    v[look.WHITE] = r.uniform(1.6, 4.0)
    warm, green = r.gauss(0, 0.08), r.gauss(0, 0.03)
    v[look.BALANCE : look.BALANCE + 3] = math.exp(warm), math.exp(green), math.exp(-warm)
    v[look.SATURATION] = 0.0 if r.random() < 0.03 else r.uniform(0.7, 1.25)
    v[look.CONTRAST] = r.uniform(0.0, 0.55)
    v[look.GAMMA] = 1 / r.uniform(1.9, 2.4)
    v[look.VIGNETTE] = r.choice((0.0, r.uniform(0, 0.7)))
    v[look.BLUR] = r.choices((0.0, r.uniform(0.25, 0.6), r.uniform(0.6, 1.2)), (68, 27, 5))[0]
    v[look.LUMA] = r.choice((0.0, r.uniform(0, 0.012), r.uniform(0, 0.03)))
    v[look.CHROMA] = v[look.LUMA] * r.uniform(0.2, 0.7)
    v[look.SEED] = seed & 0xFFFFFF
    v[look.LIFT] = r.choice((0.0, 0.0, r.uniform(0, 0.07)))
    return v


def flaws(w: World) -> None:
    """Now and then stains, scratches, holes or bumps on what the camera sees."""
    r = w.r
    if r.random() > 0.3:
        return
    for _ in range(r.randrange(1, 4)):
        kind = r.randrange(4)
        colour = {2: (0.01, 0.01, 0.01)}.get(kind, natural(r) if r.random() < 0.6 else linear(0.9, 0.9, 0.88))
        w.defects.append(
            (kind, r.random(), r.random(), r.uniform(0.02, 0.07), r.uniform(0, 3.14), *colour, -1, *[0.0] * 7)
        )
