"""`refine=True`: edges where the image has them, within the range, never NaN, and nothing invented where all is even."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

from genpercept.core import extras
from genpercept.imaging.kinds import KINDS, Kind
from genpercept.imaging.prediction import Prediction
from genpercept.pipeline import refine
from genpercept.pipeline.refine import edges, matte
from genpercept.tasks import TASKS
from tests.support.painting import graph, painted
from tests.support.pictures import picture

PYMATTING = pytest.mark.skipif(importlib.util.find_spec("pymatting") is None, reason="not installed: pymatting")
SCALE = 8


def halves(size: tuple[int, int], at: int) -> np.ndarray:
    """An image (H, W, 3) uint8 that is dark up to the column `at`, and bright from there on."""
    image = np.full((*size, 3), 60, np.uint8)
    image[:, at:] = 200
    return image


def ramp(size: tuple[int, int], at: int, width: int) -> np.ndarray:
    """0.2 to 0.8 (H, W) over `width` columns around `at`."""
    x = np.clip((np.arange(size[1]) + 0.5 - at) / width + 0.5, 0, 1)
    return np.broadcast_to(0.2 + 0.6 * x, size).astype(np.float32)


def test_a_blurred_step_becomes_the_image_s_step() -> None:
    image, blurred = halves((40, 120), 60), ramp((40, 120), 62, 2 * SCALE)
    found = edges.refine(blurred, image, SCALE)
    assert np.abs(found[:, 59] - 0.2).max() < 0.1 and np.abs(found[:, 60] - 0.8).max() < 0.1
    assert (np.diff(found, axis=1)[:, 59] > 0.45).all() and (np.diff(blurred, axis=1)[:, 59] < 0.05).all()


def test_directions_stay_unit_and_get_the_step() -> None:
    image, share = halves((40, 120), 60), ramp((40, 120), 61, 2 * SCALE)
    angle = share * np.pi / 2
    blurred = np.stack([np.sin(angle), np.zeros_like(angle), np.cos(angle)], -1).astype(np.float32)
    found = edges.refine_vectors(blurred, image, SCALE)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-5)
    turn = np.degrees(np.arccos((found[:, 59] * found[:, 60]).sum(-1).clip(-1, 1)))
    assert turn.min() > 35
    apart = np.zeros((3, 4, 3), np.float32)
    apart[..., 0] = [-1, 1, -1, 1]  # these cancel out
    assert np.isfinite(edges.refine_vectors(apart, np.zeros((3, 4, 3), np.uint8), 50)).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (3, 3), (37, 53)])
@pytest.mark.parametrize("scale", [1.0, 7.3, 40.0])
def test_any_size_stays_in_range(size: tuple[int, int], scale: float) -> None:
    draw = np.random.default_rng(0)
    values = draw.random(size).astype(np.float32)
    for image in (picture(size), picture(size).astype(np.float32) / 255):
        found = edges.refine(values, image, scale)
        assert found.shape == size and found.dtype == np.float32
        assert values.min() - 1e-6 <= found.min() and found.max() <= values.max() + 1e-6
    even = edges.refine(np.full(size, 0.3, np.float32), picture(size), scale)
    np.testing.assert_allclose(even, 0.3, atol=1e-6)


def test_what_is_not_valid_stays_and_tells_nothing() -> None:
    values, image = np.full((20, 30), 0.5, np.float32), picture((20, 30))
    valid = np.ones((20, 30), bool)
    valid[5:10, 5:20] = False
    values[~valid] = np.nan
    found = edges.refine(values, image, 4.0, valid)
    assert np.isnan(found[~valid]).all()
    np.testing.assert_allclose(found[valid], 0.5, atol=1e-6)


# ---- mattes ------------------------------------------------------------------------------------------------------------


def spiked(size: int) -> tuple[np.ndarray, np.ndarray]:
    """A disc with spikes a few pixels wide, as hair is: its image (H, W, 3) uint8 and its true alpha."""
    y, x = np.mgrid[:size, :size] - size / 2
    edge = size * (0.28 + 0.06 * np.sign(np.sin(30 * np.arctan2(y, x))))
    alpha = 1 / (1 + np.exp(np.hypot(y, x) - edge))
    image = alpha[..., None] * (0.8, 0.3, 0.2) + (1 - alpha[..., None]) * (0.2, 0.4, 0.8)
    image += np.random.default_rng(0).normal(0, 0.01, image.shape)
    return np.rint(image.clip(0, 1) * 255).astype(np.uint8), alpha.astype(np.float32)


def coarse_of(alpha: np.ndarray, scale: int) -> np.ndarray:
    """What a network of so many times fewer pixels could know of it at best."""
    from genpercept.core.resampling import resize

    small = (alpha.shape[0] // scale, alpha.shape[1] // scale)
    return resize(resize(alpha[None, None], small), alpha.shape)[0, 0]


@PYMATTING
def test_hair_is_hair() -> None:
    image, alpha = spiked(120)
    coarse = coarse_of(alpha, SCALE)
    found = matte.refine(coarse, image, SCALE)
    assert np.abs(found - alpha).sum() < 0.35 * np.abs(coarse - alpha).sum()
    assert found.min() >= 0 and found.max() <= 1 and np.isfinite(found).all()


@PYMATTING
def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture of several blocks: the same as in one, but for what the coarse matte decides at their borders."""
    image, alpha = spiked(120)
    coarse = coarse_of(alpha, SCALE)
    whole = matte.refine(coarse, image, SCALE)
    monkeypatch.setattr(matte, "_BLOCK", 64)
    blocks = matte.refine(coarse, image, SCALE)
    assert np.abs(blocks - whole).mean() < 0.01


@PYMATTING
def test_what_is_unknown_of_a_large_photograph_is_solved_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    image, alpha = spiked(120)
    coarse = coarse_of(alpha, SCALE)
    solved: list[int] = []
    plain = matte.solved
    monkeypatch.setattr(
        matte, "solved", lambda i, a, unknown: solved.append(int(unknown.sum())) or plain(i, a, unknown)
    )
    monkeypatch.setattr(matte, "_MOST", 2000)
    found = matte.refine(coarse, image, SCALE)
    assert 0 < sum(solved) <= 2500 and found.shape == alpha.shape
    assert np.abs(found - alpha).sum() < 0.7 * np.abs(coarse - alpha).sum()


@PYMATTING
@pytest.mark.parametrize("size", [(1, 1), (2, 9), (3, 3), (17, 40)])
def test_mattes_of_any_size(size: tuple[int, int]) -> None:
    draw = np.random.default_rng(0)
    for alpha in (np.zeros(size), np.ones(size), draw.random(size)):
        found = matte.refine(alpha.astype(np.float32), picture(size), 3.0)
        assert found.shape == size and found.min() >= 0 and found.max() <= 1
    assert matte.refine(np.zeros(size, np.float32), picture(size), 3.0).max() == 0
    assert matte.refine(np.ones(size, np.float32), picture(size), 3.0).min() == 1


# ---- through the pipeline ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tiles", [None, 60])
@pytest.mark.parametrize(
    "task", ["depth", "disparity", "normals", *(pytest.param(t, marks=PYMATTING) for t in ("dis", "matting"))]
)
def test_every_task_that_can(task: str, tiles: int | None) -> None:
    pipe = graph(painted, task, resolution=32)
    image = halves((61, 97), 40)
    plain, found = pipe(image, tiles=tiles), pipe(image, tiles=tiles, refine=True)
    assert found.kind == plain.kind and found.values.shape == plain.values.shape
    assert found.meta.pop("refined") == KINDS[found.kind].refine
    assert found.meta == plain.meta
    np.testing.assert_array_equal(found.raw, plain.raw)


@PYMATTING
def test_thresholds_hold_at_the_new_edges() -> None:
    task = TASKS.find("dis").with_options(threshold=0.5)
    image, alpha = spiked(80)
    coarse = np.round(coarse_of(alpha, SCALE))
    found = refine.refine(Prediction(coarse, task.kind, meta={"resolution": [10, 10]}), image, task)
    assert set(np.unique(found.values)) == {0.0, 1.0} and (found.values != coarse).any()


def test_tasks_that_cannot_say_which_can(monkeypatch: pytest.MonkeyPatch) -> None:
    for task in ("segmentation", "anomaly", "intrinsics"):
        with pytest.raises(
            ValueError, match=f"refine: task '{task}' gives .*, of which nothing is refined; only depth_affine"
        ):
            graph(painted, task)(picture((40, 40)), refine=True)
    monkeypatch.setattr(matte, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="mattes need PyMatting") as error:
        graph(painted, "matting")(picture((40, 40)), refine=True)
    assert extras.install("matting") in str(error.value)


@pytest.mark.parametrize(
    "row",
    [
        {"refine": "sharpen"},
        {"refine": "edges", "dtype": np.int32, "merge": None},
        {"refine": "edges", "layout": "points", "axes": (None, 3, 3), "merge": None},
    ],
)
def test_rows_that_contradict_themselves(row: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="refine="):
        Kind("x", "y", **row)
