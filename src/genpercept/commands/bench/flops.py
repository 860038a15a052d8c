"""FLOPs by counting: torch's FlopCounterMode over the real modules on the meta device, where nothing is computed.

Counted are convolutions, matrix products and attention, 2 FLOPs for a multiplication with its addition. Not counted are
normalisations, activations, softmax, residual additions, resizing and padding. "attention" are the two products of queries with
keys and of weights with values, a part of "total"; torch's counter misses them where they run in the CPU's fused kernel, so
that counts from a real run on the CPU are lower by as much.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from genpercept.commands.bench.build import on_meta
from genpercept.commands.bench.stages import NETWORK, watched
from genpercept.pipeline.call import Run
from genpercept.pipeline.pipeline import GenPerceptPipeline

UNCOUNTED = "normalisations, activations, softmax, additions, resizing and padding"

Count = dict[str, float]


def by_stage(pipe: GenPerceptPipeline, size: tuple[int, int]) -> dict[str, Count]:
    """TFLOPs of one padded image (height, width), one run of the pipeline's own paradigm: {stage: {total, attention}}."""
    twin = on_meta(pipe)
    found: dict[str, Count] = {stage: {"total": 0.0, "attention": 0.0} for stage in NETWORK}

    @contextmanager
    def around(stage: str) -> Iterator[None]:
        with counted(found[stage]):
            yield

    chosen = twin.paradigm()
    with torch.inference_mode(), watched(twin, around):
        twin._forward(torch.empty(1, 3, *size, device="meta"), Run(chosen, twin.default_steps(chosen)), None)
    return found


@contextmanager
def counted(into: Count) -> Iterator[None]:
    """Adds to `into` the TFLOPs of what runs within: "total", and of it "attention"."""
    with FlopCounterMode(display=False) as mode, _Attention() as attention:
        yield
    into["total"] = into.get("total", 0.0) + mode.get_total_flops() / 1e12
    into["attention"] = into.get("attention", 0.0) + attention.flops / 1e12


class _Attention(TorchFunctionMode):
    """Counts the products within scaled_dot_product_attention, which the other counter cannot tell from linear layers'."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            names = ("query", "key", "value")
            q, k, v = (args[i] if len(args) > i else kwargs[name] for i, name in enumerate(names))
            self.flops += 2 * q.shape[:-1].numel() * k.shape[-2] * (q.shape[-1] + v.shape[-1])
        return func(*args, **kwargs)
