"""How every kernel is compiled: no GIL, cached on disk, serial, and NaN-safe (scenes use infinity for "no hit")."""

from __future__ import annotations

from typing import Any

JIT: dict[str, Any] = {
    "nogil": True,
    "cache": True,
    "error_model": "numpy",
    "fastmath": {"contract", "arcp", "nsz", "afn"},
}
