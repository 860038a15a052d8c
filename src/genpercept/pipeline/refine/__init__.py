"""`refine=True`: a prediction brought to the edges of its image, in the way that the row of its kind says (imaging.kinds).

"edges" and "vectors": what the network says of smooth places, spread up to the image's edges (`edges`); vectors are made unit
length again. "matte": closed-form matting between what is surely foreground and what is surely not (`matte`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from genpercept.imaging.kinds import KINDS, Refinement
from genpercept.imaging.prediction import Prediction
from genpercept.pipeline.refine import edges, matte
from genpercept.tasks import ScalarTask, Task

Refine = Callable[
    [np.ndarray, np.ndarray, float, np.ndarray | None], np.ndarray
]  # (values, image, scale, valid) -> values
_WAYS: dict[Refinement, Refine] = {"edges": edges.refine, "vectors": edges.refine_vectors, "matte": matte.refine}


def check(task: Task) -> None:
    """ValueError for a task whose predictions have no edges to be refined, and where a package is missing."""
    way = KINDS.find(task.kind).refine
    if way is None:
        able = ", ".join(name for name, kind in KINDS.items() if kind.refine)
        raise ValueError(f"refine: task {task.name!r} gives {task.kind}, of which nothing is refined; only {able} are")
    if way == "matte":
        matte.check()


def refine(prediction: Prediction, image: np.ndarray, task: Task) -> Prediction:
    """The prediction at the edges of its image (H, W, 3), uint8 or float in [0, 1]; `raw` and `uncertainty` stay.

    What the task does to values at the image's size, such as thresholds, it does once more.
    """
    way = KINDS[prediction.kind].refine
    assert way is not None  # see `check`
    values = _WAYS[way](prediction.values, image, scale_of(prediction), prediction.valid)
    if isinstance(task, ScalarTask):
        values = task.settle(values)
    return replace(prediction, values=values, meta={**prediction.meta, "refined": way})


def scale_of(prediction: Prediction) -> float:
    """Pixels of the image along an edge of one that the network saw, as the prediction's meta tells; at least 1."""
    tiles = prediction.meta.get("tiles")
    if tiles:
        return max(1.0, tiles["edge"] / max(tiles["seen"]))
    return max(1.0, max(prediction.size) / max(prediction.meta["resolution"]))
