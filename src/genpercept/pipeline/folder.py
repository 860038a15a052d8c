"""Model folders: diffusers' layout, genpercept.json with the SHA-256 of every part, the prompt's embedding. And their bases."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from genpercept.checkpoints import lowrank, shapes
from genpercept.checkpoints import parts as checkpoint
from genpercept.checkpoints.weights import weight_files
from genpercept.core.files import atomic_folder
from genpercept.core.modules import config_of, pretrained
from genpercept.models import image_prompt, text
from genpercept.models.backbones import BACKBONES, as_backbone
from genpercept.models.codecs import CODECS
from genpercept.models.heads import HEADS
from genpercept.models.paradigms import PARADIGMS, Paradigm
from genpercept.pipeline.manifest import SEAL, check_prompt_shapes, needed_parts, part_path, read_manifest, sealed
from genpercept.pipeline.pairing import check_prompt

PROMPT_FILE = "prompt_embeds.safetensors"
DIFFERENCE = "unet_difference"  # a part that only embedded models have: see genpercept.checkpoints.lowrank


@dataclass(frozen=True)
class Parts:
    """What a folder holds. info: of the contents of genpercept.json, without `parts`; prompt_embeds (1, tokens, width).

    `unet` is the backbone, whatever it is; no `vae` beside one that takes pixels, and no tokens beside one that reads none.
    """

    unet: nn.Module
    vae: nn.Module | None
    head: nn.Module | None
    prompt_embeds: Tensor
    info: dict[str, Any]
    image_encoder: nn.Module | None = None


def read_model(folder: Path, torch_dtype: torch.dtype | None, *, allow_pickle: bool = False) -> Parts:
    """The parts of a model folder; `info` gets the model's hash. float32 unless torch_dtype.

    allow_pickle: as load_part has it. ValueError lists missing, unexpected, misshaped and non-finite tensors, and parts
    whose SHA-256 is not the manifest's.
    """
    info = read_manifest(folder)
    parts = info.pop("parts")
    info.pop(SEAL, None)
    names = [*needed_parts(info), *([DIFFERENCE] if DIFFERENCE in parts else [])]
    paths = {part: part_path(folder, part, parts) for part in names}
    load_part = partial(checkpoint.load_part, allow_pickle=allow_pickle)
    unet = load_part(BACKBONES.find(info["backbone"]), paths["unet"], torch_dtype)
    if DIFFERENCE in paths and not shapes.wanted():
        lowrank.check(unet, checkpoint.tensor_shapes(paths[DIFFERENCE]), str(paths[DIFFERENCE]))
        lowrank.add(unet, checkpoint.read_tensors(paths[DIFFERENCE]))
    vae = load_part(CODECS.find(info["codec"]), paths["vae"], torch_dtype) if "vae" in paths else None
    head = load_part(HEADS.find(info["head"]), paths["head"], torch_dtype) if "head" in paths else None
    encoder = None
    if image_prompt.FOLDER in paths:
        from genpercept.models.image_encoder import PLUGIN  # transformers', which other models do without

        encoder = load_part(PLUGIN, paths[image_prompt.FOLDER], torch_dtype)
    none = _no_text(as_backbone(unet).context_width or 0 if encoder is not None else 0)
    prompt_embeds = _read_prompt(paths["prompt_embeds"]) if "prompt_embeds" in paths else none
    check_prompt(unet, prompt_embeds)
    if not shapes.wanted():
        _check_hashes(paths, parts, allow_pickle)
    info["model_sha256"] = checkpoint.joint_sha256([parts[k]["sha256"] for k in sorted(parts)])
    return Parts(unet, vae, head, prompt_embeds, info, encoder)


def read_base(
    folder: Path,
    paradigm: str,
    options: dict[str, Any],
    prompt: str,
    torch_dtype: torch.dtype | None,
    *,
    allow_pickle: bool = False,
    widen: bool = True,
) -> Parts:
    """A base model as the start of this paradigm; `info` gets its parts' names, the paradigm's options and the prompt.

    A text-to-image model in diffusers' layout, or a backbone that takes pixels, alone. widen: its first convolution takes as
    many channels as the paradigm needs. ValueError for a base that predicts what the paradigm cannot start from.
    """
    load_part = partial(checkpoint.load_part, allow_pickle=allow_pickle)
    backbone, path = base_backbone(folder)
    plugin = PARADIGMS.find(paradigm)
    if BACKBONES.find(backbone).input == "pixels":
        unet = load_part(BACKBONES.find(backbone), path, torch_dtype)
        info = {"paradigm_options": options, "prompt": "", "backbone": backbone, "codec": "pixels"}
        return Parts(unet, None, None, _no_text(), info | _skipped(backbone, path, allow_pickle))
    options = _prediction_type(folder, plugin, options)
    unet = load_part(BACKBONES.find(backbone), path, torch_dtype)
    vae = load_part(CODECS.find("kl"), folder / "vae", torch_dtype)
    channels = as_backbone(unet).in_channels
    if widen:
        channels = max(channels, plugin.input_channels(int(config_of(vae)["latent_channels"])))
    unet = BACKBONES.find(backbone).adapt(unet, channels)
    prompt_embeds = base_prompt(folder, path, backbone, unet, prompt, allow_pickle=allow_pickle)
    info = {"paradigm_options": options, "prompt": prompt, "backbone": backbone, "codec": "kl"}
    return Parts(unet, vae, None, prompt_embeds, info)


def base_backbone(folder: Path) -> tuple[str, Path]:
    """The plugin that takes the backbone of a base in a public layout, and where that lies."""
    for name in BACKBONES.names():
        plugin = BACKBONES.find(name)
        path = folder / (plugin.folder if plugin.input == "latent" else "")
        if (path / "config.json").is_file() and plugin.recognise(checkpoint.read_json(path / "config.json")):
            return name, path
    return "sd21", folder / "unet"  # which says what is missing there


def base_prompt(
    folder: Path, path: Path, backbone: str, unet: Any, prompt: str, *, allow_pickle: bool = False
) -> Tensor:
    """The prompt's embedding (1, tokens, width). For "" no text encoder is needed where the base has it stored, as

    prompt_embeds.safetensors beside the parts or among the weights of the backbone, which lie in `path`, or where the backbone
    knows it. ValueError for a prompt to a backbone that is told more of a text than its tokens (SDXL).
    """
    known = unet.empty_prompt
    if known is not None and prompt:
        raise ValueError(
            f"{folder}: its U-Net reads a pooled text embedding too, which only the empty prompt, whose is zero, does "
            f"without: leave the prompt {prompt!r} out"
        )
    if known is not None:
        return known
    if not prompt and (folder / PROMPT_FILE).is_file():
        return _read_prompt(folder / PROMPT_FILE)
    name = BACKBONES.find(backbone).null_caption
    if not prompt and name and (found := checkpoint.read_tensor(path, name)) is not None:
        return found.float()[None]
    return text.embed(*text.load(folder, allow_pickle=allow_pickle), prompt)


def _skipped(backbone: str, path: Path, allow_pickle: bool) -> dict[str, Any]:
    """What else a base's files hold, by the first part of its name: {"skipped": {"text_model": 196}}; {} for nothing."""
    plugin = BACKBONES.find(backbone)
    files = weight_files(path, allow_pickle=allow_pickle)
    names = (n for f in files for n in checkpoint.tensor_shapes(f, allow_pickle=allow_pickle))
    found = Counter(name.partition(".")[0] for name in names if plugin.skip(name))
    return {"skipped": dict(found)} if found else {}


def _prediction_type(folder: Path, paradigm: Paradigm, options: dict[str, Any]) -> dict[str, Any]:
    """The paradigm's options with the base's prediction type, where they have none. ValueError where it cannot start there."""
    kind = checkpoint.read_json(folder / "scheduler" / "scheduler_config.json").get("prediction_type", "epsilon")
    if not paradigm.gives_latent or options.get("prediction_type") == "sample":
        return dict(options)
    if kind not in paradigm.prediction_types:
        advice = ', or set its option prediction_type = "sample"' if "prediction_type" in paradigm.options else ""
        raise ValueError(
            f"{folder}: its denoiser predicts {kind!r}; {paradigm.name} needs a v-prediction base "
            f"(Stable Diffusion 2.1, 768){advice}"
        )
    return ({"prediction_type": kind} if "prediction_type" in paradigm.options else {}) | dict(options)


def write(target: Path, parts: Parts, class_name: str) -> None:
    """A self-contained folder, atomically. class_name: of the pipeline, for model_index.json. ValueError for a file."""
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target}: is a file; pass a folder to save the model into")
    with atomic_folder(target) as work:
        paths = {"unet": BACKBONES.find(parts.info["backbone"]).folder}
        pretrained(parts.unet).save_pretrained(work / paths["unet"], safe_serialization=True)
        for name, part in (("vae", parts.vae), ("head", parts.head), (image_prompt.FOLDER, parts.image_encoder)):
            if part is not None:
                pretrained(part).save_pretrained(work / name, safe_serialization=True)
                paths[name] = name
        if parts.prompt_embeds.numel():
            save_file({"prompt_embeds": parts.prompt_embeds.contiguous()}, work / PROMPT_FILE)
            paths["prompt_embeds"] = PROMPT_FILE
        hashes = {part: {"path": path} | checkpoint.hashes(work / path) for part, path in paths.items()}
        kept = {k: v for k, v in parts.info.items() if k not in ("model", "model_sha256")}
        checkpoint.write_config(work / checkpoint.MANIFEST, sealed(kept | {"parts": hashes}))
        checkpoint.write_config(work / "model_index.json", _model_index(parts.info, class_name))


def _no_text(width: int = 0) -> Tensor:
    """prompt_embeds of a backbone that reads none; width: of what it reads in a prompt's place."""
    return torch.zeros(1, 0, width)


def _read_prompt(path: Path) -> Tensor:
    check_prompt_shapes(path, checkpoint.tensor_shapes(path))
    tensors = checkpoint.read_tensors(path)
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


def _model_index(info: dict[str, Any], class_name: str) -> dict[str, Any]:
    """diffusers' index, which names the parts that diffusers has."""
    backbone, codec = BACKBONES.find(info["backbone"]), CODECS.find(info["codec"])
    index: dict[str, Any] = {"_class_name": class_name, "_diffusers_version": importlib.metadata.version("diffusers")}
    if backbone.input == "latent":
        index[backbone.folder] = ["diffusers", backbone.class_name]
    if codec.class_name is not None:
        index["vae"] = ["diffusers", codec.class_name]
    return index
