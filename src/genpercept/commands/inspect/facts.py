"""What a folder of weights is, read from its JSON files and the headers of its weights: kinds, parts, what is missing."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from genpercept.checkpoints import hub, schema
from genpercept.checkpoints import parts as checkpoint
from genpercept.checkpoints.parts import MANIFEST, Header, PartPlugin, no_model_in, read_json, sha256
from genpercept.checkpoints.weights import lone_file
from genpercept.commands.inspect.report import Given, Part, Report
from genpercept.core.registry import Registry
from genpercept.models import image_prompt
from genpercept.models.backbones import BACKBONES
from genpercept.models.codecs import CODECS, ends
from genpercept.models.heads import HEADS
from genpercept.models.paradigms import PARADIGMS
from genpercept.pipeline import base_model, loading
from genpercept.pipeline.families import FAMILIES, Family, _headers, asked
from genpercept.pipeline.manifest import has_manifest, is_as_saved, needed_parts, part_path, read_manifest
from genpercept.tasks import TASKS

ADAPTER = "adapter_config.json"
_HEAD, _DECODER = "dpt_head_identity", ("vae_decoder", "vae_post_quant_conv")
_TOLD = (  # of a manifest
    *("family", "variant", "task", "paradigm", "backbone", "codec", "head"),
    *("resolution", "axes", "prompt", "base", "licence", "caution"),
)
_FORK = "CustomUNet2DConditionModel"  # GenPercept's own U-Net class: the same tensors


def look(model: str, folder: Path, given: Given) -> Report:
    """Reads JSON and headers; weights are only hashed, block by block, where a manifest says what their hash is."""
    report = Report(model, str(folder))
    if has_manifest(folder):
        _predictor(folder, report, given)
    elif (folder / ADAPTER).is_file():
        _adapter(folder, report)
    elif (folder / "recipe.json").is_file() and (folder / "checkpoints").is_dir():
        _run(folder, report, given)
    elif _is_base(folder):
        _base(folder, report, given)
    else:
        _public(folder, report, given)
    if licence := _licence(folder):
        report.facts.setdefault("licence", licence)
    report.problems += [p.problem for p in report.parts if p.problem]
    report.problems = list(dict.fromkeys(report.problems))
    return report


# ---- kinds -----------------------------------------------------------------------------------------------------------


def _predictor(folder: Path, report: Report, given: Given) -> None:
    """A folder that save_pretrained wrote."""
    report.kind = "predictor"
    info = read_manifest(folder)
    report.facts |= {k: info[k] for k in _TOLD if info.get(k) is not None}
    headers: dict[str, dict[str, Header]] = {}
    known = is_as_saved(folder, info)  # what is need not be built to know that it fits, which takes torch
    for name, entry in info["parts"].items():
        try:
            where = part_path(folder, name, info["parts"])
        except ValueError as error:
            report.parts.append(Part(name, entry["path"], problem=str(error)))
            continue
        part, headers[name] = _part(folder, name, entry["path"], given, None if known else plugin_of(name, info))
        report.parts.append(part)
        if not part.problem and _sha256(where, given) != entry["sha256"]:
            plugin = plugin_of(name, info) if known else None  # which names the tensor that does not fit
            part.problem = base_model.problem_of(plugin, where, headers[name]) if plugin is not None else ""
            part.problem = part.problem or (
                f"{folder / entry['path']}: its SHA-256 is not the one of {MANIFEST}: changed or damaged"
            )
    try:
        if not known and not any(part.problem for part in report.parts):
            _check_pairing(folder, info, headers)
    except ValueError as error:
        report.problems.append(str(error))
    if given.task not in (None, info["task"]):
        report.problems.append(f"{report.model}: is a model for {info['task']}, not {given.task}: leave --task out")


def _check_pairing(folder: Path, info: dict[str, Any], headers: dict[str, dict[str, Header]]) -> None:
    """What the pipeline refuses when it is put together."""
    if missing := sorted(set(needed_parts(info)) - info["parts"].keys()):
        raise ValueError(f"{folder / MANIFEST}: names no part {', '.join(missing)}; save the model again")
    TASKS.find(info["task"])
    unet = read_json(part_path(folder, "unet", info["parts"]) / "config.json")
    if "vae" in info["parts"]:
        vae = read_json(part_path(folder, "vae", info["parts"]) / "config.json")
        channels = int(vae.get("latent_channels", 4))
    else:
        channels = CODECS.find(info["codec"]).wrap(None).channels
    paradigm = PARADIGMS.find(info["paradigm"]).with_options(**(info.get("paradigm_options") or {}))
    wanted, have = paradigm.input_channels(channels), unet.get("in_channels")
    if have is not None and wanted != have:
        raise ValueError(f"{folder}: paradigm {info['paradigm']!r} needs {wanted} input channels; its U-Net has {have}")
    prompt = headers.get("prompt_embeds", {}).get("prompt_embeds")
    width = unet.get("caption_channels") or unet.get("cross_attention_dim")
    if prompt is not None and width is not None and prompt.shape[-1] != width:
        raise ValueError(f"{folder}: the prompt's embedding is {prompt.shape[-1]} wide, the U-Net needs {width}")


def _adapter(folder: Path, report: Report) -> None:
    """A LoRA, as peft saves it."""
    report.kind = "LoRA adapter"
    config = read_json(folder / ADAPTER)
    schema.check(folder / ADAPTER, "r", config.get("r"), int)
    targets = config.get("target_modules")
    targets = targets if isinstance(targets, list) else []
    report.facts |= {"rank": config.get("r"), "alpha": config.get("lora_alpha"), "layers": len(targets)}
    if config.get("base_model_name_or_path"):
        report.facts["base"] = config["base_model_name_or_path"]
    path = "adapter_model.safetensors"
    part, found = _part(folder, "adapter", path, Given(), None)
    report.parts.append(part)
    if not (folder / path).is_file():
        part.problem = f"{folder}: no {path} in it: not an adapter that genpercept or peft saved"
    ranks = {h.shape[0] for name, h in found.items() if ".lora_A." in name and h.shape}
    ranks |= {h.shape[1] for name, h in found.items() if ".lora_B." in name and len(h.shape) > 1}
    if not part.problem and ranks != {config.get("r")}:
        part.problem = f"{folder}: {ADAPTER} says rank {config.get('r')}, its tensors have {sorted(ranks) or 'none'}"
    report.needs.append("the denoiser that it was trained on: genpercept.models.adapters.load_lora(pipe.unet, folder)")


def _run(folder: Path, report: Report, given: Given) -> None:
    """A training run of ours: its recipe, and the model it wrote."""
    recipe = read_json(folder / "recipe.json")
    keys = ("name", "stage", "task", "paradigm", "steps")
    facts = {f"recipe {k}": recipe[k] for k in keys if recipe.get(k) is not None}
    if (folder / "model" / MANIFEST).is_file():
        _predictor(folder / "model", report, given)
        report.needs.append(f"its model's own folder: {folder / 'model'}")
    elif (folder / "model" / "model_index.json").is_file():
        _base(folder / "model", report, given)
    else:
        report.needs.append("to be finished (genpercept train RECIPE.toml --out RUN --resume): no model/ in it yet")
    report.kind = "training run"
    saved = sorted(p.name for p in (folder / "checkpoints").glob("step-*"))
    report.facts = facts | {"checkpoints": ", ".join(saved) or "none"} | report.facts


def _is_base(folder: Path) -> bool:
    """A text-to-image model, rather than a predictor in a full folder."""
    if not (folder / "model_index.json").is_file():
        return False
    name = str(read_json(folder / "model_index.json").get("_class_name"))
    if not name.startswith(("StableDiffusion", "DiffusionPipeline", "PixArt")) or _trained(folder):
        return False
    return loading.told(folder) is None


def _trained(folder: Path) -> bool:
    """A full folder whose U-Net no text-to-image model has: more inputs than the latent's, or Lotus's class embedding."""
    path = folder / "unet" / "config.json"
    config = read_json(path) if path.is_file() else {}
    return config.get("in_channels", 4) not in (4, 9) or config.get("projection_class_embeddings_input_dim") == 4


def _base(folder: Path, report: Report, given: Given) -> None:
    report.kind = "base"
    base = base_model.read_base(folder, allow_pickle=given.allow_pickle)
    report.facts |= {
        "family": f"{base.class_name} (a base to train from, not a predictor)",
        "shape": base.which,
        "paradigm": f"text to image, {base.prediction_type}",
    }
    for name in base.parts:
        report.parts.append(_part(folder, name, name, given, base.plugins.get(name))[0])
    report.problems += base.problems


# ---- public checkpoints ----------------------------------------------------------------------------------------------


def _public(folder: Path, report: Report, given: Given) -> None:
    """What the families' projects publish: a U-Net folder, a run's folder, a full one, or one file."""
    if (file := lone_file(folder)) is not None:
        _one_file(folder, file, report, given)
        return
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    if not (unet / "config.json").is_file():
        raise no_model_in(folder)
    config = read_json(unet / "config.json")
    report.kind = "public checkpoint"
    known = config.get("_class_name")
    if known not in (None, "UNet2DConditionModel", _FORK) or "in_channels" not in config:
        named = config.get("architectures")
        known = known or (named[0] if isinstance(named, list) and named else "part of a model")
        report.kind = str(known)
        report.parts.append(_part(folder, "weights", ".", given, None)[0])
        report.problems.append(f"{folder}: a {known} alone is no model; pass the folder that holds all of its parts")
        return
    BACKBONES.find("sd21").check(config, unet / "config.json")
    path = unet.relative_to(folder).as_posix()
    part, found = _part(folder, "unet", path, given, None)
    report.parts.append(part)
    headless = bool(found) and not any(name in found for name in _headers.OUTPUT)
    if not part.problem:
        sure = loading.told(folder, allow_pickle=given.allow_pickle)
        part.problem = _unet_problem(unet, config, found, headless, sure.backbone if sure else "sd21")
    part.details = _unet_details(config)
    if headless:
        _add_head(folder, unet, report, given)
    for name in _DECODER:
        if (folder / name).is_dir():
            report.parts.append(_part(folder, name, name, given, None)[0])
    if (folder / "vae").is_dir():
        report.parts.append(_part(folder, "vae", "vae", given, CODECS.find("kl"))[0])
    if (folder / image_prompt.FOLDER).is_dir():
        from genpercept.models.image_encoder import PLUGIN  # transformers', which other models do without

        report.parts.append(_part(folder, image_prompt.FOLDER, image_prompt.FOLDER, given, PLUGIN)[0])
    if not part.problem:
        _family(folder, report, given)


def _one_file(folder: Path, file: Path, report: Report, given: Given) -> None:
    """A checkpoint that is one file, and what may lie beside it."""
    report.kind = "public checkpoint"
    part, _ = _part(folder, "unet", "." if folder == file else file.name, given, None)
    report.parts.append(part)
    if (folder / "vae").is_dir():
        report.parts.append(_part(folder, "vae", "vae", given, CODECS.find("kl"))[0])
    if part.problem:
        return
    if not loading.candidates(folder, allow_pickle=given.allow_pickle):
        report.problems.append(f"{file}: {hub.file_advice(file)}")
        return
    _family(folder, report, given)
    if (name := report.facts["family"]) in FAMILIES:
        report.problems += FAMILIES.find(name).problems(folder, allow_pickle=given.allow_pickle)


def _unet_problem(unet: Path, config: dict[str, Any], found: dict[str, Header], headless: bool, backbone: str) -> str:
    try:
        plain = {k: v for k, v in config.items() if k != "_class_name"}
        stored = {k: h.shape for k, h in found.items()}
        module = checkpoint.skeleton(BACKBONES.find(backbone), unet, plain, stored)
        needed = {k: tuple(v.shape) for k, v in module.state_dict().items()}
        if headless:
            needed = {k: s for k, s in needed.items() if not k.startswith(("conv_norm_out.", "conv_out."))}
        checkpoint.check_shapes(unet, needed, stored)
    except ValueError as error:
        return str(error)
    return ""


def _add_head(folder: Path, unet: Path, report: Report, given: Given) -> None:
    for place in (folder / _HEAD, unet / _HEAD, folder.parent / _HEAD):
        if place.is_dir():
            path = os.path.relpath(place, folder)
            part, found = _part(folder, "head", path, given, None)
            if not part.problem and (place / "config.json").is_file():
                config = read_json(place / "config.json")
                part.problem = base_model.problem_of(HEADS.find("dpt"), place, found, config)
            report.parts.append(part)
            return
    report.problems.append(
        f"{unet}: has no output layers (conv_norm_out, conv_out), so it was trained with a DPT head: put the release's "
        f"{_HEAD} folder beside or into {folder}"
    )


def _family(folder: Path, report: Report, given: Given) -> None:
    """Family and task where the files decide them, by the rules that load has; else what load would ask for."""
    found = loading.candidates(folder, allow_pickle=given.allow_pickle)
    found = [c for c in found if c.sure] or found
    report.facts["family"] = " or ".join(c.family for c in found) or "none known here"
    report.facts["told by"] = "; ".join(dict.fromkeys(c.why for c in found))
    report.facts["task"] = " or ".join(dict.fromkeys(t for c in found for t in c.tasks))
    named = None if given.family is None else asked(given.family).name
    if found and named not in (None, *(c.family for c in found)):
        report.problems.append(f"{folder}: could be {report.facts['family']}, not {given.family}: leave --family out")
        return
    where = {"allow_pickle": given.allow_pickle}
    try:
        choice = loading.choose(report.model, folder, given.subfolder, given.family, given.task, None, where)
    except ValueError as error:
        (report.needs if found else report.problems).append(str(error))
    else:
        report.facts |= {"family": choice.layout.name, "task": choice.task}
    for name in dict.fromkeys([named, *(c.family for c in found)]):
        if name and (lacking := FAMILIES.find(name).lacking(folder, allow_pickle=given.allow_pickle)):
            _needs_base(folder, FAMILIES.find(name), lacking, report, given)
            return


def _needs_base(folder: Path, family: Family, lacking: list[str], report: Report, given: Given) -> None:
    """The base that gives what is lacking: the one named, the variable's, or a line that asks for one."""
    base = given.base or os.environ.get(base_model.VARIABLE)
    if not base:
        report.needs.append(f"--base B (or {base_model.VARIABLE}) for {' and '.join(lacking)}: {family.base}")
        return
    report.facts["base"] = f"{base} (by {'--base' if given.base else base_model.VARIABLE})"
    there = base_model.local(base)
    if there is None:
        report.needs.append(f"the base {base}, which is not here: it would be downloaded from {hub.endpoint()}")
        return
    try:
        report.problems += base_model.problems_of(there, lacking, allow_pickle=given.allow_pickle)
        report.problems += family.problems(folder, base, there, allow_pickle=given.allow_pickle)
    except ValueError as error:
        report.problems.append(str(error))


# ---- parts -----------------------------------------------------------------------------------------------------------


def plugin_of(name: str, info: dict[str, Any]) -> PartPlugin | None:
    """The plugin that builds a part of a predictor; None for files without a module."""
    kinds: dict[str, tuple[Registry[Any], str]] = {
        "unet": (BACKBONES, "backbone"),
        "vae": (CODECS, "codec"),
        "head": (HEADS, "head"),
    }
    if name not in kinds:
        return None
    registry, key = kinds[name]
    return registry.find(info[key])


def _part(
    folder: Path, name: str, path: str, given: Given, plugin: PartPlugin | None
) -> tuple[Part, dict[str, Header]]:
    """A part and its headers; with a plugin, what it builds is compared with them."""
    where = folder / path
    found, headers = base_model.weights(where, allow_pickle=given.allow_pickle)
    part = Part(name, path, found.parameters, found.dtypes, found.bytes, problem=found.problem)
    if plugin is not None and not part.problem:
        part.problem = base_model.problem_of(plugin, where, headers)
    elif name == "prompt_embeds" and not part.problem:
        part.problem = base_model.problem_of_prompt(where, headers)
    if not part.problem and (where / "config.json").is_file():
        config = read_json(where / "config.json")
        part.details = {"unet": _unet_details, "vae": _vae_details}.get(name, lambda _: "")(config)
    elif name == "prompt_embeds" and "prompt_embeds" in headers:
        shape = headers["prompt_embeds"].shape
        part.details = f"{shape[1]} tokens, {shape[2]} wide" if len(shape) == 3 else f"shape {list(shape)}"
    return part, headers


def _unet_details(config: dict[str, Any]) -> str:
    channels = f"{config.get('in_channels')} channels in, {config.get('out_channels')} out"
    return f"{channels}, cross-attention {config.get('cross_attention_dim')}, {base_model.which(config)}"


def _vae_details(config: dict[str, Any]) -> str:
    encoder, decoder = ends(config)
    if encoder is decoder:
        what = f"scaling factor {config.get('scaling_factor')}"
    else:
        what = f"{encoder.get('_class_name')}'s encoder and {decoder.get('_class_name')}'s decoder"
    return f"{config.get('latent_channels')} latent channels, {what}"


def _sha256(path: Path, given: Given) -> str:
    try:
        return sha256(path, allow_pickle=given.allow_pickle)
    except OSError:
        return hashlib.sha256(b"").hexdigest()


def _licence(folder: Path) -> str | None:
    """What the folder's own README.md says in its first block, as the hub has it."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")[:4000]
    except (OSError, UnicodeDecodeError):
        return None
    found = re.search(r"^license:\s*(\S+)", text, re.MULTILINE) if text.startswith("---") else None
    return f"{found[1]} (README.md)" if found else None
