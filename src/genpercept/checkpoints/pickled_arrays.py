"""NumPy arrays in pickles: read by stand-ins for the four names that such an array asks for, without NumPy's own functions.

Some checkpoints keep a small array beside their tensors. Pickled, it is a call of `_reconstruct`, of NumPy's old or new module,
with `ndarray` and a `dtype`, and then its state. Here these names mean functions that take nothing else than what an array of
floats gives them: no objects, no structures, no sizes that its bytes do not have.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

_CODES = ("f2", "f4", "f8")
_ORDERS = ("<", "=", "|", ">")
_MOST_AXES = 8
_ONE_AT_A_TIME = Lock()  # what torch allows, it allows for all threads


class Refused(Exception):
    """What a pickle asks for of these names, and nothing here gives."""


class Dtype:
    """Stands for numpy.dtype: a float of 2, 4 or 8 bytes."""

    def __init__(self, code: object = None, align: object = False, copy: object = True) -> None:
        if code not in _CODES:
            _refuse("an array of something else than floats")
        self.code, self.order = str(code), "="

    def __setstate__(self, state: object) -> None:
        plain = isinstance(state, tuple) and len(state) > 4 and state[1] in _ORDERS and state[2:5] == (None,) * 3
        if not plain:
            _refuse("an array of something else than floats")
        self.order = "=" if state[1] == "|" else state[1]  # type: ignore[index]


class Array:
    """Stands for numpy.ndarray: made by `_reconstruct` alone, and filled by its state."""

    values: np.ndarray | None = None

    def __new__(cls, *_: object) -> Array:
        _refuse("a call of numpy.ndarray")

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            _refuse("an array without its shape, type and bytes")
        _, shape, dtype, columns_first, data = state
        edges = [edge for edge in shape if type(edge) is int and edge >= 0] if isinstance(shape, tuple) else []
        whole = isinstance(shape, tuple) and len(edges) == len(shape) <= _MOST_AXES
        if not whole or type(dtype) is not Dtype or not isinstance(data, bytes | bytearray):
            _refuse("an array without its shape, type and bytes")
        kind = np.dtype(dtype.order + dtype.code)
        if math.prod(edges) * kind.itemsize != len(data):
            _refuse("an array of another size than its bytes")
        self.values = np.frombuffer(data, kind).reshape(edges, order="F" if columns_first else "C")

    def tensor(self) -> Tensor:
        """A copy of the values. ValueError for an array that was never filled."""
        if self.values is None:
            raise ValueError("holds an array without values")
        return torch.from_numpy(np.ascontiguousarray(self.values, self.values.dtype.newbyteorder("=")).copy())


def _reconstruct(kind: object, shape: object, _: object) -> Array:
    if kind is not Array or shape != (0,):
        _refuse("an array of another class")
    return object.__new__(Array)


def _refuse(what: str) -> NoReturn:
    raise Refused(what)


NAMES: list[Any] = [
    (_reconstruct, "numpy.core.multiarray._reconstruct"),
    (_reconstruct, "numpy._core.multiarray._reconstruct"),
    (Array, "numpy.ndarray"),
    (Dtype, "numpy.dtype"),
]


@contextmanager
def readable() -> Iterator[None]:
    """Within, torch's weights_only reader takes arrays, as `Array`."""
    with _ONE_AT_A_TIME, torch.serialization.safe_globals(NAMES):
        yield
