"""Things people make: furniture, tableware, clutter, machines, vehicles. Origin at the base, front towards +z,
metres.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from genpercept.world.builder import World, matmul, pitch, roll, yaw

SOLID = ("wood", "paint", "metal", "plastic", "wood")


def legs(w: World, sx: float, sz: float, h: float, r: float, m: int) -> None:
    square = w.r.random() < 0.5
    for x in (-sx, sx):
        for z in (-sz, sz):
            if square:
                w.box(x, h / 2, z, r, h / 2, r, m)
            else:
                w.tube(x, h / 2, z, r * 0.7, h / 2, m, 1.4)


def table(w: World, fg: bool = False) -> tuple[float, float, float]:
    """A table; gives its half extents and the height of its top."""
    r = w.r
    sx, sz, h = r.uniform(0.4, 0.95), r.uniform(0.3, 0.5), r.choice((r.uniform(0.68, 0.8), r.uniform(0.35, 0.5)))
    with w.thing("furniture", "table", fg):
        m, n = w.mat(r.choice(SOLID)), w.mat(r.choice(SOLID))
        if r.random() < 0.3:
            w.tube(0, h - 0.02, 0, sx * 0.8, 0.02, m)
            w.tube(0, h / 2, 0, 0.05, h / 2, n)
            w.tube(0, 0.02, 0, sx * 0.4, 0.02, n, 0.4)
            return sx * 0.5, sx * 0.5, h
        w.box(0, h - 0.02, 0, sx, 0.02, sz, m)
        legs(w, sx - 0.06, sz - 0.06, h - 0.04, r.uniform(0.02, 0.045), n)
        if r.random() < 0.5:
            w.box(0, h - 0.09, 0, sx - 0.05, 0.05, sz - 0.05, n)
    return sx, sz, h


def chair(w: World, fg: bool = False) -> None:
    r = w.r
    with w.thing("furniture", "chair", fg):
        m, n = w.mat(r.choice(SOLID)), w.mat(r.choice(("fabric", "wood", "leather", "plastic")))
        s, h, back = r.uniform(0.19, 0.25), r.uniform(0.4, 0.5), r.uniform(0.35, 0.55)
        w.soft(0, h, 0, s, 0.03, s, n, 0.02)
        legs(w, s - 0.02, s - 0.02, h, 0.018, m)
        tilt = pitch(-r.uniform(0.05, 0.25))
        if r.random() < 0.5:
            w.soft(0, h + back * 0.55, -s, s, back * 0.45, 0.02, n, 0.015, tilt)
        else:
            for x in (-s, 0, s):
                w.box(x * 0.95, h + back / 2, -s, 0.018, back / 2, 0.012, m, tilt)
            w.box(0, h + back, -s - 0.05, s, 0.05, 0.015, m, tilt)
        if r.random() < 0.25:
            for x in (-s, s):
                w.box(x, h + 0.2, 0, 0.02, 0.015, s, m)
                w.box(x, h + 0.1, s * 0.8, 0.015, 0.1, 0.015, m)


def sofa(w: World, fg: bool = False) -> None:
    r = w.r
    with w.thing("furniture", "sofa", fg):
        m = w.mat(r.choice(("fabric", "leather", "fabric")))
        sx, sz, h = r.choice((0.45, r.uniform(0.75, 1.1))), 0.45, r.uniform(0.36, 0.45)
        w.soft(0, h / 2, 0, sx, h / 2, sz, m, 0.05)
        w.soft(0, h + 0.18, -sz + 0.1, sx, 0.28, 0.12, m, 0.09, pitch(-0.15))
        for x in (-sx, sx):
            w.soft(x, h * 0.72, 0, 0.1, h * 0.72, sz, m, 0.08)
        n = max(1, round(sx / 0.4))
        for k in range(n):
            x = (k + 0.5) / n * 2 * sx - sx
            w.soft(x, h + 0.05, 0.04, sx / n * 0.93, 0.08, sz * 0.85, m, 0.06)
    for _ in range(r.randrange(4)):
        with w.thing("textile", "cushion"):
            w.soft(
                r.uniform(-sx, sx) * 0.7,
                h + 0.27,
                -0.12,
                0.19,
                0.17,
                0.07,
                w.mat("fabric"),
                0.065,
                pitch(-r.uniform(0.2, 0.6)),
            )


def bed(w: World, fg: bool = False) -> None:
    r = w.r
    sx, sz, h = r.uniform(0.5, 0.9), 1.0, r.uniform(0.25, 0.4)
    with w.thing("furniture", "bed", fg):
        m = w.mat(r.choice(("wood", "paint", "fabric")))
        w.box(0, h / 2, 0, sx, h / 2, sz, m)
        w.box(0, h + 0.2, -sz, sx, r.uniform(0.3, 0.6), 0.03, m)
        w.soft(0, h + 0.1, 0, sx * 0.97, 0.12, sz * 0.97, w.mat("fabric"), 0.08)
    with w.thing("textile"):
        q = w.mat("fabric")
        w.land(3, (0, h + 0.24, 0.25), (sx * 1.02, 0.035, 0.72), q, 0.5)
        w.soft(0, h + 0.1, 0.25, sx * 1.03, 0.13, 0.73, q, 0.06)
    for x in (-sx * 0.45, sx * 0.45):
        with w.thing("textile", "cushion"):
            w.soft(x, h + 0.28, -sz + 0.28, 0.3, 0.08, 0.2, w.mat("fabric"), 0.07, matmul_small(w, 0.3))


def matmul_small(w: World, a: float) -> tuple[float, ...]:
    """A small random turn."""
    return yaw(w.r.uniform(-a, a)) if w.r.random() < 0.5 else pitch(w.r.uniform(0, a))


def book_row(w: World, length: float, depth: float, room: float) -> None:
    """Books standing along x from -length to length."""
    x, r = -length, w.r
    with w.thing("book", "book"):
        mats = [w.mat(r.choice(("paint", "fabric", "plastic", "picture", "leather")), scale=2.0) for _ in range(6)]
        while x < length - 0.03 and r.random() < 0.97:
            t, h = r.uniform(0.008, 0.028), room * r.uniform(0.6, 0.93)
            lean = roll(-r.uniform(0.05, 0.25)) if r.random() < 0.07 else None
            w.box(x + t, h / 2, r.uniform(-0.02, 0.02), t, h / 2, depth * r.uniform(0.7, 0.95), r.choice(mats), lean)
            x += 2 * t + (0.004 if r.random() < 0.9 else r.uniform(0.02, 0.2))


def shelf(w: World, fg: bool = False) -> None:
    r = w.r
    sx, sz, h, n = r.uniform(0.35, 0.8), r.uniform(0.13, 0.2), r.uniform(0.9, 2.1), 0
    with w.thing("furniture", "shelf", fg):
        m = w.mat(r.choice(SOLID))
        for x in (-sx, sx):
            w.box(x, h / 2, 0, 0.012, h / 2, sz, m)
        if r.random() < 0.7:
            w.box(0, h / 2, -sz, sx, h / 2, 0.006, w.mat(r.choice(SOLID)))
        n = max(2, round(h / r.uniform(0.28, 0.42)))
        for k in range(n + 1):
            w.box(0, k * h / n, 0, sx, 0.011, sz, m)
    for k in range(n):
        with w.at(0, k * h / n + 0.012, 0):
            if r.random() < 0.6:
                book_row(w, sx - 0.03, sz, h / n)
            else:
                for _ in range(r.randrange(1, 4)):
                    with w.at(r.uniform(-sx, sx) * 0.75, 0, 0, r.uniform(0, 6)):
                        small_thing(w, min(h / n * 0.7, 0.22))


def cupboard(w: World, fg: bool = False) -> None:
    """A body with doors or drawers."""
    r = w.r
    sx, sz, h = r.uniform(0.3, 0.9), r.uniform(0.2, 0.32), r.choice((r.uniform(0.5, 1.0), r.uniform(1.6, 2.2)))
    with w.thing("furniture", "cupboard", fg):
        m, k = w.mat(r.choice(("wood", "paint", "paint", "plastic"))), w.mat("metal")
        w.box(0, h / 2 + 0.03, 0, sx, h / 2, sz, m)
        cols, rows = r.randrange(1, 4), r.randrange(1, 5)
        f = m if r.random() < 0.6 else w.mat(r.choice(SOLID))
        for i in range(cols):
            for j in range(rows):
                x, y = (i + 0.5) / cols * 2 * sx - sx, 0.04 + (j + 0.5) / rows * (h - 0.02)
                w.box(x, y, sz + 0.008, sx / cols - 0.012, h / rows / 2 - 0.012, 0.01, f)
                w.ball(x + r.choice((0, sx / cols * 0.7)), y, sz + 0.03, 0.014, 0.014, 0.014, k)
    if h < 1.2:
        with w.at(0, h + 0.03, 0):
            clutter(w, sx * 0.8, sz * 0.7, r.randrange(5))


def lamp(w: World, fg: bool = False) -> None:
    r = w.r
    with w.thing("lamp", "lamp", fg, cast=False):
        m, shade = w.mat("metal"), w.mat("paint", (0.9, 0.75, 0.5), glow=r.choice((0.0, 1.5, 3.0)))
        h = r.uniform(1.2, 1.8)
        w.tube(0, 0.015, 0, 0.14, 0.015, m)
        w.rod((0, 0, 0), (0, h, 0), 0.012, m)
        w.tube(0, h, 0, r.uniform(0.14, 0.22), r.uniform(0.1, 0.16), shade, r.uniform(0.4, 1), 2)


def potted(w: World, fg: bool = False, size: float = 1.0) -> None:
    """A leafy plant in a pot."""
    r = w.r
    with w.thing("plant", "plant", fg, fuzz=0.0):
        s, n = size * r.uniform(0.7, 1.2), r.randrange(14, 44)
        w.tube(
            0,
            0.12 * s,
            0,
            0.1 * s,
            0.12 * s,
            w.mat(r.choice(("ceramic", "brick", "plastic", "stone"))),
            r.uniform(1.1, 1.5),
            1,
        )
        w.tube(0, 0.21 * s, 0, 0.12 * s, 0.01, w.mat("dirt", scale=4))
        mats = [w.mat("leaf") for _ in range(2)]
        tall, wide, long = r.uniform(0.2, 0.8) * s, r.uniform(0.12, 0.4) * s, r.uniform(0.06, 0.2) * s
        for _ in range(n):
            a, up = r.uniform(0, 6.28), r.uniform(0.1, 1.2)
            y, d = 0.22 * s + tall * r.random(), wide * r.uniform(0.2, 1)
            x, z = d * math.cos(a), d * math.sin(a)
            with w.at(x, y, z, yaw(math.pi / 2 - a)):
                w.sheet(0, 0, 0, long * r.uniform(0.25, 0.5), long, r.choice(mats), pitch(-up + 0.6), 2)
            if r.random() < 0.5:
                w.rod((0, 0.2 * s, 0), (x, y, z), 0.005 * s, mats[0])


def cup(w: World, s: float) -> None:
    with w.thing("container", "cup"):
        m, r = w.mat("ceramic"), s * w.r.uniform(0.3, 0.45)
        w.tube(0, s / 2, 0, r * w.r.uniform(0.6, 1), s / 2, m, w.r.uniform(1, 1.4), 1)
        w.ring(r * 1.15, s / 2, 0, s * 0.26, s * 0.05, m, pitch(math.pi / 2))
        w.tube(0, s * 0.4, 0, r * 0.95, s * 0.3, w.mat("fruit"))


def bottle(w: World, s: float) -> None:
    with w.thing("container", "bottle"):
        m, r = w.mat(w.r.choice(("ceramic", "glass", "plastic"))), s * w.r.uniform(0.12, 0.2)
        h = s * w.r.uniform(0.5, 0.65)
        w.tube(0, h / 2, 0, r, h / 2, m)
        w.tube(0, h + s * 0.07, 0, r, s * 0.07, m, 0.4)
        w.tube(0, h + s * 0.2, 0, r * 0.4, s * 0.1, m)
        w.tube(0, s * 0.98, 0, r * 0.45, s * 0.05, w.mat("plastic"))
        if w.r.random() < 0.6:
            w.tube(0, h * 0.5, 0, r * 1.02, h * 0.25, w.mat(w.r.choice(("paper", "picture")), scale=3), 1, 2)


def bowl(w: World, s: float) -> None:
    n = w.r.randrange(5)
    with w.thing("container", "bowl" if w.r.random() < 0.7 else "plate"):
        m = w.mat("ceramic")
        h = s * w.r.uniform(0.12, 0.3)
        w.tube(0, h, 0, s * 0.35, h, m, w.r.uniform(1.5, 2.0), 1)
    for _ in range(n):
        with w.at(w.r.uniform(-0.3, 0.3) * s, h * 1.2, w.r.uniform(-0.3, 0.3) * s):
            fruit(w, s * 0.5)


def fruit(w: World, s: float) -> None:
    with w.thing("object", "fruit"):
        m, r = w.mat("fruit"), s * w.r.uniform(0.3, 0.5)
        w.ball(0, r, 0, r, r * w.r.uniform(0.8, 1.3), r, m, pitch(w.r.uniform(0, 1.5)))
        w.rod((0, r * 1.8, 0), (0.1 * r, r * 2.3, 0), r * 0.06, w.mat("bark", scale=5))


def vase(w: World, s: float) -> None:
    """A turned profile, sometimes with stalks and blossoms."""
    r = w.r
    with w.thing("container", "vase"):
        m, radius, y, n = w.mat("ceramic"), s * r.uniform(0.15, 0.3), 0.0, r.randrange(3, 6)
        for k in range(n):
            nxt, h = s * r.uniform(0.08, 0.36), s / n / 2
            w.tube(0, y + h, 0, radius, h, m, nxt / radius, 1 if k == n - 1 else 0)
            radius, y = nxt, y + 2 * h
    if r.random() < 0.5:
        with w.thing("plant", "flower"):
            stalk, bloom = w.mat("leaf"), w.mat("paint", scale=4)
            for _ in range(r.randrange(3, 9)):
                a, b = r.uniform(0, 6.28), r.uniform(0.1, 0.6) * s
                tip = (b * math.cos(a), s * r.uniform(1.3, 1.9), b * math.sin(a))
                w.rod((0, s * 0.9, 0), tip, 0.012 * s, stalk)
                with w.at(*tip, pitch(r.uniform(-0.6, 1))):
                    for k in range(5):
                        c = k * 1.257
                        w.ball(
                            0.07 * s * math.cos(c),
                            0,
                            0.07 * s * math.sin(c),
                            0.07 * s,
                            0.02 * s,
                            0.05 * s,
                            bloom,
                            yaw(-c),
                        )


def book_stack(w: World, s: float) -> None:
    with w.thing("book", "book"):
        y = 0.0
        for _ in range(w.r.randrange(1, 6)):
            t = w.r.uniform(0.04, 0.12) * s
            w.box(
                0,
                y + t,
                0,
                s * w.r.uniform(0.4, 0.55),
                t,
                s * w.r.uniform(0.3, 0.4),
                w.mat(w.r.choice(("paint", "picture", "paper"))),
                yaw(w.r.uniform(-0.5, 0.5)),
            )
            y += 2 * t


def carton(w: World, s: float) -> None:
    with w.thing("container", "box"):
        a, b = w.r.uniform(0.3, 0.6) * s, w.r.uniform(0.25, 0.6) * s
        w.box(0, b, 0, a, b, a * w.r.uniform(0.5, 1), w.mat(w.r.choice(("wood", "paper", "paint", "picture", "any"))))
        w.box(0, b * 2, 0, a * 1.01, 0.01 * s, a * 0.15, w.mat("plastic"))


def ball(w: World, s: float) -> None:
    with w.thing("object", "ball"):
        w.ball(0, s * 0.4, 0, s * 0.4, s * 0.4, s * 0.4, w.mat(w.r.choice(("any", "plastic", "leather"))))


def screen(w: World, s: float) -> None:
    with w.thing("machine", "screen"):
        m = w.mat("plastic", (0.02, 0.02, 0.022))
        a, b = s * w.r.uniform(0.7, 1.1), s * w.r.uniform(0.4, 0.6)
        w.tube(0, 0.01, 0, s * 0.3, 0.01, m)
        w.box(0, b * 0.4, 0, 0.03 * s, b * 0.4, 0.02, m)
        w.box(0, b * 1.4, 0, a, b, 0.015, m)
        w.box(
            0,
            b * 1.4,
            0.015,
            a * 0.95,
            b * 0.92,
            0.004,
            w.mat(w.r.choice(("picture", "paper", "glass")), glow=w.r.choice((0, 0.8))),
        )


def toy(w: World, s: float) -> None:
    """A few random shapes stuck together."""
    with w.thing("object", "toy"):
        for _ in range(w.r.randrange(2, 6)):
            blob(
                w,
                w.r.uniform(-0.25, 0.25) * s,
                s * w.r.uniform(0.15, 0.7),
                w.r.uniform(-0.25, 0.25) * s,
                s * w.r.uniform(0.12, 0.3),
            )


def blob(w: World, x: float, y: float, z: float, s: float, kind: str = "any") -> None:
    """One random shape of size s."""
    r, m = (
        w.r,
        w.mat(
            kind
            if w.r.random() < 0.5
            else w.r.choice(("plastic", "metal", "wood", "ceramic", "paint", "stone", "rust"))
        ),
    )
    rot = any_turn(w)
    k = r.randrange(8)
    a, b, c = s * r.uniform(0.4, 1), s * r.uniform(0.4, 1), s * r.uniform(0.4, 1)
    if k == 0:
        w.ball(x, y, z, a, b, c, m, rot)
    elif k == 1:
        w.box(x, y, z, a, b, c, m, rot)
    elif k == 2:
        w.tube(x, y, z, a, b, m, 1.0, r.choice((0, 0, 1, 2)), rot)
    elif k == 3:
        w.tube(x, y, z, a, b, m, r.uniform(0, 0.7), 0, rot)
    elif k == 4:
        w.ring(x, y, z, a * 0.75, a * r.uniform(0.08, 0.24), m, rot)
    elif k == 5:
        w.soft(x, y, z, a, b, c, m, 0.4 * min(a, b, c), rot)
    elif k == 6:
        w.part(8, (x, y, z), (a, b, c), m, rot)
    else:
        d = (rot[1] * a, rot[4] * a, rot[7] * a)
        w.rod((x - d[0], y - d[1], z - d[2]), (x + d[0], y + d[1], z + d[2]), s * r.uniform(0.08, 0.4), m)


def any_turn(w: World) -> tuple[float, ...]:
    return matmul(yaw(w.r.uniform(0, 6.28)), matmul(pitch(w.r.uniform(0, 6.28)), roll(w.r.uniform(0, 6.28))))


SMALL: tuple[Callable[[World, float], None], ...] = (
    cup,
    bottle,
    bowl,
    fruit,
    vase,
    book_stack,
    carton,
    ball,
    toy,
    bottle,
    cup,
)


def small_thing(w: World, s: float) -> None:
    w.r.choice(SMALL)(w, s * w.r.uniform(0.6, 1.0))


def clutter(w: World, sx: float, sz: float, count: int, size: float = 0.22) -> None:
    """Small things on a surface, not through one another."""
    placed: list[tuple[float, float, float]] = []
    for _ in range(count):
        s = size * w.r.uniform(0.6, 1.2)
        x, z = w.r.uniform(-sx, sx), w.r.uniform(-sz, sz)
        if all(math.hypot(x - a, z - b) > 0.45 * (s + c) for a, b, c in placed):
            placed.append((x, z, s))
            with w.at(x, 0, z, w.r.uniform(0, 6.28)):
                small_thing(w, s)
