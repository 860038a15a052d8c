"""Rays against canonical shapes. A primitive is one row of numbers: what it is, where it is, how it looks.

Every shape lives in its own unit frame; a ray is carried there by the primitive's rotation and scale, so that the
distance parameter t is the same in both. With camera rays of unit depth per t, t is the depth along the optical axis.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from genpercept.world.jit import JIT
from genpercept.world.noise import noise3

# Columns of a primitive.
TYPE, POS, ROT, SCALE, PARAM, MAT, CLS, OBJ, FG, FUZZ, CAST, DEFECT, BOUND, INV = (
    0,
    1,
    4,
    13,
    16,
    20,
    21,
    22,
    23,
    24,
    25,
    26,
    27,
    28,
)
COLUMNS = 31
# Types.
ELLIPSOID, BOX, FRUSTUM, CAPSULE, TORUS, QUAD, RBOX, FIELD, PRISM, RAGGED = range(10)
OCTA, HEX, HYPER, BLOB = range(10, 14)  # held-out shapes only
GRID = 96  # samples per edge of a height field

INF = np.inf


@njit(**JIT)
def field(grid, x, z):
    """Height and its slopes (h, dh/dx, dh/dz) of a field over [-1, 1] x [-1, 1]: quadratic B-spline, smooth once."""
    n = grid.shape[0]
    s = 0.5 * (n - 3)
    gx = min(max((x + 1) * s + 1, 0.5), n - 1.51)
    gz = min(max((z + 1) * s + 1, 0.5), n - 1.51)
    i, j = int(gx + 0.5), int(gz + 0.5)
    u, v = gx - i, gz - j
    a0, a1, a2 = 0.5 * (0.5 - u) ** 2, 0.75 - u * u, 0.5 * (0.5 + u) ** 2
    b0, b1, b2 = 0.5 * (0.5 - v) ** 2, 0.75 - v * v, 0.5 * (0.5 + v) ** 2
    r0 = a0 * grid[j - 1, i - 1] + a1 * grid[j - 1, i] + a2 * grid[j - 1, i + 1]
    r1 = a0 * grid[j, i - 1] + a1 * grid[j, i] + a2 * grid[j, i + 1]
    r2 = a0 * grid[j + 1, i - 1] + a1 * grid[j + 1, i] + a2 * grid[j + 1, i + 1]
    c0, c2 = u - 0.5, u + 0.5
    c1 = -2 * u
    gx0 = c0 * grid[j - 1, i - 1] + c1 * grid[j - 1, i] + c2 * grid[j - 1, i + 1]
    gx1 = c0 * grid[j, i - 1] + c1 * grid[j, i] + c2 * grid[j, i + 1]
    gx2 = c0 * grid[j + 1, i - 1] + c1 * grid[j + 1, i] + c2 * grid[j + 1, i + 1]
    h = b0 * r0 + b1 * r1 + b2 * r2
    hx = (b0 * gx0 + b1 * gx1 + b2 * gx2) * s
    hz = ((v - 0.5) * r0 - 2 * v * r1 + (v + 0.5) * r2) * s
    return h, hx, hz


@njit(**JIT)
def _slab(o: float, d: float, lo: float, hi: float, tn: float, tf: float):
    """Narrow the interval (tn, tf) to lo <= o + t d <= hi."""
    if abs(d) < 1e-12:
        return (tn, tf) if lo <= o <= hi else (INF, -INF)
    a, b = (lo - o) / d, (hi - o) / d
    return max(tn, min(a, b)), min(tf, max(a, b))


@njit(**JIT)
def _convex(kind, ox, oy, oz, dx, dy, dz):
    """Entry and exit of a convex polyhedron."""
    tn, tf = -INF, INF
    if kind == BOX:
        tn, tf = _slab(ox, dx, -1.0, 1.0, tn, tf)
        tn, tf = _slab(oy, dy, -1.0, 1.0, tn, tf)
        tn, tf = _slab(oz, dz, -1.0, 1.0, tn, tf)
    elif kind == PRISM:  # a gable: base edge 2 at y = -1, ridge at y = 1 along z
        tn, tf = _slab(oy, dy, -1.0, 1.0, tn, tf)
        tn, tf = _slab(oz, dz, -1.0, 1.0, tn, tf)
        tn, tf = _slab(oy + 2 * ox, dy + 2 * dx, -4.0, 1.0, tn, tf)
        tn, tf = _slab(oy - 2 * ox, dy - 2 * dx, -4.0, 1.0, tn, tf)
    elif kind == OCTA:
        tn, tf = _slab(ox + oy + oz, dx + dy + dz, -1.0, 1.0, tn, tf)
        tn, tf = _slab(ox + oy - oz, dx + dy - dz, -1.0, 1.0, tn, tf)
        tn, tf = _slab(ox - oy + oz, dx - dy + dz, -1.0, 1.0, tn, tf)
        tn, tf = _slab(ox - oy - oz, dx - dy - dz, -1.0, 1.0, tn, tf)
    else:  # HEX, a hexagonal column
        tn, tf = _slab(oy, dy, -1.0, 1.0, tn, tf)
        tn, tf = _slab(ox, dx, -0.866, 0.866, tn, tf)
        tn, tf = _slab(0.5 * ox + 0.866 * oz, 0.5 * dx + 0.866 * dz, -0.866, 0.866, tn, tf)
        tn, tf = _slab(0.5 * ox - 0.866 * oz, 0.5 * dx - 0.866 * dz, -0.866, 0.866, tn, tf)
    return tn, tf


@njit(**JIT)
def _ellipsoid(ragged, thr, freq, seed, ox, oy, oz, dx, dy, dz, tmin):
    """Unit sphere; a ragged one has holes where noise on its surface is below `thr` (foliage)."""
    a, b = dx * dx + dy * dy + dz * dz, ox * dx + oy * dy + oz * dz
    # Squared distance of the centre from the line, computed without cancellation for far, small spheres.
    ux, uy, uz = ox - b / a * dx, oy - b / a * dy, oz - b / a * dz
    disc = 1.0 - (ux * ux + uy * uy + uz * uz)
    if disc < 0:
        return INF
    s = math.sqrt(disc / a)
    for k in range(2):
        t = -b / a - s if k == 0 else -b / a + s
        if t > tmin:
            if not ragged:
                return t
            n = noise3((ox + t * dx) * freq, (oy + t * dy) * freq, (oz + t * dz) * freq, seed)
            if n > thr:
                return t
    return INF


@njit(**JIT)
def _frustum(p, opened, ox, oy, oz, dx, dy, dz, tmin):
    """Radius 1 at y = -1 to p at y = 1, capped unless opened (1: no top, 2: neither end)."""
    a, b = 0.5 * (1 + p), 0.5 * (p - 1)
    best = INF
    if abs(dy) > 1e-12:
        for k in range(2):
            if (k == 1 and opened >= 1) or (k == 0 and opened >= 2):
                continue
            y, r = (-1.0, 1.0) if k == 0 else (1.0, p)
            t = (y - oy) / dy
            if tmin < t < best and (ox + t * dx) ** 2 + (oz + t * dz) ** 2 <= r * r:
                best = t
    e, g = a + b * oy, b * dy
    qa = dx * dx + dz * dz - g * g
    qb = ox * dx + oz * dz - e * g
    qc = ox * ox + oz * oz - e * e
    disc = qb * qb - qa * qc
    if disc < 0 or abs(qa) < 1e-14:
        return best
    s = math.sqrt(disc)
    for k in range(2):
        t = (-qb - s) / qa if k == 0 else (-qb + s) / qa
        if tmin < t < best and abs(oy + t * dy) <= 1 and e + t * g >= 0:
            best = t
    return best


@njit(**JIT)
def _capsule(h, ox, oy, oz, dx, dy, dz, tmin):
    """Radius 1 about the segment from y = -h to y = h."""
    qa = dx * dx + dz * dz
    best = INF
    if qa > 1e-14:
        qb = ox * dx + oz * dz
        ux, uz = ox - qb / qa * dx, oz - qb / qa * dz
        disc = 1.0 - ux * ux - uz * uz
        if disc < 0:
            return INF
        s = math.sqrt(disc / qa)
        for k in range(2):
            t = -qb / qa - s if k == 0 else -qb / qa + s
            if tmin < t < best and abs(oy + t * dy) <= h:
                best = t
    for k in range(2):
        c = -h if k == 0 else h
        t = _ellipsoid(False, 0.0, 0.0, 0, ox, oy - c, oz, dx, dy, dz, tmin)
        if t < best and (oy + t * dy - c) * c >= 0:
            best = t
    return best


@njit(**JIT)
def _distance(kind, p0, sx, sy, sz, x, y, z):
    """Signed distance (a lower bound of it) for the shapes that are marched."""
    if kind == TORUS:  # around y, ring radius 1, tube radius p0
        return math.hypot(math.hypot(x, z) - 1.0, y) - p0
    if kind == RBOX:  # in metres: half extents s, corner radius p0
        ax, ay, az = abs(x) - sx + p0, abs(y) - sy + p0, abs(z) - sz + p0
        inside = min(max(ax, ay, az), 0.0)
        ax, ay, az = max(ax, 0.0), max(ay, 0.0), max(az, 0.0)
        return math.sqrt(ax * ax + ay * ay + az * az) + inside - p0
    if kind == HYPER:  # waisted column: r^2 = p0^2 + (1 - p0^2) y^2
        r = math.sqrt(p0 * p0 + (1 - p0 * p0) * y * y)
        return max((math.hypot(x, z) - r) * 0.7, abs(y) - 1.0)
    r = math.sqrt(x * x + y * y + z * z)
    return (r - 0.82 - 0.17 * math.sin(p0 * x) * math.sin(p0 * y + 1) * math.sin(p0 * z + 2)) * 0.55


@njit(**JIT)
def _march(kind, p0, sx, sy, sz, ox, oy, oz, dx, dy, dz, tmin, tmax):
    """Sphere tracing inside the bounding box."""
    bx, by, bz = (sx, sy, sz) if kind == RBOX else (1.0, 1.0, 1.0)
    if kind == TORUS:
        bx, by, bz = 1.0 + p0, p0, 1.0 + p0
    tn, tf = _slab(ox, dx, -bx, bx, tmin, tmax)
    tn, tf = _slab(oy, dy, -by, by, tn, tf)
    tn, tf = _slab(oz, dz, -bz, bz, tn, tf)
    if tn > tf:
        return INF
    inv = 1.0 / math.sqrt(dx * dx + dy * dy + dz * dz)
    eps = 1e-5 * max(bx, by, bz)
    t = tn
    for _ in range(64):
        d = _distance(kind, p0, sx, sy, sz, ox + t * dx, oy + t * dy, oz + t * dz)
        if d < eps:
            return t if t > tmin else INF
        t += d * inv
        if t > tf:
            return INF
    return INF


@njit(**JIT)
def _height_field(grid, slope, ylo, yhi, pace, ox, oy, oz, dx, dy, dz, tmin, tmax):
    """March over a height field with steps no longer than its steepest slope allows, then bisect."""
    tn, tf = _slab(ox, dx, -1.0, 1.0, tmin, tmax)
    tn, tf = _slab(oy, dy, ylo - 1e-6, yhi + 1e-6, tn, tf)
    tn, tf = _slab(oz, dz, -1.0, 1.0, tn, tf)
    if tn >= tf:
        return INF
    run = slope * math.hypot(dx, dz) + abs(dy) + 1e-9
    t = tn
    g = oy + t * dy - field(grid, ox + t * dx, oz + t * dz)[0]
    side = 1.0 if g >= 0 else -1.0
    prev = t
    for _ in range(120):
        prev = t
        t = min(t + max(abs(g) / run, pace * t + 1e-5), tf)
        g = oy + t * dy - field(grid, ox + t * dx, oz + t * dz)[0]
        if g * side < 0:
            lo, hi = prev, t
            for _k in range(16):
                mid = 0.5 * (lo + hi)
                if (oy + mid * dy - field(grid, ox + mid * dx, oz + mid * dz)[0]) * side < 0:
                    hi = mid
                else:
                    lo = mid
            return hi
        if t >= tf:
            return INF
    return INF


@njit(**JIT)
def _quad(shape, ox, oy, oz, dx, dy, dz, tmin):
    """The plane y = 0 inside a rectangle (0), disc (1), leaf (2) or ring (3)."""
    if abs(dy) < 1e-12:
        return INF
    t = -oy / dy
    if t <= tmin:
        return INF
    x, z = ox + t * dx, oz + t * dz
    if abs(x) > 1 or abs(z) > 1:
        return INF
    r = x * x + z * z
    if (
        (shape == 1 and r > 1)
        or (shape == 2 and abs(x) > (1 - z * z) * (0.75 - 0.25 * z))
        or (shape == 3 and (r > 1 or r < 0.6))
    ):
        return INF
    return t


@njit(**JIT)
def hit(P, i, grids, wx, wy, wz, vx, vy, vz, tmin, tmax):
    """First t in (tmin, tmax) where the world ray meets primitive i, or infinity."""
    rx, ry, rz = wx - P[i, 1], wy - P[i, 2], wz - P[i, 3]
    kind = int(P[i, 0])
    ox, oy, oz = (
        P[i, 4] * rx + P[i, 7] * ry + P[i, 10] * rz,
        P[i, 5] * rx + P[i, 8] * ry + P[i, 11] * rz,
        P[i, 6] * rx + P[i, 9] * ry + P[i, 12] * rz,
    )
    dx, dy, dz = (
        P[i, 4] * vx + P[i, 7] * vy + P[i, 10] * vz,
        P[i, 5] * vx + P[i, 8] * vy + P[i, 11] * vz,
        P[i, 6] * vx + P[i, 9] * vy + P[i, 12] * vz,
    )
    p0, p1 = P[i, 16], P[i, 17]
    if kind != RBOX:
        ox, oy, oz = ox * P[i, 28], oy * P[i, 29], oz * P[i, 30]
        dx, dy, dz = dx * P[i, 28], dy * P[i, 29], dz * P[i, 30]
    t = INF
    if kind in (ELLIPSOID, RAGGED):
        t = _ellipsoid(kind == RAGGED, p0, p1, int(P[i, 18]), ox, oy, oz, dx, dy, dz, tmin)
    elif kind == FRUSTUM:
        t = _frustum(p0, int(p1), ox, oy, oz, dx, dy, dz, tmin)
    elif kind == CAPSULE:
        t = _capsule(p0, ox, oy, oz, dx, dy, dz, tmin)
    elif kind == QUAD:
        t = _quad(int(p0), ox, oy, oz, dx, dy, dz, tmin)
    elif kind == FIELD:
        t = _height_field(grids[int(p0)], P[i, 19], p1, P[i, 18], 0.004, ox, oy, oz, dx, dy, dz, tmin, tmax)
    elif kind in (BOX, PRISM, OCTA, HEX):
        tn, tf = _convex(kind, ox, oy, oz, dx, dy, dz)
        if tn <= tf:
            t = tn if tn > tmin else (tf if tf > tmin else INF)
    else:
        t = _march(kind, p0, P[i, 13], P[i, 14], P[i, 15], ox, oy, oz, dx, dy, dz, tmin, tmax)
    return t if t < tmax else INF


@njit(**JIT)
def local(P, i, x, y, z):
    """A world point in the primitive's unit frame (metres for rounded boxes)."""
    rx, ry, rz = x - P[i, 1], y - P[i, 2], z - P[i, 3]
    lx = P[i, 4] * rx + P[i, 7] * ry + P[i, 10] * rz
    ly = P[i, 5] * rx + P[i, 8] * ry + P[i, 11] * rz
    lz = P[i, 6] * rx + P[i, 9] * ry + P[i, 12] * rz
    if int(P[i, 0]) == RBOX:
        return lx, ly, lz
    return lx * P[i, 28], ly * P[i, 29], lz * P[i, 30]


@njit(**JIT)
def local_normal(P, i, grids, x, y, z):
    """Gradient of the surface at a local surface point, not normalised, in the unit frame."""
    kind, p0, p1 = int(P[i, 0]), P[i, 16], P[i, 17]
    if kind == FRUSTUM:
        r = 0.5 * (1 + p0) + 0.5 * (p0 - 1) * y
        if y < -1 + 1e-6 and p1 < 2 and x * x + z * z < r * r - 1e-6:
            return 0.0, -1.0, 0.0
        if y > 1 - 1e-6 and p1 < 1 and x * x + z * z < r * r - 1e-6:
            return 0.0, 1.0, 0.0
        return x, -0.5 * (p0 - 1) * r, z
    if kind == CAPSULE:
        return x, y - min(max(y, -p0), p0), z
    if kind == QUAD:
        return 0.0, 1.0, 0.0
    if kind == FIELD:
        _, hx, hz = field(grids[int(p0)], x, z)
        return -hx, 1.0, -hz
    if kind == BOX:
        ax, ay, az = abs(x), abs(y), abs(z)
        if ax >= ay and ax >= az:
            return x, 0.0, 0.0
        return (0.0, y, 0.0) if ay >= az else (0.0, 0.0, z)
    if kind == PRISM:
        a, b, c, d = -1 - y, abs(z) - 1, (y + 2 * x - 1) * 0.447, (y - 2 * x - 1) * 0.447
        m = max(a, b, c, d)
        if m == a:
            return 0.0, -1.0, 0.0
        if m == b:
            return 0.0, 0.0, z
        return (2.0, 1.0, 0.0) if m == c else (-2.0, 1.0, 0.0)
    if kind == OCTA:
        return math.copysign(1.0, x), math.copysign(1.0, y), math.copysign(1.0, z)
    if kind == HEX:
        b, c = 0.5 * x + 0.866 * z, 0.5 * x - 0.866 * z
        if abs(y) - 1 > max(abs(x), abs(b), abs(c)) - 0.866:
            return 0.0, y, 0.0
        if abs(x) >= abs(b) and abs(x) >= abs(c):
            return x, 0.0, 0.0
        return (0.5 * b, 0.0, 0.866 * b) if abs(b) >= abs(c) else (0.5 * c, 0.0, -0.866 * c)
    if kind in (TORUS, RBOX, HYPER, BLOB):
        sx, sy, sz = P[i, 13], P[i, 14], P[i, 15]
        e = 1e-5 * (max(sx, sy, sz) if kind == RBOX else 1.0)
        gx = _distance(kind, p0, sx, sy, sz, x + e, y, z) - _distance(kind, p0, sx, sy, sz, x - e, y, z)
        gy = _distance(kind, p0, sx, sy, sz, x, y + e, z) - _distance(kind, p0, sx, sy, sz, x, y - e, z)
        gz = _distance(kind, p0, sx, sy, sz, x, y, z + e) - _distance(kind, p0, sx, sy, sz, x, y, z - e)
        return gx, gy, gz
    return x, y, z


@njit(**JIT)
def normal(P, i, grids, x, y, z, vx, vy, vz):
    """Unit world normal at a world point on primitive i, turned against the ray direction v."""
    lx, ly, lz = local(P, i, x, y, z)
    nx, ny, nz = local_normal(P, i, grids, lx, ly, lz)
    if int(P[i, 0]) != RBOX:
        nx, ny, nz = nx * P[i, 28], ny * P[i, 29], nz * P[i, 30]
    a = P[i, 4] * nx + P[i, 5] * ny + P[i, 6] * nz
    b = P[i, 7] * nx + P[i, 8] * ny + P[i, 9] * nz
    c = P[i, 10] * nx + P[i, 11] * ny + P[i, 12] * nz
    s = 1.0 / math.sqrt(a * a + b * b + c * c + 1e-300)
    if a * vx + b * vy + c * vz > 0:
        s = -s
    return a * s, b * s, c * s
