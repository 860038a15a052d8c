"""What the loop asks of a stage, in this order: make_batch (beside the step), encode, training_pair, network, loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from genpercept.core.rng import Rng, generator
from genpercept.core.values import Sample, Target
from genpercept.pipeline.pipeline import GenPerceptPipeline
from genpercept.training.recipe import Recipe
from genpercept.training.run.batches import Split
from genpercept.training.samples.augment import augment
from genpercept.training.samples.order import Order
from genpercept.training.samples.records import Record, cut_off, from_sample, to_sample
from genpercept.training.samples.shard_cache import silent
from genpercept.training.samples.sources import Source, open_held_out, open_source

Prepare = Callable[[Sample, np.random.Generator | None], Sample]

_BATCH_KEY = -1  # the "sample" of what is drawn once per batch; no slot has this number


@dataclass
class Batch:
    """One step's data. images (B, 3, H, W) in [-1, 1]; target of that size; latents (B, 4, h, w); tokens (B, n) int64.

    labels: those that a loss is given as they are, such as intrinsics (B, 3, 3), by name (losses.CONTEXT).
    """

    rng: Rng
    images: Tensor | None = None
    target: Target | None = None
    latents: Tensor | None = None
    tokens: Tensor | None = None
    labels: dict[str, Tensor] = field(default_factory=dict)

    def to(self, device: torch.device, channels_last: bool, non_blocking: bool = False) -> Self:
        """On the device; images in the memory layout the network runs in. non_blocking: of pinned batches, see `pinned`."""
        layout = torch.channels_last if channels_last else torch.contiguous_format

        def move(value: Tensor, laid_out: bool) -> Tensor:
            if laid_out:
                return value.to(device, non_blocking=non_blocking, memory_format=layout)
            return value.to(device, non_blocking=non_blocking)

        return self._each(move)

    def pinned(self, channels_last: bool) -> Self:
        """In memory that a GPU copies from beside its work, in the layout that `to` is going to ask for."""
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return self._each(lambda x, laid_out: (x.contiguous(memory_format=layout) if laid_out else x).pin_memory())

    def tensors(self) -> list[Tensor]:
        """All there are."""
        found: list[Tensor] = []

        def note(value: Tensor, laid_out: bool) -> Tensor:
            found.append(value)
            return value

        self._each(note)
        return found

    def _each(self, change: Callable[[Tensor, bool], Tensor]) -> Self:
        """With every tensor changed; of each it is told whether it has a memory layout: images and maps, not masks."""

        def changed(value: Any) -> Any:
            if isinstance(value, Target):
                return replace(value, map=changed(value.map), valid=change(value.valid, False))
            if isinstance(value, dict):
                return {name: changed(one) for name, one in value.items()}
            return change(value, value.ndim == 4) if isinstance(value, Tensor) else value

        return replace(self, **{f.name: changed(getattr(self, f.name)) for f in fields(self)})


@dataclass
class Pair:
    """What goes into the network and what should come out.

    `weight` (B,) scales the sample's loss; `seen` (B,) is what it counts for in losses behind the decoder (None: 1);
    `extra` is what losses are given beside maps (genpercept.training.losses.CONTEXT).
    """

    inputs: tuple[Tensor | None, ...]
    target: Tensor
    valid: Tensor | None = None
    label: Target | None = None
    weight: Tensor | None = None
    seen: Sequence[float] | None = None
    extra: dict[str, Any] = field(default_factory=dict)


Figures = Mapping[str, float]


class Stage(Protocol):
    draw: Draw
    samples: int  # training samples there are

    @property
    def net(self) -> nn.Module:
        """Trained parts and whatever its forward runs; parameters that do not learn have requires_grad False."""
        ...

    def groups(self) -> list[dict[str, Any]]:
        """The optimiser's parameter groups, each with its lr."""
        ...

    def make_batch(self, step: int, slots: Sequence[int]) -> Batch:
        """One pass's data, by a thread or in a worker process, which has no networks (None in their place)."""
        ...

    def encode(self, batch: Batch) -> Batch: ...

    def training_pair(self, batch: Batch) -> Pair: ...

    def loss(self, output: Any, pair: Pair) -> tuple[Tensor, dict[str, Tensor]]:
        """Per-sample loss (B,) float32, and its parts (B,) for the log."""
        ...

    def validate(self, at_once: int) -> tuple[dict[str, float], np.ndarray | None]:
        """Figures and a picture of the network as it stands, `at_once` samples going through it together at most."""
        ...

    def save(self, folder: Path) -> None:
        """The network as it stands, complete, in diffusers' layout."""
        ...


@runtime_checkable
class PredictorStage(Protocol):
    """A stage whose network is a predictor's, or a part of one."""

    def pipeline(self) -> GenPerceptPipeline:
        """The predictor as it stands, over the modules in training."""
        ...


@dataclass
class Making:
    """Makes the batches of one process, numbered through the passes of all steps."""

    stage: Stage
    split: Split

    @property
    def sources(self) -> list[Source]:
        return self.stage.draw.sources

    def __call__(self, number: int) -> Batch:
        step, part = divmod(number, self.split.passes)
        return self.stage.make_batch(step, self.split.slots(part))


class Draw:
    """Augmented records for (step, slots), and the fixed ones for validation.

    prepare: what a task makes of a sample before it is augmented; see `genpercept.tasks.PreparedTask`. labels: that every
    sample must have, those for validation too.
    """

    def __init__(
        self,
        recipe: Recipe,
        report: Callable[[str], None],
        prepare: Prepare | None = None,
        labels: Sequence[str] = (),
    ) -> None:
        self.recipe, self._prepare = recipe, prepare
        loader, data = recipe.loader, recipe.data
        self.sources: list[Source] = [open_source(d, loader, report, labels) for d in data]
        lengths, weights = [len(s) for s in self.sources], [d.weight for d in data]
        self.order = Order(lengths, weights, recipe.seed, loader.batch_size, loader.one_set_per_batch)
        self.samples = sum(lengths)
        self._report = report
        # synthetic scenes are rendered, and never lack anything
        scenes = data[0].name == "synthetic"
        self._held = None if scenes else open_held_out(recipe, report, labels)
        self._validation: list[Record] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_report": silent, "_validation": None, "_held": None}

    def records(self, step: int, slots: Sequence[int]) -> list[Record]:
        size = self.size(step)
        return [self._record(step, slot, size) for slot in slots]

    def size(self, step: int) -> tuple[int, int]:
        """Height and width of all samples of a step: sets whose sizes differ take steps in turn."""
        sizes = self.recipe.sizes(self.order[step, 0][0])
        return sizes[int(generator(self.recipe.seed, step, _BATCH_KEY, "augment").integers(len(sizes)))]

    def heaviest(self, step: int) -> int:
        """The first step from this one on with the most pixels, of a thousand."""
        most = max(h * w for number in range(len(self.recipe.data)) for h, w in self.recipe.sizes(number))
        areas = {}
        for later in range(step, step + 1000):
            areas[later] = math.prod(self.size(later))
            if areas[later] == most:
                break
        return max(areas, key=lambda later: areas[later])

    def _record(self, step: int, slot: int, size: tuple[int, int]) -> Record:
        which, index = self.order[step, slot]
        rng = generator(self.recipe.seed, step, slot, "augment")
        record = cut_off(self.sources[which][index], self.recipe.data[which].far)
        return augment(
            self.prepared(record, generator(self.recipe.seed, step, slot, "prepare")), size, self.recipe.augment, rng
        )

    def prepared(self, record: Record, rng: np.random.Generator | None) -> Record:
        """The record that the task trains on; without `rng`, the one it validates on."""
        return record if self._prepare is None else from_sample(self._prepare(to_sample(record), rng))

    def validation(self) -> list[Record]:
        """The first `validation.count` records of the validation split, cut to the first training size."""
        if self._validation is None:
            options = self.recipe.validation
            data = self.recipe.held_out()
            source = self._held or open_held_out(self.recipe, self._report)
            plain = self.recipe.augment.model_copy(
                update={"flip": 0, "crop": (1.0, 1.0), "colour": 0, "grayscale": 0, "blur": 0, "noise": 0, "jpeg": 0}
            )
            size = self.recipe.sizes()[0]
            count = min(options.count, len(source))
            self._validation = [
                augment(self.prepared(cut_off(source[i], data.far), None), size, plain, generator(0, 0, i, "augment"))
                for i in range(count)
            ]
        return self._validation
