"""U-Nets as the original latent-diffusion code stores them: arguments of its class, and tensors under its names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from genpercept.checkpoints import schema
from genpercept.core.texts import listed

# Arguments that say what the network is: their types. Those without a default have to be there
_ARGUMENTS: dict[str, Any] = {
    "in_channels": int,
    "out_channels": int,
    "model_channels": int,
    "attention_resolutions": list[int],
    "num_res_blocks": int,
    "channel_mult": list[int],
    "num_heads": int,
    "context_dim": int,
    "transformer_depth": int,
    "use_linear_in_transformer": bool,
}
_DEFAULTS = {"transformer_depth": 1, "use_linear_in_transformer": False}
_FIXED = {"use_spatial_transformer": True}  # the one kind of block that reads text
_TOLD = ("image_size", "use_checkpoint", "use_fp16", "dropout", "legacy")  # what changes no answer of such a network
_MOST_TENSORS = 5000  # of 700
_PLAIN = (bool, int, float, str, list, tuple, type(None))
_MULTIPLE = 32  # channels of which a group norm has its groups


def config_of(path: Path, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """diffusers' config of the same network. ValueError, naming the file and the argument, for what that cannot be.

    Heads are in no tensor's shape: they have to be stated, as a number that is the same on every level.
    """
    if strange := [
        key for key, value in arguments.items() if not isinstance(key, str) or not isinstance(value, _PLAIN)
    ]:
        raise ValueError(
            f"{path}: its argument {strange[0]!r:.60} of the U-Net is no plain value; copy or download it again"
        )
    given: dict[str, Any] = _DEFAULTS | {k: list(v) if isinstance(v, tuple) else v for k, v in arguments.items()}
    if absent := [key for key in _ARGUMENTS if key not in given]:
        raise ValueError(f"{path}: its arguments of the U-Net lack {', '.join(absent)}; copy or download it again")
    for key, hint in _ARGUMENTS.items():
        schema.check(path, key, given[key], hint)
    for key, value in given.items():
        if key in _FIXED and value is not _FIXED[key]:
            raise ValueError(f"{path}: {key} is {value!r:.60}, which is not run here: only {_FIXED[key]!r} is")
        if key not in (*_ARGUMENTS, *_FIXED, *_TOLD) and value not in (None, False, -1, 0):
            raise ValueError(
                f"{path}: {key}={value!r:.60} changes the U-Net into one that is not run here; download it again"
            )
    levels = [given["model_channels"] * times for times in given["channel_mult"]]
    heads = given["num_heads"]
    if heads < 1 or any(width % heads or width % _MULTIPLE for width in levels) or not levels:
        raise ValueError(
            f"{path}: levels of {listed([str(width) for width in levels])} channels with num_heads {heads}: each must be a "
            f"multiple of both {_MULTIPLE} and the heads; copy or download it again"
        )
    attends = [2**i in given["attention_resolutions"] for i in range(len(levels))]
    return {
        "in_channels": given["in_channels"],
        "out_channels": given["out_channels"],
        "down_block_types": ["CrossAttnDownBlock2D" if each else "DownBlock2D" for each in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if each else "UpBlock2D" for each in reversed(attends)],
        "block_out_channels": levels,
        "layers_per_block": given["num_res_blocks"],
        "attention_head_dim": heads,  # diffusers' name of it
        "cross_attention_dim": given["context_dim"],
        "transformer_layers_per_block": given["transformer_depth"],
        "use_linear_projection": given["use_linear_in_transformer"],
    }


def names_of(path: Path, names: Iterable[str], config: Mapping[str, Any]) -> dict[str, str]:
    """diffusers' names of the tensors, by theirs, as its own converter has them. ValueError for one that it does not know."""
    from diffusers.loaders.single_file_utils import LDM_UNET_KEY, convert_ldm_unet_checkpoint

    theirs = list(names)
    if len(theirs) > _MOST_TENSORS:
        raise ValueError(f"{path}: {len(theirs)} tensors, which no such U-Net has; copy or download it again")
    moved: dict[str, str] = convert_ldm_unet_checkpoint({LDM_UNET_KEY + name: name for name in theirs}, dict(config))
    found = {old: new for new, old in moved.items() if old}
    if unknown := sorted(set(theirs) - found.keys()):
        raise ValueError(
            f"{path}: tensors that no such U-Net has: {listed(unknown)}; nothing was loaded; copy or download it again"
        )
    return found
