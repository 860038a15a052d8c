"""Streets, open country, gardens and facades."""

from __future__ import annotations

import math
from collections.abc import Callable

from genpercept.world import bodies, machines, nature, props
from genpercept.world.builder import World, pitch
from genpercept.world.light import daylight


def building(w: World, sx: float, sz: float, h: float, detail: bool = False) -> None:
    """A house or block with its front towards +z."""
    r = w.r
    with w.thing("building", "house" if h < 8 else "building"):
        kind = r.choice(("facade", "facade", "brick", "plaster", "stone", "paint"))
        m, trim = w.mat(kind), w.mat(r.choice(("paint", "stone", "plaster")))
        w.box(0, h / 2, 0, sx, h / 2, sz, m)
        if r.random() < 0.55 and h < 12:
            w.part(8, (0, h + 0.25 * sx, 0), (sx * 1.06, 0.25 * sx, sz * 1.06), w.mat("roof"))
            if r.random() < 0.5:
                w.box(0.4 * sx, h + 0.4 * sx, 0.3 * sz, 0.35, 0.2 * sx + 0.4, 0.35, w.mat("brick"))
        else:
            w.box(0, h + 0.12, 0, sx + 0.15, 0.15, sz + 0.15, trim)
    if kind == "facade" and not detail:
        return
    cols, rows = max(1, int(2 * sx / r.uniform(1.8, 3))), max(1, int(h / 2.9))
    glass, frame = w.mat("glass"), w.mat("paint")
    lit = w.mat("glow", (0.8, 0.6, 0.3), glow=2.0)
    with w.thing("window", "window"):
        a, b = sx / cols * r.uniform(0.3, 0.55), r.uniform(0.5, 0.85)
        for i in range(min(cols, 7)):
            for j in range(min(rows, 5)):
                x, y = (i + 0.5) / cols * 2 * sx - sx, j * h / rows + 1.55
                if y + b > h or (j == 0 and i == cols // 2):
                    continue
                w.box(x, y, sz, a, b, 0.03, glass if r.random() < 0.93 else lit)
                if detail:
                    w.box(x, y, sz + 0.03, 0.025, b, 0.02, frame)
                    w.box(x, y + b + 0.05, sz + 0.03, a + 0.06, 0.05, 0.04, frame)
                w.box(x, y - b - 0.05, sz + 0.05, a + 0.1, 0.05, 0.09, frame)
    with w.thing("door", "door"):
        x = ((cols // 2) + 0.5) / cols * 2 * sx - sx
        w.box(x, 1.05, sz, 0.5, 1.05, 0.06, w.mat(r.choice(("wood", "paint", "metal"))))
        w.box(x, 0.06, sz + 0.3, 0.7, 0.08, 0.35, w.mat("stone"))
    if detail and r.random() < 0.5:
        with w.thing("building"):
            for j in range(1, rows):
                w.box(0, j * h / rows + 0.1, sz + 0.4, sx * 0.8, 0.07, 0.45, trim)
                for k in range(11):
                    w.box((k - 5) * sx * 0.16, j * h / rows + 0.55, sz + 0.8, 0.02, 0.42, 0.02, frame)


def fence(w: World, length: float, h: float) -> None:
    """Along +z from the origin."""
    r = w.r
    with w.thing("pole", "fence"):
        m, n, kind = w.mat(r.choice(("wood", "metal", "paint"))), max(2, int(length / r.uniform(1.2, 2.5))), r.random()
        for k in range(n + 1):
            w.box(0, h / 2, k * length / n, 0.05, h / 2, 0.05, m)
        for y in (0.35, 0.8):
            w.box(0, h * y, length / 2, 0.02, 0.045, length / 2, m)
        if kind < 0.5:
            for k in range(min(int(length / 0.22), 60)):
                w.box(0.03, h * 0.5, k * 0.22, 0.012, h * 0.46, 0.055, m)


def pole(w: World, h: float) -> None:
    r = w.r
    with w.thing("pole", "pole"):
        m = w.mat(r.choice(("metal", "wood", "stone")))
        w.rod((0, 0, 0), (0, h, 0), r.uniform(0.05, 0.13), m, 0.6)
        if r.random() < 0.5:
            w.rod((0, h, 0), (1.4, h + 0.15, 0), 0.05, m)
            w.soft(1.4, h + 0.1, 0, 0.3, 0.06, 0.12, m, 0.05)
        else:
            w.box(0, h * 0.93, 0, 0.9, 0.05, 0.05, m)


def sign(w: World) -> None:
    r = w.r
    with w.thing("pole", "sign"):
        h = r.uniform(1.9, 3)
        w.rod((0, 0, 0), (0, h, 0), 0.03, w.mat("metal"))
        face = w.mat(r.choice(("paint", "paper", "picture")), scale=0.6)
        if r.random() < 0.5:
            w.tube(0, h, 0.04, 0.33, 0.012, face, 1, 0, pitch(math.pi / 2))
            w.ring(0, h, 0.05, 0.32, 0.03, w.mat("paint", (0.6, 0.03, 0.03)), pitch(math.pi / 2))
        else:
            w.box(0, h, 0.04, r.uniform(0.25, 0.8), r.uniform(0.2, 0.45), 0.015, face)


def hero(w: World, x: float, z: float, eye: tuple[float, float, float], y: float | None = None) -> None:
    """The foreground object at (x, z)."""
    r, k = w.r, w.r.random()
    with w.at(x, w.height(x, z) if y is None else y, z, math.atan2(eye[0] - x, eye[2] - z) + r.gauss(0, 0.8)):
        if k < 0.5:
            bodies.person(w, True, 0.0, r.choice((0.0, 0.0, 0.25)))
        elif k < 0.7:
            bodies.animal(
                w, True, r.choice((0.0, r.uniform(0.25, 0.6))), r.choice((r.uniform(0.4, 0.7), r.uniform(1.0, 1.6)))
            )
        elif k < 0.8:
            machines.car(w, True)
        elif k < 0.88:
            nature.shrub(w, r.uniform(0.5, 1.0), True)
        elif k < 0.94:
            machines.bicycle(w, True)
        else:
            nature.rock(w, r.uniform(0.4, 0.9), True)


def _roadway(w: World, half: float, walk: float) -> None:
    """A road along z, half as wide as `half`, between pavements of width `walk`, and the ground beyond."""
    r = w.r
    with w.thing("road", "road", cast=False):
        w.box(0, -0.5, 0, half, 0.5, 150, w.mat("road"))
        paint = w.mat("paint", (0.75, 0.74, 0.7))
        lanes = (0.0,) if half < 4 else (-half / 3, half / 3)
        for x in lanes if r.random() < 0.75 else ():
            for k in range(14):
                w.box(x, 0.0, 8 - k * 6, 0.07, 0.006, 1.3, paint)
        if r.random() < 0.4:
            for s in (-1, 1):
                w.box(s * (half - 0.25), 0.0, 0, 0.06, 0.006, 100, paint)
    with w.thing("ground", cast=False):
        m, side = (
            w.mat(r.choice(("paving", "paving", "grass", "dirt"))),
            w.mat(r.choice(("grass", "grass", "dirt", "paving"))),
        )
        kerb = w.mat("stone")
        for s in (-1, 1):
            w.box(s * (half + walk / 2 + 0.1), -0.42, 0, walk / 2 - 0.05, 0.55, 150, m)
            w.box(s * (half + 0.08), -0.42, 0, 0.08, 0.56, 150, kerb)
            w.box(s * (half + walk + 75), -0.45, 0, 75, 0.55, 150, side)


def _house_fronts(w: World, s: int, setback: float, dense: float) -> None:
    """Houses, trees and shrubs along side s (-1 or 1) of a street, at least `setback` from its middle."""
    r = w.r
    z = 10.0
    while z > -75:
        step = r.uniform(5, 14)
        back = setback + r.uniform(0.5, 8)
        with w.at(s * back, 0.1, z - step / 2, -s * math.pi / 2):
            if r.random() < 0.3 + 0.6 * dense:
                deep, h = r.uniform(3, 7), r.choice((r.uniform(3, 7), r.uniform(6, 18)))
                with w.at(0, 0, -deep):
                    building(w, step / 2 * 0.96, deep, h, z > -25)
            elif r.random() < 0.75:
                nature.tree(w, r.uniform(4, 11))
            else:
                nature.shrub(w, r.uniform(0.7, 1.6))
        z -= step


def _kerbside(w: World, s: int, half: float, walk: float, ex: float) -> None:
    """Parked cars, poles, signs and trees along side s of a street; ex: where the camera stands."""
    r = w.r
    z = 3.0
    while z > -55:
        z -= r.uniform(5, 11)
        k = r.random()
        if k < 0.35:
            with w.at(s * (half - 1.0), 0, z, 0 if s > 0 else math.pi):
                if abs(s * (half - 1.0) - ex) > 1.8 or z < -4:
                    machines.car(w)
        elif k < 0.6:
            with w.at(s * (half + 0.6), 0.13, z, 0 if s < 0 else math.pi):
                _furnish(w)
        elif k < 0.8:
            with w.at(s * (half + walk * 0.5), 0.13, z):
                nature.tree(w, r.uniform(3.5, 8))


def street(w: World) -> None:
    """A road between houses, trees and parked cars, seen from it or from the pavement."""
    r = w.r
    daylight(w)
    w.place = r.choice(("a street", "a street", "a road", "a village"))
    half, walk = r.uniform(2.7, 5.5), r.uniform(1.2, 3)
    _roadway(w, half, walk)
    ex = r.choice((r.uniform(-0.7, 0.7) * half, math.copysign(half + walk * 0.5, r.random() - 0.5)))
    eye = (ex, r.uniform(1.3, 2.0) + (0.13 if abs(ex) > half else 0.0), 4.0)
    w.look(eye, (ex + r.gauss(0, 5), eye[1] + r.gauss(-0.3, 1.6), -14), r.uniform(50, 95), r.gauss(0, 0.02))
    dense = r.random()
    for s in (-1, 1):
        _house_fronts(w, s, half + walk, dense)
        _kerbside(w, s, half, walk, ex)
        if r.random() < 0.3:
            with w.at(s * (half + walk + 0.3), 0.1, -40):
                (nature.hedge if r.random() < 0.5 else fence)(w, 44, r.uniform(0.8, 1.6))
    if r.random() < 0.3:
        with w.thing("pole"):
            m = w.mat("plastic", (0.02, 0.02, 0.02))
            for k in range(3):
                w.rod(
                    (-half - 3, 6 + 0.3 * k, r.uniform(-30, 0)), (half + 3, 6.2 + 0.3 * k, r.uniform(-30, 0)), 0.02, m
                )
    if r.random() < 0.5:
        with w.at(r.uniform(-0.6, 0.6) * half, 0, r.uniform(-30, -9), r.choice((0, math.pi))):
            machines.car(w)
    if r.random() < 0.7:
        x = r.uniform(-1, 1) * (half + walk)
        hero(w, x, eye[2] - r.uniform(3, 9), eye, 0.13 if abs(x) > half else 0.0)


def _furnish(w: World) -> None:
    if w.r.random() < 0.6:
        pole(w, w.r.uniform(4, 8))
    else:
        sign(w)


def country(w: World) -> None:
    """Hills, trees, rocks, fields; from a path, a slope or close to the ground."""
    r = w.r
    daylight(w)
    w.place = r.choice(("a field", "a hillside", "a park", "a forest", "a desert"))
    kind = {"a forest": "dirt", "a desert": "dirt"}.get(w.place, r.choice(("grass", "grass", "dirt", "snow", "stone")))
    size, tall = r.uniform(40, 130), r.uniform(0.6, 9)
    with w.thing("ground", "hill" if tall > 5 else "", cast=False):
        k = w.land(
            r.choice((0, 0, 0, 4, 1)),
            (0, 0, 0),
            (size, tall, size),
            w.mat(kind, scale=r.choice((0.3, 1.0))),
            r.uniform(0.3, 0.5),
        )
        w.ground = (k, size, tall, size)
    if r.random() < 0.6:
        with w.thing("ground", "hill", cast=False):
            h = r.uniform(12, 60)
            w.land(
                r.choice((0, 1)),
                (r.uniform(-60, 60), -h * 0.3, -size - 90),
                (220, h, 110),
                w.mat(r.choice(("leaves", "stone", "grass", "snow")), scale=0.05),
                0.5,
            )
    ex, ez = r.uniform(-0.3, 0.3) * size, r.uniform(-0.1, 0.6) * size
    eye = (ex, w.height(ex, ez) + r.choice((r.uniform(1.4, 2), r.uniform(0.5, 1.2), r.uniform(2, 8))), ez)
    ahead = r.uniform(8, 30)
    tx, tz = ex + r.gauss(0, 3), ez - ahead
    down = r.choice((0.0, 0.0, -0.25, -0.5, 0.1)) * ahead
    w.look(eye, (tx, w.height(tx, tz) + 1.0 + down, tz), r.uniform(40, 90), r.gauss(0, 0.03))
    n = {"a forest": r.randrange(25, 45), "a desert": r.randrange(3)}.get(w.place, r.randrange(2, 16))
    makers: list[Callable[[World], None]] = [
        lambda v: nature.tree(v, r.uniform(3, 13)),
        lambda v: nature.tree(v, r.uniform(5, 12)),
        lambda v: nature.shrub(v, r.uniform(0.5, 1.5)),
        lambda v: nature.rock(v, r.uniform(0.3, 1.6)),
        lambda v: nature.tufts(v, 30, 0.5, r.uniform(0.2, 0.7)),
    ]
    if w.place == "a desert":
        makers = [makers[3], lambda v: nature.cactus(v, r.uniform(0.8, 3)), makers[2]]
    for _ in range(n + 5):
        d = 3.0 + 45 * r.random() ** 1.6
        x, z = ex + r.uniform(-0.9, 0.9) * d, ez - d
        if abs(x) < size and abs(z) < size:
            with w.at(x, w.height(x, z), z, r.uniform(0, 6.28)):
                makers[0 if w.place == "a forest" and r.random() < 0.7 else r.randrange(len(makers))](w)
    for _ in range(r.choice((0, 0, 1, 3))):
        x, z = ex + r.uniform(-25, 25), ez - r.uniform(18, 50)
        if abs(x) < size and abs(z) < size:
            with w.at(x, w.height(x, z) - 0.5, z, r.gauss(0, 0.8)):
                building(w, r.uniform(3, 7), r.uniform(3, 6), r.uniform(3, 8), True)
    if r.random() < 0.25:
        with w.at(ex + r.uniform(-6, 6), w.height(ex, ez - 8), ez - 8, r.uniform(0.6, 2.4)):
            fence(w, r.uniform(8, 25), 1.1)
    if r.random() < 0.7:
        d = r.uniform(2, 8)
        hero(w, ex + r.uniform(-0.3, 0.3) * d, ez - d, eye)


def garden(w: World) -> None:
    """Plants, stones, a bench or a house close by."""
    r = w.r
    daylight(w)
    w.place = r.choice(("a garden", "a yard", "a park"))
    with w.thing("ground", cast=False):
        size, tall = 14.0, r.uniform(0.0, 0.8)
        k = w.land(
            r.choice((0, 3)), (0, 0, 0), (size, tall, size), w.mat(r.choice(("grass", "grass", "dirt", "paving"))), 0.4
        )
        w.ground = (k, size, tall, size)
        w.box(0, -tall - 0.9, 0, 160, 0.4, 160, w.mat("grass"))
    if r.random() < 0.85:
        with w.at(r.gauss(0, 2), w.height(0, -7) - 0.4, -10, r.gauss(0, 0.5)):
            if r.random() < 0.6:
                building(w, r.uniform(4, 8), 3, r.uniform(3.5, 8), True)
            else:
                with w.at(-9, 0.3, 2, math.pi / 2):
                    (nature.hedge if r.random() < 0.6 else fence)(w, 18, r.uniform(1.2, 2.4))
    eye = (r.gauss(0, 1.5), r.uniform(0.7, 1.9), r.uniform(2.5, 6))
    eye = (eye[0], eye[1] + w.height(eye[0], eye[2]), eye[2])
    w.look(eye, (r.gauss(0, 1.5), eye[1] - r.uniform(-0.4, 1.3), eye[2] - 3.5), r.uniform(42, 85), r.gauss(0, 0.04))
    makers: tuple[Callable[[], None], ...] = (
        lambda: nature.tufts(w, r.randrange(20, 60), 0.3, r.uniform(0.2, 0.8)),
        lambda: nature.shrub(w, r.uniform(0.3, 0.9)),
        lambda: nature.leafy(w, r.uniform(0.5, 1.2)),
        lambda: nature.rock(w, r.uniform(0.15, 0.5)),
        lambda: nature.tree(w, r.uniform(2, 6)),
        lambda: props.potted(w, False, 1.6),
        lambda: props.chair(w),
        lambda: _dining_out(w),
        lambda: nature.mushroom(w, 0.3),
    )
    for _ in range(r.randrange(8, 20)):
        d = r.uniform(1.6, 10)
        x, z = eye[0] + r.uniform(-0.8, 0.8) * d, eye[2] - d
        if abs(x) < 13 and abs(z) < 13:
            with w.at(x, w.height(x, z), z, r.uniform(0, 6.28)):
                r.choice(makers)()
    if r.random() < 0.75:
        d = r.uniform(1.6, 4.5)
        hero(w, eye[0] + r.uniform(-0.25, 0.25) * d, eye[2] - d, eye)


def _dining_out(w: World) -> None:
    sx, sz, top = props.table(w)
    with w.at(0, top, 0):
        props.clutter(w, sx * 0.8, sz * 0.7, w.r.randrange(1, 6))


def facade(w: World) -> None:
    """A building close by, seen at a slant or from below."""
    r = w.r
    daylight(w)
    w.place = r.choice(("a facade", "a street", "a yard"))
    with w.thing("ground", cast=False):
        w.box(0, -0.5, 0, 200, 0.5, 200, w.mat(r.choice(("paving", "paving", "road", "grass"))))
    for k in range(-1, 2):
        deep = r.uniform(3, 6)
        with w.at(k * 11.5 + r.gauss(0, 0.3), 0, -deep + r.uniform(-1, 1)):
            building(w, r.uniform(5, 5.9), deep, r.uniform(5, 20), True)
    for _ in range(r.randrange(2, 8)):
        with w.at(r.uniform(-9, 9), 0, r.uniform(1.2, 5), r.uniform(0, 6.28)):
            k = r.random()
            if k < 0.3:
                props.potted(w, False, 1.5)
            elif k < 0.45:
                nature.shrub(w, 0.6)
            elif k < 0.6:
                machines.bicycle(w)
            elif k < 0.75:
                sign(w)
            else:
                nature.tree(w, r.uniform(3, 7))
    eye = (r.uniform(-6, 6), r.uniform(1.2, 2.2), r.uniform(4.5, 13))
    w.look(eye, (eye[0] + r.uniform(-7, 7), r.uniform(0.5, 6), 0), r.uniform(45, 90), r.gauss(0, 0.04))
    if r.random() < 0.6:
        hero(w, eye[0] + r.uniform(-1.5, 1.5), eye[2] - r.uniform(2.5, 4), eye, 0.0)
