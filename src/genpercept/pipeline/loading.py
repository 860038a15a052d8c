"""`genpercept.load`: one way in for embedded models, saved folders, hub repositories and public checkpoints."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

import torch

from genpercept.checkpoints import hub, weights
from genpercept.core import dtypes, said
from genpercept.core.devices import pick_device
from genpercept.core.texts import sentence_shown
from genpercept.pipeline import base_model, exported, graphs
from genpercept.pipeline import quantised as quantising
from genpercept.pipeline.families import FAMILIES, Candidate, Family, asked, choices
from genpercept.pipeline.families._family import looks
from genpercept.pipeline.families._from_base import find_base, refuse_untouched, without_revision
from genpercept.pipeline.families._headers import read_layout
from genpercept.pipeline.manifest import has_manifest, read_manifest
from genpercept.pipeline.pipeline import GenPerceptPipeline
from genpercept.pipeline.specialise import pipeline
from genpercept.tasks import TASKS


def load(
    name: str | Path = "mini/depth",
    *,
    base: str | Path | None = None,
    family: str | None = None,
    task: str | None = None,
    torch_dtype: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
    subfolder: str | None = None,
    revision: str | None = None,
    variant: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    allow_pickle: bool = False,
    specialised: bool | None = None,
    encoder: str | Path | None = None,
    decoder: str | Path | None = None,
    quantised: str | None = None,
) -> GenPerceptPipeline:
    """A ready predictor: an embedded model ("mini/depth"), a folder, a hub id, or a public checkpoint of a known family, which
    may be a file; or a file that `genpercept export` wrote for ONNX Runtime (.onnx) or OpenVINO (.xml), or its folder.

    base: the model that a public checkpoint was trained from, for what it does not bring; None: GENPERCEPT_BASE names it.
    family: the checkpoint's layout, where its files don't tell, with its choices ("depthfm,attention=rescaled"); task: what
    the model is for, where they don't tell that (the U-Nets of depth and normals look alike), checked where they do. What was
    concluded, and from what, is in `meta["decided"]`. float32 unless torch_dtype, one of torch's types or its name. device
    None: the fastest there is. specialised: True for the quicker pipeline of `genpercept.specialise`, False for the plain one,
    None: as it was saved. encoder, decoder: another codec for one end or both, as `pipe.with_codec` takes it: the folder or
    hub id of a codec, or a model whose codec is taken. quantised: "int8wo" (weights) or "int8dq" (activations, too) of linear
    layers in int8, by torchao; a plain pipeline then, which cannot be saved. revision: branch, tag or commit of a hub
    repository. variant: "fp16" or other weights, where parts have several; None: the plain ones, or the only ones.
    allow_pickle: .bin and .ckpt too, tensors only. ValueError, in one line, for misfits.
    """
    where: dict[str, Any] = {"revision": revision, "cache_dir": cache_dir, "local_files_only": local_files_only}
    where |= {"token": token, "allow_pickle": allow_pickle}
    _check_names(task, family, quantised, specialised)
    if (file := graphs.find(Path(name) / (subfolder or ""))) is not None:
        _refuse_parts(file, specialised, encoder or decoder, variant, quantised)
        return _warned(_check_asked(_graph(file, torch_dtype, str(device or "auto")), name, family, task))
    torch_dtype = dtypes.to_torch(torch_dtype) if isinstance(torch_dtype, str) else torch_dtype
    with weights.variant(variant):
        folder = hub.resolve(name, subfolder=subfolder, lone_files=True, **where)
        weights.check_variant(folder, variant)
        if has_manifest(folder):  # ours: whole, so that a base gives nothing
            pipe = GenPerceptPipeline.from_pretrained(folder, torch_dtype=torch_dtype, allow_pickle=allow_pickle)
            pipe.info["model"] = str(name) if subfolder is None else f"{name}/{subfolder}"
        else:
            choice = choose(name, folder, subfolder, family, task, base, where)
            pipe = _public(name, folder, subfolder, choice, base, torch_dtype, where)
        pipe = _check_asked(pipe, name, family, task)
        stored = {k: pipe.info[k] for k in (pipeline.MARK,) if k in pipe.info}
        if encoder is not None or decoder is not None:
            pipe = pipe.with_codec(encoder, decoder, **without_revision(where))
            pipe.info |= stored
    if quantised is not None:
        pipe = quantising.quantise(pipe, quantised)
    elif specialised or (specialised is None and stored):
        pipe = pipeline.again(pipe, torch_dtype)
    return _warned(pipe.to(pick_device(str(device or "auto"))))


def _warned(pipe: GenPerceptPipeline) -> GenPerceptPipeline:
    """What the model's maker wants all its users to know, once in a process."""
    if caution := pipe.info.get("caution"):
        said.once(f"note: {sentence_shown(pipe.info.get('model'))}: {sentence_shown(caution)}")
    return pipe


def _graph(file: Path, torch_dtype: torch.dtype | str | None, device: str) -> GenPerceptPipeline:
    """An exported model: no such pipeline, but with the same call."""
    return cast(GenPerceptPipeline, exported.load(file, torch_dtype, graphs.pick_device(file, device)))


def _public(
    name: str | Path,
    folder: Path,
    subfolder: str | None,
    choice: Choice,
    base: str | Path | None,
    torch_dtype: torch.dtype | None,
    where: dict[str, Any],
) -> GenPerceptPipeline:
    """A public checkpoint, with what its family keeps beside it and what it lacks of its base."""
    if subfolder:  # a repository of which only this folder was brought
        for part in choice.layout.beside(folder):
            hub.resolve(name, subfolder=str(PurePosixPath(subfolder).with_name(part)), **where)
    given = base or _base_for(name, choice.layout, folder, bool(where.get("allow_pickle")))
    pipe = choice.layout.load(folder, given, choice.task, torch_dtype, where)
    pipe.info["decided"] = choice.reasons | pipe.info.get("decided", {})
    return pipe


def _refuse_parts(
    file: Path,
    specialised: bool | None,
    codec: str | Path | None,
    variant: str | None = None,
    quantised: str | None = None,
) -> None:
    """ValueError for what is asked of a model's parts, which a graph does not have."""
    if quantised is not None:
        raise ValueError(f"{file}: an exported graph has its precision from `genpercept export`: leave quantised out")
    if variant is not None:
        raise ValueError(f"{file}: an exported graph has no variants of its weights: leave variant out")
    if specialised is not None:
        raise ValueError(
            f"{file}: an exported graph is specialised already, and holds no plain model: leave specialised out, or load the "
            "model that it was exported from"
        )
    if codec is not None:
        raise ValueError(
            f"{file}: an exported graph has no codec that could be replaced: load the model that it was exported from"
        )


def _check_names(task: str | None, family: str | None, quantised: str | None, specialised: bool | None) -> None:
    """An unknown name is said before anything is loaded."""
    if quantised is not None:  # the module brings diffusers
        quantising.check(quantised, specialised)
    if task is not None:
        TASKS.find(task)
    if family is not None:
        asked(family)


def _check_asked(
    pipe: GenPerceptPipeline, name: str | Path, family: str | None, task: str | None
) -> GenPerceptPipeline:
    """The pipeline, asked for the task. ValueError for one of another family, with other choices, or without such a task."""
    if family is not None and asked(family).name != pipe.info.get("family"):
        raise ValueError(f"{name}: is of family {pipe.info.get('family')}, not {family}: leave the family out")
    made = pipe.info.get("family_options") or {}
    for key, value in choices(family or "").items():
        if made.get(key) != value:
            raise ValueError(
                f"{name}: was saved with {key} {made.get(key)!r}: load the checkpoint that it was saved from"
            )
    if task is None:
        return pipe
    if task not in pipe.tasks:
        does = " and ".join(pipe.tasks)
        raise ValueError(f"{name}: is a model for {does}, not {task}: leave the task out, or choose another model")
    return pipe.answering(task)


@dataclass(frozen=True)
class Choice:
    """The family and task of a public checkpoint, and how each became known."""

    layout: Family
    task: str
    reasons: dict[str, str]


def choose(
    name: str | Path,
    folder: Path,
    subfolder: str | None,
    family: str | None,
    task: str | None,
    base: str | Path | None,
    where: dict[str, Any],
) -> Choice:
    """By what the caller says, by the hub's name of a published checkpoint, or by its files. Never a guess: ValueError asks."""
    pickle = bool(where.get("allow_pickle"))
    published = f"{name}/{subfolder}" if subfolder else str(name)
    reason = f"{published} is published so"
    if family is None and not Path(name).expanduser().is_dir():
        for layout in _families():
            if stated := layout.published.get(published):
                tasks = stated.split(",")
                if task not in (None, *tasks):
                    raise ValueError(f"{published}: is published for {stated}, not {task}: leave the task out")
                if task is None and len(tasks) > 1:
                    raise ValueError(f"{published}: answers {' and '.join(tasks)} at once: pass task=, one of them")
                return Choice(layout, task or stated, {"family": reason, "task": reason})
    said = {"task": "as asked for"} if task else {}
    if family is not None:
        layout = asked(family)
        found = layout.recognise(folder, allow_pickle=pickle)
        tasks = found.tasks if found else ()
        reasons = {"family": "as asked for"}
    else:
        found = _only(name, folder, candidates(folder, allow_pickle=pickle), task, base, where)
        layout, tasks = FAMILIES.find(found.family), found.tasks
        reasons = {"family": found.why}
    if task is None and len(tasks) == 1:
        return Choice(layout, tasks[0], reasons | {"task": found.why if found else ""})
    if task is None:
        options = ", ".join(tasks or TASKS.names())
        raise ValueError(
            f"{name}: a public checkpoint of family {layout.name!r} does not say what it predicts: pass task= ({options})"
        )
    return Choice(layout, task, reasons | said)


def candidates(folder: Path, *, allow_pickle: bool = False) -> list[Candidate]:
    """Every family that the checkpoint in `folder` could be of. ValueError where it holds no network that can be read."""
    found = [layout.recognise(folder, allow_pickle=allow_pickle) for layout in _families()]
    return [candidate for candidate in found if candidate]


def told(folder: Path, *, allow_pickle: bool = False) -> Candidate | None:
    """The family of which a folder leaves no doubt; None for none, for several, and for a folder that cannot be read."""
    try:
        return _sure(candidates(folder, allow_pickle=allow_pickle))
    except ValueError:
        return None


def _sure(found: list[Candidate]) -> Candidate | None:
    sure = [candidate for candidate in found if candidate.sure]
    return sure[0] if len(sure) == 1 else None


def _families() -> list[Family]:
    return [FAMILIES.find(name) for name in FAMILIES.names()]


def _only(
    name: str | Path,
    folder: Path,
    found: list[Candidate],
    task: str | None,
    base: str | Path | None,
    where: dict[str, Any],
) -> Candidate:
    """The one that is sure, or a ValueError that names what the checkpoint could be."""
    if sure := _sure(found):
        return sure
    if not found:
        if (file := weights.lone_file(folder)) is not None:
            raise ValueError(f"{file}: {hub.file_advice(file)}")
        if base is None:
            read_manifest(folder)  # which says of a stock model what it is
        raise ValueError(
            f"{name}: {looks(read_layout(folder))}: of no family known here ({', '.join(FAMILIES.names())}); check the path"
        )
    pickle = bool(where.get("allow_pickle"))
    origin = find_base(base, where) if task else None
    if origin is not None:
        refuse_untouched(read_layout(folder, allow_pickle=pickle), origin, allow_pickle=pickle)
    could = [f"{c.family} ({', '.join(c.tasks)})" for c in found]
    stock = "a stock text-to-image model, which predicts nothing, or " if len(found) == 1 else ""
    ask = "" if task else f", and pass task= ({', '.join(dict.fromkeys(t for c in found for t in c.tasks))})"
    raise ValueError(
        f"{name}: {found[0].why}: could be {stock}of family {' or '.join(could)}: "
        f"pass family= ({', '.join(c.family for c in found)}), as only you can tell{ask}"
    )


def _base_for(name: str | Path, family: Family, folder: Path, allow_pickle: bool) -> str | None:
    """The base that the environment names, for a checkpoint that lacks parts. ValueError where it names none."""
    lacking = family.lacking(folder, allow_pickle=allow_pickle)
    if not lacking:
        return None
    if base := os.environ.get(base_model.VARIABLE):
        return base
    raise ValueError(
        f"{name}: a public checkpoint without {' and '.join(lacking)}, which come from its base: pass base= "
        f"(a {family.base} folder or hub id), or set {base_model.VARIABLE}"
    )
