"""What goes with what in a pipeline: its paradigm chosen, its parts checked, and what genpercept.json says of them.

`info`, here as in the pipeline, is the contents of genpercept.json.
"""

from __future__ import annotations

import difflib
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from genpercept.models.backbones import BACKBONES, as_backbone
from genpercept.models.codecs import CODECS, Codec
from genpercept.models.heads import Head
from genpercept.models.paradigms import PARADIGMS, Paradigm
from genpercept.tasks import Task

# Of `info`: by end of the codec, where it came from when it is not the model's own, and what it was distilled from
_OF_CODEC = ("replaced", "distilled")
# Arguments of the pipeline's call, one of which a misspelt option of a paradigm may mean
_ARGUMENTS = (
    "processing_resolution",
    "num_inference_steps",
    "ensemble_size",
    "ensembling_kwargs",
    "paradigm",
    "generator",
)
_ARGUMENTS += ("latents", "batch_size", "resize_mode", "boxes", "flip_test", "tiles", "overlap", "refine")


def choose(info: Mapping[str, Any], name: str | None, options: Mapping[str, Any]) -> Paradigm:
    """The paradigm of this name (None: the model's own, with its stored options), with these options. ValueError for others."""
    own = str(info["paradigm"])
    plugin = PARADIGMS.find(name or own)
    for option in options.keys() - plugin.options.keys():
        if close := difflib.get_close_matches(option, _ARGUMENTS, 1):
            raise ValueError(f"unknown argument {option!r}: did you mean {close[0]!r}?")
    stored = info.get("paradigm_options") or {}
    return plugin.with_options(**{**(stored if plugin.name == own else {}), **options})


def check(paradigm: Paradigm, task: Task, head: Head, codec: Codec, unet: nn.Module, info: Mapping[str, Any]) -> None:
    """ValueError, with the reason, for parts that cannot work together."""
    if paradigm.needs_latent and head.consumes != "latent":
        raise ValueError(
            f"paradigm {paradigm.name!r} iterates on latents, but head {info['head']!r} gives none: use one_step"
        )
    if not paradigm.gives_latent and head.consumes == "latent":
        raise ValueError(
            f"paradigm {paradigm.name!r} gives no latent, but head {info['head']!r} reads one: use a pyramid head, "
            "such as dpt, or one_step"
        )
    if head.space not in task.spaces:
        raise ValueError(
            f"task {info['task']!r} takes raw maps of space {' or '.join(task.spaces)}, "
            f"head {info['head']!r} gives {head.space}"
        )
    backbone, encoding = BACKBONES.find(info["backbone"]), CODECS.find(info["codec"])
    if backbone.input != encoding.output:
        raise ValueError(
            f"backbone {backbone.name!r} takes {backbone.input}, but codec {encoding.name!r} gives {encoding.output}"
        )
    if backbone.input == "pixels" and paradigm.gives_latent:
        raise ValueError(
            f"paradigm {paradigm.name!r} works on latents, but backbone {backbone.name!r} takes pixels and gives none: "
            "use paradigm direct with a pyramid head, such as dpt"
        )
    wanted, have = paradigm.input_channels(codec.channels), as_backbone(unet).in_channels
    if wanted != have:
        raise ValueError(
            f"paradigm {paradigm.name!r} needs a denoiser with {wanted} input channels; this one has {have}"
        )


def check_prompt(unet: nn.Module, prompt_embeds: Tensor) -> None:
    """ValueError for an embedding that the backbone's cross-attention cannot read."""
    width = as_backbone(unet).context_width
    if width is not None and (prompt_embeds.ndim != 3 or prompt_embeds.shape[-1] != width):
        raise ValueError(f"prompt_embeds {list(prompt_embeds.shape)}: the denoiser needs (1, tokens, {width})")


def facts(info: Mapping[str, Any]) -> dict[str, Any]:
    """What a Prediction says of its model: name, hash, family, task, paradigm, axes, what to beware of, software version."""
    keys = ("model", "model_sha256", "family", "task", "paradigm", "axes")
    known = {k: info[k] for k in ("variant", "decided", "caution") if k in info}
    known |= {k: info[k] for k in _OF_CODEC if k in info}
    version = importlib.metadata.version("genpercept")
    return {k: info.get(k) for k in keys} | known | {"software": f"genpercept {version}"}


def info_with_codec(info: Mapping[str, Any], name: str, **given: str | Path | nn.Module | None) -> dict[str, Any]:
    """`info` of the same model with the codec `name`, of which the ends encoder= and decoder= are new where they are given.

    What was said of an end that is replaced goes, and so does the hash of the whole.
    """
    new = {end: _name(source) for end, source in given.items() if source is not None}
    changed = {k: v for k, v in info.items() if k not in ("model_sha256", "specialised", *_OF_CODEC)} | {"codec": name}
    changed["replaced"] = (info.get("replaced") or {}) | new
    if kept := {k: v for k, v in (info.get("distilled") or {}).items() if k not in new}:
        changed["distilled"] = kept
    return changed


def _name(source: str | Path | nn.Module) -> str:
    return type(source).__name__ if isinstance(source, nn.Module) else str(source)
