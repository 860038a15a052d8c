"""What the benchmarks of forms of one model share: the network's clock, without reading or writing, and the machine's name."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genpercept._bench.machine import processor
from genpercept._runs import Run


@torch.inference_mode()
def seconds(pipe: Any, pictures: Sequence[Tensor]) -> float:
    """Mean seconds of an image; pictures (1, 3, H, W) in [0, 1] as the network sees them, one by one."""
    run = Run(pipe.paradigm(), 1)
    start = time.perf_counter()
    for picture in pictures:
        pipe._forward(picture, run, None)
    return (time.perf_counter() - start) / len(pictures)


def where(threads: int) -> str:
    return f"{threads} threads, {os.cpu_count()} cores of {processor()}"
