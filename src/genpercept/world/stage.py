"""From (seed, split, domain, index) to one finished picture with its labels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from genpercept.core.rng import generator
from genpercept.world import atlas, camera, closeup, indoor, light, outdoor, scene
from genpercept.world.builder import World
from genpercept.world.words import caption

SETTINGS = {
    "indoor": ((indoor.room, 1.0),),
    "outdoor": ((outdoor.street, 0.38), (outdoor.country, 0.27), (outdoor.garden, 0.2), (outdoor.facade, 0.15)),
    "closeup": (
        (closeup.still_life, 0.24),
        (closeup.machine, 0.17),
        (closeup.portrait, 0.19),
        (closeup.creature, 0.12),
        (closeup.botany, 0.1),
        (closeup.pile, 0.1),
        (closeup.surface, 0.08),
    ),
}
SHARES = (("indoor", 0.4), ("outdoor", 0.35), ("closeup", 0.25))
ATTEMPTS = 12
FAR = 25.0  # metres; what is beyond does not count in the range of depth
RANGE = 8.0  # largest ratio of far to near (98 % and 2 % quantiles); frames of KITTI and NYUv2 have 4 to 8
SPLIT_CODE = {"train": 11, "val": 12, "test": 13}


@dataclass
class Shot:
    """One rendered scene; fields as in Scenes, without the batch axis. prims and ids are for tests."""

    image: np.ndarray
    depth: np.ndarray
    normals: np.ndarray
    class_ids: np.ndarray
    mask: np.ndarray
    alpha: np.ndarray
    foreground: np.ndarray
    background: np.ndarray
    keypoints: np.ndarray
    box: np.ndarray
    defect: np.ndarray
    intrinsics: np.ndarray
    caption: str
    domain: str
    prims: np.ndarray
    fields: np.ndarray
    cam: np.ndarray
    objects: np.ndarray


def camera_vector(world: World, height: int, width: int) -> np.ndarray:
    """The camera as trace.py wants it: position, axes, focal length and principal point in pixels."""
    eye, axes, fov = world.camera
    focal = 0.5 * max(height, width) / math.tan(math.radians(fov) / 2)
    return np.array([*eye, *axes, focal, width / 2, height / 2])


def compose(seed: int, split: str, domain: str, index: int, attempt: int) -> tuple[World, str, int]:
    """Build the scene of one attempt. Gives it with the domain it belongs to and a noise seed."""
    g = generator(seed, SPLIT_CODE[split] * 1000 + attempt, index, "scene")
    key, pick = int(g.integers(1 << 62)), float(g.random())
    shapes, textures = domain == "heldout_shapes", domain == "heldout_textures"
    world = World(key, shapes, textures)
    kind = domain
    if domain not in SETTINGS:
        kind = next(name for name, top in (("indoor", 0.4), ("outdoor", 0.75), ("closeup", 1.0)) if pick < top)
    makers, weights = zip(*SETTINGS[kind], strict=True)
    world.r.choices(makers, weights)[0](world)
    light.flaws(world)
    return world, (domain if shapes or textures else kind), key & 0xFFFFFF


def plausible(prims: np.ndarray, fields: np.ndarray, cam: np.ndarray, height: int, width: int) -> bool:
    """Whether a coarse look shows a picture: enough surface, nothing in the lens, no single thing filling it, and no more
    range of depth than a photograph of such a place usually has."""
    step = max(max(height, width) // 24, 1)
    hits, nearest, largest, spread, ratio = scene.survey(prims, fields, cam, height, width, step, FAR)
    return bool(hits > 0.5 and nearest > 0.22 and largest < 0.75 and spread > 0.06 and ratio < RANGE)


def _keypoints(
    world: World, cam: np.ndarray, prims: np.ndarray, fields: np.ndarray, height: int, width: int
) -> np.ndarray:
    out = np.zeros((17, 3), np.float32)
    if world.figure is None:
        return out
    joints, slack, _ = world.figure
    rel = np.array(joints) - cam[:3]
    z = -rel @ cam[9:12]
    x = cam[13] + cam[12] * (rel @ cam[3:6]) / np.maximum(z, 1e-6)
    y = cam[14] - cam[12] * (rel @ cam[6:9]) / np.maximum(z, 1e-6)
    inside = (z > 0.05) & (x >= 0) & (y >= 0) & (x < width) & (y < height)
    for k in np.flatnonzero(inside):
        t = scene.first_hit(prims, fields, cam, x[k], y[k], height, width)
        out[k] = x[k], y[k], 2 if t > z[k] - slack[k] else 1
    return out


def _box(objects: np.ndarray, world: World) -> np.ndarray:
    if world.figure is None:
        return np.zeros(4, np.float32)
    rows, cols = np.nonzero(objects == world.figure[2])
    if len(rows) == 0:
        return np.zeros(4, np.float32)
    return np.array([cols.min(), rows.min(), cols.max() + 1, rows.max() + 1], np.float32)


def _describe(world: World, objects: np.ndarray) -> str:
    """A caption of what covers enough of the picture, largest first."""
    areas = np.bincount(objects[objects >= 0], minlength=world.objects + 1)
    least = objects.size * 0.004
    counts: dict[str, tuple[int, int]] = {}
    for obj, noun in world.nouns.items():
        if areas[obj] >= least:
            n, area = counts.get(noun, (0, 0))
            counts[noun] = n + 1, area + int(areas[obj])
    ranked = sorted(counts.items(), key=lambda item: -item[1][1])
    return caption(world.r, world.place, [(noun, n) for noun, (n, _) in ranked], world.light_words)


def shoot(seed: int, split: str, domain: str, index: int, height: int, width: int, mattes: bool) -> Shot:
    """Render picture `index`. The first plausible of a fixed sequence of attempts is taken."""
    texels = atlas.load()[0]
    attempt = 0
    while True:
        world, label, noise = compose(seed, split, domain, index, attempt)
        prims, mats, fields, defects = world.arrays()
        cam = camera_vector(world, height, width)
        attempt += 1
        if attempt == ATTEMPTS or plausible(prims, fields, cam, height, width):
            break
    look = light.camera_look(world, noise)
    layers, alpha, depth, normals, cls, objects, mask, flaw = scene.draw(
        prims, mats, world.env, cam, fields, texels, defects, height, width, mattes
    )
    image, fg, bg, alpha = camera.expose(layers, alpha, look)
    k = np.array([[cam[12], 0, cam[13]], [0, cam[12], cam[14]], [0, 0, 1]], np.float32)
    points = _keypoints(world, cam, prims, fields, height, width)
    return Shot(
        image,
        depth.astype(np.float32),
        normals.astype(np.float32),
        cls,
        mask,
        alpha,
        fg,
        bg,
        points,
        _box(objects, world),
        flaw,
        k,
        _describe(world, objects),
        label,
        prims,
        fields,
        cam,
        objects,
    )
