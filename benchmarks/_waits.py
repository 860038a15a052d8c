"""Counts where the host would wait for a GPU, on any device."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_OPERATIONS = ("_local_scalar_dense", "nonzero", "masked_select", "equal")
_INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")


class Waits(TorchDispatchMode):
    """Within `with`, `count` is of numbers and lists read from tensors, and of shapes that depend on values."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self._lists = _Lists(self)

    def __enter__(self) -> Self:
        self._lists.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        self._lists.__exit__(*raised)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in _INDEXING and any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1])
        self.count += by_mask or name in _OPERATIONS
        return func(*args, **(kwargs or {}))


class _Lists(TorchFunctionMode):
    """Tensor.tolist, which no dispatcher sees where the tensor lies on the host already."""

    def __init__(self, counted: Waits) -> None:
        super().__init__()
        self._counted = counted

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._counted.count += func is torch.Tensor.tolist
        return func(*args, **(kwargs or {}))
