"""How many samples at once fit an accelerator's memory: found out by trying, before the first step."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from genpercept.core.devices import out_of_memory
from genpercept.training.recipe import Optim

ADVICE = "try smaller augment.sizes, precision bf16, speed.checkpointing = true or optim.kind 8bit"
_STATE_BYTES = {"8bit": 2}  # that an optimiser keeps of a parameter
_MOMENTS = 8  # of the others, two float32; Muon keeps one of matrices


def limited(device: torch.device) -> bool:
    """Whether the device has a memory of its own, which is soon full. A CPU's is not told to be full; it swaps."""
    return device.type != "cpu"


def largest(rehearse: Callable[[int], None], share: int, anywhere: Callable[[bool], bool]) -> int:
    """share, or half of it, a quarter and so on, rounded up: the first with which no process runs out of memory.

    rehearse: a step's work with so many samples at once. anywhere: whether what is so here is so in any process. ValueError
    where not even one sample fits.
    """
    size = share
    while anywhere(_fails(rehearse, size)):
        if size == 1:
            raise ValueError(f"loader.micro_batch: one sample at a time does not fit into memory; {ADVICE}")
        size = -(-size // 2)
    return size


def _fails(rehearse: Callable[[int], None], size: int) -> bool:
    failed = False
    try:
        rehearse(size)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        failed = True
    gc.collect()  # the error's frames held the tensors
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return failed


@contextmanager
def rehearsal(net: nn.Module, optimiser: torch.optim.Optimizer, options: Optim) -> Iterator[None]:
    """With as much memory taken as the optimiser is going to keep; afterwards the network is as it was.

    Batch normalisation neither learns nor waits for the other processes, which may have failed.
    """
    learning = [p for p in net.parameters() if p.requires_grad]
    each = 0 if optimiser.state else _STATE_BYTES.get(options.kind, _MOMENTS)
    taken = [torch.empty(each * p.numel(), dtype=torch.uint8, device=p.device) for p in learning]
    still = [module for module in net.modules() if isinstance(module, _BatchNorm) and module.training]
    for module in still:
        module.eval()
    try:
        yield
    finally:
        taken.clear()
        for module in still:
            module.train()
        for p in learning:
            p.grad = None


@contextmanager
def explained(step: int, at_once: int) -> Iterator[None]:
    """ValueError in one line for a step that runs out of memory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        smaller = f"set loader.micro_batch = {-(-at_once // 2)}" if at_once > 1 else ADVICE
        raise ValueError(
            f"step {step}: out of memory with {at_once} sample{'s' if at_once > 1 else ''} at once; {smaller}, and go on"
            " with --resume"
        ) from None
