"""Which device to run on, how it computes float32, whether its memory was short, and how many cores and threads there are."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def out_of_memory(error: BaseException) -> bool:
    """Whether this is how Python, or torch on any device, says that memory was short."""
    text = str(error)
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def allow_tf32(on: bool) -> None:
    """Whether NVIDIA's tensor cores may round the factors of float32 products to 10 bits of mantissa (TF32): for the process.

    PyTorch's own default is to do so in convolutions and not in matrix products. Without it, float32 agrees to 1e-5 with the
    CPU's. Nothing else than CUDA devices knows it.
    """
    import torch

    # the newer names of PyTorch (fp32_precision) do not tell these, which its compiler reads, and then it refuses to go on
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on


def pick_device(device: str) -> str:
    """The device: "auto" is the first there is of cuda, mps and cpu. ValueError for another."""
    if device == "cpu":  # is always there, and nobody should wait for torch to say so
        return device
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


def synchronise(device: str | torch.device) -> None:
    """Wait until the device has done what it was given."""
    import torch

    kind = torch.device(device).type
    if kind == "cuda":
        torch.cuda.synchronize(device)
    elif kind == "mps":
        torch.mps.synchronize()


@contextmanager
def threads_kept() -> Iterator[None]:
    """Whatever number of threads torch is told inside, it has its former number afterwards: the caller's own work goes on."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """Threads of an operation: torch's number, where somebody has imported it; else the one that it would begin with."""
    if (torch := sys.modules.get("torch")) is not None:
        return torch.get_num_threads()
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    most = _whole_cores()  # which MKL does not exceed either
    return min(int(said), most) if said.isdecimal() and int(said) > 0 else most


def set_threads(count: int) -> None:
    """Of torch, for what this thread computes from now on; nothing where nobody has imported it."""
    if (torch := sys.modules.get("torch")) is not None and torch.get_num_threads() != count:
        torch.set_num_threads(count)


def _whole_cores() -> int:
    """Cores that this process may use, two threads of one core counted once; `cores` where the system does not tell."""
    try:
        where = [Path(f"/sys/devices/system/cpu/cpu{n}/topology") for n in os.sched_getaffinity(0)]
        told = {tuple((at / name).read_text() for name in ("physical_package_id", "core_id")) for at in where}
    except (OSError, AttributeError):
        return cores()
    return len(told)
