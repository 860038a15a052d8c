"""Which primitive each camera ray meets, and which points the main light reaches.

Camera rays: the screen is cut into tiles, each with the primitives whose bounding boxes may cover it, nearest first.
Shadow rays: the light's directions are cut into cells in the same way.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from genpercept.world import intersect as X
from genpercept.world.intersect import INF, hit, normal
from genpercept.world.jit import JIT
from genpercept.world.noise import noise3

TILE = 8  # pixels per edge of a screen tile
NEAR = 0.02  # metres
CELLS = 24  # light cells per edge
# Camera vector: position, right, up, back, focal length in pixels, principal point.
CAM_RIGHT, CAM_UP, CAM_BACK, CAM_F, CAM_CX, CAM_CY = 3, 6, 9, 12, 13, 14


@njit(**JIT)
def ray(cam, px, py):
    """World direction through image point (px, py), of unit depth, with its slopes right and up."""
    a, b = (px - cam[13]) / cam[12], (cam[14] - py) / cam[12]
    return (
        a * cam[3] + b * cam[6] - cam[9],
        a * cam[4] + b * cam[7] - cam[10],
        a * cam[5] + b * cam[8] - cam[11],
        a,
        b,
    )


@njit(**JIT)
def corners(P, i, out):
    """The eight corners of a primitive's oriented bounding box, into out (8, 3)."""
    kind = int(P[i, 0])
    ex, ez, lo, hi = 1.0, 1.0, -1.0, 1.0
    if kind == X.CAPSULE:
        lo, hi = -1.0 - P[i, 16], 1.0 + P[i, 16]
    elif kind == X.TORUS:
        ex = ez = 1.0 + P[i, 16]
        lo, hi = -P[i, 16], P[i, 16]
    elif kind == X.QUAD:
        lo, hi = 0.0, 0.0
    elif kind == X.FIELD:
        lo, hi = P[i, 17], P[i, 18]
    elif kind == X.FRUSTUM:
        ex = ez = max(1.0, P[i, 16])
    for k in range(8):
        x = (ex if k & 1 else -ex) * P[i, 13]
        y = (hi if k & 2 else lo) * P[i, 14]
        z = (ez if k & 4 else -ez) * P[i, 15]
        for c in range(3):
            out[k, c] = P[i, 1 + c] + P[i, 4 + 3 * c] * x + P[i, 5 + 3 * c] * y + P[i, 6 + 3 * c] * z


@njit(**JIT)
def _project(cam, c, k, m, out):
    """Widen out (x0, x1, y0, y1) by corner k, or by where the edge from k to m crosses the near plane."""
    kx, ky, kz = c[k, 0] - cam[0], c[k, 1] - cam[1], c[k, 2] - cam[2]
    z = -(kx * cam[9] + ky * cam[10] + kz * cam[11])
    if m >= 0:
        mx, my, mz = c[m, 0] - cam[0], c[m, 1] - cam[1], c[m, 2] - cam[2]
        z2 = -(mx * cam[9] + my * cam[10] + mz * cam[11])
        if (z - NEAR) * (z2 - NEAR) >= 0:
            return
        f = (NEAR - z) / (z2 - z)
        kx, ky, kz, z = kx + f * (mx - kx), ky + f * (my - ky), kz + f * (mz - kz), NEAR
    elif z < NEAR:
        return
    x = cam[13] + cam[12] * (kx * cam[3] + ky * cam[4] + kz * cam[5]) / z
    y = cam[14] - cam[12] * (kx * cam[6] + ky * cam[7] + kz * cam[8]) / z
    out[0], out[1], out[2], out[3] = min(out[0], x), max(out[1], x), min(out[2], y), max(out[3], y)


@njit(**JIT)
def screen_boxes(P, cam, height, width):
    """Image rectangle (N, 4) x0 x1 y0 y1 of every primitive, empty when out of view, and a lower bound (N,) of its
    depth.
    """
    n = P.shape[0]
    box, near = np.zeros((n, 4)), np.zeros(n)
    c, r = np.zeros((8, 3)), np.zeros(4)
    for i in range(n):
        corners(P, i, c)
        zmin, zmax, r2 = INF, -INF, 0.0
        for k in range(8):
            z = (cam[0] - c[k, 0]) * cam[9] + (cam[1] - c[k, 1]) * cam[10] + (cam[2] - c[k, 2]) * cam[11]
            zmin, zmax = min(zmin, z), max(zmax, z)
            r2 = max(r2, (c[k, 0] - P[i, 1]) ** 2 + (c[k, 1] - P[i, 2]) ** 2 + (c[k, 2] - P[i, 3]) ** 2)
        P[i, 27] = math.sqrt(r2)
        near[i] = max(zmin, 0.0)
        r[0], r[1], r[2], r[3] = INF, -INF, INF, -INF
        for k in range(8):
            _project(cam, c, k, -1, r)
            if zmin < NEAR < zmax:
                for bit in (1, 2, 4):
                    if k & bit == 0:
                        _project(cam, c, k, k | bit, r)
        box[i, 0], box[i, 1], box[i, 2], box[i, 3] = r[0] - 0.5, r[1] + 0.5, r[2] - 0.5, r[3] + 0.5
        if zmax < NEAR or r[1] < -1 or r[3] < -1 or r[0] > width + 1 or r[2] > height + 1:
            box[i, 0], box[i, 1] = 1.0, -1.0
    return box, near


@njit(**JIT)
def _tile_range(lo, hi, count):
    return max(int(lo) // TILE, 0) if lo > 0 else 0, min(int(min(hi, 1e6)) // TILE, count - 1)


@njit(**JIT)
def tile_lists(P, box, near, height, width):
    """Per tile, primitives nearest first (height fields aside): start offsets, members, and the fields' list."""
    tw, th = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    order = np.argsort(near)
    start = np.zeros(tw * th + 1, np.int64)
    members = np.zeros(0, np.int64)
    fill = start[:-1].copy()
    fields = np.zeros(P.shape[0], np.int64)
    nf = 0
    for phase in range(2):
        for i in order:
            if box[i, 1] < box[i, 0]:
                continue
            if int(P[i, 0]) == X.FIELD:
                if phase == 0:
                    fields[nf] = i
                    nf += 1
                continue
            x0, x1 = _tile_range(box[i, 0], box[i, 1], tw)
            y0, y1 = _tile_range(box[i, 2], box[i, 3], th)
            for ty in range(y0, y1 + 1):
                for tx in range(x0, x1 + 1):
                    if phase == 0:
                        start[ty * tw + tx + 1] += 1
                    else:
                        members[fill[ty * tw + tx]] = i
                        fill[ty * tw + tx] += 1
        if phase == 0:
            for k in range(tw * th):
                start[k + 1] += start[k]
            fill = start[:-1].copy()
            members = np.zeros(start[-1], np.int64)
    return start, members, fields[:nf]


@njit(**JIT)
def coverage(P, i, grids, cam, dx, dy, dz, a, b, t):
    """How much a fuzzy surface covers a ray that meets it: fades where the ray grazes, broken into wisps."""
    w = P[i, 24]
    if w <= 0:
        return 1.0
    x, y, z = cam[0] + t * dx, cam[1] + t * dy, cam[2] + t * dz
    nx, ny, nz = normal(P, i, grids, x, y, z, dx, dy, dz)
    facing = -(nx * dx + ny * dy + nz * dz) / math.sqrt(dx * dx + dy * dy + dz * dz)
    wisp = noise3(a * 130, b * 130, 0.0, 5) + 0.5 * noise3(a * 320, b * 320, 0.0, 9) - 0.75
    s = min(max((facing - 0.05 + 0.5 * w * wisp) / w, 0.0), 1.0)
    return s * s * (3 - 2 * s)


@njit(**JIT)
def trace(P, grids, cam, lists, tw, px, py):
    """Both layers of one image point: (depth, primitive) of the background and the foreground, and its coverage."""
    start, members, fields, box, near = lists
    dx, dy, dz, a, b = ray(cam, px, py)
    tile = int(py) // TILE * tw + int(px) // TILE
    tb, tf, ib, jf, cov = INF, INF, -1, -1, 0.0
    for k in range(start[tile], start[tile + 1]):
        i = members[k]
        if near[i] >= tb:
            break
        if px < box[i, 0] or px > box[i, 1] or py < box[i, 2] or py > box[i, 3]:
            continue
        fg = P[i, 23] > 0
        # A fuzzy body needs every one of its parts: a limb's edge in front of the trunk is not see-through.
        limit = tb if (not fg or P[i, 24] > 0) else tf
        t = hit(P, i, grids, cam[0], cam[1], cam[2], dx, dy, dz, 0.02, limit)
        if t < limit:
            if fg:
                cov = max(cov, coverage(P, i, grids, cam, dx, dy, dz, a, b, t))
                if t < tf:
                    tf, jf = t, i
            else:
                tb, ib = t, i
    for i in fields:
        t = hit(P, i, grids, cam[0], cam[1], cam[2], dx, dy, dz, 0.02, tb)
        if t < tb:
            tb, ib = t, i
    if tf >= tb:
        tf, jf, cov = INF, -1, 0.0
    return tb, ib, tf, jf, cov


@njit(**JIT)
def _octahedral(x, y, z):
    """A direction as a point of the unit square."""
    s = abs(x) + abs(y) + abs(z) + 1e-12
    u, v = x / s, z / s
    if y < 0:
        u, v = (1 - abs(v)) * math.copysign(1.0, u), (1 - abs(u)) * math.copysign(1.0, v)
    return 0.5 + 0.5 * u, 0.5 + 0.5 * v


@njit(**JIT)
def _cell_axes():
    """Centre direction, cosine and sine of the angular radius of every octahedral cell, (CELLS * CELLS, 5)."""
    out = np.zeros((CELLS * CELLS, 5))
    for k in range(CELLS * CELLS):
        for corner in range(5):
            ox, oy = ((0.5, 0.5), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0))[corner]
            u, v = (k % CELLS + ox) / CELLS * 2 - 1, (k // CELLS + oy) / CELLS * 2 - 1
            y = 1 - abs(u) - abs(v)
            if y < 0:
                u, v = (1 - abs(v)) * math.copysign(1.0, u), (1 - abs(u)) * math.copysign(1.0, v)
            s = 1 / math.sqrt(u * u + y * y + v * v)
            if corner == 0:
                out[k, 0], out[k, 1], out[k, 2], out[k, 3] = u * s, y * s, v * s, 1.0
            else:
                dot = (out[k, 0] * u + out[k, 1] * y + out[k, 2] * v) * s
                out[k, 3] = min(out[k, 3], dot)
        out[k, 4] = math.sqrt(max(1 - out[k, 3] * out[k, 3], 0.0))
    return out


@njit(**JIT)
def _light_axes(light):
    """Two directions across a directional light."""
    lx, ly, lz = light[1], light[2], light[3]
    s = 1 / math.hypot(lx, ly) if math.hypot(lx, ly) > 1e-3 else 1.0
    ux, uy, uz = (-ly * s, lx * s, 0.0) if math.hypot(lx, ly) > 1e-3 else (1.0, 0.0, 0.0)
    return ux, uy, uz, ly * uz - lz * uy, lz * ux - lx * uz, lx * uy - ly * ux


@njit(**JIT)
def light_lists(P, light):
    """Casters per light cell. light: kind (0 direction, 1 point), x, y, z, size. Gives offsets, members and frame
    (4,).
    """
    n = P.shape[0]
    frame = np.array([1e9, 1e9, 1.0, 1.0])
    lo_hi = np.zeros((n, 4))
    ux, uy, uz, vx, vy, vz = _light_axes(light)
    c = np.zeros((8, 3))
    u1, v1 = -1e9, -1e9
    if light[0] == 0:
        for i in range(n):
            if P[i, 25] == 0:
                continue
            corners(P, i, c)
            pad = 0.03 * P[i, 27] + 0.02
            a0, a1, b0, b1 = 1e9, -1e9, 1e9, -1e9
            for k in range(8):
                a = c[k, 0] * ux + c[k, 1] * uy + c[k, 2] * uz
                b = c[k, 0] * vx + c[k, 1] * vy + c[k, 2] * vz
                a0, a1, b0, b1 = min(a0, a - pad), max(a1, a + pad), min(b0, b - pad), max(b1, b + pad)
            lo_hi[i] = np.array([a0, a1, b0, b1])
            frame[0], frame[1], u1, v1 = min(frame[0], a0), min(frame[1], b0), max(u1, a1), max(v1, b1)
        frame[2], frame[3] = CELLS / max(u1 - frame[0], 1e-3), CELLS / max(v1 - frame[1], 1e-3)
    reached = np.zeros((CELLS * CELLS, n), np.bool_)
    if light[0] == 0:
        for i in range(n):
            if P[i, 25] == 0:
                continue
            x0, x1 = int((lo_hi[i, 0] - frame[0]) * frame[2]), int((lo_hi[i, 1] - frame[0]) * frame[2])
            y0, y1 = int((lo_hi[i, 2] - frame[1]) * frame[3]), int((lo_hi[i, 3] - frame[1]) * frame[3])
            for y in range(y0, min(y1, CELLS - 1) + 1):
                for x in range(x0, min(x1, CELLS - 1) + 1):
                    reached[y * CELLS + x, i] = True
    else:
        _point_cells(P, light, reached)
    start = np.zeros(CELLS * CELLS + 1, np.int64)
    for k in range(CELLS * CELLS):
        start[k + 1] = start[k] + reached[k].sum()
    members = np.zeros(start[-1], np.int64)
    at = 0
    for k in range(CELLS * CELLS):
        for i in range(n):
            if reached[k, i]:
                members[at] = i
                at += 1
    return start, members, frame


@njit(**JIT)
def _point_cells(P, light, reached):
    """Mark the cells of directions from a point light in which a caster's bounding sphere may stand."""
    axes = _cell_axes()
    for i in range(P.shape[0]):
        if P[i, 25] == 0:
            continue
        wx, wy, wz = P[i, 1] - light[1], P[i, 2] - light[2], P[i, 3] - light[3]
        dist, r = math.sqrt(wx * wx + wy * wy + wz * wz), P[i, 27] + light[4]
        if dist <= r:
            reached[:, i] = True
            continue
        sine = r / dist
        cosine = math.sqrt(1 - sine * sine)
        wx, wy, wz = wx / dist, wy / dist, wz / dist
        for k in range(CELLS * CELLS):
            # cos(a + b): the caster's angular radius is under a quarter turn, the cell's is small.
            bound = cosine * axes[k, 3] - sine * axes[k, 4]
            reached[k, i] = axes[k, 0] * wx + axes[k, 1] * wy + axes[k, 2] * wz >= bound


@njit(**JIT)
def lit(P, grids, light, start, members, frame, x, y, z, jx, jy, jz):
    """1 when nothing stands between a point and the main light moved by (jx, jy, jz), else 0."""
    if light[0] == 0:
        ux, uy, uz, vx, vy, vz = _light_axes(light)
        cx = math.floor((x * ux + y * uy + z * uz - frame[0]) * frame[2])
        cy = math.floor((x * vx + y * vy + z * vz - frame[1]) * frame[3])
        if cx < 0 or cy < 0 or cx >= CELLS or cy >= CELLS:
            return 1.0
        dx, dy, dz, far = light[1] + jx, light[2] + jy, light[3] + jz, INF
    else:
        u, v = _octahedral(x - light[1], y - light[2], z - light[3])
        cx, cy = min(int(u * CELLS), CELLS - 1), min(int(v * CELLS), CELLS - 1)
        dx, dy, dz, far = light[1] + jx - x, light[2] + jy - y, light[3] + jz - z, 0.98
    for k in range(start[cy * CELLS + cx], start[cy * CELLS + cx + 1]):
        i = members[k]
        rx, ry, rz = P[i, 1] - x, P[i, 2] - y, P[i, 3] - z
        along, d2 = rx * dx + ry * dy + rz * dz, dx * dx + dy * dy + dz * dz
        r2 = P[i, 27] * P[i, 27]
        c2 = rx * rx + ry * ry + rz * rz
        if c2 - along * along / d2 > r2 or (along < 0 and c2 > r2):
            continue
        if hit(P, i, grids, x, y, z, dx, dy, dz, 1e-4, far) < far:
            return 0.0
    return 1.0
