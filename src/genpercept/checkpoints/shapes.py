"""Networks of their shapes alone, for dry runs: nothing is read but names and shapes, and nothing takes memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import torch

_WANTED = ContextVar("shapes_wanted", default=False)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Within, weight files are checked by their headers and parts are modules on the meta device."""
    token = _WANTED.set(True)
    try:
        yield
    finally:
        _WANTED.reset(token)


def wanted() -> bool:
    """Whether this is within `shapes_only`."""
    return _WANTED.get()


def memory() -> AbstractContextManager[object]:
    """Where new modules are made: on the meta device within `shapes_only`, else where they always are."""
    return torch.device("meta") if wanted() else nullcontext()
