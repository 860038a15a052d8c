"""What the benchmarks of forms of one model share: the network's clock, without reading or writing, in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from genpercept.pipeline.call import Run


@torch.inference_mode()
def seconds(pipe: Any, pictures: Sequence[Tensor]) -> float:
    """Mean seconds of an image; pictures (1, 3, H, W) in [0, 1] as the network sees them, one by one."""
    run = Run(pipe.paradigm(), 1)
    start = time.perf_counter()
    for picture in pictures:
        pipe._forward(picture, run, None)
    return (time.perf_counter() - start) / len(pictures)


def in_turns(pipes: Mapping[str, Any], pictures: Mapping[str, Sequence[Tensor]], rounds: int) -> dict[str, float]:
    """Seconds per image of each, the median of the rounds after one that is not counted.

    In each round every one has its turn, so that a machine that slows down slows all of them.
    """
    found: dict[str, list[float]] = {name: [] for name in pipes}
    for _ in range(rounds + 1):
        for name, pipe in pipes.items():
            found[name].append(seconds(pipe, pictures[name]))
    return {name: statistics.median(taken[1:]) for name, taken in found.items()}
