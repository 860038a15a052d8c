"""What the metrics accept, made into numpy: arrays, tensors, `Prediction`s and sets of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
BoolArray = NDArray[np.bool_]


def to_numpy(value: Any) -> NDArray[Any]:
    """An array out of an array, a tensor on any device, a nested list or a Prediction (its values)."""
    value = getattr(value, "values", value) if hasattr(value, "kind") else value
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() and value.element_size() < 4 else value  # numpy has no bf16
    array = np.asarray(value)
    if array.dtype == object:
        raise ValueError("expected an array of numbers; got a list of arrays of different sizes or other objects")
    return array


def as_set(ndim: int | None, pred: Any, gt: Any, valid: Any) -> tuple[list[Any], list[Any], list[Any]]:
    """One sample (of `ndim` axes, where that is known) or a set -> three lists of the same length.

    ValueError when the numbers of samples differ.
    """
    preds, gts = _listed(ndim, pred), _listed(ndim, gt)
    valids = [None] * len(gts) if valid is None else _listed(2, valid)
    if not len(preds) == len(gts) == len(valids):
        raise ValueError(f"{len(preds)} predictions, {len(gts)} ground truths and {len(valids)} masks: must be as many")
    return preds, gts, valids


def extras_for(taken: Collection[str], extras: Mapping[str, Any], one: bool, count: int) -> list[dict[str, Any]]:
    """Further keywords of each `update` out of those of the whole call: {"trimap": [a, b]} -> [{"trimap": a}, ...].

    taken: what the metric takes. one: the call was for one sample, whose extras are not lists. A text is the same for all
    samples. ValueError for what this metric does not take, and for lists of another length.
    """
    given = {key: value for key, value in extras.items() if value is not None}
    for key, value in given.items():
        if key not in taken:
            has = f"it takes {', '.join(taken)}" if taken else "it takes the mask valid= alone"
            raise ValueError(f"this metric takes no {key}=: {has}")
        if not one and not isinstance(value, str) and len(value) != count:
            raise ValueError(f"{key}= has {len(value)} entries for {count} samples: must be as many")
    each = one or count == 0
    return [{key: v if each or isinstance(v, str) else v[i] for key, v in given.items()} for i in range(count)]


def _listed(ndim: int | None, value: Any) -> list[Any]:
    """A list or tuple is a set, and so is an array with one axis more than a sample has."""
    if isinstance(value, list | tuple):
        return list(value)
    array = to_numpy(value)
    if ndim is not None and array.ndim == ndim + 1 and 1 not in (array.shape[0], array.shape[-1]):
        return list(array)
    return [value]


def as_map(value: Any, what: str, name: str) -> FloatArray:
    """(H, W) float64 out of (H, W), (1, H, W) or (H, W, 1); float32 values are kept exactly."""
    return squeezed(to_numpy(value), what, name).astype(np.float64)


def squeezed(array: NDArray[Any], what: str, name: str) -> NDArray[Any]:
    """(H, W), of its own type, out of (H, W), (1, H, W) or (H, W, 1)."""
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[-1]):
        array = array[0] if array.shape[0] == 1 else array[..., 0]
    if array.ndim != 2:
        raise ValueError(f"{label(name)}{what} has shape {array.shape}: expected (height, width)")
    return array


def as_ids(value: Any, what: str, name: str) -> NDArray[np.int64]:
    """(H, W) int64 out of whole numbers of any type. ValueError for fractions, NaN and infinite values."""
    array = squeezed(to_numpy(value), what, name)
    if array.dtype.kind == "f":
        whole = np.isfinite(array) & (array == np.rint(array))
        if not whole.all():
            bad = int(np.count_nonzero(~whole))
            raise ValueError(f"{label(name)}{what} has {bad} values that are no whole numbers: class ids are expected")
    elif array.dtype.kind not in "uib":
        raise ValueError(f"{label(name)}{what} holds {array.dtype} values: class ids are expected")
    return array.astype(np.int64)


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


def as_bools(value: Any, shape: tuple[int, ...], what: str, name: str) -> BoolArray:
    """Bool of that very shape. Numbers are True where they are above 0."""
    array = to_numpy(value)
    if array.shape != shape:
        raise ValueError(f"{label(name)}{what} has shape {array.shape}: expected {shape}")
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


def join_rows(total: Any, part: Any) -> None:
    """Rows and empty samples of another metric of the same options into `total`'s. ValueError for one that both have."""
    for name in part.rows:
        unique_name(name, total.rows)
    total.rows.update(part.rows)
    total.empty |= part.empty


def mean_over_images(keys: tuple[str, ...], rows: Mapping[str, dict[str, float]], empty: set[str]) -> dict[str, float]:
    """Mean of each figure over the samples that had a valid pixel; NaN when there is none."""
    used = [row for name, row in rows.items() if name not in empty]
    return {k: float(np.mean([row[k] for row in used])) if used else float("nan") for k in keys}
