"""Trees, bushes, grass, rocks, flowers. Origin at the root, metres."""

from __future__ import annotations

import math

from genpercept.world.builder import Vec, World, matmul, pitch, roll, yaw


def tree(w: World, h: float, fg: bool = False) -> None:
    r = w.r
    with w.thing("plant", "tree", fg):
        bark, leaf = w.mat("bark"), [w.mat("leaves") for _ in range(2)]
        kind = r.choice(("round", "round", "tall", "conifer", "bare", "palm"))
        lean = (r.gauss(0, 0.04) * h, h * 0.95, r.gauss(0, 0.04) * h)
        w.rod((0, -0.1, 0), lean, h * r.uniform(0.018, 0.035), bark, 0.35)
        if kind == "conifer":
            n = r.randrange(4, 8)
            for k in range(n):
                y, s = h * (0.18 + 0.8 * k / n), h * 0.26 * (1.05 - k / n)
                w.bush(0, y, 0, s, h * 0.75 / n, s, leaf[k % 2], r.uniform(0.38, 0.5), r.uniform(6, 11))
            return
        if kind in ("bare", "round"):
            for _ in range(r.randrange(4, 9) + (10 if kind == "bare" else 0)):
                branch(w, (0, h * r.uniform(0.3, 0.85), 0), h * r.uniform(0.18, 0.4), h * 0.012, bark)
        if kind == "palm":
            for k in range(r.randrange(8, 14)):
                with w.at(*lean, yaw(k * 0.7 + r.random())):
                    w.sheet(0, 0.0, h * 0.22, h * 0.07, h * 0.24, leaf[0], pitch(r.uniform(-0.1, 0.7)), 2)
            return
        if kind != "bare":
            wide = h * (r.uniform(0.22, 0.4) if kind == "round" else 0.12)
            for _ in range(r.randrange(9, 18)):
                a, d, y = r.uniform(0, 6.28), wide * math.sqrt(r.random()), r.uniform(-1, 1)
                s = wide * r.uniform(0.3, 0.6)
                p = (d * math.cos(a), h * (0.68 + 0.27 * y * (1 - 0.4 * d / wide)), d * math.sin(a))
                w.bush(*p, s, s * r.uniform(0.6, 0.95), s, r.choice(leaf), r.uniform(0.4, 0.55), r.uniform(3.5, 8))


def branch(w: World, a: Vec, length: float, thick: float, m: int, depth: int = 1) -> None:
    r = w.r
    t, up = r.uniform(0, 6.28), r.uniform(0.2, 1.1)
    b = (
        a[0] + length * math.cos(t) * math.cos(up),
        a[1] + length * math.sin(up),
        a[2] + length * math.sin(t) * math.cos(up),
    )
    w.rod(a, b, thick, m, 0.4)
    if depth:
        for _ in range(2):
            f = r.uniform(0.4, 0.9)
            branch(w, tuple(a[k] + f * (b[k] - a[k]) for k in range(3)), length * 0.55, thick * 0.55, m, depth - 1)  # type: ignore[arg-type]


def shrub(w: World, s: float, fg: bool = False) -> None:
    r = w.r
    with w.thing("plant", "bush", fg):
        m = [w.mat("leaves", scale=1.5) for _ in range(2)]
        for _ in range(r.randrange(3, 8)):
            a = s * r.uniform(0.35, 0.7)
            w.bush(
                r.gauss(0, 0.4) * s,
                a * r.uniform(0.6, 1.3),
                r.gauss(0, 0.4) * s,
                a,
                a * 0.85,
                a,
                r.choice(m),
                r.uniform(0.35, 0.5),
                r.uniform(4, 9),
            )


def hedge(w: World, length: float, h: float) -> None:
    with w.thing("plant", "bush"):
        m = w.mat("leaves", scale=1.5)
        n = max(2, int(length / h * 1.2))
        for k in range(n):
            w.bush(
                0, h * 0.45, (k + 0.5) / n * length, h * 0.5, h * 0.6, length / n * 0.8, m, w.r.uniform(0.3, 0.4), 7.0
            )


def tufts(w: World, count: int, spread: float, h: float, fg: bool = False) -> None:
    """Blades of grass, reeds or stalks with blossoms."""
    r = w.r
    bloom = r.random() < 0.4
    with w.thing("plant", "flower" if bloom else "grass", fg, cast=False):
        mats, petal = [w.mat("leaf", scale=0.5) for _ in range(3)], w.mat("paint")
        for _ in range(count):
            x, z, t = r.gauss(0, spread), r.gauss(0, spread), r.uniform(0, 6.28)
            tall, lean = h * r.uniform(0.5, 1.2), h * r.uniform(0, 0.5)
            tip = (x + lean * math.cos(t), tall, z + lean * math.sin(t))
            w.rod((x, -0.02, z), tip, h * r.uniform(0.012, 0.03), r.choice(mats), 0.1)
            if bloom and r.random() < 0.35:
                s = h * r.uniform(0.06, 0.13)
                w.ball(*tip, s, s * 0.4, s, petal, matmul(pitch(r.gauss(0, 0.5)), roll(r.gauss(0, 0.5))))


def rock(w: World, s: float, fg: bool = False) -> None:
    r = w.r
    with w.thing("object", "rock", fg):
        m = w.mat("stone", scale=0.6 / max(s, 0.2))
        for _ in range(r.randrange(1, 5)):
            a = s * r.uniform(0.5, 1)
            rot = matmul(yaw(r.uniform(0, 6.28)), matmul(pitch(r.gauss(0, 0.5)), roll(r.gauss(0, 0.5))))
            x, y, z = r.gauss(0, 0.4) * s, a * r.uniform(0, 0.35), r.gauss(0, 0.4) * s
            if r.random() < 0.6:
                w.soft(x, y, z, a, a * r.uniform(0.4, 0.9), a * r.uniform(0.6, 1), m, a * 0.28, rot)
            else:
                w.ball(x, y, z, a, a * r.uniform(0.4, 0.8), a * r.uniform(0.6, 1), m, rot)


def leafy(w: World, s: float, fg: bool = False) -> None:
    """A close view of a plant: stems with many separate leaves."""
    r = w.r
    with w.thing("plant", "plant", fg):
        mats, stem = [w.mat("leaf", scale=0.6 / s) for _ in range(3)], w.mat("leaf")
        for _ in range(r.randrange(3, 8)):
            x, z, t = r.gauss(0, 0.25) * s, r.gauss(0, 0.2) * s, r.uniform(0, 6.28)
            p: Vec = (x, 0.0, z)
            for _k in range(r.randrange(4, 8)):
                q = (
                    p[0] + 0.1 * s * math.cos(t) * r.random(),
                    p[1] + s * r.uniform(0.1, 0.22),
                    p[2] + 0.1 * s * math.sin(t) * r.random(),
                )
                w.rod(p, q, 0.012 * s, stem)
                for _leaf in range(r.randrange(1, 4)):
                    a, size = r.uniform(0, 6.28), s * r.uniform(0.08, 0.22)
                    with w.at(*q, yaw(a)):
                        w.sheet(
                            0, 0, size, size * r.uniform(0.4, 0.7), size, r.choice(mats), pitch(r.uniform(-0.7, 0.6)), 2
                        )
                p = q


def cactus(w: World, s: float, fg: bool = False) -> None:
    r = w.r
    with w.thing("plant", "cactus", fg):
        m = w.mat("leaf", scale=1 / s)
        w.rod((0, 0, 0), (0, s, 0), 0.13 * s, m)
        for _ in range(r.randrange(4)):
            a, y = r.uniform(0, 6.28), s * r.uniform(0.3, 0.7)
            p = (0.3 * s * math.cos(a), y, 0.3 * s * math.sin(a))
            w.rod((0, y - 0.05 * s, 0), p, 0.08 * s, m)
            w.rod(p, (p[0], p[1] + s * r.uniform(0.15, 0.4), p[2]), 0.08 * s, m)


def mushroom(w: World, s: float, fg: bool = False) -> None:
    with w.thing("plant", "mushroom", fg):
        w.tube(0, 0.3 * s, 0, 0.13 * s, 0.3 * s, w.mat("skin"), 0.8)
        w.ball(0, 0.58 * s, 0, 0.4 * s, 0.26 * s, 0.4 * s, w.mat("fruit"))
