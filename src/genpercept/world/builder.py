"""A scene under construction: primitives, materials, lights, camera, and what a caption may say about it."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numba import njit

from genpercept.world import atlas, palette
from genpercept.world import intersect as X
from genpercept.world.jit import JIT
from genpercept.world.noise import noise3
from genpercept.world.words import CLASSES

Vec = tuple[float, float, float]
Rot = tuple[float, ...]
IDENTITY: Rot = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
CLASS_ID = {name: i for i, name in enumerate(CLASSES)}


def matmul(a: Rot, b: Rot) -> Rot:
    a0, a1, a2, a3, a4, a5, a6, a7, a8 = a
    b0, b1, b2, b3, b4, b5, b6, b7, b8 = b
    return (
        a0 * b0 + a1 * b3 + a2 * b6, a0 * b1 + a1 * b4 + a2 * b7, a0 * b2 + a1 * b5 + a2 * b8,
        a3 * b0 + a4 * b3 + a5 * b6, a3 * b1 + a4 * b4 + a5 * b7, a3 * b2 + a4 * b5 + a5 * b8,
        a6 * b0 + a7 * b3 + a8 * b6, a6 * b1 + a7 * b4 + a8 * b7, a6 * b2 + a7 * b5 + a8 * b8,
    )  # fmt: skip


def yaw(a: float) -> Rot:
    c, s = math.cos(a), math.sin(a)
    return (c, 0.0, s, 0.0, 1.0, 0.0, -s, 0.0, c)


def pitch(a: float) -> Rot:
    c, s = math.cos(a), math.sin(a)
    return (1.0, 0.0, 0.0, 0.0, c, -s, 0.0, s, c)


def roll(a: float) -> Rot:
    c, s = math.cos(a), math.sin(a)
    return (c, -s, 0.0, s, c, 0.0, 0.0, 0.0, 1.0)


def along(d: Vec) -> Rot:
    """A rotation whose y axis points along d."""
    n = math.sqrt(d[0] ** 2 + d[1] ** 2 + d[2] ** 2) or 1.0
    y = (d[0] / n, d[1] / n, d[2] / n)
    h = math.hypot(y[0], y[2])
    x = (y[2] / h, 0.0, -y[0] / h) if h > 1e-6 else (1.0, 0.0, 0.0)
    z = (x[1] * y[2] - x[2] * y[1], x[2] * y[0] - x[0] * y[2], x[0] * y[1] - x[1] * y[0])
    return (x[0], y[0], z[0], x[1], y[1], z[1], x[2], y[2], z[2])


@njit(**JIT)
def grow_field(kind, seed, rough):
    """A height field (GRID, GRID). kind: 0 hills, 1 mountains, 2 curtain folds, 3 crumpled cloth, 4 waves."""
    n = X.GRID
    g = np.zeros((n, n))
    for j in range(n):
        for i in range(n):
            x, z = 2.0 * (i - 1) / (n - 3) - 1, 2.0 * (j - 1) / (n - 3) - 1
            h, amp, f = 0.0, 1.0, 1.5
            for o in range(5):
                v = noise3(x * f + 50, z * f + 50, 7.5 * o, seed) * 2 - 1
                if kind == 1:
                    v = 1 - 2 * abs(v)
                if kind == 3:
                    v = 0.6 - abs(v)
                h += amp * v
                amp *= rough
                f *= 2.1
            if kind == 2:
                phase = 4 * noise3(x * 2.5, z * 0.4, 1.0, seed)
                h = math.sin(14 * x + 3 * phase) * (0.7 + 0.3 * math.sin(3 * x + phase)) + 0.15 * h * (1 + z)
            if kind == 4:
                h = math.sin(9 * x + 2 * h) * 0.5 + 0.3 * h
            g[j, i] = h
    return g


@njit(**JIT)
def field_bounds(g):
    """Lowest, highest and steepest of a field in its unit frame."""
    n = g.shape[0]
    s = 0.5 * (n - 3)
    lo, hi, steep = 1e9, -1e9, 0.0
    for j in range(n):
        for i in range(n):
            lo, hi = min(lo, g[j, i]), max(hi, g[j, i])
            a = abs(g[j, i] - g[j, max(i - 1, 0)]) * s
            b = abs(g[j, i] - g[max(j - 1, 0), i]) * s
            steep = max(steep, math.hypot(a, b))
    return lo, hi, steep


class World:
    """Collects rows of numbers. Positions are metres, y up; `at` moves the frame in which parts are placed."""

    def __init__(self, key: int, shapes: bool = False, textures: bool = False) -> None:
        self.r = random.Random(key)
        self.heldout_shapes, self.heldout_textures = shapes, textures
        self.groups = atlas.load()[1]
        self.prims: list[tuple[float, ...]] = []
        self.mats: list[tuple[float, ...]] = []
        self.fields: list[np.ndarray] = []
        self.nouns: dict[int, str] = {}
        self.R: Rot = IDENTITY
        self.T: Vec = (0.0, 0.0, 0.0)
        self.cls, self.obj, self.objects = 0, 0, 0
        self.fg, self.fuzz, self.cast = 0.0, 0.0, 1.0
        self.figure: tuple[list[Vec], list[float], int] | None = None
        self.place, self.light_words = "", ""
        self.defects: list[tuple[float, ...]] = []
        self.camera: tuple[Vec, Rot, float] = ((0.0, 1.5, 0.0), IDENTITY, 60.0)
        self.env = np.zeros(42)
        self.ground: tuple[int, float, float, float] | None = None

    @contextmanager
    def at(self, x: float, y: float, z: float, turn: float | Rot = 0.0) -> Iterator[World]:
        """Parts placed inside are relative to (x, y, z), turned about y (or by a rotation)."""
        saved = self.R, self.T
        self.T = self.point(x, y, z)
        if turn != 0.0:
            self.R = matmul(self.R, turn if isinstance(turn, tuple) else yaw(turn))
        yield self
        self.R, self.T = saved

    @contextmanager
    def thing(
        self, cls: str, noun: str = "", fg: bool = False, fuzz: float = 0.0, cast: bool = True
    ) -> Iterator[World]:
        """Parts placed inside are one object of class `cls`; a caption may call it `noun`."""
        saved = self.cls, self.obj, self.fg, self.fuzz, self.cast
        self.objects += 1
        self.cls, self.obj = CLASS_ID[cls], self.objects
        self.fg, self.fuzz = (1.0 if fg else saved[2]), (fuzz if fg else saved[3])
        self.cast = 1.0 if cast else 0.0
        if noun:
            self.nouns[self.obj] = noun
        yield self
        self.cls, self.obj, self.fg, self.fuzz, self.cast = saved

    def point(self, x: float, y: float, z: float) -> Vec:
        R, T = self.R, self.T
        return (
            T[0] + R[0] * x + R[1] * y + R[2] * z,
            T[1] + R[3] * x + R[4] * y + R[5] * z,
            T[2] + R[6] * x + R[7] * y + R[8] * z,
        )

    def mat(self, kind: str, colour: palette.RGB | None = None, scale: float = 1.0, glow: float = 0.0) -> int:
        heldout = self.heldout_textures and kind not in ("skin", "hair", "glow")
        self.mats.append(palette.material(self.r, self.groups, kind, colour, scale, glow, heldout))
        return len(self.mats) - 1

    def part(
        self,
        kind: int,
        p: Vec,
        s: Vec,
        m: int,
        rot: Rot | None = None,
        a: float = 0.0,
        b: float = 0.0,
        c: float = 0.0,
        d: float = 0.0,
    ) -> None:
        """One primitive at p with half extents s. a to d are the shape's own parameters."""
        if self.heldout_shapes and kind in _HELDOUT:
            kind, a = _HELDOUT[kind](self.r, a)
        R = self.R if rot is None else matmul(self.R, rot)
        s = (max(s[0], 1e-4), max(s[1], 1e-4), max(s[2], 1e-4))
        self.prims.append(
            (kind, *self.point(*p), *R, *s, a, b, c, d, m, self.cls, self.obj, self.fg, self.fuzz, self.cast, 0.0, 0.0,
             1 / s[0], 1 / s[1], 1 / s[2])
        )  # fmt: skip

    def ball(
        self, x: float, y: float, z: float, sx: float, sy: float, sz: float, m: int, rot: Rot | None = None
    ) -> None:
        self.part(X.ELLIPSOID, (x, y, z), (sx, sy, sz), m, rot)

    def box(
        self, x: float, y: float, z: float, sx: float, sy: float, sz: float, m: int, rot: Rot | None = None
    ) -> None:
        self.part(X.BOX, (x, y, z), (sx, sy, sz), m, rot)

    def soft(
        self, x: float, y: float, z: float, sx: float, sy: float, sz: float, m: int, r: float, rot: Rot | None = None
    ) -> None:
        """A box with rounded edges of radius r."""
        if self.heldout_shapes:
            self.box(x, y, z, sx, sy, sz, m, rot)
        else:
            self.part(X.RBOX, (x, y, z), (sx, sy, sz), m, rot, min(r, 0.95 * min(sx, sy, sz)))

    def tube(
        self,
        x: float,
        y: float,
        z: float,
        r: float,
        h: float,
        m: int,
        top: float = 1.0,
        opened: int = 0,
        rot: Rot | None = None,
    ) -> None:
        """A cylinder or cone of half height h, radius r below and r * top above."""
        self.part(X.FRUSTUM, (x, y, z), (r, h, r), m, rot, top, opened)

    def rod(self, a: Vec, b: Vec, r: float, m: int, taper: float = 1.0) -> None:
        """A capsule (or a cone when tapered) from a to b."""
        d = (b[0] - a[0], b[1] - a[1], b[2] - a[2])
        h = 0.5 * math.sqrt(d[0] ** 2 + d[1] ** 2 + d[2] ** 2)
        mid = (0.5 * (a[0] + b[0]), 0.5 * (a[1] + b[1]), 0.5 * (a[2] + b[2]))
        if taper == 1.0:
            self.part(X.CAPSULE, mid, (r, r, r), m, along(d), h / r)
        else:
            self.part(X.FRUSTUM, mid, (r, h, r), m, along(d), taper)

    def ring(self, x: float, y: float, z: float, r: float, tube: float, m: int, rot: Rot | None = None) -> None:
        self.part(X.TORUS, (x, y, z), (r, r, r), m, rot, tube / r)

    def sheet(
        self, x: float, y: float, z: float, sx: float, sz: float, m: int, rot: Rot | None = None, shape: int = 0
    ) -> None:
        """A flat piece facing y: rectangle 0, disc 1, leaf 2, ring 3."""
        self.part(X.QUAD, (x, y, z), (sx, 1.0, sz), m, rot, shape)

    def bush(
        self, x: float, y: float, z: float, sx: float, sy: float, sz: float, m: int, thin: float, fine: float
    ) -> None:
        """A leafy shell with holes: `thin` of it is missing, in lumps `fine` to the radius."""
        self.part(
            X.RAGGED, (x, y, z), (sx, sy, sz), m, None, thin, max(fine, min(sx / 0.055, 18.0)), self.r.randrange(1000)
        )

    def land(self, kind: int, p: Vec, s: Vec, m: int, rough: float, rot: Rot | None = None, flat: float = 0.0) -> int:
        """A height field of half extents s[0], s[2] and height scale s[1]; flat levels a strip |x| < flat. Gives its
        number.
        """
        g = grow_field(kind, self.r.randrange(1 << 20), rough)
        if flat > 0:
            x = np.abs((np.arange(X.GRID) - 1) * 2 / (X.GRID - 3) - 1)
            g = g * np.clip((x - flat) * 4, 0, 1)[None, :]
        lo, hi, steep = field_bounds(g)
        self.fields.append(g)
        k = len(self.fields) - 1
        self.part(X.FIELD, p, s, m, rot, k, lo, hi, steep)
        return k

    def height(self, x: float, z: float) -> float:
        """Ground level in world coordinates (0 without a landscape)."""
        if self.ground is None:
            return 0.0
        k, sx, sy, sz = self.ground
        return sy * float(X.field(self.fields[k], x / sx, z / sz)[0])

    def look(self, eye: Vec, target: Vec, fov: float, tilt: float = 0.0) -> None:
        """Put the camera at eye, facing target; fov (degrees) spans the longer image edge; tilt (radians) rolls it."""
        f = [target[k] - eye[k] for k in range(3)]
        n = math.sqrt(sum(v * v for v in f)) or 1.0
        f = [v / n for v in f]
        h = math.hypot(f[0], f[2])
        right = (-f[2] / h, 0.0, f[0] / h) if h > 1e-4 else (1.0, 0.0, 0.0)
        up = (right[1] * f[2] - right[2] * f[1], right[2] * f[0] - right[0] * f[2], right[0] * f[1] - right[1] * f[0])
        c, s = math.cos(tilt), math.sin(tilt)
        r2 = tuple(c * right[k] + s * up[k] for k in range(3))
        u2 = tuple(c * up[k] - s * right[k] for k in range(3))
        self.camera = (eye, (*r2, *u2, -f[0], -f[1], -f[2]), fov)

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Primitives, materials, fields, defects as float64 arrays."""
        fields = np.stack(self.fields) if self.fields else np.zeros((1, 4, 4))
        defects = np.array(self.defects, np.float64).reshape(-1, 16)
        return np.array(self.prims, np.float64), np.array(self.mats, np.float64), fields, defects


# Held-out shapes: what a training shape turns into.
_HELDOUT = {
    X.BOX: lambda r, a: (X.BOX, a),
    X.ELLIPSOID: lambda r, a: (r.choice((X.OCTA, X.BLOB)), r.uniform(3, 6)),
    X.FRUSTUM: lambda r, a: (X.HYPER, r.uniform(0.4, 0.8)) if a > 0.6 else (X.OCTA, a),
    X.TORUS: lambda r, a: (X.HEX, a),
    X.PRISM: lambda r, a: (X.OCTA, a),
}
