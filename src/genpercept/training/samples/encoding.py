"""What fills a cache of latents: records made by threads, in order, beside the network, which computes batches of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from genpercept.core import dtypes
from genpercept.core.devices import cores

T = TypeVar("T")
U = TypeVar("U")

_MOST = 64  # images of a batch
_PIXELS = {"cpu": 2**18}  # of a batch: what a core's caches still serve; more is slower there
_PIXELS_ELSEWHERE = 2**22  # four gigabytes in Stable Diffusion's encoder at half precision
_BF16 = ("avx512_bf16", "amx_bf16", "bf16")  # what torch calls processors' instructions for it


def precision(name: str, device: torch.device) -> str:
    """A recipe's precision, in which its steps encode; "fp32" where the device would only imitate it, slowly and no better."""
    native = dtypes.autocast(name) is None or device.type != "cpu"
    if not native and name == "bf16":
        found = torch.cpu.get_capabilities()
        native = any(found.get(instruction, False) for instruction in _BF16)
    return name if native else "fp32"


def made_ahead(make: Callable[[T], U], items: Iterable[T], ahead: int) -> Iterator[U]:
    """make(item) of each, in order; threads, one per core, are up to `ahead` items in front of who takes them."""
    threads = cores()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="record")
    waiting: deque[Future[U]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def in_batches(
    compute: Callable[[Tensor], Tensor], images: Iterable[Tensor], device: torch.device, name: str
) -> Tensor:
    """compute(images (n, 3, H, W) on the device) of all images (3, H, W), of one size, as float16 in memory.

    name: the precision that is computed in. How the images are divided depends on their size and the device alone.
    """
    dtype = dtypes.autocast(name)
    parts: list[Tensor] = []
    with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype is not None):
        for batch in _batches(images, device):
            parts.append(compute(batch.to(device, memory_format=torch.channels_last)).half().cpu())
    return torch.cat(parts)


def batch_size(height: int, width: int, device: torch.device) -> int:
    """Images of this size that are computed together."""
    return max(1, min(_MOST, _PIXELS.get(device.type, _PIXELS_ELSEWHERE) // (height * width)))


def _batches(images: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
    waiting: list[Tensor] = []
    for image in images:
        waiting.append(image)
        if len(waiting) == batch_size(image.shape[-2], image.shape[-1], device):
            yield torch.stack(waiting)
            waiting = []
    if waiting:
        yield torch.stack(waiting)
