"""Model folders: diffusers' layout, genpercept.json with the SHA-256 of every part, the prompt's embedding. And their bases."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from genpercept import checkpoint, lowrank, plugins, text
from genpercept.backbones.sd21 import widen

PROMPT_FILE = "prompt_embeds.safetensors"
DIFFERENCE = "unet_difference"  # a part that only embedded models have: see genpercept.lowrank


@dataclass(frozen=True)
class Parts:
    """What a folder holds. info: of the contents of genpercept.json, without `parts`; prompt_embeds (1, tokens, width)."""

    unet: nn.Module
    vae: nn.Module
    head: nn.Module | None
    prompt_embeds: Tensor
    info: dict[str, Any]


def read(folder: Path, torch_dtype: torch.dtype | None, *, allow_pickle: bool = False) -> Parts:
    """The parts of a model folder; `info` gets the model's hash. float32 unless torch_dtype.

    allow_pickle: as load_part has it. ValueError lists missing, unexpected, misshaped and non-finite tensors, and parts
    whose SHA-256 is not the manifest's.
    """
    info = read_manifest(folder)
    parts = info.pop("parts")
    names = ["unet", "vae", "prompt_embeds"]
    if plugins.find("heads", info["head"]).class_name is not None:
        names.append("head")
    names += [DIFFERENCE] if DIFFERENCE in parts else []
    paths = {part: _part_path(folder, part, parts) for part in names}
    load_part = partial(checkpoint.load_part, allow_pickle=allow_pickle)
    unet = load_part("backbones", info["backbone"], paths["unet"], torch_dtype)
    if DIFFERENCE in paths:
        lowrank.add(unet, checkpoint.read_tensors(paths[DIFFERENCE]), str(paths[DIFFERENCE]))
    vae = load_part("codecs", info["codec"], paths["vae"], torch_dtype)
    head = None
    if "head" in paths:
        head = load_part("heads", info["head"], paths["head"], torch_dtype)
    prompt_embeds = _read_prompt(paths["prompt_embeds"])
    _check_hashes(paths, parts, allow_pickle)
    info["model_sha256"] = _model_hash(parts)
    return Parts(unet, vae, head, prompt_embeds, info)


def read_base(
    folder: Path,
    paradigm: str,
    options: dict[str, Any],
    prompt: str,
    torch_dtype: torch.dtype | None,
    *,
    allow_pickle: bool = False,
) -> Parts:
    """A text-to-image model as the start of this paradigm; `info` gets the paradigm's options and the prompt.

    Its first convolution is widened where the paradigm needs it. ValueError for a base that predicts what it cannot start from.
    """
    kind = checkpoint.read_json(folder / "scheduler" / "scheduler_config.json").get("prediction_type", "epsilon")
    plugin = plugins.find("paradigms", paradigm)
    options = dict(options)
    if "prediction_type" not in options:
        if kind not in plugin.prediction_types:
            raise ValueError(
                f"{folder}: its denoiser predicts {kind!r}; {paradigm} needs a v-prediction base (Stable Diffusion 2.1, 768)"
            )
        if "prediction_type" in plugin.options:
            options["prediction_type"] = kind
    load_part = partial(checkpoint.load_part, allow_pickle=allow_pickle)
    unet = load_part("backbones", "sd21", folder / "unet", torch_dtype)
    vae = load_part("codecs", "kl", folder / "vae", torch_dtype)
    channels = plugin.input_channels(int(cast(Any, vae).config.latent_channels))
    if int(cast(Any, unet).config.in_channels) < channels:
        unet = widen(unet, channels)
    prompt_embeds = text.embed(*text.load(folder, allow_pickle=allow_pickle), prompt)
    return Parts(unet, vae, None, prompt_embeds, {"paradigm_options": options, "prompt": prompt})


def write(target: Path, parts: Parts, class_name: str) -> None:
    """A self-contained folder, atomically. class_name: of the pipeline, for model_index.json. ValueError for a file."""
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target}: is a file; pass a folder to save the model into")
    with checkpoint.atomic_folder(target) as work:
        cast(Any, parts.unet).save_pretrained(work / "unet", safe_serialization=True)
        cast(Any, parts.vae).save_pretrained(work / "vae", safe_serialization=True)
        save_file({"prompt_embeds": parts.prompt_embeds.contiguous()}, work / PROMPT_FILE)
        paths = {"unet": "unet", "vae": "vae", "prompt_embeds": PROMPT_FILE}
        if parts.head is not None:
            cast(Any, parts.head).save_pretrained(work / "head", safe_serialization=True)
            paths["head"] = "head"
        hashes = {part: {"path": path, "sha256": checkpoint.sha256(work / path)} for part, path in paths.items()}
        kept = {k: v for k, v in parts.info.items() if k not in ("model", "model_sha256")}
        _write_json(work / checkpoint.MANIFEST, kept | {"parts": hashes})
        _write_json(work / "model_index.json", _model_index(parts.info, class_name))


def read_manifest(folder: Path) -> dict[str, Any]:
    """genpercept.json of a model folder. ValueError when the folder is something else, or newer than this version reads."""
    if not (folder / checkpoint.MANIFEST).is_file():
        if (folder / "model_index.json").is_file():
            kind = checkpoint.read_json(folder / "model_index.json").get("_class_name")
            raise ValueError(
                f"{folder}: a {kind}, which is not trained to predict anything; fine-tune it first (genpercept train), "
                "or build the untrained pipeline with GenPerceptPipeline.from_base"
            )
        raise ValueError(f"{folder}: no {checkpoint.MANIFEST} in it: not a model that genpercept saved; check the path")
    info = checkpoint.read_json(folder / checkpoint.MANIFEST)
    needed = ("format", "task", "paradigm", "head", "codec", "backbone", "resolution", "parts")
    if absent := [key for key in needed if key not in info]:
        raise ValueError(f"{folder / checkpoint.MANIFEST}: lacks {', '.join(absent)}; copy or save the model again")
    if info["format"] != checkpoint.FORMAT:
        raise ValueError(
            f"{folder}: format {info['format']}, but this version reads {checkpoint.FORMAT}; upgrade genpercept"
        )
    return info


def _part_path(folder: Path, part: str, parts: dict[str, Any]) -> Path:
    """Where a part lies; embedded models share parts by a path beside their own folder."""
    if part not in parts:
        raise ValueError(f"{folder / checkpoint.MANIFEST}: names no part {part!r}; copy or save the model again")
    path = (folder / parts[part]["path"]).resolve()
    if folder.resolve().parent not in path.parents:
        raise ValueError(
            f"{folder / checkpoint.MANIFEST}: part {part!r} lies outside the model's folder ({parts[part]['path']})"
        )
    if not path.exists():
        raise ValueError(f"{path}: missing, but {checkpoint.MANIFEST} names it as part {part!r}; copy the model again")
    return path


def _read_prompt(path: Path) -> Tensor:
    tensors = checkpoint.read_tensors(path)
    checkpoint.check_shapes(
        path,
        {"prompt_embeds": tuple(tensors.get("prompt_embeds", torch.empty(0)).shape)},
        {k: tuple(v.shape) for k, v in tensors.items()},
    )
    checkpoint.check_finite(path, tensors)
    return tensors["prompt_embeds"].float()


def _check_hashes(paths: dict[str, Path], parts: dict[str, Any], allow_pickle: bool) -> None:
    for part, path in paths.items():
        if (found := checkpoint.sha256(path, allow_pickle=allow_pickle)) != parts[part]["sha256"]:
            raise ValueError(
                f"{path}: its SHA-256 {found[:12]}... is not the {parts[part]['sha256'][:12]}... of "
                f"{checkpoint.MANIFEST}: the file was changed or damaged; copy the model again, or save it again with "
                "save_pretrained"
            )


def _model_hash(parts: dict[str, Any]) -> str:
    return hashlib.sha256("".join(parts[k]["sha256"] for k in sorted(parts)).encode()).hexdigest()


def _model_index(info: dict[str, Any], class_name: str) -> dict[str, Any]:
    return {
        "_class_name": class_name,
        "_diffusers_version": importlib.metadata.version("diffusers"),
        "unet": ["diffusers", plugins.find("backbones", info["backbone"]).class_name],
        "vae": ["diffusers", plugins.find("codecs", info["codec"]).class_name],
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, default=str) + "\n", encoding="utf-8")
