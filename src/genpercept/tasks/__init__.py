"""Tasks: how a label becomes the network's target, and how its answer becomes a Prediction. One file each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from genpercept.prediction import Prediction
from genpercept.types import Geometry, Sample, Target


class Task(Protocol):
    name: str
    kind: str  # of the Prediction: fixes shape, range and meaning of its values
    channels: int  # of the label as a codec paints it
    spaces: tuple[str, ...]  # of the raw maps that `decode` takes; see genpercept.heads
    labels: tuple[str, ...]  # the fields of Sample that `encode` reads
    head: str  # the default head
    losses: Mapping[str, float]  # the default losses and their weights; "latent" compares latents, the others pixels
    metric: str

    def encode(self, sample: Sample) -> Target:
        """The label of one sample, physical units -> Target of batch size 1. ValueError that names a sample without it."""
        ...

    def decode(self, raw: Tensor, geometry: Geometry) -> Prediction:
        """Raw map (1, C, *geometry.padded) of one of `spaces` -> Prediction at the image's own size."""
        ...

    def flip(self, map_BCHW: Tensor) -> Tensor:
        """A target or raw map mirrored left to right, with what mirroring does to its values."""
        ...
