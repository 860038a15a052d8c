"""Types and bounds of settings, before anything is made of them: each refusal names the file and the key.

A network's config holds arguments of a class; what they may be is what the class itself says of them.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_LARGEST = 10_000_000  # of integers: vocabularies have a quarter of a million rows
_USUAL = (0, _LARGEST)  # of numbers with a fraction: as far below 0, too
_COUNT = 1000  # of layers, and of other things of which there are several
_ITEMS = 128  # of a list
_LETTERS = 200  # of a text
_SHOWN = 60

# Where a value out of bounds would do harm that no tensor's shape shows: tables and paddings that are computed from it
BOUNDS: dict[str, tuple[float, float]] = {
    "downsample_padding": (0, 2),
    "freq_shift": (0, 1),
    "sample_size": (1, 4096),
    "image_size": (1, 4096),
    "patch_size": (1, 256),
    "interpolation_scale": (1, 64),
    "upsampling_scaling_factor": (1, 8),
    "scaling_factor": (1e-6, 1e6),
    "mid_block_scale_factor": (1e-6, 1e6),
    "resnet_out_scale_factor": (1e-6, 1e6),
    "dropout": (0, 1),
    "norm_eps": (0, 1),
    "layer_norm_eps": (0, 1),
    "layer_norm_epsilon": (0, 1),
    "pool_scales": (1, 64),
    "token_map_scales": (1 / 64, 64),
    "default_denoising_steps": (1, 1000),
    "default_processing_resolution": (0, 16384),
    "num_train_timesteps": (1, 1000),
    "steps_offset": (0, 999),
    "original_inference_steps": (1, 1000),
    "num_attention_heads": (1, 4096),
    "attention_head_dim": (1, 4096),
    "pad_token_id": (-1, _LARGEST),
    "bos_token_id": (-1, _LARGEST),
    "eos_token_id": (-1, _LARGEST),
}
# Written with a fraction in some public files, although the class says that they are integers
_FRACTIONS = ("interpolation_scale",)


def check_arguments(path: Path, config: Mapping[str, Any], of: Callable[..., Any]) -> None:
    """ValueError where `config`, of the file `path`, has for an argument of `of` what that cannot be.

    null is left to the class: public files have it for what is off.
    """
    for key, hint in _hints(of).items():
        if config.get(key) is not None:
            check(path, key, config[key], hint)


def check(path: Path, key: str, value: Any, hint: Any) -> None:
    """ValueError where the setting `key` is not of the type `hint`, or out of its bounds."""
    hint = hint | float if key in _FRACTIONS else hint
    bounds = BOUNDS.get(key) or ((0, _COUNT) if _is_count(key) else _USUAL)
    if not _fits(value, hint, bounds):
        shown = repr(value) if len(repr(value)) <= _SHOWN else f"{repr(value)[:_SHOWN]}..."
        raise ValueError(f"{path}: {key} is {shown}: must be {_words(hint, bounds)}; copy or download it again")


def known(config: Mapping[str, Any], of: Callable[..., Any]) -> dict[str, Any]:
    """The settings that are arguments of `of`."""
    return {key: value for key, value in config.items() if key in _hints(of)}


@cache
def _hints(of: Callable[..., Any]) -> dict[str, Any]:
    """Arguments by name, with their types; their default's type is one of them."""
    function = of.__init__ if isinstance(of, type) else of
    arguments = signature(function).parameters.values()
    try:
        hints = get_type_hints(function)
    except NameError:  # of names that only type checkers import: without these arguments
        hints = {p.name: p.annotation for p in arguments if not isinstance(p.annotation, str)}
    found = {p.name: hints[p.name] for p in arguments if hints.get(p.name, p.empty) is not p.empty}
    defaults = {p.name: type(p.default) for p in arguments if isinstance(p.default, bool | int | float | str)}
    return {name: hint | defaults[name] if name in defaults else hint for name, hint in found.items()}


def _is_count(key: str) -> bool:
    return key.startswith(("num_", "layers_", "transformer_layers")) and "embed" not in key


def _fits(value: Any, hint: Any, bounds: tuple[float, float]) -> bool:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, each, bounds) for each in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if hint is float:
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        low, high = (-_LARGEST, _LARGEST) if bounds is _USUAL else bounds
        return number and low <= value <= high
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and bounds[0] <= value <= bounds[1]
    if hint is str:
        return isinstance(value, str) and len(value) <= _LETTERS and value.isprintable()
    if (origin or hint) in (tuple, list, Sequence):
        items = [each for each in get_args(hint) if each is not ...] or [Any]
        several = isinstance(value, list | tuple) and len(value) <= _ITEMS
        return several and all(any(_fits(each, item, bounds) for item in items) for each in value)
    if (origin or hint) is dict:
        each = get_args(hint)[1] if get_args(hint) else Any
        return isinstance(value, dict) and all(_fits(item, each, bounds) for item in value.values())
    return hint is Any or (isinstance(hint, type) and isinstance(value, hint))


def _words(hint: Any, bounds: tuple[float, float]) -> str:
    """What may be there, for people."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_words(each, bounds) for each in get_args(hint) if each is not type(None)))
    if origin is Literal:
        return " or ".join(map(repr, get_args(hint)))
    if (origin or hint) in (tuple, list, Sequence):
        items = [each for each in get_args(hint) if each is not ...] or [Any]
        return f"a list of at most {_ITEMS}, each {_words(items[0], bounds)}"
    low = -_LARGEST if bounds is _USUAL and hint is float else bounds[0]
    numbers = f"from {low:.10g} to {bounds[1]:.10g}"
    plain = {int: f"an integer {numbers}", float: f"a number {numbers}", bool: "true or false", dict: "an object"}
    return plain.get(origin or hint, "a short text" if hint is str else "something else")
