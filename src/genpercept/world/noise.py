"""Hashes of grid points and the smooth noise made of them."""

from __future__ import annotations

import math

from numba import njit

from genpercept.world.jit import JIT


@njit(**JIT)
def lattice(x: int, y: int, z: int, seed: int) -> float:
    """A hash of an integer point, in [0, 1)."""
    h = (x * 374761393 + y * 668265263 + z * 1274126177 + seed * 974634541) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1103515245) & 0xFFFFFFFF
    h = ((h ^ (h >> 15)) * 2246822519) & 0xFFFFFFFF
    return ((h ^ (h >> 16)) & 0xFFFFFF) / 16777216.0


@njit(**JIT)
def noise3(x: float, y: float, z: float, seed: int) -> float:
    """Smooth value noise in [0, 1]."""
    fx, fy, fz = math.floor(x), math.floor(y), math.floor(z)
    i, j, k = int(fx), int(fy), int(fz)
    u, v, w = x - fx, y - fy, z - fz
    u, v, w = u * u * (3 - 2 * u), v * v * (3 - 2 * v), w * w * (3 - 2 * w)
    a = lattice(i, j, k, seed) * (1 - u) + lattice(i + 1, j, k, seed) * u
    b = lattice(i, j + 1, k, seed) * (1 - u) + lattice(i + 1, j + 1, k, seed) * u
    c = lattice(i, j, k + 1, seed) * (1 - u) + lattice(i + 1, j, k + 1, seed) * u
    d = lattice(i, j + 1, k + 1, seed) * (1 - u) + lattice(i + 1, j + 1, k + 1, seed) * u
    return (a * (1 - v) + b * v) * (1 - w) + (c * (1 - v) + d * v) * w
