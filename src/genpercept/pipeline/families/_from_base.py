"""What a public checkpoint does not hold comes from its base: found, checked against the checkpoint, loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn

from genpercept.checkpoints import hub, parts, regular
from genpercept.checkpoints.weights import is_pickle, weight_files
from genpercept.core.texts import one_line
from genpercept.models import text
from genpercept.models.codecs import CODECS
from genpercept.models.codecs.kl import PLUGIN as KL
from genpercept.pipeline.families._headers import Layout

SCALING_FACTOR = 0.18215  # of the latents that all of these families were trained with
EMPTY_TEXT = "empty_text_embed.npy"  # GenPercept v1's own embedding of the empty prompt
_TEXT = ("text_encoder", "tokenizer")
_DECODING = ("decoder.", "post_quant_conv.")
_WIDTHS = "768: Stable Diffusion 1, 1024: 2, 2048: XL"


@dataclass(frozen=True)
class Base:
    """The base model of a checkpoint: what was given, and its folder."""

    name: str
    folder: Path

    def json(self, *path: str) -> dict[str, Any]:
        return parts.read_json(self.folder.joinpath(*path))


def find_base(base: str | Path | None, where: dict[str, Any]) -> Base | None:
    """The base's folder, downloaded where it must be; `where` but for the revision, which is the checkpoint's."""
    if base is None:
        return None
    return Base(str(base), hub.resolve(base, **without_revision(where)))


def without_revision(where: dict[str, Any]) -> dict[str, Any]:
    """How another repository than the one asked for is looked up: the revision is of the first."""
    return {k: v for k, v in where.items() if k != "revision"}


def lacking(layout: Layout) -> list[str]:
    """Parts that the checkpoint does not bring: vae, text_encoder."""
    missing = [] if layout.part("vae") else ["vae"]
    if not layout.part(*_TEXT) and not layout.part(EMPTY_TEXT):
        missing.append("text_encoder")
    return missing


def _of_base(layout: Layout, base: Base | None, part: str) -> Path:
    if base is None:
        raise ValueError(f"{layout.root}: has no {part}/, and no base was given: pass base=")
    return base.folder / part


def check(layout: Layout, base: Base | None, *, allow_pickle: bool = False) -> None:
    """ValueError, naming both sides, where the checkpoint's U-Net, its VAE and the base do not belong together."""
    if base is not None:
        _check_base(layout, base)
    check_vae(layout, base)


def check_vae(layout: Layout, base: Base | None) -> None:
    """ValueError where the U-Net does not go with the autoencoder that the checkpoint, or else its base, has."""
    source = layout.part("vae") or _of_base(layout, base, "vae")
    vae = parts.read_json(source / "config.json")
    KL.check(vae, source / "config.json")
    latent, factor = int(vae.get("latent_channels", 4)), float(vae.get("scaling_factor", SCALING_FACTOR))
    if layout.in_channels % latent or (not layout.lacks_output and layout.out_channels % latent):
        raise ValueError(
            f"{layout.unet}: takes {layout.in_channels} channels and gives {layout.out_channels}, but the latents of "
            f"{source} have {latent}: they do not belong together; take the base that it was trained from"
        )
    if factor != SCALING_FACTOR:
        raise ValueError(
            f"{source}: scaling_factor {factor}, but {layout.unet} was trained with latents scaled by "
            f"{SCALING_FACTOR} (Stable Diffusion 1 and 2): take the base that it was trained from"
        )


def _check_base(layout: Layout, base: Base) -> None:
    width = base.json("unet", "config.json").get("cross_attention_dim")
    if layout.text_width != width:
        raise ValueError(
            f"{layout.unet}: its cross-attention reads text of width {layout.text_width}, but the base {base.name} has "
            f"{width} ({_WIDTHS}): take the base that it was trained from"
        )
    kind = base.json("scheduler", "scheduler_config.json").get("prediction_type", "epsilon")
    if kind == "epsilon":
        raise ValueError(
            f"{base.name}: this base predicts epsilon, but {layout.unet} was trained from one that predicts v "
            "(Stable Diffusion 2.1, 768 pixels): take that"
        )
    if vae := layout.part("vae"):
        own = parts.read_json(vae / "config.json").get("scaling_factor", SCALING_FACTOR)
        theirs = base.json("vae", "config.json").get("scaling_factor", SCALING_FACTOR)
        if own != theirs:
            raise ValueError(
                f"{vae}: scaling_factor {own}, but the base {base.name} has {theirs}: they do not belong "
                "together; take the base that it was trained from, or none, since the checkpoint brings its own vae"
            )


def refuse_untouched(layout: Layout, base: Base, *, allow_pickle: bool = False) -> None:
    """ValueError when every tensor of the U-Net that its base has, too, is the base's. Stops at the first difference."""
    if not (base.folder / "unet").is_dir():
        return
    theirs = _lazily(base.folder / "unet", allow_pickle)
    ours = _lazily(layout.unet, allow_pickle)
    if not theirs.keys() & ours.keys():
        return
    for name in sorted(theirs.keys() & ours.keys()):
        a, b = ours[name](), theirs[name]()
        coarser = a.dtype if a.element_size() <= b.element_size() else b.dtype
        if a.numel() != b.numel() or not torch.equal(a.flatten().to(coarser), b.flatten().to(coarser)):
            return
    raise ValueError(
        f"{layout.unet}: its weights are bit by bit those of the base {base.name}: not fine-tuned, it would give noise"
    )


def base_tensors(base: Base, part: str, names: tuple[str, ...], *, allow_pickle: bool = False) -> dict[str, Tensor]:
    """Tensors of a base's part by the beginnings of their names."""
    return {k: get() for k, get in _lazily(base.folder / part, allow_pickle).items() if k.startswith(names)}


def _lazily(folder: Path, allow_pickle: bool) -> dict[str, Callable[[], Tensor]]:
    """Tensors of a part by name, each read when it is asked for."""
    found: dict[str, Callable[[], Tensor]] = {}
    for path in weight_files(folder, allow_pickle=allow_pickle):
        if is_pickle(path):
            tensors = parts.read_tensors(path, allow_pickle=allow_pickle)
            found |= {name: partial(tensors.__getitem__, name) for name in tensors}
        else:
            names = parts.tensor_shapes(path)  # which also says whether the file is whole
            file = safe_open(path, framework="pt")
            found |= {name: partial(file.get_tensor, name) for name in names}
    return found


def load_vae(layout: Layout, base: Base | None, dtype: torch.dtype | None, *, allow_pickle: bool = False) -> nn.Module:
    """The checkpoint's own VAE, or its base's. A VAE without a decoder (GenPercept v1, with a head) gets the base's."""
    folder, extra = layout.part("vae"), {}
    if folder is None:
        return parts.load_part(CODECS.find("kl"), _of_base(layout, base, "vae"), dtype, allow_pickle=allow_pickle)
    files = weight_files(folder, allow_pickle=allow_pickle)
    names = [KL.rename(k) for p in files for k in parts.tensor_shapes(p, allow_pickle=allow_pickle)]
    absent = tuple(prefix for prefix in _DECODING if not any(name.startswith(prefix) for name in names))
    if absent and base is not None:
        found = base_tensors(base, "vae", absent, allow_pickle=allow_pickle)
        extra = {KL.rename(k): t.clone() for k, t in found.items()}
    return parts.load_part(CODECS.find("kl"), folder, dtype, extra=extra, allow_pickle=allow_pickle)


def prompt(layout: Layout, base: Base | None, words: str = "", *, pad: bool, allow_pickle: bool = False) -> Tensor:
    """The embedding of `words`, (1, tokens, width), by the checkpoint's own text encoder or its base's."""
    if not words and (stored := layout.part(EMPTY_TEXT)):
        return _stored_prompt(stored, layout.text_width)
    source = layout.part(*_TEXT) or _of_base(layout, base, "text_encoder").parent
    found = text.embed(*text.load(source, allow_pickle=allow_pickle), words, pad=pad)
    if found.shape[-1] != layout.text_width:
        raise ValueError(
            f"{layout.unet}: its cross-attention reads text of width {layout.text_width}, but {source / 'text_encoder'} "
            f"gives {found.shape[-1]} ({_WIDTHS}): take the text encoder that it was trained with"
        )
    return found


def _stored_prompt(path: Path, width: int) -> Tensor:
    try:
        regular.refuse_irregular(path)
        values = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: whatever size its header claims
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: not a readable array ({one_line(error)}); copy it again") from None
    if values.ndim not in (2, 3) or values.shape[-1] != width or (values.ndim == 3 and len(values) != 1):
        raise ValueError(f"{path}: an array of {list(values.shape)}, but the U-Net reads text of (tokens, {width})")
    if not np.isfinite(values).all():
        raise ValueError(f"{path}: NaN or infinite values; copy it again")
    return torch.from_numpy(np.array(values, np.float32)).reshape(
        1, -1, width
    )  # a copy: what is mapped cannot be written
