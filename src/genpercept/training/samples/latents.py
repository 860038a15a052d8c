"""Latents of a set's images, kept on disk: as it is and mirrored, encoded once per codec."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import nn

from genpercept.core.modules import config_of
from genpercept.core.rng import generator
from genpercept.models import codecs
from genpercept.tasks import TASKS
from genpercept.training.recipe import DataSet, Recipe
from genpercept.training.samples import encoding, identity, shard_cache
from genpercept.training.samples.augment import augment, crop, mirror
from genpercept.training.samples.records import Record, cut_off, image_tensor
from genpercept.training.samples.shard_cache import SHARD, Shards
from genpercept.training.samples.sources import Source

# Whose code decides what a record becomes, beside its reader's, the task's and the codec's
_CODE = ("genpercept.training.samples.augment", "genpercept.core.label_rules")
_AHEAD = 32  # records made before they are encoded

# A record -> image (3, H, W) and label map (3, H, W), both in [-1, 1], and the label's validity (1, h, w) at latent resolution.
_Pair = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
EncodePair = Callable[[Record], _Pair]
PrepareRecord = Callable[[Record, np.random.Generator | None], Record]


class _OfModule(Protocol):
    """A codec over the weights of a module, as all are that make latents."""

    module: nn.Module


def _weights(codec: codecs.Codec) -> nn.Module:
    return cast(_OfModule, codec).module


def device_of(codec: codecs.Codec) -> torch.device:
    return next(_weights(codec).parameters()).device


class Latents:
    """latent(i, mirrored) -> (4, h, w) float32, scaled; caption(i)."""

    def __init__(self, shards: Shards, variants: int) -> None:
        self._shards, self._variants = shards, variants

    def latent(self, index: int, mirrored: bool) -> np.ndarray:
        variant = 1 if mirrored and self._variants > 1 else 0
        return self._shards.column("latent", index)[variant].astype(np.float32)

    def caption(self, index: int) -> str:
        return self._shards.caption(index)


def words(source: Source) -> set[str]:
    """Words and marks of a set's captions, in lower case as CLIP's tokenizer reads them."""
    captions = (
        source.captions() if isinstance(source, Shards) else (source[i].get("caption", "") for i in range(len(source)))
    )
    return {word for caption in captions for word in re.findall(r"[a-z]+|[0-9]|[^\sa-z0-9]+", str(caption).lower())}


def check_one_size(recipe: Recipe) -> None:
    """ValueError for a recipe that keeps latents of images of several sizes."""
    kept = {
        "finetune": ("loader.latent_variants = 0", recipe.loader.latent_variants),
        "distil": ("loader.latent_variants = 0", recipe.loader.latent_variants),
        "denoiser": ("denoiser.cached_latents = false", recipe.denoiser.cached_latents),
    }
    without, asked = kept.get(recipe.stage, ("", False))
    if asked and len(recipe.sizes()) > 1:
        raise ValueError(f"augment.sizes: cached latents have one size; name one, or set {without}")


def open_all(
    recipe: Recipe, sources: Sequence[Source], codec: codecs.Codec, report: Callable[[str], None]
) -> list[Latents]:
    """The cached latents of every set; encodes those that are missing. ValueError for settings that need fresh images."""
    check_one_size(recipe)
    return [_open(recipe, data, source, codec, report) for data, source in zip(recipe.data, sources, strict=True)]


def _open(recipe: Recipe, data: DataSet, source: Source, codec: codecs.Codec, report: Callable[[str], None]) -> Latents:
    size, variants = recipe.sizes()[0], recipe.denoiser.variants
    precision = encoding.precision(recipe.precision, device_of(codec))

    def encode_shard(folder: Path, rows: range) -> None:
        _encode_shard(folder, source, rows, size, variants, codec, precision)

    key = {"size": size, "variants": variants, "precision": precision}
    return Latents(shards_of("latents", key, recipe, data, source, codec, encode_shard, report), variants)


def shards_of(
    kind: str,
    key: dict[str, Any],
    recipe: Recipe,
    data: DataSet,
    source: Source,
    codec: codecs.Codec,
    encode_shard: Callable[[Path, range], None],
    report: Callable[[str], None],
) -> Shards:
    """The cache of one set's latents, complete: `encode_shard(folder, rows)` makes the shards that are missing.

    `key` is what the content depends on beside the records and the codec. A shard's name says what its own records are made
    from: where one image was changed, its shard alone is made anew, and the old one is found when it is put back.
    """
    module = _weights(codec)
    key = {
        "source": source.key,
        "far": data.far,
        **key,
        "codec": shard_cache.fingerprint(module),
        "config": {name: value for name, value in config_of(module).items() if not name.startswith("_")},
        "code": identity.code(type(codec).__module__, *_CODE),
    }
    folder = shard_cache.key_folder(recipe.loader.cache_dir, kind, key)
    count = len(source)
    rows = [range(start, min(start + SHARD, count)) for start in range(0, count, SHARD)]
    folders = [
        shard_cache.shard_folder(folder, number, identity.token([source.content(part), len(part)]))
        for number, part in enumerate(rows)
    ]
    missing = shard_cache.missing_shards(folders)
    for done, number in enumerate(missing, 1):
        if not folders[number].is_dir():
            encode_shard(folders[number], rows[number])
        if done % 8 == 0 or done == len(missing):
            report(f"encoded {done * SHARD} of {len(missing) * SHARD} {kind} ({data.called}, {data.split})")
    return Shards(folders, count)


def _encode_shard(
    folder: Path,
    source: Source,
    rows: range,
    size: tuple[int, int],
    variants: int,
    codec: codecs.Codec,
    precision: str,
) -> None:
    """Scaled posterior means as float16 (N, variants, 4, h, w)."""
    captions: list[str] = []

    def views(row: int) -> tuple[list[torch.Tensor], str]:
        record = source[row]
        cut = crop({"image": record["image"]}, size, (1.0, 1.0), generator(0, 0, row, "augment"))
        shown = [cut, mirror(cut)][:variants]
        return [image_tensor(one["image"]) * 2 - 1 for one in shown], str(record.get("caption", ""))

    def images() -> Iterator[torch.Tensor]:
        for shown, caption in encoding.made_ahead(views, rows, _AHEAD):
            captions.append(caption)
            yield from shown

    latent = encoding.in_batches(codec.encode, images(), device_of(codec), precision)
    arrays = {"latent": latent.unflatten(0, (len(rows), -1)).numpy()}
    shard_cache.write_shard(folder, arrays, {"caption": captions})


def task_code(task: str) -> str:
    """Of what makes label maps: a new version of it does not read what an old one made."""
    return identity.code(type(TASKS.find(task)).__module__)


class Pairs:
    """Latents of image and label, encoded once for several augmented variants of each sample."""

    def __init__(self, shards: Shards, variants: int) -> None:
        self._shards, self.variants = shards, variants

    def pair(self, index: int, variant: int) -> tuple[np.ndarray, np.ndarray]:
        """Image and label latents (2, 4, h, w) float32, and where the label's are valid (1, h, w) bool."""
        pair = self._shards.column("pair", index)[variant].astype(np.float32)
        return pair, np.asarray(self._shards.column("valid", index)[variant])


def open_pairs(
    recipe: Recipe,
    sources: Sequence[Source],
    codec: codecs.Codec,
    prepare: PrepareRecord,
    encode: EncodePair,
    report: Callable[[str], None],
) -> list[Pairs]:
    """The cached pairs of every set; encodes those that are missing.

    prepare: a record to the one to train on. encode: an augmented record to image, label map and validity.
    """
    check_one_size(recipe)
    variants = recipe.loader.latent_variants
    precision = encoding.precision(recipe.precision, device_of(codec))
    key = {
        "size": recipe.sizes()[0],
        "variants": variants,
        "precision": precision,
        "augment": recipe.augment.model_dump(mode="json"),
        "task": [recipe.task, recipe.task_options, task_code(recipe.task)],
        "seed": recipe.seed,
    }

    def pairs_of(data: DataSet, source: Source, row: int) -> list[_Pair]:
        """Of each variant of a record."""
        record, found = cut_off(source[row], data.far), []
        for variant in range(variants):
            prepared = prepare(record, generator(recipe.seed, variant, row, "prepare"))
            rng = generator(recipe.seed, variant, row, "augment")
            found.append(encode(augment(prepared, recipe.sizes()[0], recipe.augment, rng)))
        return found

    def open_one(data: DataSet, source: Source) -> Pairs:
        def encode_shard(folder: Path, rows: range) -> None:
            records = encoding.made_ahead(lambda row: pairs_of(data, source, row), rows, _AHEAD)
            _encode_pairs(folder, records, len(rows), codec, precision)

        return Pairs(shards_of("pairs", key, recipe, data, source, codec, encode_shard, report), variants)

    return [open_one(data, source) for data, source in zip(recipe.data, sources, strict=True)]


def _encode_pairs(
    folder: Path, records: Iterable[list[_Pair]], count: int, codec: codecs.Codec, precision: str
) -> None:
    """One shard of `count` records: pair (N, variants, 2, 4, h, w) float16, valid (N, variants, 1, h, w) bool."""
    valid: list[torch.Tensor] = []

    def maps() -> Iterator[torch.Tensor]:
        for variants in records:
            valid.append(torch.stack([mask for _, _, mask in variants]))
            for image, label, _ in variants:
                yield from (image, label)

    pair = encoding.in_batches(codec.encode, maps(), device_of(codec), precision).unflatten(0, (count, -1, 2))
    shard_cache.write_shard(folder, {"pair": pair.numpy(), "valid": torch.stack(valid).numpy()}, {})
