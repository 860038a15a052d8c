"""What a written graph is checked with: ten images, and how far its raw maps are from the pipeline's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from genpercept.commands.files.inputs import gather
from genpercept.core.values import to_tensor
from genpercept.imaging.read import read
from genpercept.pipeline.call import Run
from genpercept.pipeline.exported import ExportedPipeline
from genpercept.pipeline.pipeline import GenPerceptPipeline

COUNT = 10
_NATIVE = 256  # longest edge of drawn images for models that work at the image's own size
_ASPECTS = (4 / 3, 3 / 4, 1.0, 16 / 9, 3 / 2, 9 / 16, 5 / 4, 2.0, 2 / 3, 7 / 5)
_MOST = 1e-3  # difference, of the largest raw value, from which a float32 graph is taken for wrong


def images(pipe: GenPerceptPipeline, paths: Sequence[str | Path] = ()) -> list[Tensor]:
    """Ten images padded for the pipeline, (1, 3, H, W) in [0, 1]: the first of the files and folders `paths`, or drawn ones.

    ValueError where `paths` hold none, or one that cannot be read.
    """
    found: list[Tensor] = []
    if paths:
        given = gather([str(path) for path in paths])
        if given.problems or not given.files:
            line = f"{paths[0]}: no images there; pass files or folders of them"
            raise ValueError(given.problems[0] if given.problems else line)
        found = [to_tensor(read(file)) for file in given.files[:COUNT]]
    else:
        found = [_drawn(number, pipe.resolution or _NATIVE) for number in range(COUNT)]
    plans = [pipe.geometry((x.shape[-2], x.shape[-1])) for x in found]
    return [plan.apply(x) for plan, x in zip(plans, found, strict=True)]


def _drawn(number: int, longest: int) -> Tensor:
    """Smooth colours, rectangles in front of them, and noise: edges and gradients of every direction. (1, 3, H, W)."""
    draw = torch.Generator().manual_seed(number)
    aspect = _ASPECTS[number % len(_ASPECTS)]
    h, w = (longest, max(1, round(longest * aspect))) if aspect < 1 else (max(1, round(longest / aspect)), longest)
    x = F.interpolate(torch.rand(1, 3, 5, 5, generator=draw), (h, w), mode="bicubic", align_corners=True)
    for _ in range(6):
        top, left, height, width = (float(v) for v in torch.rand(4, generator=draw))
        rows = slice(int(top * h), int(top * h) + 1 + int(height * h / 2))
        columns = slice(int(left * w), int(left * w) + 1 + int(width * w / 2))
        x[..., rows, columns] = torch.rand(1, 3, 1, 1, generator=draw)
    return (x + 0.03 * torch.randn(x.shape, generator=draw)).clamp(0, 1)


@torch.inference_mode()
def compare(pipe: GenPerceptPipeline, written: ExportedPipeline, pictures: Sequence[Tensor]) -> dict[str, Any]:
    """Largest and mean difference of the raw maps from the pipeline's, and their largest value. In float32."""
    run = Run(pipe.paradigm(), 1)
    worst = total = largest = 0.0
    count = 0
    for image in pictures:
        want = GenPerceptPipeline._forward(pipe, image, run, None)
        apart = (written._forward(image, run, None) - want).abs()
        worst, largest = max(worst, float(apart.max())), max(largest, float(want.abs().max()))
        total, count = total + float(apart.double().sum()), count + apart.numel()
    return {"images": len(pictures), "largest": worst, "mean": total / count, "largest_value": largest}


def refuse_wrong(name: str, dtype: str, found: dict[str, Any]) -> None:
    """ValueError where a float32 graph does not give the pipeline's answers, or one of any dtype gives none."""
    if not math.isfinite(found["mean"]) or (
        dtype == "fp32" and found["largest"] > _MOST * max(1.0, found["largest_value"])
    ):
        raise ValueError(
            f"{name}: the written graph is {found['largest']:.2g} away from the pipeline on {found['images']} images, "
            f"whose raw maps reach {found['largest_value']:.2g}: nothing was kept; use another dtype, or the pipeline"
        )
