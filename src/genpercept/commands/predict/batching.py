"""Which images run together: those that the network sees at one size, as many as memory holds."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from genpercept.commands.files.results import Job
from genpercept.commands.predict.model import Model
from genpercept.commands.predict.space import Beside
from genpercept.core.devices import out_of_memory, set_threads
from genpercept.imaging.prediction import Prediction

# pixels of an image from which it shares no batch: its maps at full size are gigabytes for eight of them
ALONE = 2**24
_AUTO_CPU, _AUTO_ACCELERATOR = 8, 16  # more images at once gain nothing on a CPU, little elsewhere
_SHARE_CPU, _SHARE_ACCELERATOR = 0.5, 0.8  # of the memory that is free; on a CPU other programs want some, too
_UNKNOWN = 4096  # bytes per pixel of a network that does not say: Stable Diffusion's decoder in float32
_WINDOW = 8  # batches' worth of images that wait for others of their size
_WINDOW_BYTES = 2**28


@dataclass(eq=False)
class Item:
    """An image that has been read. padded: (H, W) as the network sees it, None where unknown; version: of its file.

    beside: its camera, and distances that are known.
    """

    job: Job
    image: np.ndarray
    padded: tuple[int, int] | None = None
    version: dict[str, Any] = field(default_factory=dict)
    beside: Beside = field(default_factory=Beside)


Done = tuple[Item, Prediction | dict[str, Prediction]]  # by task, where several are asked for
Failed = tuple[Item, Exception]


class Limits:
    """How many images run at once: at most `most`, and at most `pixels` (None: any number) of what the network sees."""

    def __init__(self, most: int, pixels: int | None = None) -> None:
        self.most, self.pixels = most, pixels

    def capacity(self, padded: tuple[int, int] | None) -> int:
        if self.pixels is None or padded is None:
            return self.most
        return max(1, min(self.most, self.pixels // (padded[0] * padded[1])))

    def shrink(self, tried: int, padded: tuple[int, int] | None) -> int:
        """`tried` did not fit: half of it, remembered for sizes as large."""
        half = max(1, tried // 2)
        if padded is None:
            self.most = min(self.most, half)
        else:
            fits = half * padded[0] * padded[1]
            self.pixels = fits if self.pixels is None else min(self.pixels, fits)
        return half


def limits(model: Model, streams: int) -> Limits:
    """Of the machine's batch size; "auto" takes as many as fit into free memory, split between `streams`."""
    asked = model.machine.batch_size
    if asked != "auto":
        return Limits(asked)
    if model.on_cpu:
        return Limits(_AUTO_CPU, pixels_that_fit(model, streams))
    return Limits(_AUTO_ACCELERATOR, pixels_that_fit(model, 1))


def pixels_that_fit(model: Model, streams: int) -> int | None:
    """Pixels that each of `streams` batches may have at the network's input; None where free memory is unknown."""
    free = free_memory("cpu" if model.on_cpu else model.machine.devices[0])
    share = _SHARE_CPU / model.copies if model.on_cpu else _SHARE_ACCELERATOR
    return None if free is None else int(free * share / streams / bytes_per_pixel(model.load()))


def bytes_per_pixel(pipe: Any) -> int:
    """Of the widest maps at full size, and three more of their kind."""
    channels = _widest(dict(getattr(getattr(pipe, "vae", None), "config", None) or {}))
    if not channels:
        return _UNKNOWN
    return 4 * channels * (pipe.unet_dtype.itemsize if hasattr(pipe, "unet_dtype") else 4)


def _widest(config: dict[str, Any]) -> int:
    """Channels of a codec's widest map at full size: what its encoder begins with, or its decoder has just upsampled.

    0: it does not say.
    """
    from genpercept.models.codecs import ends

    encoder, decoder = ends(config)
    first = encoder.get("encoder_block_out_channels") or encoder.get("block_out_channels") or ()
    last = decoder.get("decoder_block_out_channels") or decoder.get("block_out_channels") or ()
    smaller = 4 ** decoder.get("levels", 0)  # maps of a guided decoder, which leaves its finest levels out
    return max((*first[:1], *(channels // smaller for channels in last[:2])), default=0)


def free_memory(device: str) -> int | None:
    """Bytes that can be had on `device` now; None where nobody says."""
    if device.startswith("cuda") or device == "auto":
        import torch

        if torch.cuda.is_available():
            return torch.cuda.mem_get_info(None if device == "auto" else device)[0]
    found = []
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")]
    with suppress(OSError, ValueError):  # a container's own limit
        group = Path("/sys/fs/cgroup")
        found.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    if not found and "SC_AVPHYS_PAGES" in getattr(os, "sysconf_names", {}):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES"))
    return max(0, min(found)) if found else None


class Buckets:
    """Images in order of reading -> batches of one size each. What comes out depends on the images alone, never on time."""

    def __init__(self, capacity: Callable[[tuple[int, int] | None], int]) -> None:
        self._capacity = capacity
        self._waiting: dict[tuple[int, int] | None, list[Item]] = {}  # by the age of its oldest image
        self._images = self._bytes = 0

    def add(self, item: Item) -> list[list[Item]]:
        """The batches that are full now; where too many images wait, the one that holds the oldest as well."""
        if item.image.shape[0] * item.image.shape[1] >= ALONE:
            return [[item]]
        self._waiting.setdefault(item.padded, []).append(item)
        self._images += 1
        self._bytes += item.image.nbytes
        most = self._capacity(item.padded)
        ready = [self._take(item.padded)] if len(self._waiting[item.padded]) >= most else []
        while self._waiting and (self._images > _WINDOW * most or self._bytes > _WINDOW_BYTES):
            ready.append(self._take(next(iter(self._waiting))))
        return ready

    def flush(self) -> list[list[Item]]:
        return [self._take(padded) for padded in list(self._waiting)]

    def _take(self, padded: tuple[int, int] | None) -> list[Item]:
        batch = self._waiting.pop(padded)
        self._images -= len(batch)
        self._bytes -= sum(item.image.nbytes for item in batch)
        return batch


def run_batch(
    batch: Sequence[Item], model: Model, copy: int, limits: Limits, threads: int
) -> tuple[list[Done], list[Failed]]:
    """The batch's predictions, and what was wrong with those that have none.

    When memory is short, in halves, which later batches remember; when it fails otherwise, one by one, so that only the guilty
    are left out.
    """
    set_threads(threads)
    done: list[Done] = []
    failed: list[Failed] = []
    todo = deque([[*batch]])
    while todo:
        part = todo.popleft()
        padded = part[0].padded
        at_once = min(limits.capacity(padded), limits.most)
        if len(part) > at_once:
            todo.extendleft([part[at_once:], part[:at_once]])
            continue
        try:
            found = model.predict(copy, [item.image for item in part], [item.job.path for item in part], at_once)
            pairs = list(zip(part, found, strict=True))
        except Exception as error:  # noqa: BLE001  whatever a network raises for one image, the others may do well
            rows = at_once if model.several else min(at_once, len(part) * model.request.ensemble_size)
            if out_of_memory(error) and rows > 1:
                limits.shrink(rows, padded)
                _free(error)
                todo.appendleft(part)
            elif len(part) > 1:
                todo.extendleft([item] for item in reversed(part))
            else:
                failed.append((part[0], error))
            continue
        done += pairs
    return done, failed


def _free(error: BaseException) -> None:
    """Let go of what the failed call still holds, by way of its traceback and in the allocator's cache."""
    error.__traceback__ = None
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
