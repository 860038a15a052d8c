"""Colour: textures, lights, shadows, sky, fog and anti-aliasing of what trace.py found."""

from __future__ import annotations

import math

from numba import njit

from genpercept.world import intersect as X
from genpercept.world.atlas import LEVELS, OFFSETS
from genpercept.world.atlas import N as TEXELS
from genpercept.world.intersect import local, local_normal
from genpercept.world.jit import JIT
from genpercept.world.noise import noise3
from genpercept.world.trace import ray

# Environment vector: main light, ambient light, fog, sky.
LIGHT, LIGHT_RGB, AMBIENT_UP, AMBIENT_DOWN, FILL, FILL_RGB = 0, 5, 8, 11, 14, 17
FOG, FOG_RGB, ZENITH, HORIZON, CLOUD, CLOUD_RGB, AO, SEED, SUN = 20, 21, 24, 27, 30, 33, 36, 38, 39
ENV = 42
# Material columns: tile, mode (0 colour, 1 pattern), repeats per metre, angle, offset, three colours, looks.
M_TILE, M_MODE, M_SCALE, M_COS, M_SIN, M_U, M_V, M_C0, M_C1, M_C2 = 0, 1, 2, 3, 4, 5, 6, 7, 10, 13
M_SPEC, M_GLOSS, M_GLOW, M_BUMP, M_VARY, M_TILE2, M_MIRROR = 16, 17, 18, 19, 20, 21, 22
MATERIAL = 23
# A defect: kind (0 stain, 1 scratch, 2 hole, 3 bump), where on the screen (two numbers in [0, 1]), size, angle, colour;
# then, found while rendering: object, point (3), direction (3), radius in metres.
DEFECT, D_OBJ = 16, 8


@njit(**JIT)
def texel(texels, tile, u, v, level, out):
    """Trilinear lookup of a tile at (u, v) in repeats, at a fractional mip level; five values in [0, 1] into out."""
    level = min(max(level, 0.0), LEVELS - 1.001)
    base = int(level)
    # Blend two levels only half way between them: the eye does not see the difference, the cache does.
    blend = min(max((level - base) * 2 - 0.5, 0.0), 1.0)
    for c in range(5):
        out[c] = 0.0
    for step in range(2):
        k = base + step
        weight = blend if step else 1 - blend
        if weight <= 0.02:
            continue
        n = TEXELS >> k
        x, y = (u - math.floor(u)) * n - 0.5, (v - math.floor(v)) * n - 0.5
        fx, fy = math.floor(x), math.floor(y)
        wx, wy = x - fx, y - fy
        x0, y0 = int(fx) & (n - 1), int(fy) & (n - 1)
        x1, y1 = (x0 + 1) & (n - 1), (y0 + 1) & (n - 1)
        o = OFFSETS[k]
        for c in range(5):
            top = texels[tile, o + y0 * n + x0, c] * (1 - wx) + texels[tile, o + y0 * n + x1, c] * wx
            low = texels[tile, o + y1 * n + x0, c] * (1 - wx) + texels[tile, o + y1 * n + x1, c] * wx
            out[c] += weight * (top * (1 - wy) + low * wy) / 255.0


@njit(**JIT)
def texel_one(texels, tile, u, v, level):
    """First value of a tile at (u, v), one mip level, bilinear."""
    k = int(min(max(level + 0.5, 0.0), LEVELS - 1.001))
    n = TEXELS >> k
    x, y = (u - math.floor(u)) * n - 0.5, (v - math.floor(v)) * n - 0.5
    fx, fy = math.floor(x), math.floor(y)
    wx, wy = x - fx, y - fy
    x0, y0 = int(fx) & (n - 1), int(fy) & (n - 1)
    x1, y1 = (x0 + 1) & (n - 1), (y0 + 1) & (n - 1)
    o = OFFSETS[k]
    top = texels[tile, o + y0 * n + x0, 0] * (1 - wx) + texels[tile, o + y0 * n + x1, 0] * wx
    low = texels[tile, o + y1 * n + x0, 0] * (1 - wx) + texels[tile, o + y1 * n + x1, 0] * wx
    return (top * (1 - wy) + low * wy) / 255.0


@njit(**JIT)
def sky(env, texels, dx, dy, dz, out):
    """Radiance of the sky in a direction (not normalised), into out (3,)."""
    s = 1 / math.sqrt(dx * dx + dy * dy + dz * dz)
    x, y, z = dx * s, dy * s, dz * s
    h = max(y, 0.0)
    w = math.exp(-4.5 * h)
    for c in range(3):
        out[c] = env[24 + c] * (1 - w) + env[27 + c] * w
    if env[30] > 0 and y > 0.01:
        k = env[32] / (y + 0.12)
        value = texel_one(texels, int(env[31]), x * k + 0.37, z * k + 0.11, 0.5 + 0.06 / (y + 0.03))
        cover = min(max((value - 1 + env[30]) * 2.2, 0.0), 1.0) * min(y * 8, 1.0)
        for c in range(3):
            out[c] += cover * (env[33 + c] * (1.15 - 0.5 * value) - out[c])
    if env[39] > 0 and env[0] == 0:
        dot = x * env[1] + y * env[2] + z * env[3]
        glow = env[39] * (math.exp((dot - 1) * 900) * 6 + math.exp((dot - 1) * 25) * 0.35)
        for c in range(3):
            out[c] += glow * env[5 + c]


@njit(**JIT)
def surface_uv(kind, nx, ny, nz, x, y, z):
    """Texture coordinates in metres from a point and normal in the primitive's frame, in metres."""
    ax, ay, az = abs(nx), abs(ny), abs(nz)
    rounded = kind != X.BOX and kind != X.RBOX and kind != X.QUAD and kind != X.FIELD and kind != X.PRISM
    if ay > (1.5 * max(ax, az) if rounded else max(ax, az)):
        return x, z
    if rounded:
        return math.atan2(x, z) * math.hypot(x, z), y
    return (z, y) if ax > az else (x, y)


@njit(**JIT)
def _stain(defects, obj, x, y, z):
    """The defect at a world point of object `obj`: its index and strength, or -1 and 0."""
    for k in range(defects.shape[0]):
        if int(defects[k, 8]) != obj:
            continue
        qx, qy, qz = x - defects[k, 9], y - defects[k, 10], z - defects[k, 11]
        d, r = math.sqrt(qx * qx + qy * qy + qz * qz), defects[k, 15]
        if d > 2.6 * r:
            continue
        if int(defects[k, 0]) == 1:  # a scratch: near a line, wavering
            along = qx * defects[k, 12] + qy * defects[k, 13] + qz * defects[k, 14]
            off = math.sqrt(max(d * d - along * along, 0.0))
            width = r * (0.06 + 0.14 * noise3(along / r * 3, 0.0, 0.0, k))
            if abs(along) < 2.2 * r and off < width:
                return k, 1.0
        elif d < r * (0.55 + 0.75 * noise3(x / r * 1.8, y / r * 1.8, z / r * 1.8, k + 3)):
            return k, min(1.0, 2.5 * (1 - d / (1.3 * r)) + 0.3)
    return -1, 0.0


@njit(**JIT)
def _albedo(M, texels, m, u, v, foot, buf):
    """Material m's own colour from the texture values in buf[:3], varied by a coarser texture; into buf[5:8]."""
    for c in range(3):
        if M[m, 1] == 0:
            buf[5 + c] = buf[c] * buf[c] * M[m, 7 + c]
        else:
            base = M[m, 7 + c] + (M[m, 10 + c] - M[m, 7 + c]) * buf[0]
            buf[5 + c] = (base + (M[m, 13 + c] - base) * buf[1]) * (0.7 + 0.6 * buf[2])
    if M[m, 20] > 0:
        value = texel_one(texels, int(M[m, 21]), u * 0.23 + 0.4, v * 0.23, math.log2(max(foot * 0.23, 1e-6)))
        dirt = 1 + M[m, 20] * (value - 0.5) * 1.6
        for c in range(3):
            buf[5 + c] *= max(dirt, 0.1)


@njit(**JIT)
def shade(P, M, env, cam, grids, texels, defects, i, t, px, py, sun, ao, buf, out):
    """Radiance of primitive i at depth t behind image point (px, py), into out (3,). buf: 10 scratch numbers."""
    dx, dy, dz, _, _ = ray(cam, px, py)
    if i < 0:
        sky(env, texels, dx, dy, dz, out)
        return
    x, y, z = cam[0] + t * dx, cam[1] + t * dy, cam[2] + t * dz
    inv = 1 / math.sqrt(dx * dx + dy * dy + dz * dz)
    vx, vy, vz = -dx * inv, -dy * inv, -dz * inv
    m, kind = int(P[i, 20]), int(P[i, 0])
    lx, ly, lz = local(P, i, x, y, z)
    mx, my, mz = local_normal(P, i, grids, lx, ly, lz)
    if kind != X.RBOX:
        mx, my, mz = mx * P[i, 28], my * P[i, 29], mz * P[i, 30]
        lx, ly, lz = lx * P[i, 13], ly * P[i, 14], lz * P[i, 15]
    nx = P[i, 4] * mx + P[i, 5] * my + P[i, 6] * mz
    ny = P[i, 7] * mx + P[i, 8] * my + P[i, 9] * mz
    nz = P[i, 10] * mx + P[i, 11] * my + P[i, 12] * mz
    s = 1 / math.sqrt(nx * nx + ny * ny + nz * nz + 1e-300)
    if nx * vx + ny * vy + nz * vz < 0:
        s = -s
    nx, ny, nz = nx * s, ny * s, nz * s
    facing = nx * vx + ny * vy + nz * vz
    a, b = surface_uv(kind, mx, my, mz, lx, ly, lz)
    rep = M[m, 2]
    u = (a * M[m, 3] + b * M[m, 4]) * rep + M[m, 5]
    v = (b * M[m, 3] - a * M[m, 4]) * rep + M[m, 6]
    # Texels under one pixel: distance over focal length, stretched at grazing angles.
    foot = t / cam[12] * rep * TEXELS / math.sqrt(max(facing, 0.05))
    texel(texels, int(M[m, 0]), u, v, math.log2(max(foot, 1e-6)) + 0.15, buf)
    if M[m, 19] > 0:
        gu, gv = (buf[3] - 0.5) * M[m, 19], (buf[4] - 0.5) * M[m, 19]
        ga, gb = gu * M[m, 3] - gv * M[m, 4], gu * M[m, 4] + gv * M[m, 3]
        # Tangents good enough for shading: any two directions across the normal.
        s = 1 / math.hypot(nx, nz) if abs(ny) < 0.99 else 1.0
        tx, tz = (nz * s, -nx * s) if abs(ny) < 0.99 else (1.0, 0.0)
        bx, by, bz = ny * tz, nz * tx - nx * tz, -ny * tx
        nx, ny, nz = nx - ga * tx - gb * bx, ny - gb * by, nz - ga * tz - gb * bz
        s = 1 / math.sqrt(nx * nx + ny * ny + nz * nz)
        nx, ny, nz = nx * s, ny * s, nz * s
    _albedo(M, texels, m, u, v, foot, buf)
    if P[i, 26] > 0:
        k, s = _stain(defects, int(P[i, 22]), x, y, z)
        if k >= 0:
            if int(defects[k, 0]) == 3:
                nx, ny, nz = nx + 0.5 * s * (x - defects[k, 9]) / defects[k, 15], ny, nz
            for c in range(3):
                buf[5 + c] += s * (defects[k, 5 + c] - buf[5 + c])
    _illuminate(M, env, texels, m, x, y, z, nx, ny, nz, vx, vy, vz, sun, ao, buf, out)
    if env[20] > 0:
        keep = math.exp(-env[20] * t)
        for c in range(3):
            out[c] = out[c] * keep + env[21 + c] * (1 - keep)


@njit(**JIT)
def _illuminate(M, env, texels, m, x, y, z, nx, ny, nz, vx, vy, vz, sun, ao, buf, out):
    """Main light, fill light and ambient on an albedo in buf[5:8]; into out."""
    if env[0] == 0:
        lx, ly, lz, fall = env[1], env[2], env[3], 1.0
    else:
        lx, ly, lz = env[1] - x, env[2] - y, env[3] - z
        d2 = lx * lx + ly * ly + lz * lz
        s = 1 / math.sqrt(d2)
        lx, ly, lz, fall = lx * s, ly * s, lz * s, 1 / (0.6 + d2)
    diffuse = max(nx * lx + ny * ly + nz * lz, 0.0) * fall * sun
    fx, fy, fz = env[14] - x, env[15] - y, env[16] - z
    f2 = fx * fx + fy * fy + fz * fz
    fill = max((nx * fx + ny * fy + nz * fz) / math.sqrt(f2 + 1e-9), 0.0) / (0.6 + f2) * (0.4 + 0.6 * ao)
    hx, hy, hz = lx + vx, ly + vy, lz + vz
    half = max((nx * hx + ny * hy + nz * hz) / math.sqrt(hx * hx + hy * hy + hz * hz + 1e-9), 0.0)
    spec = M[m, 16] * half ** M[m, 17] * (M[m, 17] + 8) * 0.04 * diffuse if M[m, 16] > 0 else 0.0
    up = 0.5 + 0.5 * ny
    for c in range(3):
        ambient = (env[11 + c] + (env[8 + c] - env[11 + c]) * up) * ao
        light = env[5 + c] * diffuse + env[17 + c] * fill + ambient
        out[c] = buf[5 + c] * (light + M[m, 18]) + env[5 + c] * spec
    if M[m, 22] > 0:
        d = 2 * (nx * vx + ny * vy + nz * vz)
        fresnel = M[m, 22] + (1 - M[m, 22]) * (1 - min(abs(0.5 * d), 1.0)) ** 5 * 0.6
        sky(env, texels, d * nx - vx, d * ny - vy, d * nz - vz, buf)
        ground = 1.0 if d * ny - vy > 0 else 0.35
        for c in range(3):
            out[c] += fresnel * (buf[c] * ground * (0.35 + 0.65 * ao) * (0.4 + 0.6 * buf[5 + c]) - 0.6 * out[c])


@njit(**JIT)
def resolve_defects(defects, P, T, ids, cam, height, width):
    """Tie each defect to the visible surface point it falls on. T, ids: visible depth and primitive, (H, W)."""
    for k in range(defects.shape[0]):
        defects[k, 8] = -1
        for attempt in range(12):
            j = min(int(((defects[k, 1] + attempt * 0.618) % 1.0) * width), width - 1)
            i = min(int(((defects[k, 2] + attempt * 0.382) % 1.0) * height), height - 1)
            p = ids[i, j]
            if p < 0 or T[i, j] > 30 or int(P[p, 0]) == X.RAGGED:
                continue
            dx, dy, dz, _, _ = ray(cam, j + 0.5, i + 0.5)
            t = T[i, j]
            defects[k, 8] = P[p, 22]
            defects[k, 9], defects[k, 10], defects[k, 11] = cam[0] + t * dx, cam[1] + t * dy, cam[2] + t * dz
            ca, sa = math.cos(defects[k, 4]), math.sin(defects[k, 4])
            for c in range(3):
                defects[k, 12 + c] = ca * cam[3 + c] + sa * cam[6 + c]
            defects[k, 15] = t * max(height, width) * defects[k, 3] / cam[12]
            break


@njit(**JIT)
def occlusion(T, N, cam, reach, strength, i, j):
    """Ambient light left at a pixel, from the visible surfaces around it. T (H, W) depth, N (H, W, 3) world normals."""
    height, width = T.shape
    t = T[i, j]
    radius = min(max(reach * cam[12] / t, 2.0), 0.16 * max(height, width))
    dx, dy, dz, _, _ = ray(cam, j + 0.5, i + 0.5)
    blocked = 0.0
    for k in range(10):
        r, angle = radius * (k + 0.6) / 10, 2.4 * k
        jj, ii = j + round(r * math.cos(angle)), i + round(r * math.sin(angle))
        if ii < 0 or jj < 0 or ii >= height or jj >= width or not T[ii, jj] < 1e6:
            continue
        ex, ey, ez, _, _ = ray(cam, jj + 0.5, ii + 0.5)
        s = T[ii, jj]
        wx, wy, wz = s * ex - t * dx, s * ey - t * dy, s * ez - t * dz
        d2 = wx * wx + wy * wy + wz * wz + 1e-9
        rise = (wx * N[i, j, 0] + wy * N[i, j, 1] + wz * N[i, j, 2]) / math.sqrt(d2)
        blocked += max(rise - 0.12, 0.0) / (1 + d2 / (reach * reach))
    return max(1 - strength * blocked * 0.22, 0.12)


@njit(**JIT)
def _soften(S, ids, P, layer, cov, i, j):
    """Mean shadow over the neighbours on the same object: turns one jittered ray per pixel into a soft edge.

    Background that the foreground hides whole is left out, so that the picture is the same with and without mattes.
    """
    height, width = S.shape
    if 2 <= i < height - 2 and 2 <= j < width - 2:
        same, mid = True, S[i, j]
        for k in range(4):
            ii, jj = i + 2 * ((k == 0) - (k == 1)), j + 2 * ((k == 2) - (k == 3))
            same = same and S[ii, jj] == mid and (layer == 1 or cov[ii, jj] < 1)
        if same:
            return mid
    obj, total, count = P[ids[i, j], 22], 0.0, 0.0
    for di in range(-2, 3):
        for dj in range(-2, 3):
            ii, jj = i + di, j + dj
            if ii < 0 or jj < 0 or ii >= height or jj >= width or (layer == 0 and cov[ii, jj] >= 1):
                continue
            if ids[ii, jj] >= 0 and P[ids[ii, jj], 22] == obj:
                total += S[ii, jj]
                count += 1
    return total / count if count > 0 else S[i, j]
