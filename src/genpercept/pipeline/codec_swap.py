"""Codecs from folders, and one codec made of two."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import nn

from genpercept.checkpoints import hub
from genpercept.checkpoints.parts import load_part, read_json
from genpercept.core.modules import config_of
from genpercept.core.texts import class_shown
from genpercept.models.codecs import CODECS, HALVES, CodecPlugin, half
from genpercept.pipeline.manifest import has_manifest, part_path, read_manifest

_SAME_FACTOR = 1e-4  # relative: published factors are rounded


class PairPlugin(CodecPlugin, Protocol):
    """The codec of two, which is made of modules rather than by a configuration."""

    def pair(self, encoder: nn.Module, decoder: nn.Module) -> nn.Module: ...


def read_codec(source: str | Path, dtype: torch.dtype | None = None, **where: Any) -> tuple[str, nn.Module]:
    """Name of the codec and its module, from a folder, hub id or embedded model: config.json says which. `where` as
    hub.resolve has it.

    A model's folder stands for the codec in it. ValueError for a class that is no codec's, for a model without a codec, and
    for weights that do not fit it.
    """
    folder = _codec_folder(hub.resolve(source, **where))
    kind = read_json(folder / "config.json").get("_class_name")
    found = {CODECS.find(name).class_name: name for name in CODECS.names()}
    if kind is None or kind not in found:
        known = ", ".join(sorted(k for k in found if k))
        raise ValueError(f"{folder}: holds a {class_shown(kind)}, which is no codec; pass a folder with one of {known}")
    pickle = bool(where.get("allow_pickle"))
    return found[kind], load_part(CODECS.find(found[kind]), folder, dtype, allow_pickle=pickle)


def _codec_folder(folder: Path) -> Path:
    """The codec's own folder, of a codec's or of a model's, ours or in diffusers' layout."""
    if has_manifest(folder):
        parts = read_manifest(folder)["parts"]
        if "vae" not in parts:
            raise ValueError(
                f"{folder}: a model without a codec, on pixels; pass a codec's folder, or a model that has one"
            )
        return part_path(folder, "vae", parts)
    if not (folder / "config.json").is_file() and (folder / "vae" / "config.json").is_file():
        return folder / "vae"
    return folder


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
    halves = []
    for end, given in (("encoder", encoder), ("decoder", decoder)):
        kept = half(own, end)
        if given is not None:
            if not isinstance(given, nn.Module) and str(given) not in opened:
                opened[str(given)] = read_codec(given, dtype, **where)[1].to(device)
            new = given if isinstance(given, nn.Module) else opened[str(given)]
            new = half(new, end)
            _check_scaling(kept, new, str(given) if not isinstance(given, nn.Module) else f"the {HALVES[end]} module")
            kept = new
        halves.append(kept)
    return join(*halves)


def _check_scaling(own: nn.Module, new: nn.Module, name: str) -> None:
    """ValueError where a codec of the same class says that its latents are of another space.

    Between classes nothing is said: TAESD's latents are scaled already, with factor 1.
    """
    if type(own) is not type(new):
        return
    for key in ("scaling_factor", "shift_factor"):
        theirs, ours = (float(config_of(module).get(key) or 0.0) for module in (new, own))
        if abs(theirs - ours) > _SAME_FACTOR * abs(ours):
            raise ValueError(
                f"{name}: its latents have {key} {theirs:g}, the model's codec has {ours:g}: not of one latent space; pass a "
                "codec that was made for the model's"
            )


def join(encoder: nn.Module, decoder: nn.Module) -> tuple[str, nn.Module]:
    """Name and module of the codec that encodes with one module and decodes with another. ValueError where they don't fit."""
    if encoder is decoder:
        name = type(encoder).__name__
        return next(n for n in CODECS.names() if CODECS.find(n).class_name == name), encoder
    plugin = cast(PairPlugin, CODECS.find("pair"))
    module = plugin.pair(encoder, decoder)
    plugin.wrap(module)  # refuses latents of different shapes
    return plugin.name, module
