"""The synthetic world's labels against numbers that do not come from its renderer."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys

import numpy as np
import pytest

from genpercept.data import synthetic
from genpercept.data.synthetic import CLASSES, DOMAINS, PALETTE, PLUGIN, SPLITS, WORDS, Scenes, render, samples

pytest.importorskip("numba")
pytest.importorskip("skimage")

from genpercept.world import camera, light, scene, stage
from genpercept.world import intersect as X
from genpercept.world.builder import World
from genpercept.world.shade import ENV

COUNT = 32


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return render(range(COUNT), "mixed", "train", mattes=True)


def points(depth: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Back-project depth (H, W) with intrinsics: camera-frame points (H, W, 3), x right, y up, z towards the viewer."""
    h, w = depth.shape
    x, y = np.meshgrid(np.arange(w) + 0.5, np.arange(h) + 0.5)
    d = depth.astype(np.float64)
    return np.stack([(x - k[0, 2]) / k[0, 0] * d, -(y - k[1, 2]) / k[1, 1] * d, -d], -1)


def test_shapes_and_types(scenes: Scenes) -> None:
    b, h, w = COUNT, 128, 128
    assert scenes.image.shape == (b, h, w, 3) and scenes.image.dtype == np.uint8
    for name, dtype in (("depth", np.float32), ("alpha", np.float32), ("class_ids", np.uint8), ("mask", np.bool_)):
        assert getattr(scenes, name).shape == (b, h, w) and getattr(scenes, name).dtype == dtype
    for name in ("defect", "valid"):
        assert getattr(scenes, name).shape == (b, h, w) and getattr(scenes, name).dtype == np.bool_
    assert scenes.normals.shape == (b, h, w, 3) and scenes.normals.dtype == np.float32
    assert scenes.keypoints.shape == (b, 17, 3) and scenes.box.shape == (b, 4) and scenes.intrinsics.shape == (b, 3, 3)
    assert len(scenes.caption) == len(scenes.domain) == len(scenes.name) == b == len(set(scenes.name))


def test_labels_are_finite_and_sane(scenes: Scenes) -> None:
    assert np.isinf(scenes.depth[~scenes.valid]).all() and (scenes.class_ids[~scenes.valid] == 0).all()
    d = scenes.depth[scenes.valid]
    assert np.isfinite(d).all() and d.min() > 0.1 and d.max() < 600
    assert (scenes.class_ids[scenes.valid] > 0).all() and scenes.class_ids.max() < len(CLASSES)
    length = np.linalg.norm(scenes.normals, axis=-1)
    assert np.abs(length[scenes.valid] - 1).max() < 1e-5 and length[~scenes.valid].max(initial=0) == 0
    assert ((scenes.alpha >= 0) & (scenes.alpha <= 1)).all()
    assert scenes.valid.mean((1, 2)).min() > 0.4 and scenes.image.reshape(COUNT, -1).std(1).min() > 8


def test_normals_face_the_viewer(scenes: Scenes) -> None:
    for i in range(COUNT):
        p = points(np.where(scenes.valid[i], scenes.depth[i], 1), scenes.intrinsics[i])
        assert (np.sum(p * scenes.normals[i], -1)[scenes.valid[i]] < 1e-3).all()


def test_normals_match_depth_gradients(scenes: Scenes) -> None:
    medians, wrong = [], []
    for i in range(COUNT):
        p, n = points(np.where(scenes.valid[i], scenes.depth[i], np.nan), scenes.intrinsics[i]), scenes.normals[i]
        c, d = n[1:-1, 1:-1], -p[..., 2]
        g = np.cross(p[1:-1, 2:] - p[1:-1, :-2], p[:-2, 1:-1] - p[2:, 1:-1])
        g /= np.linalg.norm(g, axis=-1, keepdims=True) + 1e-12
        # Only inside surfaces: all four neighbours have nearly the same normal and depth bends little.
        smooth = np.isfinite(g).all(-1)
        for around in (n[1:-1, 2:], n[1:-1, :-2], n[2:, 1:-1], n[:-2, 1:-1]):
            smooth &= np.sum(around * c, -1) > 0.995
        smooth &= abs(d[1:-1, 2:] + d[1:-1, :-2] - 2 * d[1:-1, 1:-1]) < 0.005 * d[1:-1, 1:-1]
        smooth &= abs(d[2:, 1:-1] + d[:-2, 1:-1] - 2 * d[1:-1, 1:-1]) < 0.005 * d[1:-1, 1:-1]
        angle = np.degrees(np.arccos(np.clip(np.sum(g * c, -1)[smooth], -1, 1)))
        assert smooth.mean() > 0.1
        medians.append(np.median(angle))
        wrong.append((angle > 15).mean())
    assert max(medians) < 1.0 and np.mean(wrong) < 0.01 and max(wrong) < 0.06


def _residual(row: np.ndarray, p: np.ndarray, fields: np.ndarray) -> np.ndarray:
    """How far world points (N, 3) are from primitive `row`'s surface, roughly in metres, from the shapes' equations."""
    kind, scale, a = int(row[X.TYPE]), row[X.SCALE : X.SCALE + 3], row[X.PARAM]
    q = (p - row[X.POS : X.POS + 3]) @ row[X.ROT : X.ROT + 9].reshape(3, 3)
    u = q / scale
    x, y, z = u.T
    r, size = np.hypot(x, z), scale.max()
    if kind in (X.ELLIPSOID, X.RAGGED):
        return abs(np.linalg.norm(u, axis=1) - 1) * size
    if kind == X.BOX:
        return abs(abs(u).max(1) - 1) * size
    if kind == X.FRUSTUM:
        side = abs(r - (1 + a) / 2 - (a - 1) / 2 * y) + np.maximum(abs(y) - 1, 0)
        low = abs(y + 1) + np.maximum(r - 1, 0)
        return np.minimum(np.minimum(side, low), abs(y - 1) + np.maximum(r - a, 0)) * size
    if kind == X.CAPSULE:
        return abs(np.sqrt(x**2 + z**2 + np.maximum(abs(y) - a, 0) ** 2) - 1) * size
    if kind == X.TORUS:
        return abs(np.hypot(r - 1, y) - a) * size
    if kind == X.QUAD:
        return (abs(q[:, 1]) + np.maximum(abs(u[:, [0, 2]]).max(1) - 1, 0)) * size
    if kind == X.RBOX:
        k = abs(q) - scale + a
        return abs(np.linalg.norm(np.maximum(k, 0), axis=1) + np.minimum(k.max(1), 0) - a)
    if kind == X.PRISM:
        faces = np.stack([-1 - y, abs(z) - 1, (y + 2 * abs(x) - 1) / 5**0.5], 1)
        return abs(faces.max(1)) * size
    h = np.array(
        [
            X.field(fields[int(a)], s, t)[0] if max(abs(s), abs(t)) <= 1.001 else np.inf
            for s, t in zip(x, z, strict=True)
        ]
    )
    return abs(y - h) * scale[1]


@pytest.mark.parametrize("index", range(10))
def test_depth_lies_on_the_known_primitives(index: int) -> None:
    shot = stage.shoot(3, "train", ("indoor", "outdoor", "closeup")[index % 3], index, 96, 96, False)
    rows, cols = np.nonzero(np.isfinite(shot.depth))
    pick = np.random.default_rng(index).choice(len(rows), 150)
    rows, cols = rows[pick], cols[pick]
    d, cam = shot.depth[rows, cols].astype(np.float64), shot.cam
    a, b = (cols + 0.5 - cam[13]) / cam[12], (cam[14] - rows - 0.5) / cam[12]
    world = cam[:3] + d[:, None] * (a[:, None] * cam[3:6] + b[:, None] * cam[6:9] - cam[9:12])
    for k in range(150):
        mine = shot.prims[shot.prims[:, X.OBJ] == shot.objects[rows[k], cols[k]]]
        best = min(_residual(row, world[k : k + 1], shot.fields)[0] for row in mine)
        assert best < 2e-4 * d[k] + 1e-3, (index, k, best, d[k])
        assert shot.class_ids[rows[k], cols[k]] in mine[:, X.CLS]


def test_a_sphere_and_a_wall_by_hand() -> None:
    """Radius 1 at 5 m before a wall at 9 m: closed-form depth and normals."""
    world = World(1)
    m = world.mat("paint")
    with world.thing("object", "ball", fg=True):
        world.ball(0, 0, -5, 1, 1, 1, m)
    with world.thing("wall"):
        world.box(0, 0, -10, 50, 50, 1, m)
    world.look((0, 0, 0), (0, 0, -1), 40.0)
    prims, mats, fields, defects = world.arrays()
    cam = stage.camera_vector(world, 64, 96)
    env = np.zeros(ENV)
    env[:5] = 0, 0.3, 0.9, 0.3, 0
    texels = stage.atlas.load()[0]
    _, alpha, depth, normals, cls, _, mask, _ = scene.draw(
        prims, mats, env, cam, fields, texels, defects, 64, 96, False
    )
    f = 48 / np.tan(np.radians(20))
    x, y = np.meshgrid((np.arange(96) + 0.5 - 48) / f, (32 - np.arange(64) - 0.5) / f)
    s = x**2 + y**2 + 1
    disc = 25 - 24 * s
    t = np.where(disc > 0, (5 - np.sqrt(np.maximum(disc, 0))) / s, 9)
    np.testing.assert_allclose(depth, t, atol=1e-6)
    np.testing.assert_array_equal(mask, disc > 0)
    expected = np.where((disc > 0)[..., None], np.stack([t * x, t * y, 5 - t], -1), np.array([0, 0, 1.0]))
    np.testing.assert_allclose(normals, expected, atol=1e-6)
    assert (cls[mask] == CLASSES.index("object")).all() and (cls[~mask] == CLASSES.index("wall")).all()
    # Coverage: soft only at the rim, and its sum is the disc's area.
    assert abs(alpha.sum() - mask.sum()) < 0.01 * mask.sum() and ((alpha > 0) & (alpha < 1)).sum() < 300


def test_image_is_composed_of_its_layers() -> None:
    """alpha fg + (1 - alpha) bg is the image to rounding without sensor noise, and to the noise with it."""
    for index in (0, 1, 2, 3, 4, 5):
        world, _, noise = stage.compose(0, "train", "closeup", index, 0)
        prims, mats, fields, defects = world.arrays()
        cam = stage.camera_vector(world, 96, 96)
        layers, alpha, *_ = scene.draw(
            prims, mats, world.env, cam, fields, stage.atlas.load()[0], defects, 96, 96, True
        )
        look = light.camera_look(world, noise)
        for level in (0.0, 0.02):
            look[camera.LUMA] = look[camera.CHROMA] = level
            image, fg, bg, a = camera.expose(layers, alpha, look)
            error = abs(a[..., None] * fg + (1 - a[..., None]) * bg - image)
            assert error.max() <= 1.5 if level == 0 else error.mean() < 12


def test_mattes(scenes: Scenes) -> None:
    soft = (scenes.alpha > 0.02) & (scenes.alpha < 0.98)
    assert soft.mean() > 0.004 and (scenes.mask.mean((1, 2)) > 0.003).mean() > 0.4
    assert (scenes.mask != (scenes.alpha > 0.5)).mean() < 0.01
    a = scenes.alpha[..., None]
    assert abs(a * scenes.foreground + (1 - a) * scenes.background - scenes.image).mean() < 4
    hidden = scenes.alpha == 1
    assert hidden.any() and (scenes.background[hidden].max(-1) > 0).mean() > 0.9


def test_keypoints_project_from_the_joints() -> None:
    seen, on_body = 0, []
    for index in range(60):
        world, _, _ = stage.compose(5, "val", "closeup" if index % 2 else "indoor", index, 0)
        if world.figure is None:
            continue
        shot = stage.shoot(5, "val", "closeup" if index % 2 else "indoor", index, 96, 128, False)
        if not shot.keypoints[:, 2].any() or not np.allclose(shot.cam[:3], world.camera[0]):
            continue  # out of view, or another attempt was taken
        eye, axes, _ = world.camera
        rel = np.array(world.figure[0]) - eye
        right, up, back = np.array(axes).reshape(3, 3)
        xyz = shot.intrinsics @ np.stack([rel @ right, -(rel @ up), -(rel @ back)])
        u, v = xyz[0] / xyz[2], xyz[1] / xyz[2]
        inside = (xyz[2] > 0.05) & (u >= 0) & (v >= 0) & (u < 128) & (v < 96)
        np.testing.assert_array_equal(shot.keypoints[:, 2] > 0, inside)
        np.testing.assert_allclose(shot.keypoints[inside, :2], np.stack([u, v], 1)[inside], atol=1e-3)
        assert (shot.keypoints[~inside] == 0).all()
        figure = shot.objects == world.figure[2]
        for x, y, visible in shot.keypoints[shot.keypoints[:, 2] == 2]:
            i, j = int(y), int(x)
            on_body.append(figure[max(i - 2, 0) : i + 3, max(j - 2, 0) : j + 3].any() and visible == 2)
        if figure.any():
            r, c = np.nonzero(figure)
            np.testing.assert_array_equal(shot.box, [c.min(), r.min(), c.max() + 1, r.max() + 1])
        seen += 1
    assert seen >= 5 and np.mean(on_body) > 0.95


def test_left_and_right_are_the_persons_own(scenes: Scenes) -> None:
    """Seen from the front (nose and both eyes visible) the left shoulder is on the picture's right."""
    portraits = render(range(40), "closeup", "val", (64, 64), seed=2)
    front = (portraits.keypoints[:, :3, 2] == 2).all(1) & (portraits.keypoints[:, 5:7, 2] > 0).all(1)
    assert front.sum() >= 2
    assert (portraits.keypoints[front, 5, 0] > portraits.keypoints[front, 6, 0]).all()


def test_defects_sit_on_surfaces_and_change_the_picture() -> None:
    found = 0
    for index in range(12):
        world, _, _ = stage.compose(0, "train", "mixed", index, 0)
        prims, mats, fields, defects = world.arrays()
        if len(defects) == 0:
            continue
        cam = stage.camera_vector(world, 96, 96)
        args = (mats, world.env, cam, fields, stage.atlas.load()[0])
        marked = scene.draw(prims.copy(), *args, defects, 96, 96, False)
        clean = scene.draw(prims.copy(), *args, defects[:0], 96, 96, False)
        flaw = marked[7]
        np.testing.assert_array_equal(marked[2], clean[2])
        assert not clean[7].any() and np.isfinite(marked[2][flaw]).all()
        change = abs(marked[0] - clean[0]).max((0, -1))
        solid = flaw & (marked[1] < 0.01) | (flaw & (marked[1] > 0.99))
        if solid.sum() > 4:
            found += 1
            assert (change[solid] > 1e-4).mean() > 0.5
    assert found >= 1


def test_same_pictures_whatever_the_batch_and_the_workers(scenes: Scenes) -> None:
    again = render([9, 4, 17], "mixed", "train", workers=2, mattes=True)
    for k, i in enumerate((9, 4, 17)):
        for name in ("image", "depth", "normals", "class_ids", "alpha", "background", "keypoints", "defect"):
            np.testing.assert_array_equal(getattr(again, name)[k], getattr(scenes, name)[i], err_msg=name)
        assert again.caption[k] == scenes.caption[i] and again.name[k] == scenes.name[i]


def test_same_pictures_in_another_process(scenes: Scenes) -> None:
    code = (
        "import hashlib; from genpercept.data.synthetic import render\n"
        "print(hashlib.md5(render([4], mattes=True).image).hexdigest())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == hashlib.md5(np.ascontiguousarray(scenes.image[4:5])).hexdigest()


def test_mattes_do_not_change_the_picture(scenes: Scenes) -> None:
    np.testing.assert_array_equal(render(range(12)).image, scenes.image[:12])


def test_splits_and_seeds_differ(scenes: Scenes) -> None:
    first = scenes.image[0]
    for split, seed in (("val", 0), ("test", 0), ("train", 1)):
        assert (render([0], "mixed", split, seed=seed).image[0] != first).mean() > 0.5


def test_held_out_domains_hold_out() -> None:
    """Shapes and textures of the held-out domains never occur in the others, and do occur in theirs."""
    kept = {t for t, _ in stage.atlas.load()[1]["heldout"]}
    new = {X.OCTA, X.HEX, X.HYPER, X.BLOB}
    for domain in DOMAINS:
        shapes, tiles = set(), set()
        for index in range(12):
            world, label, _ = stage.compose(0, "test", domain, index, 0)
            prims, mats, _, _ = world.arrays()
            shapes |= set(prims[:, X.TYPE].astype(int))
            tiles |= set(mats[:, 0].astype(int))
            assert label == domain or domain == "mixed"
        assert bool(shapes & new) == (domain == "heldout_shapes")
        assert bool(tiles & kept) == (domain == "heldout_textures")


def test_mixed_is_balanced_and_not_one_prior() -> None:
    labels = [stage.compose(0, "train", "mixed", i, 0)[1] for i in range(150)]
    share = {d: labels.count(d) / 150 for d in set(labels)}
    assert abs(share["indoor"] - 0.4) < 0.12 and abs(share["outdoor"] - 0.35) < 0.12 and share["closeup"] > 0.13


def test_depth_is_not_given_by_the_row(scenes: Scenes) -> None:
    r = []
    for i in range(COUNT):
        rows = np.nonzero(scenes.valid[i])[0]
        r.append(np.corrcoef(rows, np.log(scenes.depth[i][scenes.valid[i]]))[0, 1])
    assert np.mean(r) > -0.75 and np.std(r) > 0.2


def test_captions_use_the_vocabulary(scenes: Scenes) -> None:
    for text in scenes.caption:
        words = text.replace(",", "").split()
        assert 2 <= len(words) <= 24 and set(words) <= set(WORDS), text
    assert len(WORDS) < 250 and len(set(scenes.caption)) > COUNT * 0.8
    assert len(CLASSES) >= 12 and len(CLASSES) == len(set(CLASSES)) == len(PALETTE)


@pytest.mark.parametrize("size", [(8, 8), (40, 17), (48, 160)])
def test_any_size(size: tuple[int, int]) -> None:
    s = render([0, 5], "outdoor", "val", size)
    assert s.image.shape == (2, *size, 3) and s.depth.shape == (2, *size)
    np.testing.assert_allclose(s.intrinsics[:, 0, 0], s.intrinsics[:, 1, 1])
    np.testing.assert_allclose(s.intrinsics[:, :2, 2], [[size[1] / 2, size[0] / 2]] * 2)


def test_samples_and_plugin(scenes: Scenes) -> None:
    one = samples(scenes)[3]
    assert tuple(one.image.shape) == (3, 128, 128) and float(one.image.max()) <= 1
    np.testing.assert_array_equal(one.label("normals").numpy(), scenes.normals[3].transpose(2, 0, 1))
    assert len(PLUGIN.index(None, "test")) == synthetic.DEFAULT_COUNT
    entries = PLUGIN.index(None, "test/indoor:7")
    assert len(entries) == 7 and entries[2].domain == "indoor"
    got = PLUGIN.load(entries[2])
    assert got.domain == "indoor" and got.name == "indoor-test-0-000002"
    np.testing.assert_array_equal(got.label("depth").numpy(), render([2], "indoor", "test").depth[0])
    for bad in ("nowhere", "test/space", "test/indoor:x"):
        with pytest.raises(ValueError, match="SPLIT/DOMAIN"):
            PLUGIN.index(None, bad)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"domain": "moon"}, "domain 'moon'"),
        ({"split": "all"}, "split 'all'"),
        ({"size": (4, 64)}, "at least 8"),
        ({"indices": []}, "non-empty"),
        ({"indices": [-1]}, "from 0 up"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render(**({"indices": [0]} | arguments))


def test_only_scenes_that_have_a_label() -> None:
    world = synthetic.SyntheticWorld(size=(48, 64), having="mask")
    found = world.index(None, "test/mixed:12")
    assert len(found) == 12
    shares = [world.load(entry).mask.float().mean().item() for entry in found]
    assert min(shares) > 0.01  # chosen from 0.02 on, on a smaller picture; a quarter of all scenes have none at all
    kept = {entry.index for entry in found}
    left = set(range(max(kept))) - kept
    assert left and all(
        not 0.03 <= world.load(dataclasses.replace(found[0], index=i)).mask.float().mean() <= 0.8 for i in left
    )


def test_labels_that_scenes_cannot_be_chosen_for() -> None:
    with pytest.raises(ValueError, match=r"having 'depth': choose one of mask, keypoints, defect"):
        synthetic.SyntheticWorld(having="depth")


def test_importing_is_cheap_and_a_missing_extra_is_named() -> None:
    code = (
        "import sys; from genpercept.data import synthetic as s\n"
        "assert not {'numba', 'skimage', 'scipy'} & set(sys.modules)\n"
        "sys.modules['numba'] = None\n"
        "try: s.render([0])\n"
        "except ImportError as e: print(e)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "genpercept[synthetic]" in out and len(out.splitlines()) == 1


def test_splits_are_three() -> None:
    assert SPLITS == ("train", "val", "test")
