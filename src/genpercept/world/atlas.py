"""The texture atlas: tileable 256 x 256 patterns with mip levels, built once and kept in the user's cache folder.

A tile has five bytes per texel: three of colour or pattern, two of surface gradient (for bumps). Pattern tiles carry
(pattern, mask, grain) and are coloured by the material; colour tiles are used as they are. Photographs are those that
ship inside scikit-image and are in the public domain or CC0; the ones commonly used for evaluation are left out.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import skimage
from numba import njit
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.spatial import KDTree

from genpercept.core.files import write_arrays
from genpercept.world.jit import JIT

VERSION = 1
N = 256
LEVELS = 7  # 256 ... 4 texels
OFFSETS = np.cumsum([0] + [(N >> k) ** 2 for k in range(LEVELS)]).astype(np.int64)
TILE_SEED = 77

Array = np.ndarray
Rng = np.random.Generator
_YY, _XX = np.mgrid[0:N, 0:N] / N


def _unit(x: Array, spread: float = 0.2) -> Array:
    """Mean 0.5, the given standard deviation, clipped to [0, 1]."""
    return np.clip(0.5 + spread * (x - x.mean()) / (x.std() + 1e-9), 0, 1)


def fbm(rng: Rng, slope: float, stretch: float = 1.0, low: float = 0.0) -> Array:
    """Tileable noise with amplitude f ** -slope; `stretch` makes it longer along x. (N, N) in [0, 1]."""
    fy, fx = np.meshgrid(np.fft.fftfreq(N) * N, np.fft.rfftfreq(N) * N, indexing="ij")
    f = np.hypot(fx * stretch, fy)
    gain = np.where(f > max(low, 0.5), np.maximum(f, 0.5) ** -slope, 0)
    return _unit(np.fft.irfft2(np.fft.rfft2(rng.standard_normal((N, N))) * gain, s=(N, N)))


def pattern(p: Array, mask: Array | None = None, grain: Array | None = None) -> Array:
    """Stack (pattern, mask, grain) into a tile (N, N, 3)."""
    zero = np.zeros((N, N))
    return np.stack([p, zero if mask is None else mask, zero + 0.5 if grain is None else grain], -1)


def natural_colour(rng: Rng) -> Array:
    """An sRGB colour in [0, 1] as photographs have them: mostly muted, sometimes strong."""
    hue, sat, val = rng.choice([0.03, 0.08, 0.11, 0.3, 0.58, 0.62, rng.random()]), rng.beta(1.3, 2.6), rng.beta(2, 1.6)
    k = np.abs(np.mod(hue + np.array([0, 2 / 3, 1 / 3]) + rng.normal(0, 0.02), 1) * 6 - 3) - 1
    return val * (1 - sat + sat * np.clip(k, 0, 1))


def dead_leaves(rng: Rng, count: int, small: float, large: float, palette: int = 0, grey: bool = False) -> Array:
    """Overlapping discs, ellipses and boxes with power-law sizes: the statistics of occluding objects."""
    img = np.full((N, N, 3), 0.5)
    radii = np.sort(small * (1 - rng.random(count) * (1 - (small / large) ** 2)) ** -0.5)[::-1]
    rng.shuffle(radii)
    colours = [natural_colour(rng) for _ in range(palette or count)]
    for i, r in enumerate(np.concatenate([np.full(40, large), radii])):
        n = int(r) + 1
        d = np.arange(-n, n + 1)
        y, x = np.meshgrid(d, d, indexing="ij")
        a = rng.random() * np.pi
        u, v = (x * np.cos(a) + y * np.sin(a)) / r, (y * np.cos(a) - x * np.sin(a)) / (r * rng.uniform(0.35, 1))
        inside = (u * u + v * v < 1) if rng.random() < 0.7 else (np.maximum(abs(u), abs(v)) < 0.75)
        colour = colours[i % len(colours)] * rng.uniform(0.75, 1.2)
        shade = 1 + rng.normal(0, 0.25) * u + rng.normal(0, 0.25) * v
        rows, cols = (d + rng.integers(N)) % N, (d + rng.integers(N)) % N
        patch = img[np.ix_(rows, cols)]
        patch[inside] = (colour * shade[..., None])[inside]
        img[np.ix_(rows, cols)] = patch
    img = np.clip(img * (0.75 + 0.5 * fbm(rng, 1.0))[..., None], 0, 1)
    return pattern(img.mean(-1), None, fbm(rng, 0.7)) if grey else img


@njit(**JIT)
def _gray_scott(u: Array, v: Array, feed: float, kill: float, steps: int) -> None:
    n = u.shape[0]
    u2, v2 = u.copy(), v.copy()
    for _ in range(steps):
        for i in range(n):
            up, dn = (i - 1) % n, (i + 1) % n
            for j in range(n):
                lf, rt = (j - 1) % n, (j + 1) % n
                lu = u[up, j] + u[dn, j] + u[i, lf] + u[i, rt] - 4 * u[i, j]
                lv = v[up, j] + v[dn, j] + v[i, lf] + v[i, rt] - 4 * v[i, j]
                r = u[i, j] * v[i, j] * v[i, j]
                u2[i, j] = u[i, j] + 0.2 * lu - r + feed * (1 - u[i, j])
                v2[i, j] = v[i, j] + 0.1 * lv + r - (feed + kill) * v[i, j]
        u[:], v[:] = u2, v2


def reaction_diffusion(rng: Rng, feed: float, kill: float) -> Array:
    n = N // 2
    u, v = np.ones((n, n)), np.zeros((n, n))
    for _ in range(30):
        y, x = rng.integers(0, n - 8, 2)
        u[y : y + 8, x : x + 8], v[y : y + 8, x : x + 8] = 0.5, 0.25 + 0.1 * rng.random()
    _gray_scott(u, v, feed, kill, 2500)
    p = np.kron(np.clip((v - v.min()) / (np.ptp(v) + 1e-9) * 1.3, 0, 1), np.ones((2, 2)))
    return pattern(gaussian_filter(p, 1, mode="wrap"), None, fbm(rng, 1.0))


def voronoi(rng: Rng, count: int) -> tuple[Array, Array, Array]:
    """Distance to the nearest and second nearest of `count` points (in cell sizes), and a random value per cell."""
    points = rng.random((count, 2))
    nearest = KDTree(points, boxsize=1).query(np.stack([_XX.ravel(), _YY.ravel()], -1), k=2)
    d, k = np.asarray(nearest[0]), np.asarray(nearest[1])
    scale = np.sqrt(count)
    return (d[:, 0] * scale).reshape(N, N), (d[:, 1] * scale).reshape(N, N), rng.random(count)[k[:, 0]].reshape(N, N)


def masonry(rng: Rng, rows: int, cols: int, joint: float, offset: float = 0.5, vary: float = 0.5) -> Array:
    """Bricks, tiles, planks or shingles: per-piece value, joints in the mask."""
    r = np.floor(_YY * rows)
    x = _XX * cols + offset * (r % 2)
    fx, fy = x % 1, (_YY * rows) % 1
    value = rng.random((rows, cols))[r.astype(int), np.floor(x).astype(int) % cols]
    edge = np.minimum(np.minimum(fx, 1 - fx) * rows / cols, np.minimum(fy, 1 - fy))
    mask = np.clip((joint - edge) / 0.02 + 0.5, 0, 1)
    return pattern(np.clip(0.5 + vary * (value - 0.5) + 0.4 * (fbm(rng, 1.0) - 0.5), 0, 1), mask, fbm(rng, 0.6))


def stripes(rng: Rng, count: int, plaid: bool = False, soft: bool = False) -> Array:
    widths = rng.random(count * 2)
    edges = np.cumsum(widths) / widths.sum()
    values = rng.random(count * 2)
    p = values[np.searchsorted(edges, _XX).clip(0, count * 2 - 1)]
    if plaid:
        p = 0.5 * (p + values[np.searchsorted(edges, _YY).clip(0, count * 2 - 1)])
    if soft:
        p = 0.5 + 0.5 * np.sin(2 * np.pi * count * _XX + 1.5 * (fbm(rng, 1.8) - 0.5) * 6)
    return pattern(p, None, fbm(rng, 0.7))


def wood(rng: Rng, rings: float) -> Array:
    warp = fbm(rng, 1.8, 8.0)
    p = 0.5 + 0.5 * np.sin(2 * np.pi * (rings * _YY.round(9) * 0 + rings * (warp * 2 + np.sin(2 * np.pi * _YY) * 0.3)))
    return pattern(np.clip(0.6 * p + 0.4 * fbm(rng, 0.8, 16.0), 0, 1), None, fbm(rng, 0.5, 12.0))


def planks(rng: Rng, rows: int, cols: int) -> Array:
    t = masonry(rng, rows, cols, 0.012, 0.37, 0.7)
    grain = fbm(rng, 0.9, 14.0)
    return pattern(np.clip(t[..., 0] * 0.6 + 0.4 * grain, 0, 1), t[..., 1], fbm(rng, 0.6, 10.0))


def marble(rng: Rng, veins: int) -> Array:
    p = np.abs(np.sin(np.pi * veins * (_XX + _YY) + 7 * (fbm(rng, 1.7) - 0.5)))
    return pattern(p**0.5, None, fbm(rng, 1.2))


def weave(rng: Rng, count: int) -> Array:
    sx, sy = np.sin(2 * np.pi * count * _XX), np.sin(2 * np.pi * count * _YY)
    over = (np.floor(2 * count * _XX) + np.floor(2 * count * _YY)) % 2
    p = np.where(over > 0, np.abs(sx), np.abs(sy))
    return pattern(np.clip(0.35 + 0.4 * p + 0.5 * (fbm(rng, 1.1) - 0.5), 0, 1), None, fbm(rng, 0.4))


def glyphs(rng: Rng, lines: int) -> Array:
    """Rows of letter-like marks on paper."""
    p = np.ones((N, N))
    h = N // lines
    for line in range(lines):
        x = int(rng.integers(4, 12))
        while x < N - 14:
            if rng.random() < 0.17:
                x += h // 2
                continue
            w = int(rng.integers(h // 4, max(h // 2, h // 4 + 2)))
            small = rng.random((3, 2)) < 0.6
            block = np.kron(small, np.ones((-(-h * 5 // 24), max(w // 2, 1))))
            y0 = line * h + h // 6
            part = p[y0 : y0 + block.shape[0], x : x + block.shape[1]]
            part -= 0.85 * block[: part.shape[0], : part.shape[1]]
            x += w + max(h // 10, 1)
    return pattern(np.clip(p, 0, 1), None, fbm(rng, 0.9))


def strokes(rng: Rng, count: int, length: float, width: float, upright: bool) -> Array:
    """Blades, hairs or leaves: thin overlapping strokes with random brightness."""
    img, mask = np.full((N, N), 0.15), np.zeros((N, N))
    steps = np.linspace(-1, 1, max(int(length), 3))
    for _ in range(count):
        a = rng.normal(np.pi / 2, 0.35) if upright else rng.random() * np.pi
        bend, value, hue = rng.normal(0, 0.3), rng.beta(2, 2), rng.random()
        w = width * rng.uniform(0.5, 1.2) * (1 - steps**2)
        x0, y0 = rng.random(2) * N
        for side in np.arange(-width, width + 0.5, 0.7):
            keep = abs(side) <= w
            s = steps[keep]
            x = x0 + length / 2 * s * np.cos(a) + (side + bend * length * s * s) * np.sin(a)
            y = y0 - length / 2 * s * np.sin(a) + (side + bend * length * s * s) * np.cos(a)
            yi, xi = y.astype(int) % N, x.astype(int) % N
            img[yi, xi] = value * (1 - 0.3 * abs(side) / (width + 1e-6))
            mask[yi, xi] = hue
    return pattern(img, mask * 0.7, fbm(rng, 0.8))


def facade(rng: Rng, rows: int, cols: int) -> Array:
    """A grid of windows: glass in the pattern's dark end, frames and sills in the mask."""
    fx, fy = (_XX * cols) % 1, (_YY * rows) % 1
    wx, wy = rng.uniform(0.2, 0.38), rng.uniform(0.25, 0.4)
    inside = (abs(fx - 0.5) < wx) & (abs(fy - 0.5) < wy)
    bars = (abs(fx - 0.5) < 0.02) | (abs(fy - 0.5 + wy / 3) < 0.02)
    frame = (abs(fx - 0.5) < wx + 0.03) & (abs(fy - 0.5) < wy + 0.03) & (~inside | bars)
    lit = rng.random((rows, cols))[np.floor(_YY * rows).astype(int), np.floor(_XX * cols).astype(int)]
    wall = 0.75 + 0.3 * (fbm(rng, 1.2) - 0.5)
    p = np.where(inside, 0.05 + 0.4 * lit * (fy + 0.3), wall)
    return pattern(np.clip(p, 0, 1), frame.astype(float) * 0.8, fbm(rng, 0.7))


def motif(rng: Rng, count: int) -> Array:
    """Wallpaper: one small random figure, repeated on a half-drop grid."""
    x, y = (_XX * count) % 1, (_YY * count + 0.5 * (np.floor(_XX * count) % 2)) % 1
    a, r = np.arctan2(y - 0.5, x - 0.5), np.hypot(x - 0.5, y - 0.5)
    petals = rng.integers(2, 7)
    shape = r < 0.22 + 0.14 * np.cos(petals * a + rng.random() * 6)
    dot = r < 0.09
    return pattern(shape.astype(float), dot.astype(float), fbm(rng, 1.0))


def photo(rng: Rng, name: str, crop: int, grey: bool = False) -> Array:
    """A crop of a photograph that scikit-image carries, made tileable by mirroring. (N, N, 3)."""
    with Image.open(Path(skimage.__file__).parent / "data" / name) as im:
        rgb = im.convert("RGB")
    crop = min(crop, *rgb.size)
    x, y = (int(rng.integers(0, edge - crop + 1)) for edge in rgb.size)
    half = rgb.crop((x, y, x + crop, y + crop)).resize((N // 2, N // 2), Image.Resampling.LANCZOS)
    a = np.asarray(half, np.float64) / 255
    a = np.concatenate([a, a[:, ::-1]], 1)
    a = np.concatenate([a, a[::-1]], 0)
    return pattern(_unit(a.mean(-1), 0.25), None, fbm(rng, 0.9)) if grey else a


def _pattern_tiles(rng: Rng) -> dict[str, list[Array]]:
    """Group name -> pattern tiles. The order of the groups is that of the draws: a change of it changes every tile."""
    f = fbm
    cells = {k: voronoi(rng, k) for k in (40, 160, 500)}
    pebbles = [pattern(np.clip(1.1 - c[0] * 0.9 + 0.5 * (c[2] - 0.5), 0, 1), c[2], f(rng, 0.8)) for c in cells.values()]
    return {
        "noise": [pattern(f(rng, s), f(rng, 1.6) * 0.6, f(rng, 0.6)) for s in (0.6, 0.9, 1.2, 1.5, 1.9)],
        "plaster": [pattern(f(rng, s), None, f(rng, 0.4)) for s in (0.5, 1.1, 1.6)],
        "ridged": [pattern(1 - abs(2 * f(rng, s) - 1), None, f(rng, 0.7)) for s in (1.1, 1.6)],
        "spots": [reaction_diffusion(rng, *k) for k in ((0.035, 0.065), (0.022, 0.051), (0.055, 0.062))],
        "brick": [masonry(rng, 8, 4, 0.05), masonry(rng, 16, 6, 0.06), photo(rng, "brick.png", 400, True)],
        "stone": [pattern(0.3 + 0.7 * c[2], np.clip(1 - (c[1] - c[0]) * 6, 0, 1), f(rng, 1.0)) for c in cells.values()],
        "tile": [
            masonry(rng, 4, 4, 0.02, 0, 0.15),
            masonry(rng, 8, 8, 0.03, 0, 0.3),
            masonry(rng, 6, 3, 0.02, 0.5, 0.2),
        ],
        "checker": [pattern((np.floor(_XX * k) + np.floor(_YY * k)) % 2, None, f(rng, 1)) for k in (4, 8)],
        "stripes": [
            stripes(rng, 6),
            stripes(rng, 14),
            stripes(rng, 5, True),
            stripes(rng, 9, True),
            stripes(rng, 8, soft=True),
        ],
        "wood": [wood(rng, k) for k in (2.0, 4.0, 7.0)],
        "planks": [planks(rng, 6, 1), planks(rng, 8, 2), planks(rng, 12, 3)],
        "marble": [marble(rng, k) for k in (2, 4)],
        "fabric": [weave(rng, k) for k in (16, 32, 64)],
        "grass": [
            strokes(rng, 2500, 22, 1.2, True),
            strokes(rng, 1500, 34, 1.0, True),
            photo(rng, "grass.png", 420, True),
        ],
        "leaves": [
            strokes(rng, 1500, 16, 3.5, False),
            strokes(rng, 800, 26, 5.0, False),
            strokes(rng, 3000, 11, 2.2, False),
        ],
        "hair": [strokes(rng, 1500, 60, 0.8, True), strokes(rng, 2500, 28, 0.7, True)],
        "gravel": [*pebbles, photo(rng, "gravel.png", 400, True), photo(rng, "gravel.png", 256, True)],
        "speckle": [pattern(np.clip(rng.random((N, N)) ** k, 0, 1), None, f(rng, 0.9)) for k in (1.0, 4.0)],
        "paper": [
            glyphs(rng, 10),
            glyphs(rng, 16),
            glyphs(rng, 24),
            photo(rng, "page.png", 180, True),
            photo(rng, "text.png", 170, True),
        ],
        "facade": [facade(rng, 4, 4), facade(rng, 4, 6), facade(rng, 6, 3), facade(rng, 3, 5)],
        "roof": [masonry(rng, 12, 10, 0.05), masonry(rng, 10, 8, 0.08, 0.0, 0.5)],
        "paper_wall": [motif(rng, k) for k in (4, 7, 10)],
        "bark": [pattern(f(rng, 1.0, 0.12), f(rng, 1.3, 0.2) * 0.5, f(rng, 0.5))] * 1,
        "leaf_grey": [dead_leaves(rng, 900, 3, 40, grey=True), dead_leaves(rng, 2500, 2, 16, grey=True)],
        "cloud": [pattern(f(rng, 1.5, s), None, None) for s in (1.0, 2.0, 1.0)],
        "moon": [photo(rng, "moon.png", 350, True), photo(rng, "moon.png", 200, True)],
    }


def _colour_tiles(rng: Rng) -> dict[str, list[Array]]:
    """Group name -> colour tiles."""
    return {
        "leaves_rgb": [
            dead_leaves(rng, n, a, b, c) for n, a, b, c in ((700, 4, 60, 0), (1500, 3, 30, 6), (2500, 2, 20, 0))
        ]
        + [dead_leaves(rng, n, a, b, c) for n, a, b, c in ((300, 10, 70, 5), (1200, 3, 80, 12), (400, 6, 40, 8))],
        "fbm_rgb": [
            np.stack([0.6 * base + 0.4 * fbm(rng, s) for _ in range(3)], -1)
            for s, base in ((s, fbm(rng, s)) for s in (0.9, 1.2, 1.5))
        ],
        "photo": [
            photo(rng, "hubble_deep_field.jpg", 500),
            photo(rng, "retina.jpg", 800),
            photo(rng, "retina.jpg", 300),
            photo(rng, "cell.png", 400),
            photo(rng, "color.png", 300),
        ],
    }


def _train_tiles(rng: Rng) -> dict[str, list[tuple[int, Array]]]:
    """Group name -> tiles, each with 0 (colour) or 1 (pattern)."""
    patterns, colours = _pattern_tiles(rng), _colour_tiles(rng)
    out = {k: [(1, t) for t in v] for k, v in patterns.items()}
    return out | {k: [(0, t) for t in v] for k, v in colours.items()}


def _heldout_tiles(rng: Rng) -> dict[str, list[tuple[int, Array]]]:
    """Patterns that the training domains never show."""
    c = voronoi(rng, 60)
    giraffe = pattern(np.clip((c[1] - c[0]) * 5, 0, 1), None, fbm(rng, 1.0))
    rings = pattern(0.5 + 0.5 * np.sin(60 * np.minimum(c[0], 1.2)), None, fbm(rng, 1.0))
    zigzag = pattern((((_YY * 12 + abs((_XX * 8) % 1 - 0.5) * 2) % 1) > 0.5).astype(float), None, fbm(rng, 0.8))
    camo = pattern(np.round(fbm(rng, 1.9) * 3.4) / 3.4, (fbm(rng, 1.8) > 0.62).astype(float), fbm(rng, 1.2))
    basket = pattern(
        np.where((np.floor(_XX * 4) + np.floor(_YY * 4)) % 2 > 0, (_XX * 24) % 1, (_YY * 24) % 1), None, None
    )
    maze = reaction_diffusion(rng, 0.029, 0.057)
    pats = [giraffe, rings, zigzag, camo, basket, maze]
    photos = [photo(rng, "ihc.png", 300), photo(rng, "ihc.png", 160), photo(rng, "coins.png", 250)]
    return {"heldout": [(1, t) for t in pats] + [(0, t) for t in photos]}


def _pack(tile: Array) -> Array:
    """(N, N, 3) in [0, 1] -> all mip levels in one row of texels, (OFFSETS[-1], 5) uint8."""
    rows = []
    t = tile
    for k in range(LEVELS):
        if k:
            t = t.reshape(N >> k, 2, N >> k, 2, 3).mean((1, 3))
        height = gaussian_filter(t.mean(-1) if k else tile.mean(-1), 0.7, mode="wrap")
        gx, gy = np.roll(height, -1, 1) - np.roll(height, 1, 1), np.roll(height, -1, 0) - np.roll(height, 1, 0)
        grad = 0.5 + np.stack([gx, gy], -1)
        rows.append(np.concatenate([t, grad], -1).reshape(-1, 5))
    return np.round(np.clip(np.concatenate(rows), 0, 1) * 255).astype(np.uint8)


def _build() -> tuple[Array, dict[str, list[tuple[int, int]]]]:
    groups: dict[str, list[tuple[int, int]]] = {}
    rows: list[Array] = []
    tiles = _train_tiles(np.random.default_rng(TILE_SEED)) | _heldout_tiles(np.random.default_rng(TILE_SEED + 1))
    for name, group in tiles.items():
        groups[name] = []
        for mode, tile in group:
            groups[name].append((len(rows), mode))
            rows.append(_pack(tile))
    return np.stack(rows), groups


def cache_path() -> Path:
    base = os.environ.get("GENPERCEPT_CACHE") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "genpercept" / f"world-atlas-{VERSION}.npz"


@lru_cache(maxsize=1)
def load() -> tuple[Array, dict[str, list[tuple[int, int]]]]:
    """Texels (tiles, texels, 5) uint8 and group name -> [(tile, mode)]. Built on the first call of a machine."""
    path = cache_path()
    if path.is_file():
        with np.load(path) as z:
            return z["texels"], {k: [(int(t), int(m)) for t, m in z[k]] for k in z.files if k != "texels"}
    texels, groups = _build()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_arrays(path, {"texels": texels, **{k: np.array(v) for k, v in groups.items()}})
    except OSError:
        pass  # a read-only home costs the build time again in the next process, nothing else
    return texels, groups
