"""Maps are NumPy arrays or torch tensors, and mathematics that is written once serves both.

`space(x)` is NumPy or torch, by what x is: functions that both have under one name are taken from it. What they spell
differently is here. Nothing imports torch for an array: exported models run without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from typing import TypeVar

    Map = TypeVar("Map", np.ndarray, torch.Tensor)


def space(x: Any) -> Any:
    """NumPy for an array, torch for a tensor."""
    return np if isinstance(x, np.ndarray) else torch


def floats(x: Map) -> Map:
    """In float32; the same object where it is already."""
    return x.astype(np.float32, copy=False) if isinstance(x, np.ndarray) else x.float()


def to_numpy(x: np.ndarray | torch.Tensor) -> np.ndarray:
    """A tensor's values, from whatever device; they share memory where they can. An array as it is."""
    return x if isinstance(x, np.ndarray) else x.cpu().numpy()


def on_cpu(x: Map) -> Map:
    """In main memory; the same object where it is there already."""
    return x if isinstance(x, np.ndarray) else x.cpu()


def like(x: Map, values: np.ndarray) -> Map:
    """`values` as what x is: an array, or a tensor on its device, which shares their memory on the CPU."""
    if isinstance(x, np.ndarray):
        return values
    return torch.from_numpy(values).to(x.device)


def pad(x_BCHW: Map, left: int, right: int, top: int, bottom: int, *, edge: bool = False) -> Map:
    """With so many columns and rows more on each side: zeros, or copies of the edge."""
    if isinstance(x_BCHW, np.ndarray):
        sides = (*((0, 0),) * (x_BCHW.ndim - 2), (top, bottom), (left, right))
        return np.pad(x_BCHW, sides, mode="edge" if edge else "constant")
    return F.pad(x_BCHW, (left, right, top, bottom), mode="replicate" if edge else "constant")


def length(n_CHW: Map) -> Map:
    """Of vectors of three components, (H, W)."""
    x, y, z = n_CHW
    if isinstance(n_CHW, np.ndarray):
        return np.sqrt(x * x + y * y + z * z)
    return (x * x).addcmul_(y, y).addcmul_(z, z).sqrt_()


def normalised(n_BCHW: Map) -> Map:
    """Vectors along the channels at length 1, as F.normalize has it; those that are all but zero stay so."""
    if isinstance(n_BCHW, np.ndarray):
        return n_BCHW / np.maximum(np.sqrt(np.square(n_BCHW).sum(1, keepdims=True)), np.float32(1e-12))
    return F.normalize(n_BCHW, dim=1)


def add_product(out_MN: Map, a_MK: Map, b_KN: Map) -> None:
    """out += a @ b, in place."""
    if isinstance(out_MN, np.ndarray):
        out_MN += a_MK @ b_KN
    else:
        out_MN.addmm_(a_MK, b_KN)
