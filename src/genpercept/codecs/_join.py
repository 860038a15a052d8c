"""Codecs from folders, and one codec made of two."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from genpercept import checkpoint, hub, plugins


def read(source: str | Path, dtype: torch.dtype | None = None, **where: Any) -> tuple[str, nn.Module]:
    """Name of the codec and its module, from a folder or hub id: config.json says which. `where` as hub.resolve has it.

    ValueError for a class that is no codec's, and for weights that do not fit it.
    """
    folder = hub.resolve(source, **where)
    kind = checkpoint.read_json(folder / "config.json").get("_class_name")
    found = {plugins.find("codecs", name).class_name: name for name in plugins.names("codecs")}
    if kind is None or kind not in found:
        known = ", ".join(sorted(k for k in found if k))
        raise ValueError(f"{folder}: holds a {kind}, which is no codec; pass a folder with one of {known}")
    return found[kind], checkpoint.load_part("codecs", found[kind], folder, dtype)


def replaced(
    own: nn.Module,
    encoder: str | Path | nn.Module | None,
    decoder: str | Path | nn.Module | None,
    dtype: torch.dtype,
    device: torch.device,
    where: dict[str, Any],
) -> tuple[str, nn.Module]:
    """Name and module of the codec that has this encoder and decoder, None: those of `own`. ValueError without either."""
    if encoder is None and decoder is None:
        raise ValueError("with_codec: pass encoder=, decoder= or both")
    opened: dict[str, nn.Module] = {}  # one folder for both is one codec, not a pair
    halves = [getattr(own, "encoding", own), getattr(own, "decoding", own)]  # of a pair, or twice the module itself
    for i, given in enumerate((encoder, decoder)):
        if isinstance(given, nn.Module):
            halves[i] = given
        elif given is not None:
            if str(given) not in opened:
                opened[str(given)] = read(given, dtype, **where)[1].to(device)
            halves[i] = opened[str(given)]
    return join(*halves)


def join(encoder: nn.Module, decoder: nn.Module) -> tuple[str, nn.Module]:
    """Name and module of the codec that encodes with one module and decodes with another. ValueError where they don't fit."""
    if encoder is decoder:
        name = type(encoder).__name__
        return next(n for n in plugins.names("codecs") if plugins.find("codecs", n).class_name == name), encoder
    plugin = cast(Any, plugins.find("codecs", "pair"))
    module = plugin.pair(encoder, decoder)
    plugin.wrap(module)  # refuses latents of different shapes
    return plugin.name, module
