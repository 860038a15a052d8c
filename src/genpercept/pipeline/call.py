"""What the pipeline's call is made of beside the networks: its settings checked, batches, and merged runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genpercept.core.rng import Window
from genpercept.core.values import Geometry, resize
from genpercept.imaging.kinds import KINDS
from genpercept.imaging.prediction import Prediction
from genpercept.models.codecs import Codec
from genpercept.models.paradigms import Paradigm
from genpercept.pipeline import ensemble
from genpercept.pipeline.tiles.plan import Tiling
from genpercept.tasks import MergingTask, Task

IDENTITY_AXES = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


@dataclass(frozen=True)
class Run:
    """How an image is predicted: `members` runs of `steps` steps each, merged; mirrored ones beside them with flip_test.

    seeds: of the noise, by image. Empty: 0 for all. windows: images are tiles of a larger one, in whose noise they share;
    empty: they are not. sizes: of the images without their padding; empty: they have none.
    """

    paradigm: Paradigm
    steps: int
    seeds: Sequence[int] = ()
    members: int = 1
    batch_size: int = 1
    flip_test: bool = False
    windows: Sequence[Window] = ()
    sizes: Sequence[tuple[int, int]] = ()

    def by_image(self, latents: Tensor, geometries: Sequence[Geometry], codec: Codec) -> Tensor:
        """`latents` of all runs -> (images, runs, C, h, w). ValueError where their shape is not the images'."""
        sizes = {tuple(edge // codec.stride for edge in g.padded) for g in geometries}
        if len(sizes) != 1:
            raise ValueError(f"latents for images of {len(sizes)} different padded sizes: pass one size at a time")
        wanted = (len(geometries) * self.members, self.paradigm.label_channels(codec.channels), *sizes.pop())
        if tuple(latents.shape) != wanted:
            raise ValueError(
                f"latents {list(latents.shape)}: must be {list(wanted)}, "
                f"one for each of {len(geometries)} images x {self.members} runs"
            )
        return latents.unflatten(0, (len(geometries), self.members))


def seeds_of(generator: torch.Generator | Sequence[torch.Generator] | None, images: int) -> list[int]:
    """Seeds by image: of its own generator in a list, or of the one for all, or 0. ValueError for a list of another length."""
    if generator is None:
        return [0] * images
    if isinstance(generator, torch.Generator):
        return [generator.initial_seed()] * images
    if len(generator) != images:
        raise ValueError(
            f"generator: a list of {len(generator)} for {images} images: pass one for each, or one for all"
        )
    return [each.initial_seed() for each in generator]


def check_runs(
    paradigm: Paradigm,
    ensemble_size: int,
    latents: Tensor | None = None,
    options: dict[str, Any] | None = None,
    batch_size: int = 1,
) -> None:
    """ValueError for an ensemble of no runs, for one or noise where none is drawn, for options without an ensemble, and for
    batches of nothing.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1")
    if ensemble_size < 1:
        raise ValueError(f"ensemble_size={ensemble_size}: must be at least 1")
    if not paradigm.stochastic and ensemble_size != 1:
        raise ValueError(
            f"ensemble_size={ensemble_size}: {paradigm.name} is deterministic, every run would be the same; leave it at 1"
        )
    if not paradigm.stochastic and latents is not None:
        raise ValueError(f"latents: {paradigm.name} starts from the image, not from noise; leave them out")
    if options and ensemble_size == 1:
        more = ", or raise ensemble_size" if paradigm.stochastic else ""
        raise ValueError(
            f"ensembling_kwargs={options}: says how runs are merged, but ensemble_size is 1: leave it out{more}"
        )


def merging(info: Mapping[str, Any], ensemble_size: int, options: dict[str, Any] | None) -> dict[str, Any]:
    """How runs are merged: as the model says of itself, and as is asked for."""
    return {**((info.get("ensembling") or {}) if ensemble_size > 1 else {}), **(options or {})}


def whole_or(tiling: Tiling | None, latents: Tensor | None, resize_mode: str | None) -> Tiling | None:
    """The tiling, None where images are seen whole. ValueError for what tiles do not go with."""
    if tiling is not None and (latents is not None or resize_mode == "official"):
        given = "latents" if latents is not None else f"resize_mode={resize_mode!r}"
        raise ValueError(f"{given}: goes with images that are seen whole; leave it or tiles out")
    return tiling


def batches(sizes: Sequence[tuple[int, int]], batch_size: int) -> Iterator[list[int]]:
    """Indices grouped by size, at most batch_size together, in order of first appearance."""
    groups: dict[tuple[int, int], list[int]] = {}
    for i, size in enumerate(sizes):
        groups.setdefault(size, []).append(i)
    for members in groups.values():
        for start in range(0, len(members), batch_size):
            yield members[start : start + batch_size]


def decode(task: Task, raw_MCHW: Any, geometry: Geometry, options: dict[str, Any]) -> Prediction:
    """One run's raw map, an array or a tensor, -> its Prediction; several, tensors, -> their merged one, with its uncertainty.

    Maps are merged at the size the network saw, without its padding, then resized. What has no such map (class ids,
    keypoints) is decoded from the mean of the raw maps; a MergingTask may do it in its own way.
    """
    if len(raw_MCHW) == 1:
        return task.decode(raw_MCHW, geometry)
    if isinstance(task, MergingTask) and (merged_by_task := task.merge_runs(raw_MCHW, geometry)) is not None:
        if options:
            raise ValueError(
                f"ensembling_kwargs={options}: this model's runs are averaged, without options; leave it out"
            )
        return merged_by_task
    kind, mean = KINDS.find(task.kind), raw_MCHW.mean(0, keepdim=True)
    if kind.merge is None:
        return task.decode(mean, geometry)
    seen = geometry.seen(raw_MCHW)
    runs = [task.decode(raw, seen) for raw in raw_MCHW.split(1)]
    arrays = [torch.from_numpy(run.values) for run in runs]
    maps = torch.stack([x.permute(2, 0, 1) if x.ndim == 3 else x[None] for x in arrays])
    merged, spread = ensemble.merge(kind.name, maps, **options)
    values = ensemble.settle(kind.name, geometry.back(merged[None])[0])
    uncertainty = resize(spread.reshape(1, -1, *spread.shape[-2:]), geometry.original)[0].clamp_min(0)
    return Prediction(
        values=(values.permute(1, 2, 0) if len(kind.axes) == 3 else values[0]).numpy(),
        kind=kind.name,
        uncertainty=(uncertainty.permute(1, 2, 0) if spread.ndim == 3 else uncertainty[0]).numpy(),
        raw=mean[0].cpu().numpy(),
        meta=runs[0].meta,
    )


def size_of(image: np.ndarray | Tensor) -> tuple[int, int]:
    """Height and width of an image (H, W, 3) or (1, 3, H, W)."""
    h, w = image.shape[:2] if image.ndim == 3 else image.shape[-2:]
    return int(h), int(w)


def network_input(geometry: Geometry, image: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """An image as `imaging.read` gives it, (H, W, 3), or (1, 3, H, W) in [0, 1] -> (1, 3, *padded), on the device for a GPU."""
    if isinstance(image, Tensor):
        return geometry.apply(image)
    return geometry.apply_array(image) if device.type == "cpu" else geometry.apply(uploaded(image, device))


def uploaded(image_HWC: np.ndarray, device: torch.device) -> Tensor:
    """An image (H, W, 3), uint8 in [0, 255] or float32 in [0, 1] -> (1, 3, H, W) float32 in [0, 1] on the GPU.

    It is sent bytes, a quarter of what floats are, from memory that it reads without the processor; it converts and resizes
    them itself.
    """
    x = torch.from_numpy(image_HWC)
    x = (x.pin_memory() if device.type == "cuda" else x).to(device, non_blocking=True)
    x = x.permute(2, 0, 1)[None].to(torch.float32, memory_format=torch.contiguous_format)
    return x.div_(255) if image_HWC.dtype == np.uint8 else x


def turned(raw_BCHW: Tensor, axes: list[list[float]] | None, kind: str) -> Tensor:
    """Raw maps of directions from the model's axes into ours, by its 3 x 3 matrix (None: as they are)."""
    if not KINDS.find(kind).directions or axes is None or axes == IDENTITY_AXES:
        return raw_BCHW
    return torch.einsum("ij,bjhw->bihw", torch.tensor(axes, dtype=raw_BCHW.dtype, device=raw_BCHW.device), raw_BCHW)


def boxes_by_image(boxes: Any, images: int, single: bool) -> list[np.ndarray | None]:
    """`boxes` as given to the pipeline, by image. ValueError where they are not as many as the images."""
    if boxes is None:
        return [None] * images
    rows = [boxes] if single else list(boxes)
    if len(rows) != images:
        raise ValueError(f"boxes for {len(rows)} images, but {images} images: give one array of boxes for each")
    return [
        None if b is None else np.asarray(b, np.float64).reshape(-1, np.shape(b)[-1] if np.size(b) else 4) for b in rows
    ]
