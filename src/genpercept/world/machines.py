"""Wheels, cars, bicycles, engines. Origin at the base, front towards +z, metres."""

from __future__ import annotations

import math

from genpercept.world.builder import World, pitch, roll
from genpercept.world.props import any_turn


def wheel(w: World, x: float, y: float, z: float, s: float, spokes: int = 0) -> None:
    """A wheel in the y-z plane, radius s."""
    rim, tyre = w.mat("metal"), w.mat("plastic", (0.02, 0.02, 0.02))
    w.ring(x, y, z, s * 0.84, s * 0.16, tyre, roll(math.pi / 2))
    if spokes:
        w.tube(x, y, z, s * 0.12, s * 0.1, rim, 1, 0, roll(math.pi / 2))
        for k in range(spokes):
            a = k * 6.283 / spokes
            w.rod((x, y, z), (x, y + 0.75 * s * math.sin(a), z + 0.75 * s * math.cos(a)), s * 0.02, rim)
    else:
        w.tube(x, y, z, s * 0.7, s * 0.12, rim, 1, 0, roll(math.pi / 2))


def car(w: World, fg: bool = False) -> None:
    """A car or van along z."""
    r = w.r
    van = r.random() < 0.3
    with w.thing("vehicle", "truck" if van and r.random() < 0.5 else "car", fg):
        body, glass, dark = w.mat("car"), w.mat("glass"), w.mat("plastic", (0.02, 0.02, 0.025))
        sx, sz, base = r.uniform(0.8, 0.92), r.uniform(1.9, 2.4), r.uniform(0.62, 0.75)
        if van:
            top = r.uniform(0.9, 1.6)
            w.soft(0, 0.35 + top, -0.15 * sz, sx, top, sz * 0.85, body, 0.1)
            w.soft(0, 0.75, 0.1, sx, 0.45, sz, body, 0.15)
            w.box(0, 0.5 + top * 1.15, sz * 0.7, sx * 0.9, top * 0.25, 0.03, glass, pitch(-0.25))
        else:
            w.soft(0, base, 0, sx, 0.33, sz, body, 0.2)
            w.soft(0, base + 0.5, -0.15 * sz, sx * 0.82, 0.36, sz * 0.52, glass, 0.28)
            w.soft(0, base + 0.82, -0.18 * sz, sx * 0.72, 0.05, sz * 0.33, body, 0.045)
            for z in (-0.62, -0.12, 0.3):
                for x in (-1, 1):
                    w.box(x * sx * 0.8, base + 0.55, z * sz, 0.025, 0.32, 0.03, body, pitch(0.5 * (z + 0.2)))
        for x in (-1, 1):
            for z in (-0.6, 0.62):
                wheel(w, x * sx * 0.93, 0.32, z * sz, 0.32)
            w.ball(x * sx * 0.7, base + 0.05, sz * 0.96, 0.14, 0.08, 0.06, w.mat("glow", (0.9, 0.9, 0.8), glow=0.4))
            w.box(x * sx * 0.75, base + 0.08, -sz * 0.985, 0.12, 0.07, 0.03, w.mat("glow", (0.6, 0.02, 0.02), glow=0.2))
        w.box(0, base - 0.05, sz * 0.99, 0.35, 0.08, 0.02, dark)
        w.box(0, base - 0.1, -sz * 0.99, 0.25, 0.06, 0.02, w.mat("paper", scale=2))
        w.box(0, 0.33, 0, sx * 0.85, 0.1, sz * 0.9, dark)


def bicycle(w: World, fg: bool = False) -> None:
    with w.thing("vehicle", "bicycle", fg):
        m, dark = w.mat("car"), w.mat("leather", (0.03, 0.03, 0.03))
        for z in (-0.5, 0.5):
            wheel(w, 0, 0.34, z, 0.34, 8)
        pts = {
            "a": (0, 0.34, -0.5),
            "b": (0, 0.3, -0.05),
            "c": (0, 0.85, -0.2),
            "d": (0, 0.85, 0.32),
            "e": (0, 0.34, 0.5),
        }
        for p, q in ("ab", "ac", "bc", "cd", "bd", "de"):
            w.rod(pts[p], pts[q], 0.018, m)
        w.rod((0, 0.85, 0.32), (0, 1.0, 0.3), 0.015, m)
        w.rod((-0.25, 1.0, 0.25), (0.25, 1.0, 0.25), 0.014, m)
        w.soft(0, 0.92, -0.22, 0.06, 0.03, 0.13, dark, 0.028)


def engine(w: World, s: float, fg: bool = False, parts: int = 60) -> None:
    """A close-packed machine of pipes, cylinders, boxes and rings, about s across."""
    r = w.r
    with w.thing("machine", "engine", fg):
        mats = [w.mat(k) for k in ("metal", "metal", "metal", "car", "plastic", "rust", "plastic", "paint")]
        for _ in range(parts):
            x, y, z = (r.gauss(0, 0.33) * s for _ in range(3))
            y = abs(y + 0.4 * s) + 0.05
            k, m, a = r.random(), r.choice(mats), s * r.uniform(0.03, 0.16)
            rot = r.choice((None, pitch(math.pi / 2), roll(math.pi / 2), any_turn(w)))
            if k < 0.3:
                w.tube(x, y, z, a, a * r.uniform(0.4, 2), m, r.choice((1, 1, r.uniform(0.5, 1))), 0, rot)
            elif k < 0.45:
                w.soft(x, y, z, a, a * r.uniform(0.5, 1.5), a * r.uniform(0.5, 1.5), m, a * 0.3, rot)
            elif k < 0.6:
                w.ring(x, y, z, a, a * r.uniform(0.1, 0.3), m, rot)
            elif k < 0.7:
                for f in range(r.randrange(4, 9)):
                    w.box(x, y + f * 0.022 * s, z, a, 0.006 * s, a, m)
            else:
                p = (x, y, z)
                for _k in range(r.randrange(2, 5)):
                    axis = r.randrange(3)
                    dx, dy, dz = (r.gauss(0, 0.22) * s if c == axis else r.gauss(0, 0.03) * s for c in range(3))
                    q = (p[0] + dx, p[1] + dy, p[2] + dz)
                    w.rod(p, q, a * 0.22, m)
                    p = q
        if r.random() < 0.6:
            for z in (-0.7, 0.75):
                wheel(w, r.uniform(-0.1, 0.1) * s, 0.34 * s, z * s, 0.36 * s, 10)
