"""Pictures with something in them, and what is known of each pixel: a floor, walls and two balls, ray-cast with numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FLOOR, WALL, SIDE, BALL, OTHER_BALL, SKY = range(6)  # of `Scene.parts`
_COLOURS = np.array(
    [[120, 92, 70], [180, 175, 160], [150, 165, 180], [190, 60, 50], [60, 110, 60], [150, 190, 235]], np.float32
)


@dataclass(frozen=True)
class Scene:
    """image (H, W, 3) uint8; depth (H, W) metres along the axis, infinite in the sky; normals (H, W, 3), x right, y up,
    z towards the viewer, 0 in the sky; parts (H, W): FLOOR ... SKY. The lens is a pinhole, `focal` pixels."""

    image: np.ndarray
    depth: np.ndarray
    normals: np.ndarray
    parts: np.ndarray
    focal: float

    @property
    def distance(self) -> np.ndarray:
        """(H, W) metres from the camera."""
        h, w = self.depth.shape
        y, x = np.mgrid[:h, :w] + 0.5
        return self.depth * np.sqrt(((x - w / 2) / self.focal) ** 2 + ((y - h / 2) / self.focal) ** 2 + 1)

    @property
    def matte(self) -> np.ndarray:
        """(H, W) uint8: 255 on the balls, less on their edges."""
        ball = np.isin(self.parts, (BALL, OTHER_BALL)).astype(np.float32)
        padded = np.pad(ball, 1, mode="edge")
        h, w = ball.shape
        mean = sum(padded[i : i + h, j : j + w] for i in range(3) for j in range(3)) / 9
        return np.round(mean * 255).astype(np.uint8)

    @property
    def trimap(self) -> np.ndarray:
        """(H, W) uint8: 0, 255, and 128 where the matte is between."""
        matte = self.matte
        return np.where((matte > 0) & (matte < 255), 128, matte).astype(np.uint8)


def scene(seed: int, size: tuple[int, int] = (96, 128), street: bool = False) -> Scene:
    """Scene number `seed`, (height, width) pixels, 60 degrees across; street: no walls, a sky above the horizon."""
    draw = np.random.default_rng(seed)
    h, w = size
    focal = w / 2 * np.sqrt(3)
    y, x = np.mgrid[:h, :w] + 0.5
    rays = np.stack([(x - w / 2) / focal, (h / 2 - y) / focal, np.full((h, w), -1.0)], -1)
    depth, parts = np.full((h, w), np.inf), np.full((h, w), SKY)
    normals = np.zeros((h, w, 3))
    with np.errstate(divide="ignore", invalid="ignore"):
        planes = [(FLOOR, 1, -1.4), *(() if street else ((WALL, 2, -draw.uniform(4, 7)), (SIDE, 0, -1.8)))]
        for part, axis, at in planes:
            t = at / rays[..., axis]
            closer = (t > 0) & (t < depth)
            depth[closer], parts[closer], normals[closer] = t[closer], part, np.eye(3)[axis]
        for part in (BALL, OTHER_BALL):
            centre = np.array([draw.uniform(-1.2, 1.2), draw.uniform(-0.9, 0.3), -draw.uniform(2.5, 3.8)])
            radius = draw.uniform(0.4, 0.7)
            a, b = (rays * rays).sum(-1), rays @ centre
            root = np.sqrt(b * b - a * (centre @ centre - radius * radius))
            t = (b - root) / a
            closer = (t > 0) & (t < depth)
            depth[closer], parts[closer] = t[closer], part
            normals[closer] = (rays[closer] * t[closer][:, None] - centre) / radius
    light = 0.55 + 0.45 * np.clip(normals @ np.array([0.4, 0.7, 0.59]), 0, 1)
    light[parts == SKY] = 1
    tiles = 1 - 0.25 * ((np.floor(x / 8) + np.floor(y / 8)) % 2) * np.isin(parts, (FLOOR, SIDE))
    colour = _COLOURS[parts] * (light * tiles)[..., None] + draw.normal(0, 4, (h, w, 3))
    return Scene(
        np.clip(colour, 0, 255).astype(np.uint8), depth.astype(np.float32), normals.astype(np.float32), parts, focal
    )
