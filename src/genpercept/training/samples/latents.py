"""Latents of a set's images, kept on disk: as it is and mirrored, encoded once per codec."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import nn

from genpercept.core.rng import generator
from genpercept.models import codecs
from genpercept.training.recipe import DataSet, Recipe
from genpercept.training.samples import shard_cache
from genpercept.training.samples.augment import augment, crop, mirror
from genpercept.training.samples.records import Record, cut_off, image_tensor
from genpercept.training.samples.shard_cache import SHARD, Shards
from genpercept.training.samples.sources import Source

_CHUNK = 32  # images encoded together

# A record -> image (3, H, W) and label map (3, H, W), both in [-1, 1], and the label's validity (1, h, w) at latent resolution.
EncodePair = Callable[[Record], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
PrepareRecord = Callable[[Record, np.random.Generator | None], Record]


class _OfModule(Protocol):
    """A codec over the weights of a module, as all are that make latents."""

    module: nn.Module


def _weights(codec: codecs.Codec) -> nn.Module:
    return cast(_OfModule, codec).module


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


def open_all(
    recipe: Recipe, sources: Sequence[Source], codec: codecs.Codec, report: Callable[[str], None]
) -> list[Latents]:
    """The cached latents of every set; encodes those that are missing. ValueError for settings that need fresh images."""
    if len(recipe.sizes()) > 1:
        raise ValueError(
            "augment.sizes: cached latents have one size; name one, or set denoiser.cached_latents = false"
        )
    return [_open(recipe, data, source, codec, report) for data, source in zip(recipe.data, sources, strict=True)]


def _open(recipe: Recipe, data: DataSet, source: Source, codec: codecs.Codec, report: Callable[[str], None]) -> Latents:
    size, variants = recipe.sizes()[0], recipe.denoiser.variants

    def encode_shard(folder: Path, number: int, rows: range) -> None:
        _encode_shard(folder, number, [source[i] for i in rows], rows, size, variants, codec)

    key = {"size": size, "variants": variants}
    return Latents(shards_of("latents", key, recipe, data, source, codec, encode_shard, report), variants)


def shards_of(
    kind: str,
    key: dict[str, Any],
    recipe: Recipe,
    data: DataSet,
    source: Source,
    codec: codecs.Codec,
    encode_shard: Callable[[Path, int, range], None],
    report: Callable[[str], None],
) -> Shards:
    """The cache of one set's latents, complete: `encode_shard(folder, number, rows)` makes the shards that are missing.

    `key` is what the content depends on beside the data, the codec's weights and the number of samples.
    """
    unread = {"weight", "skip_bad"} | {
        k for k in ("options", "sizes", "fraction", "having") if getattr(data, k) in ({}, (), 1.0, "")
    }
    unread |= set() if data.drawn else {"count", "drawn"}  # of the first ones the length tells all
    key = {
        "data": data.model_dump(mode="json", exclude=unread),
        "folder": str(getattr(source, "folder", "")),
        "length": len(source),
        **key,
        "codec": shard_cache.fingerprint(_weights(codec)),
    }
    folder = shard_cache.key_folder(recipe.loader.cache_dir, kind, key)
    missing = shard_cache.missing_shards(folder, -(-len(source) // SHARD))
    for done, number in enumerate(missing, 1):
        if not shard_cache.shard_folder(folder, number).is_dir():
            encode_shard(folder, number, range(number * SHARD, min((number + 1) * SHARD, len(source))))
        if done % 8 == 0 or done == len(missing):
            report(f"encoded {done * SHARD} of {len(missing) * SHARD} {kind} ({data.called}, {data.split})")
    return Shards(folder, len(source))


@torch.no_grad()
def _encode_shard(
    folder: Any, number: int, records: list[Any], rows: range, size: tuple[int, int], variants: int, codec: codecs.Codec
) -> None:
    """Scaled posterior means as float16 (N, variants, 4, h, w)."""
    device = next(_weights(codec).parameters()).device
    cut = [
        crop({"image": r["image"]}, size, (1.0, 1.0), generator(0, 0, i, "augment"))
        for i, r in zip(rows, records, strict=True)
    ]
    flat = [image_tensor(v["image"]) for c in cut for v in ((c, mirror(c)) if variants > 1 else (c,))]
    parts = []
    for start in range(0, len(flat), _CHUNK):
        images = torch.stack(flat[start : start + _CHUNK]).to(device, memory_format=torch.channels_last) * 2 - 1
        with torch.autocast(device.type, torch.bfloat16):
            parts.append(codec.encode(images).half().cpu())
    latent = torch.cat(parts).contiguous().unflatten(0, (len(records), variants))
    shard_cache.write_shard(
        folder, number, {"latent": latent.numpy()}, {"caption": [str(r.get("caption", "")) for r in records]}
    )


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
    if len(recipe.sizes()) > 1:
        raise ValueError("augment.sizes: cached latents have one size; name one, or set loader.latent_variants = 0")
    variants = recipe.loader.latent_variants
    key = {
        "size": recipe.sizes()[0],
        "variants": variants,
        "augment": recipe.augment.model_dump(mode="json", exclude=None if recipe.augment.centre else {"centre"}),
        "task": recipe.task,
        "seed": recipe.seed,
    } | ({"task_options": recipe.task_options} if recipe.task_options else {})

    def open_one(data: DataSet, source: Source) -> Pairs:
        def encode_shard(folder: Path, number: int, rows: range) -> None:
            _encode_pairs(folder, number, source, rows, recipe, data.far, codec, prepare, encode)

        return Pairs(shards_of("pairs", key, recipe, data, source, codec, encode_shard, report), variants)

    return [open_one(data, source) for data, source in zip(recipe.data, sources, strict=True)]


@torch.no_grad()
def _encode_pairs(
    folder: Any,
    number: int,
    source: Source,
    rows: range,
    recipe: Recipe,
    far: float,
    codec: codecs.Codec,
    prepare: PrepareRecord,
    encode: EncodePair,
) -> None:
    """One shard: pair (N, variants, 2, 4, h, w) float16, valid (N, variants, 1, h, w) bool."""
    variants = recipe.loader.latent_variants
    device = next(_weights(codec).parameters()).device
    pairs: list[torch.Tensor] = []
    valid: list[torch.Tensor] = []
    for row in rows:
        record = cut_off(source[row], far)
        cuts = [
            augment(
                prepare(record, generator(recipe.seed, variant, row, "prepare")),
                recipe.sizes()[0],
                recipe.augment,
                generator(recipe.seed, variant, row, "augment"),
            )
            for variant in range(variants)
        ]
        images, labels, masks = zip(*(encode(cut) for cut in cuts), strict=True)
        with torch.autocast(device.type, torch.bfloat16):
            latent = codec.encode(torch.stack([*images, *labels]).to(device)).half().cpu()
        pairs.append(latent.unflatten(0, (2, variants)).transpose(0, 1))
        valid.append(torch.stack(masks))
    arrays = {"pair": torch.stack(pairs).contiguous().numpy(), "valid": torch.stack(valid).numpy()}
    shard_cache.write_shard(folder, number, arrays, {})
