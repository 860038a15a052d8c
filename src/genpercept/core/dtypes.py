"""Types of numbers: the names that people type, torch's, and those of the file formats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from genpercept.core.options import check_choice

if TYPE_CHECKING:  # torch takes a second to import, and a command's --help needs none of it
    import torch


class Float(NamedTuple):
    """A floating-point type that networks compute in."""

    name: str  # as people type it
    torch: str  # torch's name, and NumPy's where it has the type
    safetensors: str
    openvino: str


FLOATS = (
    Float("fp32", "float32", "F32", "f32"),
    Float("bf16", "bfloat16", "BF16", "bf16"),
    Float("fp16", "float16", "F16", "f16"),
)
NAMES = tuple(row.name for row in FLOATS)
TORCH_NAMES = tuple(row.torch for row in FLOATS)
_STORED = {row.safetensors: row.torch for row in FLOATS} | {"F64": "float64", "I64": "int64", "BOOL": "bool"}


def check(name: str, choices: Sequence[str] = NAMES, what: str = "dtype") -> None:
    """ValueError with the choices unless `name` is one of them. what: what the name is given for, as the error calls it."""
    check_choice(what, name, choices)


def to_torch(name: str) -> torch.dtype:
    """torch's type of either name: "fp16" and "float16" are one. ValueError for an unknown name."""
    import torch

    return getattr(torch, _row(name).torch)


def autocast(name: str) -> torch.dtype | None:
    """What torch.autocast computes in; None for fp32, which needs none. ValueError for an unknown name."""
    return None if _row(name).name == "fp32" else to_torch(name)


def torch_name(dtype: torch.dtype | str) -> str:
    """torch's name of a type, such as "float32", also of what people call "fp32"; another name stays as it is."""
    name = str(dtype).removeprefix("torch.")
    return next((row.torch for row in FLOATS if row.name == name), name)


def from_safetensors(name: str) -> str:
    """torch's name of what a file calls "F16"; a type that has no place here keeps the file's name."""
    return _STORED.get(name, name)


def to_openvino(dtype: torch.dtype | str | None) -> str:
    """What OpenVINO calls the type it is to compute in; float32 for None, and for types that it does not compute in."""
    return next((row.openvino for row in FLOATS if row.torch == torch_name(str(dtype))), FLOATS[0].openvino)


def _row(name: str) -> Float:
    check(name, (*NAMES, *TORCH_NAMES))
    return next(row for row in FLOATS if name in (row.name, row.torch))
