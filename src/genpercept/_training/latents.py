"""Latents of a set's images, kept on disk: as it is and mirrored, encoded once per codec."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch

from genpercept import codecs
from genpercept._training import cache
from genpercept._training.augment import crop, mirror
from genpercept._training.cache import SHARD, Shards
from genpercept._training.records import image_tensor
from genpercept._training.sources import Source
from genpercept.recipe import DataSet, Recipe
from genpercept.rng import generator

_CHUNK = 32  # images encoded together


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
    module = cast(Any, codec).module
    size, variants = recipe.sizes()[0], recipe.denoiser.variants
    key = {
        "data": data.model_dump(mode="json", exclude={"weight", "count"}),
        "folder": str(getattr(source, "folder", "")),
        "length": len(source),
        "size": size,
        "variants": variants,
        "codec": cache.fingerprint(module),
    }
    folder = cache.key_folder(recipe.loader.cache_dir, "latents", key)
    numbers = range(-(-len(source) // SHARD))
    missing = [n for n in numbers if not cache.shard_folder(folder, n).is_dir()]
    for done, number in enumerate(missing, 1):
        rows = range(number * SHARD, min((number + 1) * SHARD, len(source)))
        _encode_shard(folder, number, [source[i] for i in rows], rows, size, variants, codec)
        if done % 8 == 0 or done == len(missing):
            report(f"encoded {done * SHARD} of {len(missing) * SHARD} images ({data.domain}, {data.split})")
    return Latents(Shards(folder, len(source)), variants)


@torch.no_grad()
def _encode_shard(
    folder: Any, number: int, records: list[Any], rows: range, size: tuple[int, int], variants: int, codec: codecs.Codec
) -> None:
    """Scaled posterior means as float16 (N, variants, 4, h, w)."""
    device = next(cast(Any, codec).module.parameters()).device
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
    cache.write_shard(
        folder, number, {"latent": latent.numpy()}, {"caption": [str(r.get("caption", "")) for r in records]}
    )
