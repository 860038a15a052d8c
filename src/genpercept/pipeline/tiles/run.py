"""One large photograph: a pass over all of it, its tiles through the network, joined to one raw map, and decoded once.

Raw maps are joined, before a task makes values of them, so that what a task does once per image (stretching to its minimum and
maximum, choosing the likeliest class, thresholds) it does once, at the image's size. What "raw" is, by kind: of painted maps
of one quantity (depth, disparity, masks, mattes, defects) the quantity itself, to which a scale and a shift belong; of normals
directions; of classes scores, or colours, whose distances to the classes' colours are scores that are linear in them. Classes
need the whole most: scores of tiles that were only blended were right at 50 pixels of 100 where the whole's were at 75.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from genpercept.core import arrays
from genpercept.core.resampling import resize
from genpercept.core.rng import Window
from genpercept.core.values import Geometry
from genpercept.imaging.kinds import KINDS, Kind
from genpercept.imaging.prediction import Prediction
from genpercept.pipeline import call
from genpercept.pipeline.call import Run
from genpercept.pipeline.tiles import fit
from genpercept.pipeline.tiles.join import Canvas, seam_error
from genpercept.pipeline.tiles.plan import Place, Plan
from genpercept.tasks import Task

Network = Callable[[Any, Run], Any]  # padded images (B, 3, H, W) -> raw maps (B runs, C, H, W)


def predict(
    plan: Plan,
    inputs: tuple[Any, Any],
    geometry: Geometry,
    network: Network,
    run: Run,
    task: Task,
    options: dict[str, Any],
    stride: int,
) -> Prediction:
    """inputs: the image (1, 3, H, W) as the pass over all of it sees it, by `geometry`, and as the plan's geometry has it.

    run: of one image. options: of merging an ensemble's runs, which are joined one by one.
    """
    kind = KINDS.find(task.kind)
    whole = network(inputs[0], run)
    canvases = _joined(plan, inputs[1], _levels(whole, kind, geometry, plan), network, run, kind, geometry)
    joined = [canvas.joined() for canvas in canvases]
    seams = [error for each in joined if (error := seam_error(each, plan, stride)) is not None]
    channels = whole.shape[1]
    raw = arrays.like(whole, np.stack([np.broadcast_to(x, (channels, *x.shape[1:])) for x in joined]))
    found = call.decode(task, raw, plan.geometry, options)
    found.meta["resolution"] = list(geometry.padded)
    found.meta["tiles"] = plan.meta() | {"seam_error": round(float(np.mean(seams)), 3) if seams else None}
    return found


def _joined(
    plan: Plan, image: Any, levels: list[np.ndarray], network: Network, run: Run, kind: Kind, geometry: Geometry
) -> list[Canvas]:
    """A canvas for each run, with all tiles on it. Tiles share batches; no more of them are in memory at once."""
    coarse = max(1, round(plan.geometry.resized[0] / geometry.resized[0]))
    fitted = fit.of(kind)
    canvases = [Canvas(plan, level) for level in levels]
    for places in _batches(plan, run.batch_size):
        x = arrays.space(image).concatenate([image[..., p.rows, p.columns] for p in places])
        windows = [Window(plan.geometry.padded, (p.rows.start, p.columns.start)) for p in places]
        its = replace(run, seeds=list(run.seeds[:1]) * len(places), windows=windows)
        raw = network(x, its)
        for i, place in enumerate(places):
            for canvas, level, answer in zip(canvases, levels, raw[i * run.members :], strict=False):
                tile = _one_quantity(arrays.to_numpy(answer), kind)
                part = level[:, place.rows, place.columns]
                canvas.add(place, fitted(tile, part, coarse))
    return canvases


def _batches(plan: Plan, size: int) -> Iterator[Sequence[Place]]:
    places = list(plan)
    for start in range(0, len(places), size):
        yield places[start : start + size]


def _levels(whole_MCHW: Any, kind: Kind, geometry: Geometry, plan: Plan) -> list[np.ndarray]:
    """The runs of the pass over the whole image at the size of the joined map, (C, *padded) float32 each."""
    h, w = geometry.resized
    to, padded = plan.geometry.resized, plan.geometry.padded
    levels = []
    for answer in whole_MCHW:
        level = resize(_one_quantity(arrays.to_numpy(answer), kind)[None, :, :h, :w], to)
        levels.append(arrays.pad(level, 0, padded[1] - to[1], 0, padded[0] - to[0], edge=True)[0])
    return levels


def _one_quantity(raw_CHW: np.ndarray, kind: Kind) -> np.ndarray:
    """The mean of the channels where a task paints one quantity on all of them: nothing else of them is read, or joined."""
    raw = raw_CHW.astype(np.float32, copy=False)
    return raw.mean(0, keepdims=True) if kind.gray else raw
