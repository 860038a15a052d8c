"""How predictions are painted. A painter makes an RGB picture (H, W, 3) uint8 of values; a kind's row names its own.

Pictures are to look at, never for measuring (that is what png16, npy and exr are for).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from genpercept.imaging.png import bands

# (values, where they are valid or None, image (H, W, 3) or None, the kind's entry of meta or None) -> picture
Painter = Callable[[np.ndarray, np.ndarray | None, np.ndarray | None, Any], np.ndarray]
# (values without NaN, (H, W) where they are to be shown, the kind's entry of meta or None) -> picture
Colours = Callable[[np.ndarray, np.ndarray, Any], np.ndarray]

INVALID = (128, 128, 128)

# ColorBrewer's Spectral and matplotlib's inferno at equal steps; in between, linear in sRGB.
_SPECTRAL = "9e0142 d53e4f f46d43 fdae61 fee08b ffffbf e6f598 abdda4 66c2a5 3288bd 5e4fa2"
_INFERNO = "000004 160b39 420a68 6a176e 932667 bc3754 dd513a f37819 fca50a f6d746 fcffa4"

# The 17 COCO keypoints: which are joined, and on which side of the body a bone is (0 middle, 1 left, 2 right).
COCO_BONES = (
    *((0, 1, 1), (0, 2, 2), (1, 3, 1), (2, 4, 2), (3, 5, 1), (4, 6, 2), (5, 6, 0), (5, 7, 1), (7, 9, 1), (6, 8, 2)),
    *((8, 10, 2), (5, 11, 1), (6, 12, 2), (11, 12, 0), (11, 13, 1), (13, 15, 1), (12, 14, 2), (14, 16, 2)),
)
_SIDES = ((250, 210, 60), (60, 200, 250), (250, 110, 80))
_SEEN = 0.3  # a keypoint's score from which it is drawn
_COVER = 0.75  # opacity of heat over an image at the highest score
_OUTLINE = (60, 255, 255)  # of what is above a threshold
_PART = 2**17
_GAMMA = 1 / 2.2  # as Marigold shows linear light


def per_pixel(colours: Colours, *, spread: bool = False, beyond: float | None = None) -> Painter:
    """A painter of maps out of colours by pixel; pixels that are not valid, or not finite, are grey.

    spread: values outside [0, 1] are brought there by the lowest and the highest valid one. beyond: values of any range
    are; this share of the valid ones at either end has the colour of that end.
    """

    def paint(values: np.ndarray, valid: np.ndarray | None, image: np.ndarray | None, legend: Any) -> np.ndarray:
        valid = None if valid is None else np.asarray(valid, bool)
        low, high = span(values[known(values, valid)]) if spread else (0.0, 1.0)
        if beyond is not None:
            low, high = _quantiles(values[known(values, valid)], beyond)
        rgb = np.empty((*values.shape[:2], 3), np.uint8)
        for part in bands(values.shape):
            x, keep = values[part], known(values[part], None if valid is None else valid[part])
            if not (whole := bool(keep.all())) and np.issubdtype(x.dtype, np.floating):
                x = np.where(keep if x.ndim == 2 else keep[..., None], x, 0)
            rgb[part] = colours(x if (low, high) == (0, 1) else (x - low) / (high - low), keep, legend)
            if not whole:
                rgb[part][~keep] = INVALID
        return rgb

    return paint


def plain(limits: tuple[float, float] | None) -> Painter:
    """Grey for (H, W), colours for (H, W, 3). limits: black and white; None: [0, 1], or else lowest and highest."""

    def colours(x: np.ndarray, keep: np.ndarray, legend: Any) -> np.ndarray:
        if limits not in (None, (0, 1)):
            x = (x - limits[0]) / (limits[1] - limits[0])
        pixels = np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8)
        return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=-1)

    return per_pixel(colours, spread=limits is None)


@per_pixel
def depth(x: np.ndarray, keep: np.ndarray, legend: Any) -> np.ndarray:
    """[0, 1], small is near: near red, far blue."""
    return spectral(x)


@per_pixel
def disparity(x: np.ndarray, keep: np.ndarray, legend: Any) -> np.ndarray:
    """[0, 1], large is near: near red, far blue."""
    return spectral(1 - x)


@per_pixel
def directions(n: np.ndarray, keep: np.ndarray, legend: Any) -> np.ndarray:
    """Unit vectors: (n + 1) / 2."""
    return np.rint((np.clip(n, -1, 1) + 1) * 127.5).astype(np.uint8)


def _by_depth(x: np.ndarray, keep: np.ndarray, legend: Any) -> np.ndarray:
    return spectral(x)


metres = per_pixel(_by_depth, beyond=0.02)  # any distances: near red, far blue, by what is near and far in the image


def _heat(x: np.ndarray, keep: np.ndarray, legend: Any) -> np.ndarray:
    return _lookup(_INFERNO, x)


heat = per_pixel(_heat, spread=True)  # scores: dark to bright


@per_pixel
def classes(ids: np.ndarray, keep: np.ndarray, legend: Any) -> np.ndarray:
    """One colour for each id: of `legend` (C, 3) in 0 to 255 where given."""
    shown = np.where(keep, ids, 0)
    return palette(shown) if legend is None else np.asarray(legend, np.uint8)[shown.clip(0, len(legend) - 1)]


def spectral(x: np.ndarray) -> np.ndarray:
    """(...,) in [0, 1], 0 red to 1 blue -> (..., 3) uint8."""
    return _lookup(_SPECTRAL, x)


def palette(ids: np.ndarray) -> np.ndarray:
    """Class ids (...,) -> (..., 3) uint8: hues a golden angle apart, three brightnesses; one id, one colour."""
    table_size = int(ids.max(initial=0)) + 1
    i = np.arange(max(table_size, 1))
    hue = (0.61803398875 * i + 0.55) % 1.0
    value = np.array((0.95, 0.75, 0.55))[i // 3 % 3]
    saturation = np.array((0.65, 0.9, 0.45))[i % 3]
    spread = np.abs((hue[:, None] + np.array((0.0, 2 / 3, 1 / 3))) % 1.0 * 6 - 3) - 1  # HSV's three ramps
    rgb = value[:, None] * (1 - saturation[:, None] * (1 - np.clip(spread, 0, 1)))
    return np.rint(rgb * 255).astype(np.uint8)[np.maximum(ids, 0)]


def _lookup(stops: str, x: np.ndarray) -> np.ndarray:
    table = _table(stops)
    out = np.empty((*x.shape, 3), np.uint8)
    flat, into = x.reshape(-1), out.reshape(-1, 3)
    for start in range(0, flat.size, _PART):  # indices are wide: those of a large map at once would be gigabytes
        part = slice(start, start + _PART)
        rgbx = table[np.rint(np.clip(flat[part], 0, 1) * 1023).astype(np.intp)]
        # Of four bytes each, which NumPy gathers several times as quickly as three, and Pillow packs
        packed = Image.frombuffer("RGBX", (len(rgbx), 1), rgbx, "raw", "RGBX", 0, 1).tobytes("raw", "RGB")
        into[part] = np.frombuffer(packed, np.uint8).reshape(-1, 3)
    return out


@cache
def _table(stops: str) -> np.ndarray:
    """1024 colours as (1024,) uint32: red, green, blue and an empty byte, in this order."""
    anchors = np.array([tuple(bytes.fromhex(s)) for s in stops.split()], np.float64)
    fine = np.linspace(0, len(anchors) - 1, 1024)
    steps = np.arange(len(anchors))
    table = np.stack([np.interp(fine, steps, anchors[:, c]) for c in range(3)], -1)
    return np.pad(np.rint(table).astype(np.uint8), ((0, 0), (0, 1))).view(np.uint32)[:, 0]


def known(values: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    """(H, W) bool: where values (H, W[, C]) are finite and `valid`."""
    there: np.ndarray = np.isfinite(values)
    if there.ndim == 3:  # nearly always all of them are; going through a short axis takes long
        there = np.ones(values.shape[:2], bool) if there.all() else np.asarray(there.all(-1))
    return there if valid is None else there & valid


def span(inside: np.ndarray) -> tuple[float, float]:
    """[0, 1] where it holds all, else lowest to highest."""
    low, high = (float(inside.min()), float(inside.max())) if inside.size else (0.0, 1.0)
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, max(high, low + 1e-12))


def _quantiles(inside: np.ndarray, share: float) -> tuple[float, float]:
    """Between which all values (N,) lie but for a share at either end."""
    low, high = map(float, np.quantile(inside, (share, 1 - share))) if inside.size else (0.0, 1.0)
    return low, max(high, low + 1e-12)


def heat_over(x: np.ndarray, image: np.ndarray, threshold: float | None = None) -> np.ndarray:
    """Scores (H, W) as heat over their image (H, W, 3), the more opaque the higher; what is above `threshold` outlined."""
    keep = np.isfinite(x)
    low, high = span(x[keep])
    unit = np.clip((np.where(keep, x, 0) - low) / (high - low), 0, 1)
    cover = np.where(keep, _COVER * unit, 0)[..., None]
    rgb = np.rint(_as_uint8(image) * (1 - cover) + _lookup(_INFERNO, unit) * cover).astype(np.uint8)
    if threshold is not None:
        defect = keep & (x > threshold)
        inner = np.pad(defect, 1, mode="edge")
        inner = inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
        rgb[defect & ~inner] = _OUTLINE
    return rgb


# ---- several pictures


def side_by_side(values: np.ndarray, valid: np.ndarray | None, image: np.ndarray | None, legend: Any) -> np.ndarray:
    """(H, W, 3 n) -> n pictures; a stack of single maps becomes one grey picture for each of them.

    legend: of each image its `space` (srgb, linear or stack), `up_to_scale` and, of a stack, its `maps`. Light is
    gamma-encoded.
    """
    n = values.shape[-1] // 3
    described = legend or [{"space": "srgb"}] * n
    pictures: list[np.ndarray] = []
    for each, target in zip(np.split(values, n, axis=-1), described, strict=True):
        if target["space"] == "stack":
            maps = [(each[..., i : i + 1], m) for i, m in enumerate(target["maps"]) if m is not None]
            pictures += [np.repeat(_shown(x, m), 3, axis=-1) for x, m in maps]
        else:
            pictures.append(_shown(each, target))
    rgb = np.rint(np.concatenate(pictures, axis=1) * 255).astype(np.uint8)
    if valid is not None:
        rgb[np.tile(~np.asarray(valid, bool), (1, len(pictures)))] = INVALID
    return rgb


def _shown(image: np.ndarray, target: Any) -> np.ndarray:
    """Values in [0, 1] as a screen shows them; light whose unit is unknown fills the range."""
    image = np.nan_to_num(image).clip(0, 1)
    if target["space"] != "linear":
        return image
    return (image / max(float(image.max()), 1e-6) if target.get("up_to_scale") else image) ** _GAMMA


# ---- points


def skeletons(bones: Sequence[tuple[int, int, int]] = ()) -> Painter:
    """A painter of (N, joints, 3) x, y, score on the image, on black without one; line width grows with the picture.

    bones: which joints are joined, and their side of the body (0 middle, 1 left, 2 right).
    """

    def paint(people: np.ndarray, valid: np.ndarray | None, image: np.ndarray | None, legend: Any) -> np.ndarray:
        if image is None:
            far = people[..., :2].max(axis=(0, 1), initial=0) if people.size else np.zeros(2)
            image = np.zeros((int(max(far[1], 0)) + 16, int(max(far[0], 0)) + 16, 3), np.uint8)
        canvas = Image.fromarray(_as_uint8(image))
        draw = ImageDraw.Draw(canvas)
        width = max(1, round(max(canvas.size) / 200))
        for person in people:
            seen = (person[:, 2] >= _SEEN) & np.isfinite(person).all(-1)
            for a, b, side in bones:
                if seen[a] and seen[b]:
                    draw.line([*map(float, person[a, :2]), *map(float, person[b, :2])], _SIDES[side], width)
            for x, y, _ in person[seen]:
                r = width * 1.2
                draw.ellipse((float(x - r), float(y - r), float(x + r), float(y + r)), fill=(255, 255, 255))
        return np.asarray(canvas)

    return paint


def _as_uint8(image: np.ndarray) -> np.ndarray:
    return image if image.dtype == np.uint8 else np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
