"""A bound on what a config may build: it is in proportion to the weights that are there to fill it.

A module on the meta device takes no memory for its tensors, but a million layers take hours and gigabytes all the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from torch.nn.modules import module as registration

# Beyond what is stored: two codecs are built for a pair of their halves, and a text encoder's weights are put in their
# places, which counts them twice; modules without weights are as many as those with.
_TIMES = 4
_MORE_TENSORS, _MORE_VALUES, _MORE_MODULES = 64, 1 << 22, 512


class Exceeded(Exception):
    """A config builds more than the weights could fill."""


@dataclass
class _Left:
    """What may still be built, and what the weights have."""

    stored: int
    tensors: int
    values: int
    modules: int


_LEFT: ContextVar[_Left | None] = ContextVar("budget", default=None)


@contextmanager
def of(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[None]:
    """Within, modules may register a few times the tensors and values of `shapes`. Exceeded, in one line, for more."""
    values = sum(math.prod(shape) for shape in shapes.values())
    tensors = _TIMES * len(shapes) + _MORE_TENSORS
    left = _Left(len(shapes), tensors, _TIMES * values + _MORE_VALUES, 2 * tensors + _MORE_MODULES)
    with ExitStack() as stack:
        for register, spend in (
            (registration.register_module_parameter_registration_hook, _parameter),
            (registration.register_module_module_registration_hook, _module),
        ):
            stack.callback(register(spend).remove)
        token = _LEFT.set(left)
        stack.callback(_LEFT.reset, token)
        yield


def _parameter(module: Any, name: str, parameter: Any) -> None:
    left = _LEFT.get()  # None in another thread, which builds something else meanwhile
    if left is None or parameter is None:
        return
    left.tensors -= 1
    left.values -= parameter.numel()
    if left.tensors < 0:
        raise Exceeded(f"it says more layers than {left.stored} stored tensors could fill")
    if left.values < 0:
        raise Exceeded(f"it says larger layers than the stored tensors could fill, such as {list(parameter.shape)}")


def _module(module: Any, name: str, submodule: Any) -> None:
    left = _LEFT.get()
    if left is None or submodule is None:
        return
    left.modules -= 1
    if left.modules < 0:
        raise Exceeded(f"it says more layers than {left.stored} stored tensors could fill")
