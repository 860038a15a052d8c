"""Rooms: walls with what hangs on them, furniture along them and in the middle, clutter on top."""

from __future__ import annotations

import math

from genpercept.world import bodies, machines, props
from genpercept.world.builder import Vec, World, pitch
from genpercept.world.light import lamplight

# What may be on a wall. The frame stands on the floor at the wall's middle, the wall is z = 0, facing +z. Each function
# gets the place along the wall (x), the wall's length and the room's height, in metres.


def _window(w: World, x: float, length: float, h: float) -> None:
    """A frame with a view, sometimes between curtains."""
    r = w.r
    a, b, y = r.uniform(0.35, min(1.2, length * 0.35)), r.uniform(0.4, 0.75), h * 0.58
    with w.thing("window", "window"):
        frame = w.mat("paint", (0.7, 0.7, 0.68) if r.random() < 0.6 else None)
        view = w.mat(r.choice(("picture", "glow", "paint", "leaves")), scale=0.7, glow=r.choice((0.3, 1.2, 2.5, 4.0)))
        w.box(x, y, 0.0, a, b, 0.01, view)
        for s in (-1, 1):
            w.box(x + s * a, y, 0.02, 0.035, b + 0.035, 0.03, frame)
            w.box(x, y + s * b, 0.02, a, 0.035, 0.03, frame)
        for k in range(1, r.randrange(2, 5)):
            w.box(x - a + 2 * a * k / 3, y, 0.015, 0.018, b, 0.015, frame)
        w.box(x, y - b - 0.04, 0.08, a + 0.06, 0.015, 0.08, frame)
    if r.random() < 0.6:
        with w.thing("textile", "curtain"):
            m, drop = w.mat("fabric"), min(y + b + 0.1, r.choice((b + 0.3, 9.0)))
            for s in (-1, 1):
                wide = r.uniform(0.15, 0.45) * a + 0.1
                w.land(
                    2,
                    (x + s * (a + 0.05), y + b + 0.12 - drop * 0.5, 0.12),
                    (wide, 0.045, drop * 0.5),
                    m,
                    0.4,
                    pitch(math.pi / 2),
                )
        with w.thing("object"):
            w.rod((x - a - 0.3, y + b + 0.14, 0.12), (x + a + 0.3, y + b + 0.14, 0.12), 0.014, w.mat("metal"))


def _door(w: World, x: float, length: float, h: float) -> None:
    r = w.r
    with w.thing("door", "door"):
        m, n = w.mat(r.choice(("wood", "paint", "paint"))), w.mat("metal")
        w.box(x, 1.0, 0.01, 0.42, 1.0, 0.03, m)
        f = m if r.random() < 0.5 else w.mat("paint")
        for s in (-1, 1):
            w.box(x + s * 0.46, 1.02, 0.02, 0.05, 1.05, 0.04, f)
        w.box(x, 2.06, 0.02, 0.5, 0.05, 0.04, f)
        for k in range(r.randrange(4)):
            w.box(x, 0.35 + 0.6 * k, 0.045, 0.3, 0.22, 0.008, m)
        w.rod((x + 0.34, 1.0, 0.07), (x + 0.24, 1.0, 0.07), 0.012, n)


def _picture(w: World, x: float, length: float, h: float) -> None:
    """One to three framed pictures side by side."""
    r = w.r
    for k in range(r.choice((1, 1, 2, 3))):
        with w.thing("picture", "picture"):
            a, b = r.uniform(0.12, 0.5), r.uniform(0.12, 0.45)
            px, y = x + 0.9 * k, h * r.uniform(0.5, 0.72)
            w.box(px, y, 0.01, a + 0.03, b + 0.03, 0.018, w.mat(r.choice(("wood", "metal", "paint"))))
            w.box(px, y, 0.024, a, b, 0.008, w.mat(r.choice(("picture", "picture", "any"))))


def _shelf(w: World, x: float, length: float, h: float) -> None:
    """Boards with books or clutter on them."""
    r = w.r
    y, a = h * r.uniform(0.45, 0.7), r.uniform(0.3, 0.7)
    for k in range(r.randrange(1, 4)):
        with w.thing("furniture", "shelf"):
            w.box(x, y + 0.33 * k, 0.12, a, 0.014, 0.12, w.mat(r.choice(props.SOLID)))
        with w.at(x, y + 0.33 * k + 0.015, 0.12):
            if r.random() < 0.5:
                props.book_row(w, a * 0.9, 0.1, 0.27)
            else:
                props.clutter(w, a * 0.85, 0.05, r.randrange(1, 5), 0.2)


def _radiator(w: World, x: float, length: float, h: float) -> None:
    r = w.r
    with w.thing("machine", "radiator"):
        m, n = w.mat("paint", (0.75, 0.75, 0.72)), r.randrange(8, 18)
        for k in range(n):
            w.soft(x + (k - n / 2) * 0.06, 0.4, 0.08, 0.022, 0.28, 0.05, m, 0.02)


def _counter(w: World, x: float, length: float, h: float) -> None:
    """A kitchen counter with cupboards, clutter on it."""
    r = w.r
    a = length * r.uniform(0.3, 0.48)
    with w.thing("furniture", "counter"):
        m, k = w.mat(r.choice(("wood", "paint", "plastic"))), w.mat("metal")
        w.box(x * 0.2, 0.43, 0.3, a, 0.43, 0.29, m)
        w.box(x * 0.2, 0.89, 0.31, a + 0.01, 0.025, 0.32, w.mat(r.choice(("stone", "wood", "plastic"))))
        n = max(1, int(a / 0.28))
        for i in range(n):
            cx = x * 0.2 - a + (i + 0.5) * 2 * a / n
            w.box(cx, 0.45, 0.595, a / n - 0.01, 0.36, 0.01, m)
            w.rod((cx - 0.08, 0.74, 0.63), (cx + 0.08, 0.74, 0.63), 0.008, k)
        if r.random() < 0.7:
            for i in range(n):
                cx = x * 0.2 - a + (i + 0.5) * 2 * a / n
                w.box(cx, 1.75, 0.17, a / n - 0.006, 0.33, 0.17, m)
    with w.at(x * 0.2, 0.915, 0.3):
        props.clutter(w, a * 0.9, 0.2, r.randrange(2, 9), 0.26)


def _clock(w: World, x: float, length: float, h: float) -> None:
    r = w.r
    with w.thing("object", "clock"):
        m = w.mat("paint", (0.8, 0.8, 0.78))
        w.tube(x, h * 0.72, 0.02, 0.16, 0.02, m, 1, 0, pitch(math.pi / 2))
        w.ring(x, h * 0.72, 0.03, 0.16, 0.018, w.mat("metal"), pitch(math.pi / 2))
        for t, d in ((r.uniform(0, 6), 0.12), (r.uniform(0, 6), 0.08)):
            w.rod(
                (x, h * 0.72, 0.045),
                (x + d * math.cos(t), h * 0.72 + d * math.sin(t), 0.045),
                0.006,
                w.mat("plastic", (0.02, 0.02, 0.02)),
            )


_WALL = (_window, _window, _door, _picture, _picture, _shelf, _radiator, _counter, _clock)
_FLOOR = (
    (props.sofa, 1.0, 0.5),
    (props.cupboard, 0.8, 0.33),
    (props.shelf, 0.7, 0.22),
    (props.bed, 0.9, 1.05),
    (props.lamp, 0.25, 0.25),
    (props.potted, 0.35, 0.35),
    (props.chair, 0.3, 0.3),
    (props.cupboard, 0.8, 0.33),
    (props.shelf, 0.7, 0.22),
)


def _shell(w: World, a: float, b: float, h: float) -> None:
    """Floor, ceiling and four walls of a room 2a by 2b, and what hangs on the walls."""
    r = w.r
    with w.thing("floor", cast=False):
        w.box(0, -0.05, 0, a, 0.05, b, w.mat(r.choice(("floor", "floor", "floor", "carpet", "paving"))))
    with w.thing("ceiling", cast=False):
        m = w.mat("paint", (0.8, 0.79, 0.76)) if r.random() < 0.7 else w.mat(r.choice(("plaster", "wood", "paint")))
        w.box(0, h + 0.05, 0, a, 0.05, b, m)
        if r.random() < 0.25:
            beam = w.mat("wood")
            for k in range(4):
                w.box(0, h - 0.07, -b + (k + 0.5) * b / 2, a, 0.07, 0.06, beam)
    kinds = ("paint", "paint", "plaster", "wallpaper", "wallpaper", "brick", "wood", "stone")
    main = w.mat(r.choice(kinds))
    skirting = w.mat(r.choice(("paint", "wood"))) if r.random() < 0.7 else -1
    for k, (half, dist) in enumerate(((a, b), (b, a), (a, b), (b, a))):
        with w.at(math.sin(k * math.pi / 2) * -dist, 0, math.cos(k * math.pi / 2) * -dist, k * math.pi / 2):
            with w.thing("wall", cast=False):
                w.box(0, h / 2, -0.05, half, h / 2, 0.05, main if r.random() < 0.8 else w.mat(r.choice(kinds)))
                if skirting >= 0:
                    w.box(0, 0.05, 0.01, half, 0.05, 0.012, skirting)
            for _ in range(r.choice((1, 1, 2, 2, 3))):
                item = r.choice(_WALL)
                item(w, r.uniform(-0.4, 0.4) * (2 * half), 2 * half, h)


def _dining(w: World) -> None:
    sx, sz, top = props.table(w)
    with w.at(0, top, 0):
        props.clutter(w, sx * 0.85, sz * 0.8, w.r.randrange(1, 9))
    for k in range(w.r.randrange(0, 5)):
        side = -1 if k % 2 else 1
        with w.at(
            w.r.uniform(-0.6, 0.6) * sx,
            0,
            side * (sz + w.r.uniform(0.05, 0.3)),
            math.pi / 2 * (1 + side) + w.r.gauss(0, 0.3),
        ):
            props.chair(w)


def _desk(w: World) -> None:
    sx, sz, top = props.table(w)
    with w.at(0, top, -sz * 0.4, w.r.gauss(0, 0.2)):
        props.screen(w, 0.32)
    with w.at(0, top, sz * 0.4):
        props.clutter(w, sx * 0.9, sz * 0.3, w.r.randrange(1, 6), 0.18)
    with w.at(0, 0, sz + 0.15, math.pi + w.r.gauss(0, 0.5)):
        props.chair(w)


def _stand(w: World, a: float, b: float) -> tuple[float, float, Vec]:
    """Put the camera into a room 2a by 2b; gives where it stands (x, z) and the point that it looks at."""
    r = w.r
    ex, ez = r.uniform(-0.8, 0.8) * a, b * r.uniform(0.55, 0.93)
    eye = (ex, r.choice((r.uniform(1.1, 1.75), r.uniform(0.6, 1.2))), ez)
    aim = r.random()
    target = (r.gauss(0, 0.5) * a, eye[1] + r.gauss(-0.25, 0.35), -b * r.uniform(0, 0.9))
    if aim < 0.25:  # a wall or a corner close by
        target = (math.copysign(a, r.random() - 0.5), r.uniform(0.3, 1.6), ez - r.uniform(-0.2, 1.5))
    elif aim < 0.4:  # down at the floor and the furniture
        target = (r.uniform(-0.5, 0.5) * a, 0.2, ez - r.uniform(0.8, 2.0))
    w.look(eye, target, r.uniform(48, 92), r.gauss(0, 0.04))
    return ex, ez, target


def _along_the_walls(w: World, a: float, b: float, ex: float, ez: float) -> float:
    """Furniture along the walls, clear of the camera; gives what decides on the foreground object, in [0, 1)."""
    r = w.r
    walls = [(k, s) for k in range(4) for s in (-0.6, 0.0, 0.6)]
    r.shuffle(walls)
    hero = r.random()
    for k, s in walls[: r.randrange(3, 9)]:
        item, _, deep = r.choice(_FLOOR)
        half, dist = ((a, b), (b, a))[k % 2]
        with (
            w.at(math.sin(k * math.pi / 2) * -dist, 0, math.cos(k * math.pi / 2) * -dist, k * math.pi / 2),
            w.at(s * half, 0, deep + 0.06),
        ):
            x, _, z = w.point(0, 0, 0)
            if math.hypot(x - ex, z - ez) > 0.95 + deep:
                item(w)
    return hero


def _in_the_middle(w: World, a: float, b: float, ex: float, ez: float) -> None:
    """A rug, and up to two tables or sofas away from the camera."""
    r = w.r
    if r.random() < 0.45:
        with w.thing("textile", "rug", cast=False):
            w.box(
                r.gauss(0, 0.3),
                0.006,
                r.gauss(0, 0.5),
                r.uniform(0.5, 1.2),
                0.008,
                r.uniform(0.5, 1.2),
                w.mat("carpet"),
            )
    for _ in range(r.choice((0, 1, 1, 1, 2))):
        x, z = r.uniform(-0.5, 0.5) * a, r.uniform(-0.6, 0.35) * b
        if math.hypot(x - ex, z - ez) > 1.5:
            with w.at(x, 0, z, r.uniform(0, 6.28)):
                r.choice((_dining, _dining, _desk, props.sofa))(w)


def _hanging_lamp(w: World, a: float, b: float, h: float) -> None:
    r = w.r
    with w.thing("lamp", "lamp", cast=False):
        y = h - r.uniform(0.2, 0.9)
        x, z = r.uniform(-0.4, 0.4) * a, r.uniform(-0.6, 0.3) * b
        w.rod((x, y, z), (x, h, z), 0.008, w.mat("metal"))
        w.tube(
            x,
            y,
            z,
            r.uniform(0.1, 0.28),
            r.uniform(0.06, 0.16),
            w.mat("paint", glow=r.choice((0.2, 2.0))),
            r.uniform(0.2, 0.9),
            2,
        )


def room(w: World) -> None:
    """A furnished room seen from inside."""
    r = w.r
    a, b, h = r.uniform(1.3, 3.2), r.uniform(1.5, 4.2), r.uniform(2.3, 3.2)
    if r.random() < 0.12:
        a = r.uniform(0.8, 1.2)
    w.place = r.choice(("a room", "a room", "a living room", "an office", "a corner")) if a > 1.2 else "a corridor"
    _shell(w, a, b, h)
    ex, ez, target = _stand(w, a, b)
    hero = _along_the_walls(w, a, b, ex, ez)
    _in_the_middle(w, a, b, ex, ez)
    _inhabitant(w, a, b, ex, ez, hero, target)
    if r.random() < 0.5:
        with w.at(r.uniform(-0.6, 0.6) * a, 0, r.uniform(-0.7, 0.3) * b):
            props.clutter(w, 0.8, 0.8, r.randrange(1, 6), 0.4)
    if r.random() < 0.4:
        _hanging_lamp(w, a, b, h)
    lamplight(w, (-a, 0, -b), (a, h, b))


def _inhabitant(w: World, a: float, b: float, ex: float, ez: float, hero: float, target: Vec) -> None:
    """The foreground object: a person, an animal or a piece of furniture on the way to what the camera looks at."""
    r = w.r
    f = r.uniform(0.35, 0.8)
    x, z = ex + f * (target[0] - ex) + r.gauss(0, 0.2), ez + f * (target[2] - ez)
    if math.hypot(x - ex, z - ez) < 1.0 or abs(x) > a - 0.4 or abs(z) > b - 0.4:
        x, z = 0.3 * a * r.uniform(-1, 1), max(ez - r.uniform(1.3, 2.4), -b + 0.4)
    face = math.atan2(ex - x, ez - z) + r.gauss(0, 0.7)
    with w.at(x, 0, z, face):
        if hero < 0.4:
            seat = r.choice((0.0, 0.0, 0.45))
            if seat:
                with w.thing("furniture", "stool"):
                    w.box(0, 0.22, -0.05, 0.2, 0.22, 0.2, w.mat(r.choice(props.SOLID)))
            bodies.person(w, True, seat, r.choice((0.0, 0.0, 0.3)))
        elif hero < 0.55:
            bodies.animal(w, True, r.uniform(0.25, 0.7), r.uniform(0.3, 0.6))
        else:
            item = r.choice(
                (props.chair, props.potted, props.lamp, props.sofa, machines.bicycle, props.cupboard, props.shelf)
            )
            item(w, True)
