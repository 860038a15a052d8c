"""Latents that a trained model computes for augmented images, kept on disk: what a slim end is distilled on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genpercept.core.rng import generator
from genpercept.models import codecs
from genpercept.training.recipe import DataSet, Recipe
from genpercept.training.samples import encoding, latents, shard_cache
from genpercept.training.samples.augment import augment
from genpercept.training.samples.latents import PrepareRecord, device_of, shards_of, task_code
from genpercept.training.samples.records import Record, cut_off, image_tensor
from genpercept.training.samples.shard_cache import Shards
from genpercept.training.samples.sources import Source

_AHEAD = 32  # records made before they are computed
Answer = Callable[[Tensor], Tensor]  # images (B, 3, H, W) in [-1, 1] -> latents (B, C, h, w) float32


class Answers:
    """One set's. A variant's image is cut anew when it is asked for, always the same; its latent is read."""

    def __init__(self, shards: Shards, cut: Callable[[int, int], Record]) -> None:
        self._shards, self._cut = shards, cut

    def latent(self, index: int, variant: int) -> Tensor:
        """(C, h, w) float32."""
        return torch.from_numpy(self._shards.column("answer", index)[variant].astype(np.float32))

    def image(self, index: int, variant: int) -> Tensor:
        """(3, H, W) in [-1, 1]."""
        return image_tensor(self._cut(index, variant)["image"]) * 2 - 1


def open_answers(
    recipe: Recipe,
    sources: Sequence[Source],
    codec: codecs.Codec,
    key: dict[str, Any],
    prepare: PrepareRecord,
    answer: Answer,
    report: Callable[[str], None],
) -> list[Answers]:
    """The cached latents of every set; computes those that are missing.

    key: what they depend on beside the data, its augmentation and the codec. ValueError for images of several sizes.
    """
    latents.check_one_size(recipe)
    variants = recipe.loader.latent_variants
    device = device_of(codec)
    precision = encoding.precision(recipe.precision, device)
    key = key | {
        "size": recipe.sizes()[0],
        "variants": variants,
        "augment": recipe.augment.model_dump(mode="json"),
        "task": [recipe.task, recipe.task_options, task_code(recipe.task)],
        "seed": recipe.seed,
        "precision": precision,
    }

    def open_one(data: DataSet, source: Source) -> Answers:
        def cut(index: int, variant: int) -> Record:
            record = cut_off(source[index], data.far)
            prepared = prepare(record, generator(recipe.seed, variant, index, "prepare"))
            rng = generator(recipe.seed, variant, index, "augment")
            return augment(prepared, recipe.sizes()[0], recipe.augment, rng)

        def compute_shard(folder: Path, rows: range) -> None:
            def images(row: int) -> list[Tensor]:
                return [image_tensor(cut(row, variant)["image"]) * 2 - 1 for variant in range(variants)]

            stream = (image for made in encoding.made_ahead(images, rows, _AHEAD) for image in made)
            found = encoding.in_batches(answer, stream, device, precision)
            shard_cache.write_shard(folder, {"answer": found.unflatten(0, (len(rows), variants)).numpy()}, {})

        return Answers(shards_of("answers", key, recipe, data, source, codec, compute_shard, report), cut)

    return [open_one(data, source) for data, source in zip(recipe.data, sources, strict=True)]
