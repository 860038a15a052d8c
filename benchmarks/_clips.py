"""Clips with known truth: cameras that move through scenes of the synthetic world; and photographs under a moving window."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SIZE = (144, 192)  # height, width
_FAR = 60.0  # metres, beyond which nothing is compared: of the sky, and of streets' ends
_VISIBLE = 0.02  # relative difference of depth up to which a point counts as the one that was seen

# (turn to the left, tilt up: radians; to the right, forward: metres; enlargement) at a time from 0 to 1
Move = Callable[[float], tuple[float, float, float, float, float]]


def _sway(t: float) -> tuple[float, float, float, float, float]:
    """A hand."""
    a = 2 * math.pi * t
    return (
        0.03 * math.sin(3 * a),
        0.02 * math.sin(5 * a + 1),
        0.05 * math.sin(2 * a),
        0.05 * math.sin(4 * a),
        1.0,
    )


# name: (domain, which of its scenes, how the camera moves)
WORLD: dict[str, tuple[str, int, Move]] = {
    "room, pan": ("indoor", 3, lambda t: (0.5 * t - 0.25, 0, 0, 0, 1)),
    "room, to the side": ("indoor", 5, lambda t: (0, 0, 0.6 * t - 0.3, 0, 1)),
    "room, forward": ("indoor", 8, lambda t: (0, 0, 0, 0.6 * t, 1)),
    "room, by hand": ("indoor", 11, _sway),
    "street, pan": ("outdoor", 2, lambda t: (0.5 * t - 0.25, 0, 0, 0, 1)),
    "street, to the side": ("outdoor", 4, lambda t: (0, 0, 2 * t - 1, 0, 1)),
    "street, forward": ("outdoor", 7, lambda t: (0, 0, 0, 2 * t, 1)),
    "things, around": ("closeup", 1, lambda t: (0.3 * t - 0.15, 0, 0.3 * t - 0.15, 0, 1)),
    "things, zoom": ("closeup", 4, lambda t: (0, 0, 0, 0, 1 + t)),
    "garden, tilt": ("outdoor", 9, lambda t: (0, 0.3 * t - 0.15, 0, 0, 1)),
}


@dataclass(frozen=True)
class Rendered:
    """images (N, H, W, 3) uint8, depth (N, H, W) metres along the axis, infinite at the sky, cameras (N, 15) as the world's."""

    name: str
    images: np.ndarray
    depth: np.ndarray
    cameras: np.ndarray

    @property
    def valid(self) -> np.ndarray:
        return self.depth < _FAR

    def back(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """True motion from frame i to the one before, (H, W, 2), and where the point was in sight, (H, W) bool."""
        here, there = self.cameras[i], self.cameras[i - 1]
        h, w = self.depth.shape[1:]
        x, y = np.arange(w) + 0.5, np.arange(h)[:, None] + 0.5
        z = np.where(self.valid[i], self.depth[i], 1.0)
        right, up, behind = here[3:6], here[6:9], here[9:12]
        across, rise = (x - here[13]) / here[12] * z, (here[14] - y) / here[12] * z
        point = here[:3] + across[..., None] * right + rise[..., None] * up - z[..., None] * behind - there[:3]
        depth = -point @ there[9:12]
        safe = np.maximum(depth, 1e-3)
        u, v = there[13] + there[12] * (point @ there[3:6]) / safe, there[14] - there[12] * (point @ there[6:9]) / safe
        column, row = np.floor(u).astype(int), np.floor(v).astype(int)
        inside = (depth > 1e-3) & (column >= 0) & (column < w) & (row >= 0) & (row < h)
        seen = self.depth[i - 1][row.clip(0, h - 1), column.clip(0, w - 1)]
        same = inside & (np.abs(np.where(np.isfinite(seen), seen, 1e9) - depth) < _VISIBLE * depth)
        return np.stack([u - x, v - y], -1).astype(np.float32), same & self.valid[i]


def render(name: str, count: int, size: tuple[int, int] = SIZE) -> Rendered:
    """A clip of WORLD: the scene is the first plausible one of its number, and stays as it is while the camera moves."""
    from genpercept.world import atlas, camera, light, scene, stage

    domain, index, move = WORLD[name]
    h, w = size
    attempt = 0
    while True:
        world, _, noise = stage.compose(0, "test", domain, index, attempt)
        prims, mats, fields, defects = world.arrays()
        home = stage.camera_vector(world, h, w)
        attempt += 1
        moved = [_moved(home, *move(k / max(count - 1, 1))) for k in range(count)]
        if attempt == stage.ATTEMPTS or all(
            stage.plausible(prims, fields, cam, h, w) for cam in moved[:: max(count // 4, 1)]
        ):
            break
    texels, look = atlas.load()[0], light.camera_look(world, noise)
    images, depths = [], []
    for k, cam in enumerate(moved):
        its = look.copy()
        its[camera.SEED] += 1000 * k  # another frame, another noise
        drawn = scene.draw(prims.copy(), mats, world.env, cam, fields, texels, defects.copy(), h, w, False)
        images.append(camera.expose(drawn[0], drawn[1], its)[0])
        depths.append(drawn[2].astype(np.float32))
    return Rendered(name, np.stack(images), np.stack(depths), np.stack(moved))


def _moved(home: np.ndarray, left: float, up: float, right: float, forward: float, larger: float) -> np.ndarray:
    cam = home.copy()
    x, y, z = home[3:6], home[6:9], home[9:12]  # right, up, behind
    x, z = math.cos(left) * x + math.sin(left) * z, math.cos(left) * z - math.sin(left) * x
    y, z = math.cos(up) * y + math.sin(up) * z, math.cos(up) * z - math.sin(up) * y
    cam[:3] = home[:3] + right * home[3:6] - forward * home[9:12]
    cam[3:12] = np.concatenate([x, y, z])
    cam[12] = home[12] * larger
    return cam


# (photograph, window at the beginning, window at the end): centre x, y and width, as shares of its size
PHOTOGRAPHS = {
    "temple, pan": ("china", (0.33, 0.5, 0.6), (0.67, 0.5, 0.6)),
    "cat, zoom": ("chelsea", (0.5, 0.5, 0.95), (0.55, 0.45, 0.5)),
}


def look_at(photograph: np.ndarray, begin: tuple[float, ...], end: tuple[float, ...], count: int) -> np.ndarray:
    """(N, H, W, 3) uint8: a window that moves over a photograph, evenly."""
    import cv2

    h, w = photograph.shape[:2]
    frames = []
    for t in np.linspace(0, 1, count):
        x, y, share = ((1 - t) * a + t * b for a, b in zip(begin, end, strict=True))
        step = share * w / SIZE[1]
        soft = cv2.GaussianBlur(photograph, (0, 0), max(0.4 * step, 0.3))
        into = np.array([[step, 0, x * w - step * SIZE[1] / 2], [0, step, y * h - step * SIZE[0] / 2]])
        frames.append(cv2.warpAffine(soft, into, SIZE[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP))
    return np.stack(frames)
