"""Where and under which load the demo's figures came about."""

from __future__ import annotations

import os
import time
from typing import Any

from genpercept.commands.bench import machine


class Machine:
    """Begun before the first model is loaded, asked for its facts after the last answer."""

    def __init__(self) -> None:
        self._load, self._start = _load(), time.perf_counter()

    def facts(self, pipe: Any) -> dict[str, str]:
        """By name, in words. pipe: one of those that were timed, which share device and dtype."""
        found = machine.describe(str(pipe.device), 0)
        accelerator = f", {found['accelerator']}" if "accelerator" in found else ""
        facts = {
            "date": time.strftime("%Y-%m-%d"),
            "processor": f"{found['processor']}, {found['cores']} cores",
            "memory": f"{found['memory_gib']} GiB",
            "device": found["device"] + accelerator,
            "threads": found["threads"],
            "dtype": str(pipe.unet_dtype).removeprefix("torch."),
            "load average": f"{self._load} at the start, {_load()} at the end (processes that want a core, over a minute)",
            "demo in all": f"{time.perf_counter() - self._start:.0f} s",
            "system": f"{found['system']}, Python {found['python']}",
            "versions": ", ".join(f"{name} {number}" for name, number in found["versions"].items()),
        }
        return {name: str(value) for name, value in facts.items()}


def _load() -> str:
    return f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown"
