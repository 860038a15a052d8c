"""What tables of speed are read by: the ceiling of matrix products, and Depth Anything V2-L, both of the same run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from genpercept.commands.bench import ceiling, peers
from genpercept.commands.bench.setting import Effort, Setting

RULER = "depth-anything-v2-large"


def ceilings(dtypes: Sequence[str] = ("fp32",), device: str = "cpu") -> dict[str, float]:
    """TFLOP/s of the quickest product of two square matrices in each dtype, in the threads of now."""
    return {dtype: ceiling.measure(dtype, device, Effort())["tflops"] for dtype in dtypes}


def ceilings_line(found: dict[str, float]) -> str:
    """A sentence for the head of a page."""
    figures = ", ".join(f"{tflops:.3g} TFLOP/s in {dtype}" for dtype, tflops in found.items())
    return f"Quickest product of two square matrices in this run: {figures}."


def ruler(dtypes: Sequence[str] = ("fp32",), rounds: int = 3, device: str = "cpu") -> list[dict[str, Any]]:
    """Depth Anything V2-L's network on an image of 518 x 518, random weights, in each dtype, as `genpercept bench` has it."""
    return [
        peers.measure(peers.find(RULER), Setting(dtype=dtype, device=device), Effort(repeats=rounds)) | {"dtype": dtype}
        for dtype in dtypes
    ]


def ruler_lines(rows: Sequence[dict[str, Any]], ceilings: dict[str, float]) -> list[str]:
    """A table of its own: its network sees another size than the rows that are read by it."""
    lines = ["| ruler | dtype | sees, px | M parameters | s / image | quartiles | runs | TFLOP | of the ceiling |"]
    lines.append("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row in rows:
        times, limit = row["network"], ceilings[row["dtype"]]
        spread = f"{times['low']:.3g} to {times['high']:.3g}"
        cells = ["Depth Anything V2-L", row["dtype"], str(row["edge"]), f"{row['parameters'] / 1e6:.1f}"]
        cells += [f"{times['median']:.3g}", spread, str(times["runs"]), f"{row['tflops']:.3g}"]
        cells.append(f"{row['tflops'] / times['median'] / limit:.0%}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines
