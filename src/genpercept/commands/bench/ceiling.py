"""What the machine does at best: the product of two large square matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from genpercept.commands.bench.clock import timed
from genpercept.commands.bench.setting import Effort
from genpercept.core import dtypes

_SIZES = {"cuda": (4096, 8192, 16384)}
_CPU_SIZES = (1024, 2048)


def sizes(device: str, least: int = 0) -> tuple[int, ...]:
    """Rows of the matrices that a device is measured with, smallest first. least: smaller ones before them, from it on."""
    usual = _SIZES.get(torch.device(device).type, _CPU_SIZES)
    smaller = [n for n in (usual[0] >> k for k in range(usual[0].bit_length(), 0, -1)) if least and n >= least]
    return (*smaller, *usual)


def measure(dtype: str, device: str, effort: Effort, rows: Sequence[int] | None = None) -> dict[str, Any]:
    """TFLOP/s of the quickest size in the dtype and threads of now: median of the repeats, 2 n^3 FLOPs each.

    rows: the sizes; None: those of the device.
    """
    best: dict[str, Any] = {"tflops": 0.0}
    for n in rows or sizes(device):
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
