"""How every kernel is compiled: no GIL, cached on disk, serial, and NaN-safe (scenes use infinity for "no hit")."""

from __future__ import annotations

from typing import Any

from numba.core import event

from genpercept.core import said

JIT: dict[str, Any] = {
    "nogil": True,
    "cache": True,
    "error_model": "numpy",
    "fastmath": {"contract", "arcp", "nsz", "afn"},
}


class _Saying(event.Listener):
    """Says, where a kernel of ours is compiled and not found on disk, why nothing seems to happen."""

    def on_start(self, event: event.Event) -> None:
        if event.data and event.data["dispatcher"].py_func.__module__.startswith(__package__):
            said.once("compiling the synthetic world's kernels, once; later runs find them on disk")

    def on_end(self, event: event.Event) -> None:
        """Nothing to say."""


event.register("numba:compile", _Saying())
