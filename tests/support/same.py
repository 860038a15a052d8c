"""Whether two samples are one in every value."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from genpercept.core.values import Sample


def same(a: Any, b: Any) -> bool:
    """In type and value: NaN is NaN, and 0 is not -0."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and same(a.numpy(), b.numpy())
    if isinstance(a, np.ndarray):
        if a.dtype.kind != "f":
            return a.dtype == b.dtype and np.array_equal(a, b)
        signs = (np.signbit(x) & ~np.isnan(x) for x in (a, b))
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True) and np.array_equal(*signs)
    if isinstance(a, dict):
        return type(a) is type(b) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


def assert_same(a: Sample, b: Sample) -> None:
    for f in dataclasses.fields(Sample):
        assert same(getattr(a, f.name), getattr(b, f.name)), f.name
