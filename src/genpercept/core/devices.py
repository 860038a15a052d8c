"""Which device to run on, whether its memory was short, and how many cores there are."""

from __future__ import annotations

import os


def out_of_memory(error: BaseException) -> bool:
    """Whether this is how Python, or torch on any device, says that memory was short."""
    text = str(error)
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def pick_device(device: str) -> str:
    """The device: "auto" is the first there is of cuda, mps and cpu. ValueError for another."""
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    have = [name for name, is_there in there.items() if is_there]
    if device == "auto":
        return have[0]
    try:
        wanted = torch.device(device)
    except RuntimeError:
        raise ValueError(f"unknown device {device!r}: choose auto, {', '.join(have)}") from None
    if wanted.type not in have or (wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count()):
        raise ValueError(f"device {device!r} is not available here: choose auto, {', '.join(have)}")
    return device


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
