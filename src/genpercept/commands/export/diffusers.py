"""`genpercept export`: a model written for other programs. One function per target, in TARGETS.

diffusers: the layout that the family's own code loads. Weights keep their bits; what a layout cannot say is refused. onnx and
openvino: one step as a graph, checked against the pipeline, which `genpercept predict` runs, too.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import diffusers
import torch
from safetensors.torch import save_file

from genpercept.checkpoints import hub, parts
from genpercept.core.files import atomic_files, atomic_folder
from genpercept.core.names import choose
from genpercept.imaging.kinds import KINDS, Kind
from genpercept.models import text
from genpercept.models.codecs import CODECS
from genpercept.pipeline import base_model, exported, loading
from genpercept.pipeline.families import _marigold_index as marigold
from genpercept.pipeline.families._family import LEFT_UP_VIEWER, OWN
from genpercept.pipeline.families._from_base import SCALING_FACTOR
from genpercept.pipeline.families._headers import OUTPUT
from genpercept.pipeline.families.genpercept import DECODER, HEAD
from genpercept.pipeline.pipeline import GenPerceptPipeline

MARKER = exported.MARKER


@dataclass(frozen=True)
class Source:
    """What is exported. base: the folder of its base model; None where none is known. file: the name of a graph's file.

    dtype: of a graph's weights; images: what it is checked on, none for drawn ones.
    """

    pipe: GenPerceptPipeline
    base: Path | None
    allow_pickle: bool = False
    file: str = ""
    dtype: str = "fp32"
    images: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        """Of its predictions."""
        return KINDS.find(self.pipe.task_plugin.kind)

    def need_base(self, why: str) -> Path:
        if self.base is None:
            raise ValueError(f"{self.pipe.info.get('model')}: {why}: pass --base, or set {base_model.VARIABLE}")
        return self.base

    def refuse(self, why: str) -> ValueError:
        return ValueError(f"{self.pipe.info.get('model')}: cannot be written for diffusers: {why}")


def main(
    model: str,
    to: str,
    out: Path,
    base: str | None = None,
    family: str | None = None,
    task: str | None = None,
    subfolder: str | None = None,
    allow_pickle: bool = False,
    dtype: str | None = None,
    images: Sequence[str] = (),
) -> int:
    """Write `model` to `out` for the program `to`, a folder, or for graphs a file; prints what was written. 0, or ValueError.

    dtype, images: of graphs, see `Source`.
    """
    write = TARGETS[choose("export target", to, TARGETS)]
    suffix = exported.SUFFIXES.get(to, "")
    if not suffix and (dtype or images):
        raise ValueError(f"--to {to} copies weights as they are: leave --dtype and --images out")
    single = bool(suffix) and out.suffix.lower() == suffix
    (_refuse_foreign_file if single else _refuse_foreign)(out)
    if exported.find(Path(model) / (subfolder or "")) is not None:
        raise ValueError(f"{model}: is an export already: pass the model that it was made from")
    pipe = loading.load(
        model,
        base=base,
        family=family,
        task=task,
        subfolder=subfolder,
        allow_pickle=allow_pickle,
        specialised=False,
        device="cpu",
    )
    known = base or pipe.info.get("base")
    folder = base_model.local(str(known)) if known else None
    if folder is None and base is not None:
        folder = hub.resolve(base, allow_pickle=allow_pickle)
    source = Source(
        pipe, folder, allow_pickle, out.name if single else f"model{suffix}", dtype or "fp32", tuple(images)
    )
    if single:
        _write_file(write, source, out)
    else:
        _write_folder(write, source, out, to)
    return 0


def _write_folder(write: Callable[[Source, Path], str], source: Source, out: Path, to: str) -> None:
    with atomic_folder(out) as work:
        layout = write(source, work)
        facts = {key: source.pipe.info.get(key) for key in ("model", "model_sha256", "task", "base", "licence")}
        facts = {"to": to, "layout": layout, **facts, "software": source.pipe.meta["software"]}
        parts.write_config(work / MARKER, facts)
    print(f"{out}: {layout}")


def _write_file(write: Callable[[Source, Path], str], source: Source, out: Path) -> None:
    """The file, and beside it that of its weights where it has one."""
    with atomic_files(out) as work:
        layout = write(source, work)
    print(f"{out}: {layout}")


def _refuse_foreign(out: Path) -> None:
    """Only an earlier export may be replaced."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file; pass a folder to export into")
    if out.is_dir() and any(out.iterdir()) and not (out / MARKER).is_file():
        raise ValueError(f"{out}: holds something else than an export; pass a new or empty folder")


def _refuse_foreign_file(out: Path) -> None:
    """As for folders; settings in a file's metadata tell ours."""
    if out.is_dir():
        raise ValueError(f"{out}: is a folder; pass a file, or a folder of another name")
    if out.is_file():
        try:
            exported.read_info(out)
        except ValueError:
            raise ValueError(f"{out}: is something else than an export; pass a new file") from None


# ---- diffusers -------------------------------------------------------------------------------------------------------


def to_diffusers(source: Source, work: Path) -> str:
    """The family's own layout, chosen by how the model is run. Returns what was written, in words."""
    info, pipe = source.pipe.info, source.pipe
    if (info["backbone"], info["codec"]) != ("sd21", "kl"):
        raise source.refuse(f"no public layout has backbone {info['backbone']!r} with codec {info['codec']!r}")
    if info["paradigm"] == "one_step" and info["head"] in ("vae", "dpt"):
        options = pipe.paradigm().options
        if options.get("prediction_type") == "sample":
            return _lotus(source, work, "LotusDPipeline")
        if int(cast(Any, pipe.unet).config.in_channels) == 4 and source.kind.layout != "stack":
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
    cast(Any, pipe.unet).save_pretrained(work / "unet")
    if dpt:
        _drop_output(work / "unet")
        _write_head(source, work / HEAD)
        return "GenPercept: unet without output layers, dpt_head_identity"
    changed = _changed(source)
    if "encoder" in changed:
        raise source.refuse("its image encoder is not its base's, and GenPercept's layout has no place for one")
    for name, prefix in DECODER.items() if changed else ():
        (work / name).mkdir()
        state = cast(Any, pipe.vae).state_dict()
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
    head = cast(Any, source.pipe.head)
    config = {k: v for k, v in dict(head.config).items() if not k.startswith("_")}
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
    for name, ours in cast(Any, source.pipe.vae).state_dict().items():
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
    if int(cast(Any, source.pipe.unet).config.projection_class_embeddings_input_dim or 0) != 4:
        raise source.refuse("its U-Net has no class embedding of width 4, which Lotus's code feeds")
    _check_axes(source)
    _check_prompt(source, pad=True)
    options = {"prediction_type": "sample", "spacing": "trailing", **source.pipe.paradigm().options}
    _full_folder(source, work, class_name, {}, options)
    return f"Lotus: a full folder for its {class_name}"


def _full_folder(source: Source, work: Path, name: str, settings: dict[str, Any], options: dict[str, Any]) -> None:
    """Every part of a diffusers pipeline; tokenizer and text encoder are the base's, byte by byte."""
    base = source.need_base("its layout has a text encoder, which is its base's")
    scheduler = _scheduler(options)
    for part, module in (("unet", source.pipe.unet), ("vae", source.pipe.vae), ("scheduler", scheduler)):
        cast(Any, module).save_pretrained(work / part)
    for part in ("text_encoder", "tokenizer"):
        shutil.copytree(base / part, work / part)
    index = {
        "_class_name": name,
        "_diffusers_version": diffusers.__version__,
        **settings,
        "scheduler": ["diffusers", type(scheduler).__name__],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    parts.write_config(work / "model_index.json", index)


def _scheduler(options: dict[str, Any]) -> Any:
    """The paradigm's options as diffusers' scheduler has them; options that a paradigm lacks are Stable Diffusion 2.1's."""
    betas = options.get("betas", (0.00085, 0.012))
    common = {
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
        return diffusers.LCMScheduler(**cast(Any, common | more))
    return diffusers.DDIMScheduler(**cast(Any, common))


def _check_scaling(source: Source) -> None:
    factor = float(cast(Any, source.pipe.vae).config.scaling_factor)
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


# ---- graphs ----------------------------------------------------------------------------------------------------------


def to_onnx(source: Source, work: Path) -> str:
    return _graph(source, work, "onnx")


def to_openvino(source: Source, work: Path) -> str:
    return _graph(source, work, "openvino")


def _graph(source: Source, work: Path, to: str) -> str:
    from genpercept.commands.export.write import write

    found = write(source.pipe, to, work / source.file, source.dtype, source.images)
    return (
        f"{to}, {source.dtype}, for images of any size: raw maps, which reach {found['largest_value']:.3g}, are at most "
        f"{found['largest']:.2g} away from the pipeline's on {found['images']} {'drawn ' if found['drawn'] else ''}images, "
        f"{found['mean']:.2g} on average"
    )


TARGETS: dict[str, Callable[[Source, Path], str]] = {
    "diffusers": to_diffusers,
    "onnx": to_onnx,
    "openvino": to_openvino,
}
