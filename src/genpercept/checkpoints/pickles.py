"""Pickled weights, where they are allowed: read as tensors and nothing else.

A pickle can run code when it is read. torch's weights_only reader builds tensors and plain containers, and refuses the rest.
Arrays of floats become tensors (pickled_arrays).
"""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genpercept.checkpoints import pickled_arrays

_DISALLOWED = re.compile(r"(?:GLOBAL|global|class|call|function)\s+[`'\"]?([A-Za-z_][\w.]*)")
_DAMAGED = (RuntimeError, OSError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError)


def read_tensors(path: Path, *, shapes_only: bool = False) -> dict[str, Tensor]:
    """Tensors by name, on the CPU, in the dtype they are stored in; a training framework's `state_dict` is unwrapped.

    shapes_only: on the meta device, so that no weights come into memory. ValueError for a pickle that holds or asks for
    anything but tensors, and for a damaged one.
    """
    options: dict[str, Any] = {"mmap": True, "map_location": "meta"} if shapes_only else {"map_location": "cpu"}
    return _tensors(path, _read(path, **options))


def read_content(path: Path) -> dict[str, Any]:
    """A pickled dictionary as it is: tensors and plain values by name, arrays as tensors. ValueError as `read_tensors` has it.

    Tensors lie in the mapped file and take no memory until they are used: copy what is kept.
    """
    content = _read(path, mmap=True, map_location="cpu")
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ValueError(f"{path}: holds a {type(content).__name__}, not values by name")
    try:
        return {k: v.tensor() if isinstance(v, pickled_arrays.Array) else v for k, v in content.items()}
    except ValueError as error:
        raise ValueError(f"{path}: {error}; copy or download it again") from None


def _read(path: Path, **options: Any) -> Any:
    if not zipfile.is_zipfile(path):
        options.pop("mmap", None)  # torch maps only its zip format
    try:
        with pickled_arrays.readable():
            return torch.load(path, weights_only=True, **options)
    except pickled_arrays.Refused as error:
        raise _refused(path, f"it asks for {error}") from None
    except pickle.UnpicklingError as error:
        found = _DISALLOWED.search(str(error))
        raise _refused(path, f"it asks for {found[1]}" if found else "it is no plain pickle of tensors") from None
    except _DAMAGED as error:
        raise ValueError(f"{path}: not a readable pickle ({_first_line(error)}); copy or download it again") from None


def _refused(path: Path, what: str) -> ValueError:
    return ValueError(
        f"{path}: refused: {what}, and nothing but tensors is read; get safetensors, from where you trust"
    )


def _tensors(path: Path, content: Any) -> dict[str, Tensor]:
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path}: holds a {type(content).__name__}, not tensors by name; it is no file of weights")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.layout != torch.strided:
            kind = "NumPy array" if isinstance(value, pickled_arrays.Array) else type(value).__name__
            raise ValueError(f"{path}: its entry {name!r} is a {kind}, not a plain tensor")
    return {name: value.detach() if value.is_meta else value.detach().clone() for name, value in content.items()}


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].partition(". ")[0][:120] if lines else type(error).__name__
