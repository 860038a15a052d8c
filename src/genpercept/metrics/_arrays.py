"""What the metrics accept, made into numpy: arrays, tensors, `Prediction`s and sets of them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
BoolArray = NDArray[np.bool_]

# What a Prediction's `kind` may be scored as. A disparity scored as depth is aligned in disparity (see `options_for`).
_KINDS = {
    "depth_affine": ("depth",),
    "disparity_affine": ("disparity", "depth"),
    "normals": ("normals",),
}
_SAMPLE_NDIM = {"depth": 2, "disparity": 2, "normals": 3}


def to_numpy(value: Any) -> NDArray[Any]:
    """An array out of an array, a tensor on any device, a nested list or a Prediction (its values)."""
    value = getattr(value, "values", value) if hasattr(value, "kind") else value
    if hasattr(value, "detach"):
        value = value.detach().float().cpu() if value.is_floating_point() else value.detach().cpu()
    array = np.asarray(value)
    if array.dtype == object:
        raise ValueError("expected an array of numbers; got a list of arrays of different sizes or other objects")
    return array


def as_set(task: str, pred: Any, gt: Any, valid: Any) -> tuple[list[Any], list[Any], list[Any]]:
    """One sample or a set -> three lists of the same length. ValueError when the numbers of samples differ."""
    preds, gts = _listed(task, pred), _listed(task, gt)
    valids = [None] * len(gts) if valid is None else _listed(task, valid, mask=True)
    if not len(preds) == len(gts) == len(valids):
        raise ValueError(f"{len(preds)} predictions, {len(gts)} ground truths and {len(valids)} masks: must be as many")
    return preds, gts, valids


def _listed(task: str, value: Any, mask: bool = False) -> list[Any]:
    """A list or tuple is a set, and so is an array with one axis more than a sample has."""
    if isinstance(value, list | tuple):
        return list(value)
    ndim = 2 if mask else _SAMPLE_NDIM.get(task)
    array = to_numpy(value)
    if ndim is not None and array.ndim == ndim + 1 and 1 not in (array.shape[0], array.shape[-1]):
        return list(array)
    return [value]


def options_for(task: str, kinds: set[str], options: dict[str, Any]) -> dict[str, Any]:
    """Check what predictions say they are against the task; disparities scored as depth are aligned in disparity."""
    for kind in sorted(kinds):
        if kind in _KINDS and task not in _KINDS[kind]:
            raise ValueError(f"a prediction of kind {kind!r} cannot be scored as {task!r}: {_KINDS[kind][0]!r} can")
    if task == "depth" and "disparity_affine" in kinds:
        if len(kinds) > 1:
            raise ValueError(f"predictions of different kinds in one set: {', '.join(sorted(kinds))}")
        return {"space": "disparity", **options}
    return options


def as_map(value: Any, what: str, name: str) -> FloatArray:
    """(H, W) float64 out of (H, W), (1, H, W) or (H, W, 1); float32 values are kept exactly."""
    array = to_numpy(value)
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[-1]):
        array = array[0] if array.shape[0] == 1 else array[..., 0]
    if array.ndim != 2:
        raise ValueError(f"{label(name)}{what} has shape {array.shape}: expected (height, width)")
    return array.astype(np.float64)


def as_vectors(value: Any, what: str, name: str) -> FloatArray:
    """(H, W, 3) float32 out of (H, W, 3) or, when the last axis is not 3, (3, H, W)."""
    array = to_numpy(value)
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 3 and array.shape[-1] != 3 and array.shape[0] == 3:
        array = np.moveaxis(array, 0, -1)
    if array.ndim != 3 or array.shape[-1] != 3:
        raise ValueError(f"{label(name)}{what} has shape {array.shape}: expected (height, width, 3)")
    return array.astype(np.float32)


def as_mask(value: Any, shape: tuple[int, ...], name: str) -> BoolArray:
    """(H, W) bool; everything when `value` is None. Numbers are True where they are above 0."""
    if value is None:
        return np.ones(shape, dtype=bool)
    array = to_numpy(value)
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[-1]):
        array = array[0] if array.shape[0] == 1 else array[..., 0]
    same_shape(array.shape, shape, "valid", name)
    return array if array.dtype == bool else array > 0


def same_shape(given: tuple[int, ...], expected: tuple[int, ...], what: str, name: str) -> None:
    """ValueError naming the sample when the sizes differ: nothing is resized silently."""
    if tuple(given) != tuple(expected):
        raise ValueError(f"{label(name)}{what} has shape {tuple(given)}, ground truth {tuple(expected)}: must be equal")


def require_finite(values: FloatArray, name: str) -> None:
    """ValueError naming the sample and how many of the predicted values at valid pixels are NaN or infinite."""
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        raise ValueError(f"{label(name)}prediction has {bad} NaN or infinite values at valid pixels")


def label(name: str) -> str:
    return f"sample {name!r}: " if name else ""


def unique_name(name: str, rows: Mapping[str, Any]) -> str:
    """`name`, or the running number where there is none; ValueError when it is there already."""
    name = name or str(len(rows))
    if name in rows:
        raise ValueError(f"sample {name!r} was given twice")
    return name


def mean_over_images(keys: tuple[str, ...], rows: Mapping[str, dict[str, float]], empty: set[str]) -> dict[str, float]:
    """Mean of each figure over the samples that had a valid pixel; NaN when there is none."""
    used = [row for name, row in rows.items() if name not in empty]
    return {k: float(np.mean([row[k] for row in used])) if used else float("nan") for k in keys}


def choose(what: str, value: str, known: tuple[str, ...]) -> None:
    """ValueError that names the choices, and the nearest one, when `value` is not among them."""
    if value not in known:
        close = difflib.get_close_matches(str(value), known, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"unknown {what} {value!r}: {hint}choose one of {', '.join(known)}")
