"""Answers that look at no image: what a model must beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # torch, which no baseline needs
    from genpercept.core.values import Sample
    from genpercept.tasks import Task

GRID = 64  # cells per edge of what is known by position
Known = Mapping[str, np.ndarray]


def constant(shape: tuple[int, int]) -> NDArray[np.float32]:
    """(H, W): one depth everywhere. Least squares turns it into the mean of the truth."""
    return np.zeros(shape, np.float32)


def vertical_ramp(shape: tuple[int, int]) -> NDArray[np.float32]:
    """(H, W) in [0, 1]: far at the top, near at the bottom, as most photographs are. Aligned like a prediction."""
    return np.broadcast_to(np.linspace(1, 0, shape[0], dtype=np.float32)[:, None], shape)


def facing(shape: tuple[int, int], direction: tuple[float, float, float] = (0.0, 0.0, 1.0)) -> NDArray[np.float32]:
    """(H, W, 3): one normal everywhere, by default towards the viewer."""
    unit = np.asarray(direction, np.float32) / np.linalg.norm(direction)
    return np.broadcast_to(unit.astype(np.float32), (*shape, 3))


def disparity_ramp(shape: tuple[int, int]) -> NDArray[np.float32]:
    """(H, W) in (0, 1]: the vertical ramp as disparity, near at the bottom; never 0, which takes no part in a fit."""
    rows = np.linspace(1 / shape[0], 1, shape[0], dtype=np.float32)
    return np.broadcast_to(rows[:, None], shape)


def filled(shape: tuple[int, int], value: float) -> NDArray[np.float32]:
    """(H, W): one value everywhere: all foreground (1), nothing strange (0), one disparity."""
    return np.full(shape, value, np.float32)


def spread(grid: NDArray[np.generic], shape: tuple[int, int]) -> NDArray[np.generic]:
    """(G, G) over an image of any size: each pixel takes the cell that it lies in. (H, W) of the grid's type."""
    rows, columns = (np.arange(n) * g // n for n, g in zip(shape, grid.shape, strict=True))
    return grid[rows[:, None], columns[None]]


def gathered(values: NDArray[np.floating], grid: int) -> NDArray[np.float64]:
    """(H, W) -> (G, G) means over the pixels of each cell of `spread`; a cell without a pixel takes its nearest one."""
    height, width = values.shape
    rows, columns = (np.arange(n) * grid // n for n in (height, width))
    index = rows[:, None] * grid + columns[None]
    count = np.bincount(index.ravel(), minlength=grid * grid)
    total = np.bincount(index.ravel(), values.ravel().astype(np.float64), minlength=grid * grid)
    near = values[np.minimum((np.arange(grid) + 0.5) * height / grid, height - 1).astype(int)][
        :, np.minimum((np.arange(grid) + 0.5) * width / grid, width - 1).astype(int)
    ]
    return np.where(count > 0, total / np.maximum(count, 1), near.ravel()).reshape(grid, grid)


def in_boxes(pose: NDArray[np.floating], boxes: NDArray[np.floating]) -> NDArray[np.float32]:
    """One pose (17, 2), x and y as fractions of a box, in every box (N, 4) x, y, width, height: (N, 17, 3), score 1."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, np.shape(boxes)[-1])[:, None, :4]
    points = boxes[..., :2] + pose[None] * boxes[..., 2:]
    return np.concatenate([points, np.ones((*points.shape[:2], 1))], -1).astype(np.float32)


# ---- what several metrics declare: answer(task, known, sample) of `_metric.Baseline`, and the like


def size_of(sample: Sample) -> tuple[int, int]:
    """Height and width of the sample's image."""
    return int(sample.image.shape[-2]), int(sample.image.shape[-1])


def all_foreground(task: Task, known: Known, sample: Sample) -> NDArray[np.generic]:
    return filled(size_of(sample), 1.0)


def mean_map(task: Task, known: Known, sample: Sample) -> NDArray[np.generic]:
    """The mean of what `observe_maps` saw."""
    return spread((known["sum"] / known["count"]).astype(np.float32), size_of(sample))


def observe_maps(task: Task, sample: Sample) -> Known:
    """A map (H, W) on the grid, and how many there are."""
    return {"sum": gathered(task.truth(sample)["gt"], GRID), "count": np.array(1)}


def partly(gt: NDArray[np.floating]) -> bool:
    """Whether a map (H, W) in [0, 1] has enough of both foreground and background to see something."""
    return bool(0.04 < np.mean(gt) < 0.6)
