"""Tiles cover exactly, are fitted to the whole, and join without a seam, without a shift, for every task that paints."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from genpercept import GenPerceptPipeline
from genpercept.core.rng import Rng, Window
from genpercept.imaging.kinds import KINDS
from genpercept.pipeline.tiles import fit
from genpercept.pipeline.tiles.join import Canvas, seam_error
from genpercept.pipeline.tiles.plan import Axis, Plan, Tiling
from tests.support.painting import STRIDE, graph, painted
from tests.support.paths import SD_TINY
from tests.support.pictures import picture


def plan_of(size: tuple[int, int], edge: int, overlap: float = 0.25, resolution: int = 0) -> Plan:
    plan = Tiling(edge, overlap).plan(size, resolution, STRIDE)
    assert plan is not None
    return plan


def smooth(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """An image (H, W, 3) float32 in [0.2, 0.8] of a few waves, grey."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]] / max(size)
    wave = sum(np.sin(2 * np.pi * (a * x + b * y) + c) for a, b, c in draw.uniform(0.5, 2.5, (4, 3)))
    wave = 0.2 + 0.6 * (wave - wave.min()) / np.ptp(wave)
    return np.repeat(wave[..., None], 3, -1).astype(np.float32)


# ---- the plan ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(200, 333), (97, 96), (1000, 64), (768, 1024), (1, 500)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.89])
def test_tiles_cover_all_and_overlap_enough(size: tuple[int, int], overlap: float) -> None:
    plan = plan_of(size, 96, overlap)
    seen = np.zeros(plan.geometry.padded, int)
    for place in plan:
        seen[place.rows, place.columns] += 1
        assert seen[place.rows, place.columns].shape == (plan.rows.tile, plan.columns.tile)  # inside, and no sliver
    assert seen.min() >= 1 and len(list(plan)) == len(plan)
    for axis in (plan.rows, plan.columns):
        assert axis.starts[0] == 0 and axis.starts[-1] + axis.tile == axis.length
        assert all(start % STRIDE == 0 for start in axis.starts) and axis.tile % STRIDE == 0
        for a, b in pairwise(axis.starts):
            assert a < b and (a + axis.tile - b >= overlap * axis.tile - 1e-6 or b - a == STRIDE)


def test_no_more_tiles_than_it_takes() -> None:
    assert Axis.of(192, 96, 8, 0).starts == (0, 96)
    assert Axis.of(168, 96, 8, 0.25).starts == (0, 72)
    assert Axis.of(176, 96, 8, 0.25).starts == (0, 40, 80)
    assert Axis.of(96, 96, 8, 0.25).starts == (0,)


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.25, 0.6])
def test_weights_sum_to_one(overlap: float) -> None:
    axis = plan_of((288, 200), 96, overlap).rows
    for weights, length in ((axis.centres, axis.length), (axis.between, axis.length - 1)):
        total = np.zeros(length)
        for start, weight in zip(axis.starts, weights, strict=True):
            assert (weight >= 0).all()
            total[start : start + len(weight)] += weight
        if length == axis.length - 1:
            total[axis.lonely - 1] += 1
        np.testing.assert_allclose(total, 1, atol=1e-6)
    assert (len(axis.lonely) > 0) == (overlap == 0)


def test_the_edge_of_auto() -> None:
    """As the network sees, while that is no less than a quarter of the image's edge."""
    assert Tiling().edge((1500, 2000), 768) == 768
    assert Tiling().edge((3000, 4000), 768) == 1000
    assert Tiling().edge((3000, 4000), 96) == 1000
    plan = Tiling().plan((3000, 4000), 96, 8)
    assert plan is not None and plan.geometry.resized == (288, 384) and plan.rows.tile == 96
    small = Tiling(48).plan((300, 400), 96, 8)
    assert small is not None and small.geometry.resized == (300, 400) and small.rows.tile == 48  # not enlarged


# ---- the fit -----------------------------------------------------------------------------------------------------------


def test_a_scale_and_a_shift_are_found_beside_outliers() -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=2000)
    y = 0.5 * x + 0.3
    y[:200] += draw.uniform(2, 5, 200)
    scale, shift = fit.line(x, y)
    assert abs(scale - 0.5) < 0.01 and abs(shift - 0.3) < 0.05
    assert fit.line(x, -x)[0] == 0  # the whole's opposite is no answer
    assert fit.line(np.zeros(9), np.arange(9.0)) == (0, pytest.approx(4, abs=0.01))


def test_every_kind_that_is_a_map_can_be_joined() -> None:
    """What a tile says in another measure than the whole is brought to it, but for directions, which have but one."""
    whole = smooth((48, 48)).transpose(2, 0, 1) * 2 - 1
    for name, kind in KINDS.items():
        if kind.layout == "points":
            continue
        fitted = fit.of(kind)
        assert np.abs(fitted(whole, whole, 4) - whole).max() < 1e-5, name
        brought = np.abs(fitted(whole * 0.5 + 0.2, whole, 4) - whole).max() < 1e-3
        assert brought != kind.directions, name


# ---- the join ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_tiles_of_any_scale_and_shift_become_one_field(overlap: float) -> None:
    """Of a known smooth field; no seam at borders."""
    field = smooth((240, 320))
    draw = np.random.default_rng(1)

    def answer(image: np.ndarray) -> np.ndarray:
        if image.shape[-1] == 320:
            return painted(image)
        scale, shift = draw.uniform(0.3, 1.2, (2, len(image), 1, 1, 1)).astype(np.float32)
        return painted(image) * scale + shift - 0.5

    pipe = graph(answer, resolution=320)
    found = pipe(field, tiles=96, overlap=overlap, processing_resolution=0, batch_size=3)
    np.testing.assert_allclose(found.values, field[..., 0], atol=1e-3)
    assert found.meta["tiles"]["seam_error"] == pytest.approx(1, abs=0.35)


def test_a_level_of_its_own_would_be_seen_without_the_join() -> None:
    """The measure of seams: 1 of the field, far more where tiles keep their levels and are put side by side."""
    field = smooth((240, 320))[None, ..., 0]
    plan = plan_of((240, 320), 96)
    assert seam_error(field, plan, STRIDE) == pytest.approx(1, abs=0.35)
    stepped = field.copy()
    for i, place in enumerate(plan):
        stepped[:, place.rows, place.columns] = field[:, place.rows, place.columns] + 0.02 * (i % 3)
    error = seam_error(stepped, plan, STRIDE)
    assert error is not None and error > 20


@pytest.mark.parametrize("size", [(120, 200), (101, 203), (60, 333)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6])
def test_nothing_shifts(size: tuple[int, int], overlap: float) -> None:
    """A network that answers with the image itself, noise included, in tiles and whole: the same, at every pixel."""
    pipe = graph(painted, resolution=max(size))
    image = picture(size).astype(np.float32) / 255
    whole = pipe(image, processing_resolution=0)
    tiled = pipe(image, tiles=64, overlap=overlap, processing_resolution=0)
    assert tiled.values.shape == size and len(tiled.meta["tiles"]["grid"]) == 2
    np.testing.assert_allclose(tiled.values, whole.values, atol=1e-4)


def test_coordinates_stay_where_they_are_through_sizes() -> None:
    """A ramp, seen small by the pass over all and larger by tiles, which are smaller than their part of the image."""
    y, x = np.mgrid[:300, :400]
    image = np.repeat(((x + y) / 700)[..., None], 3, -1).astype(np.float32)
    found = graph(painted)(image, tiles=160)
    inside = np.s_[8:-8, 8:-8]
    np.testing.assert_allclose(found.values[inside], image[..., 0][inside], atol=4e-3)
    assert abs((found.values - image[..., 0])[inside].mean()) < 2e-4


def test_one_tile_is_the_plain_call() -> None:
    pipe, image = graph(painted), picture((60, 81))
    plain = pipe(image)
    for tiles in (81, 5000):
        same = pipe(image, tiles=tiles)
        np.testing.assert_array_equal(same.values, plain.values)
        assert same.meta == plain.meta


def test_slopes_of_nothing_are_the_whole() -> None:
    plan = plan_of((96, 160), 96, 0.0)
    level = smooth((96, 160))[None, ..., 0]
    canvas = Canvas(plan, level, wave=1e9)
    for place in plan:
        canvas.add(place, level[:, place.rows, place.columns] + place.column)
    assert np.ptp(canvas.joined() - level) < 1e-3


# ---- every task --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["depth", "disparity", "normals", "segmentation", "dis", "matting", "anomaly"])
def test_every_painted_label(task: str) -> None:
    pipe = graph(painted, task)
    image = picture((150, 200))
    found = pipe(image, tiles=100, overlap=0.3)
    plain = pipe(image)
    assert found.kind == plain.kind and found.values.shape == plain.values.shape
    assert found.values.dtype == plain.values.dtype and np.isfinite(found.values).all()
    assert found.meta["resolution"] == plain.meta["resolution"] and found.meta["tiles"]["edge"] == 100
    if found.kind == "normals":
        np.testing.assert_allclose(np.linalg.norm(found.values, axis=-1), 1, atol=1e-4)


def test_a_batch_of_two_is_two_batches_of_one_and_the_flip_test_goes_along() -> None:
    pipe = GenPerceptPipeline.from_base(SD_TINY, "depth", resolution=48)
    images = [picture((70, 100)), picture((64, 90), 1)]
    options: dict[str, Any] = {"tiles": 48, "flip_test": True}
    together = pipe(images, batch_size=4, **options)
    for image, found in zip(images, together, strict=True):
        alone = pipe(image, **options)
        np.testing.assert_allclose(found.values, alone.values, atol=2e-5)
        assert alone.meta["tiles"]["grid"][1] > 1


def test_noise_is_of_the_whole_picture() -> None:
    """Tiles of one image have the same noise where they overlap, and one seed gives the same bits."""
    whole = Rng(7, 0, [0]).normal((4, 12, 20))
    windows = [Window((12, 20), (0, 0)), Window((12, 20), (4, 12))]
    tiles = Rng(7, 0, [0, 0], windows).normal((4, 8, 8))
    assert torch.equal(tiles[0], whole[0, :, :8, :8]) and torch.equal(tiles[1], whole[0, :, 4:12, 12:20])
    assert Window((96, 160), (32, 96)).shrunk(8) == windows[1]


def test_models_that_start_from_noise() -> None:
    pipe = GenPerceptPipeline.from_base(SD_TINY, "depth", paradigm="stochastic_multi_step", resolution=48)
    image = picture((60, 100))

    def ask(seed: int, **more: Any) -> Any:
        generator = torch.Generator().manual_seed(seed)
        return pipe(image, tiles=48, num_inference_steps=2, generator=generator, **more)

    a, b, other = ask(1), ask(1, batch_size=3), ask(2)
    np.testing.assert_array_equal(a.values, ask(1).values)
    np.testing.assert_allclose(a.values, b.values, atol=1e-4)
    assert np.abs(a.values - other.values).max() > 1e-3
    merged = ask(1, ensemble_size=2)
    assert merged.uncertainty is not None and merged.uncertainty.shape == (60, 100)


# ---- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tiles": 4}, "tiles=4: smaller than the network's stride of 8 pixels"),
        ({"tiles": 0}, "tiles=0: give the edge of a tile in pixels, at least 1"),
        ({"tiles": -5}, "tiles=-5"),
        ({"tiles": 96.5}, "tiles=96.5"),
        ({"tiles": True}, "tiles=True"),
        ({"tiles": "many"}, "tiles='many'"),
        ({"tiles": 96, "overlap": 0.9}, "overlap=0.9 of tiles: must be at least 0 and below 0.9"),
        ({"tiles": 96, "overlap": -0.1}, "overlap=-0.1"),
        ({"tiles": 96, "overlap": float("nan")}, "overlap=nan"),
        ({"tiles": 96, "resize_mode": "official"}, "resize_mode='official': goes with images that are seen whole"),
        ({"tiles": 96, "boxes": [[0, 0, 5, 5]]}, "boxes: task 'depth' looks at whole images"),
    ],
)
def test_bad_tiles(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says.replace("[", r"\[")) as error:
        graph(painted)(picture((200, 200)), **options)
    assert "\n" not in str(error.value)


def test_models_on_regions_refuse_tiles() -> None:
    for options in ({"tiles": 96}, {"refine": True}):
        with pytest.raises(ValueError, match="task 'pose' looks at parts of an image already; leave it out"):
            graph(painted, "pose")(picture((200, 200)), **options)
