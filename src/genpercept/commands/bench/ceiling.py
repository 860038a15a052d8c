"""What the machine does at best: the product of two large square matrices."""

from __future__ import annotations

from typing import Any

import torch

from genpercept.commands.bench.clock import timed
from genpercept.commands.bench.setting import Effort
from genpercept.core import dtypes

_SIZES = {"cuda": (4096, 8192, 16384)}
_CPU_SIZES = (1024, 2048)


def measure(dtype: str, device: str, effort: Effort) -> dict[str, Any]:
    """TFLOP/s of the quickest size in the dtype and threads of now: median of the repeats, 2 n^3 FLOPs each."""
    best: dict[str, Any] = {"tflops": 0.0}
    for n in _SIZES.get(torch.device(device).type, _CPU_SIZES):
        generator = torch.Generator(device).manual_seed(0)
        a, b = (torch.randn(n, n, device=device, generator=generator).to(dtypes.to_torch(dtype)) for _ in "ab")
        out = torch.empty_like(a)

        def product(a: torch.Tensor = a, b: torch.Tensor = b, out: torch.Tensor = out) -> None:
            torch.mm(a, b, out=out)

        times = timed(product, device, Effort(1, 50, effort.matmul_seconds))
        rate = 2 * n**3 / times["median"] / 1e12
        if rate > best["tflops"]:
            best = {"tflops": rate, "size": n, "dtype": dtype, "runs": times["runs"]}
    return best
