"""Close views: still life, machines, portraits, animals, plants, piles, cloth. Things fill the frame."""

from __future__ import annotations

import math

from genpercept.world import bodies, machines, nature, props
from genpercept.world.builder import World, pitch, yaw
from genpercept.world.light import backdrop, daylight, lamplight


def _stage(w: World, size: float, outdoors: bool) -> None:
    """What lies under and behind the subject at the origin, and the light on it."""
    (_open_air if outdoors else _table_top)(w, size)


def _open_air(w: World, size: float) -> None:
    """Daylight on uneven ground, with plants and rocks behind."""
    r = w.r
    daylight(w)
    with w.thing("ground", cast=False):
        k = w.land(
            r.choice((0, 3, 4)),
            (0, 0, 0),
            (40 * size, r.uniform(0, 0.4) * size, 40 * size),
            w.mat(r.choice(("grass", "dirt", "paving", "stone")), scale=0.6 / size),
            0.5,
        )
        w.ground = (k, 40 * size, 0.0, 40 * size)
    for _ in range(r.randrange(2, 9)):
        x, z = r.uniform(-7, 7) * size, -r.uniform(3, 14) * size
        with w.at(x, 0, z, r.uniform(0, 6.28)):
            r.choice(
                (
                    lambda: nature.tree(w, 4 * size),
                    lambda: nature.shrub(w, size),
                    lambda: nature.rock(w, 0.5 * size),
                    lambda: nature.tufts(w, 25, 0.4 * size, 0.6 * size),
                )
            )()


def _table_top(w: World, size: float) -> None:
    """A table before a wall, sometimes with cloth on it or a curtain behind, in lamplight."""
    r = w.r
    backdrop(w)
    with w.thing("furniture", "table" if r.random() < 0.7 else "", cast=False):
        m = w.mat(r.choice(("wood", "fabric", "paint", "stone", "floor", "any", "metal")), scale=min(2.0, 0.5 / size))
        w.box(0, -0.05 * size, 0, r.uniform(1.5, 4) * size, 0.05 * size, r.uniform(1.2, 3) * size, m)
    back = r.uniform(1.6, 5) * size
    with w.thing("wall", cast=False):
        m = w.mat(
            r.choice(("paint", "wallpaper", "brick", "plaster", "any", "wood", "fabric")), scale=min(2.0, 0.5 / size)
        )
        w.box(r.gauss(0, 0.5) * size, 0, -back, 12 * size, 8 * size, 0.05, m, yaw(r.gauss(0, 0.3)))
        if r.random() < 0.4:
            s = r.choice((-1, 1))
            w.box(
                s * r.uniform(2, 5) * size,
                0,
                0,
                0.05,
                8 * size,
                12 * size,
                w.mat(r.choice(("paint", "wood", "plaster"))),
                yaw(r.gauss(0, 0.1)),
            )
    if r.random() < 0.35:
        with w.thing("textile", "cloth"):
            w.land(
                r.choice((3, 4)),
                (r.gauss(0, 0.3) * size, 0.02 * size, 0),
                (1.1 * size, 0.03 * size, 0.9 * size),
                w.mat("fabric", scale=0.5 / size),
                0.5,
                yaw(r.uniform(0, 3)),
            )
    if r.random() < 0.3:
        with w.thing("textile", "curtain"):
            w.land(
                2,
                (r.gauss(0, 1) * size, size, -back * 0.9),
                (2 * size, 0.12 * size, 3 * size),
                w.mat("fabric", scale=0.4 / size),
                0.4,
                pitch(math.pi / 2),
            )
    lamplight(w, (-2.5 * size, 0, -1.0 * size), (2.5 * size, 3.5 * size, 3 * size))


def _view(w: World, size: float, height: float, low: float = 0.02, high: float = 0.75) -> None:
    """A camera around a subject of that size, sometimes near enough to cut it off."""
    r = w.r
    fov = r.uniform(30, 62)
    d = size * r.uniform(0.75, 1.9) / math.tan(math.radians(fov) / 2) * 0.62
    el, az = r.uniform(low, high), r.gauss(0, 0.45)
    target = (r.gauss(0, 0.12) * size, height + r.gauss(0, 0.12) * size, r.gauss(0, 0.08) * size)
    eye = (
        target[0] + d * math.cos(el) * math.sin(az),
        target[1] + d * math.sin(el),
        target[2] + d * math.cos(el) * math.cos(az),
    )
    w.look((eye[0], max(eye[1], 0.05 * size), eye[2]), target, fov, r.gauss(0, 0.06))


def still_life(w: World) -> None:
    r = w.r
    w.place = "a table top"
    _stage(w, 0.5, False)
    first = True
    spots: list[tuple[float, float, float]] = []
    for _ in range(r.randrange(4, 16)):
        s = r.uniform(0.08, 0.32)
        x, z = r.gauss(0, 0.28), r.gauss(0, 0.2)
        if all(math.hypot(x - a, z - b) > 0.42 * (s + c) for a, b, c in spots):
            spots.append((x, z, s))
            with w.at(x, 0, z, r.uniform(0, 6.28)):
                if first:
                    w.fg = 1.0
                props.small_thing(w, s)
                w.fg, first = 0.0, False
    _view(w, r.uniform(0.3, 0.6), 0.1, 0.1, 1.35)


def machine(w: World) -> None:
    r = w.r
    w.place = r.choice(("a workshop", "a close view"))
    s = r.uniform(0.5, 1.4)
    _stage(w, s, r.random() < 0.4)
    machines.engine(w, s, True, r.randrange(40, 110))
    if r.random() < 0.5:
        with w.at(r.gauss(0, 0.4) * s, 0, -1.3 * s, r.uniform(0, 6)):
            machines.engine(w, s, False, 30)
    _view(w, s * r.uniform(0.5, 1.1), 0.5 * s, -0.05, 0.6)


def portrait(w: World) -> None:
    r = w.r
    w.place = r.choice(("a portrait", "a portrait", "a close view"))
    _stage(w, 1.2, r.random() < 0.4)
    sit = 0.45 if r.random() < 0.3 else 0.0
    with w.at(0, 0, 0, r.gauss(0, 0.5)):
        eyes = bodies.person(w, True, sit, r.choice((0.0, 0.25, 0.4, 0.6)))
        if sit:
            with w.thing("furniture", "stool"):
                w.box(0, 0.22, -0.05, 0.2, 0.22, 0.2, w.mat("wood"))
    size = r.choice((0.18, 0.35, 0.6, 0.9))
    fov = r.uniform(30, 58)
    d = max(size / math.tan(math.radians(fov) / 2), 0.42)
    az, el = r.gauss(0, 0.35), r.gauss(0.02, 0.15)
    y = eyes - max(size - 0.25, 0) * 0.75
    t = w.figure[0][0] if w.figure else (0.0, eyes, 0.0)
    target = (t[0] + r.gauss(0, 0.12) * size, y, t[2] - 0.05)
    w.look(
        (target[0] + d * math.sin(az), y + d * math.sin(el), target[2] + d * math.cos(az)),
        target,
        fov,
        r.gauss(0, 0.05),
    )


def creature(w: World) -> None:
    r = w.r
    w.place = "a close view"
    k = r.random()
    s = r.uniform(0.3, 0.7) if k < 0.6 else 0.2
    _stage(w, s * 1.2, r.random() < 0.6)
    with w.at(0, 0, 0, r.gauss(0.4, 0.9)):
        if k < 0.6:
            bodies.animal(w, True, r.choice((0.0, 0.3, 0.5, 0.7)), s)
        elif k < 0.85:
            bodies.bird(w, True, r.choice((0.0, 0.3, 0.5)), s * 0.7)
        else:
            bodies.fish(w, True, s)
    _view(w, s * r.uniform(0.5, 1.3), s * r.uniform(0.5, 1.0), -0.02, 0.6)


def botany(w: World) -> None:
    r = w.r
    w.place = r.choice(("a garden", "a close view"))
    s = r.uniform(0.3, 0.8)
    _stage(w, s, r.random() < 0.6)
    for k in range(r.randrange(1, 5)):
        with w.at(r.gauss(0, 0.35) * s * (k > 0), 0, -0.3 * s * k, r.uniform(0, 6)):
            f = k == 0
            r.choice(
                (
                    lambda f=f: nature.leafy(w, s, f),
                    lambda f=f: nature.tufts(w, 70, 0.2 * s, s, f),
                    lambda f=f: props.potted(w, f, s * 1.4),
                    lambda f=f: nature.shrub(w, s * 0.6, f),
                    lambda f=f: nature.mushroom(w, s * 0.6, f),
                    lambda f=f: nature.cactus(w, s * 0.7, f),
                )
            )()
    _view(w, s * r.uniform(0.4, 0.9), s * r.uniform(0.3, 0.7), -0.02, 0.9)


def pile(w: World) -> None:
    """Random shapes heaped up before the camera, filling the frame."""
    r = w.r
    w.place = "a pile of things"
    s = r.choice((0.3, 0.8, 2.0))
    _stage(w, s, s > 1 and r.random() < 0.5)
    n = r.randrange(15, 70)
    hero = r.randrange(n)
    for k in range(n):
        with w.thing("object", "toy" if k == hero else "", k == hero):
            size = s * r.uniform(0.12, 0.5) * (1.3 if k == hero else 1.0)
            props.blob(w, r.gauss(0, 0.7) * s, abs(r.gauss(0.25, 0.5)) * s, r.gauss(-0.2, 0.6) * s, size)
    _view(w, s * r.uniform(0.7, 1.3), 0.4 * s, 0.0, 1.0)


def surface(w: World) -> None:
    """A wall, floor, shelf or crumpled cloth seen close and slanted, with things on it."""
    r = w.r
    w.place = "a close view"
    _stage(w, 0.8, False)
    k = r.random()
    if k < 0.4:
        with w.at(0, 0, 0, r.gauss(0, 0.4)):
            props.shelf(w, True)
        _view(w, 0.5, r.uniform(0.4, 1.2), -0.1, 0.4)
    elif k < 0.7:
        with w.thing("textile", "cloth", True):
            w.land(
                r.choice((2, 3, 4, 0)),
                (0, 0.06, 0),
                (0.9, r.uniform(0.03, 0.1), 0.9),
                w.mat(r.choice(("fabric", "any", "leather"))),
                0.5,
                yaw(r.uniform(0, 3)),
            )
        with w.at(0, 0.1, 0):
            props.clutter(w, 0.4, 0.4, r.randrange(5), 0.2)
        _view(w, 0.5, 0.08, 0.25, 1.4)
    else:
        with w.thing("wall", "stairs", True):
            m = w.mat(r.choice(("stone", "wood", "brick", "plaster")))
            for i in range(9):
                w.box(0, 0.08 + 0.16 * i, -0.26 * i, 0.9, 0.08, 0.14, m)
        for i in range(0, 8, 2):
            with w.at(r.uniform(-0.6, 0.6), 0.16 + 0.16 * i, -0.26 * i):
                props.small_thing(w, 0.2)
        _view(w, 0.9, 0.5, 0.0, 0.8)
