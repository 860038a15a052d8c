"""What a family's own code loads, with the weights' bits: the layout of GenPercept, Marigold, E2E-FT or Lotus.

Or what a family with a backbone of its own says of its layout, as DepthMaster's does.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, cast

import diffusers
import torch
from safetensors.torch import save_file
from torch import nn

from genpercept.checkpoints import parts
from genpercept.commands.export.source import Source
from genpercept.core.modules import config_of, pretrained
from genpercept.models import text
from genpercept.models.backbones import as_backbone
from genpercept.models.codecs import CODECS
from genpercept.pipeline.families import FAMILIES, UNetFamily
from genpercept.pipeline.families import _marigold_index as marigold
from genpercept.pipeline.families._family import LEFT_UP_VIEWER, OWN
from genpercept.pipeline.families._from_base import SCALING_FACTOR
from genpercept.pipeline.families._headers import OUTPUT
from genpercept.pipeline.families.genpercept import DECODER, HEAD


class Diffusers:
    """A layout is chosen by how the model is run; what no layout can say is refused."""

    name, suffix = "diffusers", ""

    def write(self, source: Source, work: Path) -> str:
        return _write(source, work)


def _write(source: Source, work: Path) -> str:
    """The family's own layout, chosen by how the model is run. Returns what was written, in words."""
    info, pipe = source.pipe.info, source.pipe
    if (info["backbone"], info["codec"]) != ("sd21", "kl"):
        if (written := _of_its_backbone(source, work)) is not None:
            return written
        raise source.refuse(f"no public layout has backbone {info['backbone']!r} with codec {info['codec']!r}")
    if info["paradigm"] == "one_step" and info["head"] in ("vae", "dpt"):
        options = pipe.paradigm().options
        if options.get("prediction_type") == "sample":
            return _lotus(source, work, "LotusDPipeline")
        if as_backbone(pipe.unet).in_channels == 4 and source.kind.layout != "stack":
            return _genpercept(source, work)
    if info["paradigm"] == "stochastic_multi_step" and info["head"] == "vae":
        options = pipe.paradigm().options
        if options["prediction_type"] == "sample":
            return _lotus(source, work, "LotusGPipeline")
        return _e2e_ft(source, work) if options["start"] == "zeros" else _marigold(source, work)
    raise source.refuse(f"no public layout runs paradigm {info['paradigm']!r} with head {info['head']!r}")


def _genpercept(source: Source, work: Path) -> str:
    """A GenPercept training run's folder: unet, and what else was trained, each by itself."""
    pipe, dpt = source.pipe, source.pipe.info["head"] == "dpt"
    _check_scaling(source)
    _check_prompt(source, pad=False)
    pretrained(pipe.unet).save_pretrained(work / "unet")
    if dpt:
        _drop_output(work / "unet")
        _write_head(source, work / HEAD)
        return "GenPercept: unet without output layers, dpt_head_identity"
    changed = _changed(source)
    if "encoder" in changed:
        raise source.refuse("its image encoder is not its base's, and GenPercept's layout has no place for one")
    for name, prefix in DECODER.items() if changed else ():
        (work / name).mkdir()
        state = source.vae.state_dict()
        part = {k.removeprefix(prefix): t.contiguous() for k, t in state.items() if k.startswith(prefix)}
        save_file(part, work / name / "model.safetensors")
    return "GenPercept: unet" + (", vae_decoder, vae_post_quant_conv" if changed else "")


def _drop_output(folder: Path) -> None:
    """As the release has it: a DPT head never runs the output layers, and their absence says that there is one."""
    (file,) = folder.glob("*.safetensors")
    kept = {k: t for k, t in parts.read_tensors(file).items() if k not in OUTPUT}
    save_file(kept, file)
    config = parts.read_json(folder / "config.json") | {"_class_name": "CustomUNet2DConditionModel"}
    parts.write_config(folder / "config.json", config, sort_keys=True)


def _write_head(source: Source, folder: Path) -> None:
    head = cast(nn.Module, source.pipe.head)
    config = {k: v for k, v in config_of(head).items() if not k.startswith("_")}
    if config.get("activation", "identity") != "identity" or config.get("out_channels", 1) != 1:
        raise source.refuse("GenPercept's DPT head gives one channel without an activation; this one does not")
    folder.mkdir()
    save_file({k: t.contiguous() for k, t in head.state_dict().items()}, folder / "model.safetensors")
    parts.write_config(folder / "config.json", config)


def _changed(source: Source) -> set[str]:
    """Which halves of the codec, encoder and decoder, are not the base's, compared in the coarser dtype of the two."""
    base = source.need_base("its decoder is written only if it was trained, which its base tells")
    theirs = parts.load_part(CODECS.find("kl"), base / "vae", allow_pickle=source.allow_pickle).state_dict()
    found = set()
    for name, ours in source.vae.state_dict().items():
        other = theirs.get(name)
        if other is None or other.shape != ours.shape or not torch.equal(other.to(ours.dtype), ours):
            found.add("decoder" if name.startswith(tuple(DECODER.values())) else "encoder")
    return found


def _marigold(source: Source, work: Path) -> str:
    info, options = source.pipe.info, source.pipe.paradigm().options
    name = marigold.PIPELINES.get(info["task"])
    if name is None:
        raise source.refuse(f"Marigold's pipelines know {', '.join(marigold.PIPELINES)}, not {info['task']}")
    if source.kind.directions and info.get("axes") not in (None, OWN):
        raise source.refuse("its normals have other axes than those of Marigold's pipelines")
    _check_prompt(source, pad=False)
    settings = {
        "prediction_type": info["task"],
        "default_denoising_steps": source.pipe.default_steps(source.pipe.paradigm()),
        "default_processing_resolution": source.pipe.resolution,
    }
    settings |= marigold.stated(info["task"], source.pipe.task_plugin.options)
    _full_folder(source, work, name, settings, options)
    return f"Marigold: a full folder for diffusers' {name}"


def _e2e_ft(source: Source, work: Path) -> str:
    _check_scaling(source)
    _check_axes(source)
    _check_prompt(source, pad=False)
    _full_folder(source, work, "MarigoldPipeline", {}, source.pipe.paradigm().options)
    return "E2E-FT: a full folder for its MarigoldPipeline"


def _lotus(source: Source, work: Path, class_name: str) -> str:
    if int(config_of(source.pipe.unet)["projection_class_embeddings_input_dim"] or 0) != 4:
        raise source.refuse("its U-Net has no class embedding of width 4, which Lotus's code feeds")
    _check_axes(source)
    _check_prompt(source, pad=True)
    options = {"prediction_type": "sample", "spacing": "trailing", **source.pipe.paradigm().options}
    _full_folder(source, work, class_name, {}, options)
    return f"Lotus: a full folder for its {class_name}"


def _of_its_backbone(source: Source, work: Path) -> str | None:
    """As the family whose own backbone it has says; None where none says anything."""
    info = source.pipe.info
    if (info["codec"], info["head"]) != ("kl", "vae"):
        return None
    for family in FAMILIES.all().values():
        if not isinstance(family, UNetFamily) or family.backbone != info["backbone"]:
            continue
        try:
            folder = family.full_folder(source.pipe)
        except ValueError as error:
            raise source.refuse(str(error)) from None
        if folder is not None:
            _check_scaling(source)
            _check_prompt(source, pad=folder.padded)
            options = None if folder.scheduler is None else dict(folder.scheduler)
            _full_folder(source, work, folder.pipeline, dict(folder.index), options)
            return f"{folder.pipeline.removesuffix('Pipeline')}: a full folder for its {folder.pipeline}"
    return None


def _full_folder(
    source: Source, work: Path, name: str, settings: dict[str, Any], options: dict[str, Any] | None
) -> None:
    """Every part of a diffusers pipeline; tokenizer and text encoder are the base's, byte by byte.

    options: of the paradigm, for the scheduler; None: there is none.
    """
    base = source.need_base("its layout has a text encoder, which is its base's")
    if options is not None:
        scheduler = _scheduler(options)
        scheduler.save_pretrained(work / "scheduler")
        settings = settings | {"scheduler": ["diffusers", type(scheduler).__name__]}
    for part, module in (("unet", source.pipe.unet), ("vae", source.vae)):
        pretrained(module).save_pretrained(work / part)
    for part in ("text_encoder", "tokenizer"):
        shutil.copytree(base / part, work / part)
    index = {
        "_class_name": name,
        "_diffusers_version": diffusers.__version__,
        **settings,
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    parts.write_config(work / "model_index.json", index)


def _scheduler(options: dict[str, Any]) -> diffusers.LCMScheduler | diffusers.DDIMScheduler:
    """The paradigm's options as diffusers' scheduler has them; options that a paradigm lacks are Stable Diffusion 2.1's."""
    betas = options.get("betas", (0.00085, 0.012))
    common: dict[str, Any] = {
        "beta_start": float(betas[0]),
        "beta_end": float(betas[1]),
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "prediction_type": options.get("prediction_type", "v_prediction"),
        "rescale_betas_zero_snr": bool(options.get("zero_terminal_snr", False)),
        "set_alpha_to_one": bool(options.get("set_alpha_to_one", False)),
        "steps_offset": int(options.get("steps_offset", 1)),
        "timestep_spacing": options.get("spacing", "leading"),
    }
    if options.get("sampler") == "lcm":
        more = {key: options[key] for key in ("original_inference_steps", "timestep_scaling")}
        return diffusers.LCMScheduler(**common | more)
    return diffusers.DDIMScheduler(**common)


def _check_scaling(source: Source) -> None:
    factor = float(config_of(source.vae)["scaling_factor"])
    if factor != SCALING_FACTOR:
        raise source.refuse(
            f"its latents are scaled by {factor}, and {SCALING_FACTOR} is fixed in the family's own code"
        )


def _check_axes(source: Source) -> None:
    if source.kind.directions and source.pipe.info.get("axes") != LEFT_UP_VIEWER:
        raise source.refuse(
            "its normals have other axes than the family's own code gives (x left, y up, z to the viewer)"
        )


def _check_prompt(source: Source, pad: bool) -> None:
    """The family's code embeds the empty prompt itself, with the base's text encoder: it must be the model's own."""
    if source.base is None:
        return  # refused later where a text encoder is written; a U-Net folder says nothing of its prompt
    theirs = text.embed(*text.load(source.base, allow_pickle=source.allow_pickle), "", pad=pad)
    ours = source.pipe.prompt_embeds
    if theirs.shape != ours.shape or not torch.allclose(theirs, ours.float(), atol=1e-3):
        how = "padded to the full length" if pad else "not padded"
        raise source.refuse(
            f"it was trained with another prompt than the empty one, {how}, which the family's code uses"
        )


PLUGIN = Diffusers()
