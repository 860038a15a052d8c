"""`genpercept.load`: one way in for embedded models, saved folders, hub repositories and public checkpoints."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import torch

from genpercept import hub, plugins
from genpercept.devices import pick_device
from genpercept.pipeline import GenPerceptPipeline

BASE_VARIABLE = "GENPERCEPT_BASE"  # the base of public checkpoints where none is named


def load(
    name: str | Path = "mini/depth",
    *,
    base: str | Path | None = None,
    family: str | None = None,
    task: str | None = None,
    torch_dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    subfolder: str | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    allow_pickle: bool = False,
) -> GenPerceptPipeline:
    """A ready predictor: an embedded model ("mini/depth"), a folder, a hub id, or (with base=) a public checkpoint.

    base: the text-to-image model that a public checkpoint, which holds only its fine-tuned denoiser, was trained from.
    family: the checkpoint's layout, "genpercept" unless given; given without base, GENPERCEPT_BASE names the base. task:
    what the model is for; needed for public checkpoints, checked for others. float32 unless torch_dtype. device None: the
    fastest there is.
    allow_pickle: read .bin and .ckpt weights too, tensors only. ValueError, in one line, for everything that does not fit.
    """
    where = {"revision": revision, "cache_dir": cache_dir, "local_files_only": local_files_only, "token": token}
    where["allow_pickle"] = allow_pickle
    if task is not None:
        plugins.find("tasks", task)  # an unknown name is said before anything is loaded
    if base is None and family is not None:
        base = os.environ.get(BASE_VARIABLE)
        if not base:
            raise ValueError(
                f"{name}: family={family!r} is for public checkpoints, which need their base: pass base= "
                f"(a Stable Diffusion 2.1 folder or hub id), or set {BASE_VARIABLE}"
            )
    if base is not None:
        if task is None:
            raise ValueError(
                f"{name}: a public checkpoint does not say what it predicts: pass task= ({', '.join(plugins.names('tasks'))})"
            )
        folder = hub.resolve(name, subfolder=subfolder, **where)
        layout = plugins.find("families", family or "genpercept")
        if subfolder:  # a repository of which only this folder was brought
            for part in layout.beside(folder):
                hub.resolve(name, subfolder=str(PurePosixPath(subfolder).with_name(part)), **where)
        pipe = layout.load(folder, base, task, torch_dtype, where)
    else:
        pipe = GenPerceptPipeline.from_pretrained(name, torch_dtype=torch_dtype, subfolder=subfolder, **where)
    if task not in (None, pipe.task):
        raise ValueError(f"{name}: is a model for {pipe.task}, not {task}: leave the task out, or choose another model")
    return pipe.to(pick_device(str(device or "auto")))
