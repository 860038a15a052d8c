"""One scene from its numbers to buffers: visibility, labels, light, anti-aliasing."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from genpercept.world.intersect import INF, hit, normal
from genpercept.world.jit import JIT
from genpercept.world.noise import lattice
from genpercept.world.shade import _soften, _stain, occlusion, resolve_defects, shade
from genpercept.world.trace import TILE, light_lists, lit, ray, screen_boxes, tile_lists, trace


@njit(**JIT)
def survey(P, grids, cam, height, width, step, far):
    """A coarse look, every `step` pixels: (share that hits, nearest depth, share of the largest primitive, spread of
    log depth, ratio of the 98 % to the 2 % quantile of depth with `far` for what is beyond it)."""
    box, near = screen_boxes(P, cam, height, width)
    start, members, fields = tile_lists(P, box, near, height, width)
    lists = (start, members, fields, box, near)
    tw = (width + TILE - 1) // TILE
    count = np.zeros(P.shape[0])
    depths = np.empty(((height - step // 2 - 1) // step + 1) * ((width - step // 2 - 1) // step + 1))
    total, found, nearest, s1, s2 = 0, 0, INF, 0.0, 0.0
    for i in range(step // 2, height, step):
        for j in range(step // 2, width, step):
            tb, ib, tf, jf, cov = trace(P, grids, cam, lists, tw, j + 0.5, i + 0.5)
            total += 1
            t, p = (tf, jf) if cov >= 0.5 else (tb, ib)
            if p >= 0:
                depths[found] = min(t, far)
                found += 1
                count[p] += 1
                nearest = min(nearest, t)
                s1 += math.log(t)
                s2 += math.log(t) ** 2
    if found == 0:
        return 0.0, INF, 1.0, 0.0, INF
    spread = math.sqrt(max(s2 / found - (s1 / found) ** 2, 0.0))
    low, high = np.quantile(depths[:found], np.array([0.02, 0.98]))
    return found / total, nearest, count.max() / total, spread, high / low


@njit(**JIT)
def first_hit(P, grids, cam, px, py, height, width):
    """Depth of the first surface at an image point, infinity at the sky."""
    dx, dy, dz, _, _ = ray(cam, px, py)
    from_camera = INF
    for i in range(P.shape[0]):
        t = _hit_if(P, grids, cam, i, dx, dy, dz, from_camera)
        from_camera = min(from_camera, t)
    return from_camera


@njit(**JIT)
def _hit_if(P, grids, cam, i, dx, dy, dz, limit):
    rx, ry, rz = P[i, 1] - cam[0], P[i, 2] - cam[1], P[i, 3] - cam[2]
    d2, along = dx * dx + dy * dy + dz * dz, rx * dx + ry * dy + rz * dz
    if rx * rx + ry * ry + rz * rz - along * along / d2 > P[i, 27] ** 2:
        return INF
    return hit(P, i, grids, cam[0], cam[1], cam[2], dx, dy, dz, 0.02, limit)


@njit(**JIT)
def _colour_of(ids, C, layer, cov, i, j, p):
    """Where in the 3 x 3 neighbourhood of (i, j) primitive p has its colour already, or -1."""
    height, width = ids.shape
    for k in range(9):
        # The pixel itself first, then its neighbours.
        di, dj = (k + 4) % 9 // 3 - 1, (k + 4) % 9 % 3 - 1
        ii, jj = i + di, j + dj
        if 0 <= ii < height and 0 <= jj < width and ids[ii, jj] == p and C[ii, jj, 0] >= 0:
            # Hidden background has a colour only with mattes; the picture must not depend on that.
            if layer == 0 and cov[ii, jj] >= 1:
                continue
            return ii * width + jj
    return -1


@njit(**JIT)
def light_pass(P, M, env, cam, grids, texels, defects, T, ids, N, cov, mattes):
    """Colours of both layers (2, H, W, 3), -1 where nothing is needed."""
    _, height, width = T.shape
    start, members, frame = light_lists(P, env[:5])
    S = np.ones((2, height, width))
    C = np.full((2, height, width, 3), -1.0)
    seed = int(env[38])
    for layer in range(2):
        for i in range(height):
            for j in range(width):
                p = ids[layer, i, j]
                if p < 0 or (layer == 0 and cov[i, j] >= 1 and not mattes):
                    continue
                t = T[layer, i, j]
                dx, dy, dz, _, _ = ray(cam, j + 0.5, i + 0.5)
                nx, ny, nz = N[layer, i, j, 0], N[layer, i, j, 1], N[layer, i, j, 2]
                off = 0.0015 * t + 0.001
                x, y, z = cam[0] + t * dx + off * nx, cam[1] + t * dy + off * ny, cam[2] + t * dz + off * nz
                if env[0] == 0:
                    side = nx * env[1] + ny * env[2] + nz * env[3]
                else:
                    side = nx * (env[1] - x) + ny * (env[2] - y) + nz * (env[3] - z)
                if side <= 0:
                    S[layer, i, j] = 0.0
                    continue
                jx, jy = lattice(i, j, 1, seed) - 0.5, lattice(i, j, 2, seed) - 0.5
                jz, r = lattice(i, j, 3, seed) - 0.5, 2 * env[4]
                S[layer, i, j] = lit(P, grids, env, start, members, frame, x, y, z, jx * r, jy * r, jz * r)
    front, soft = np.minimum(T[0], T[1]), np.ones((2, height, width))
    buf, out = np.zeros(10), np.zeros(3)
    for layer in range(2):
        for i in range(height):
            for j in range(width):
                p = ids[layer, i, j]
                if (layer == 1 and p < 0) or (layer == 0 and cov[i, j] >= 1 and not mattes):
                    continue
                sun, ao = 1.0, 1.0
                if p >= 0:
                    sun = _soften(S[layer], ids[layer], P, layer, cov, i, j)
                    ao = (
                        occlusion(front, N[layer], cam, env[37], env[36], i, j)
                        if T[layer, i, j] == front[i, j]
                        else 0.7
                    )
                shade(P, M, env, cam, grids, texels, defects, p, T[layer, i, j], j + 0.5, i + 0.5, sun, ao, buf, out)
                for c in range(3):
                    C[layer, i, j, c] = max(out[c], 0.0)
                soft[layer, i, j] = sun
    return C, soft


@njit(**JIT)
def antialias(P, M, env, cam, grids, texels, defects, lists, T, ids, cov, C, S):
    """Four samples where neighbours differ. Gives both layers and alpha (H, W), none of them labels."""
    _, height, width = T.shape
    tw = (width + TILE - 1) // TILE
    out, alpha = C.copy(), cov.copy()
    buf, rgb, total = np.zeros(10), np.zeros(3), np.zeros((2, 3))
    for i in range(height):
        for j in range(width):
            edge = 0 < cov[i, j] < 1
            front = ids[1, i, j] if cov[i, j] >= 1 else ids[0, i, j]
            for k in range(4):
                ii, jj = i + (k == 0) - (k == 1), j + (k == 2) - (k == 3)
                if 0 <= ii < height and 0 <= jj < width:
                    edge = edge or (ids[1, ii, jj] if cov[ii, jj] >= 1 else ids[0, ii, jj]) != front
            if not edge:
                continue
            total[:] = 0.0
            wf, wb = 0.0, 0.0
            for s in range(4):
                px = j + (0.375, 0.875, 0.125, 0.625)[s]
                py = i + (0.125, 0.375, 0.625, 0.875)[s]
                tb, ib, tf, jf, a = trace(P, grids, cam, lists, tw, px, py)
                for layer in range(2):
                    w = a if layer == 1 else 1 - a
                    if w <= 0:
                        continue
                    p, t = (jf, tf) if layer == 1 else (ib, tb)
                    at = _colour_of(ids[layer], C[layer], layer, cov, i, j, p)
                    if at >= 0:
                        for c in range(3):
                            total[layer, c] += w * C[layer, at // width, at % width, c]
                    else:
                        sun = S[1 if cov[i, j] >= 1 else layer, i, j]
                        shade(P, M, env, cam, grids, texels, defects, p, t, px, py, sun, 0.8, buf, rgb)
                        for c in range(3):
                            total[layer, c] += w * max(rgb[c], 0.0)
                    wf, wb = (wf + w, wb) if layer == 1 else (wf, wb + w)
            alpha[i, j] = wf / (wf + wb)
            for layer in range(2):
                w = wf if layer == 1 else wb
                if w > 0:
                    for c in range(3):
                        out[layer, i, j, c] = total[layer, c] / w
    return out, alpha


@njit(**JIT)
def draw(P, M, env, cam, grids, texels, defects, height, width, mattes):
    """Render one scene.

    Gives colour layers (2, H, W, 3) (background, foreground), alpha (H, W), depth (H, W), normals (H, W, 3) in the
    camera frame, class and object ids (H, W), hard mask (H, W) and defect mask (H, W).
    """
    box, near = screen_boxes(P, cam, height, width)
    start, members, fields = tile_lists(P, box, near, height, width)
    lists = (start, members, fields, box, near)
    tw = (width + TILE - 1) // TILE
    T, ids = np.full((2, height, width), INF), np.full((2, height, width), -1, np.int32)
    N, cov = np.zeros((2, height, width, 3)), np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            px, py = j + 0.5, i + 0.5
            tb, ib, tf, jf, a = trace(P, grids, cam, lists, tw, px, py)
            T[0, i, j], ids[0, i, j], T[1, i, j], ids[1, i, j], cov[i, j] = tb, ib, tf, jf, a
            dx, dy, dz, _, _ = ray(cam, px, py)
            for k in range(2):
                if ids[k, i, j] >= 0:
                    t = T[k, i, j]
                    x, y, z = cam[0] + t * dx, cam[1] + t * dy, cam[2] + t * dz
                    N[k, i, j, 0], N[k, i, j, 1], N[k, i, j, 2] = normal(P, ids[k, i, j], grids, x, y, z, dx, dy, dz)
    depth, normals = np.full((height, width), INF), np.zeros((height, width, 3))
    cls, obj = np.zeros((height, width), np.uint8), np.full((height, width), -1, np.int32)
    mask, flaw = cov >= 0.5, np.zeros((height, width), np.bool_)
    seen = np.full((height, width), -1, np.int32)
    for i in range(height):
        for j in range(width):
            k = 1 if mask[i, j] else 0
            p = ids[k, i, j]
            if p < 0:
                continue
            seen[i, j], depth[i, j] = p, T[k, i, j]
            cls[i, j], obj[i, j] = int(P[p, 21]), int(P[p, 22])
            for c in range(3):
                a = 3 * c + 3
                normals[i, j, c] = N[k, i, j, 0] * cam[a] + N[k, i, j, 1] * cam[a + 1] + N[k, i, j, 2] * cam[a + 2]
    resolve_defects(defects, P, depth, seen, cam, height, width)
    for k in range(defects.shape[0]):
        for p in range(P.shape[0]):
            if P[p, 22] == defects[k, 8]:
                P[p, 26] = 1.0
    if defects.shape[0] > 0:
        for i in range(height):
            for j in range(width):
                p = seen[i, j]
                if p >= 0 and P[p, 26] > 0:
                    dx, dy, dz, _, _ = ray(cam, j + 0.5, i + 0.5)
                    t = depth[i, j]
                    flaw[i, j] = (
                        _stain(defects, int(P[p, 22]), cam[0] + t * dx, cam[1] + t * dy, cam[2] + t * dz)[0] >= 0
                    )
    C, S = light_pass(P, M, env, cam, grids, texels, defects, T, ids, N, cov, mattes)
    layers, alpha = antialias(P, M, env, cam, grids, texels, defects, lists, T, ids, cov, C, S)
    return layers, alpha, depth, normals, cls, obj, mask, flaw
