"""Which weights a request means: a hash of each model's files, known without loading it.

A saved model's own genpercept.json holds its parts' hashes, and loading checks them. Of the other layouts the files are hashed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from genpercept.checkpoints import hub, parts
from genpercept.checkpoints.weights import PICKLE_SUFFIXES, SUFFIX, weight_files
from genpercept.commands.predict.request import Request
from genpercept.imaging.write import digest_of
from genpercept.pipeline import graphs

_BASE = "GENPERCEPT_BASE"
_SHA256 = re.compile(r"[0-9a-f]{64}")


def identity(request: Request, *, check: bool) -> dict[str, str]:
    """{"model", "base", "encoder", "decoder", "detector", "noise", "boxes": SHA-256}, of what is asked for and lies here.

    check: read the weights that genpercept.json names, since nobody is going to load them.
    """
    model = _located(request.model_name, request.subfolder)
    own = model is not None and (model / parts.MANIFEST).is_file()
    complete = model is None or own or graphs.find(model) is not None
    base = None if complete else request.base or os.environ.get(_BASE)
    found = {"model": _hash(model, check)}
    for role, name in (("base", base), ("encoder", request.encoder), ("decoder", request.decoder)):
        # a denoiser that the model has itself is not taken of the base, and is most of it
        without = "unet" if role == "base" and model is not None and (model / "unet").is_dir() else ""
        found[role] = None if name is None else _hash(_located(name), check, without)
    if request.detector and "=" in request.detector:
        found["detector"] = _hash(_located(request.detector.partition("=")[2]), check)
    if request.noise:
        found["noise"] = _hash(Path(request.noise).expanduser(), check)
    if request.boxes:
        found["boxes"] = _hash(Path(request.boxes).expanduser(), check)
    return {role: sha256 for role, sha256 in found.items() if sha256 is not None}


def model_sha256(request: Request) -> str | None:
    """What results of a saved model have as `model_sha256`; None of other layouts, and of what is not here."""
    try:
        folder = _located(request.model_name, request.subfolder)
        table = None if folder is None else _manifest(folder)["parts"]
        return None if table is None else parts.joint_sha256([table[name]["sha256"] for name in sorted(table)])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _located(name: str, subfolder: str | None = None) -> Path | None:
    """The folder or file that is on this machine under a name, without asking the network; None: there is none."""
    try:
        here = Path(name).expanduser()
        if not here.exists():
            embedded = hub.embedded_root() / name.partition("/")[2]
            known = name.startswith(f"{hub.EMBEDDED}/") and embedded.is_dir()
            cached = embedded if known else hub.cached(name)
            if cached is None:
                return None
            here = cached
        found = here / (subfolder or "")
        return found if found.exists() else None
    except (OSError, ValueError, RuntimeError):
        return None


def _hash(where: Path | None, check: bool, without: str = "") -> str | None:
    """Over the names and hashes of the files that a model may be read from; None of what cannot be read."""
    try:
        if where is None:
            return None
        if where.is_file():
            files = sorted(
                path for path in where.parent.glob(f"{where.stem}*") if path.is_file()
            )  # a graph's own weights
            return _joint({path.name: _of_file(path) for path in files})
        if (where / parts.MANIFEST).is_file():
            return _joint(_of_saved(where, check))
        folders = [where, *(path for path in where.iterdir() if path.is_dir() and path.name != without)]
        files = [file for folder in folders for file in _read_from(folder)]
        return _joint({file.relative_to(where).as_posix(): _of_file(file) for file in files})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read_from(folder: Path) -> list[Path]:
    """The settings and the weights in a folder: of several variants the one that is loaded, or all, where that is not known."""
    settings = [path for path in folder.glob("*.json") if path.is_file()]
    kinds = (SUFFIX, *PICKLE_SUFFIXES, ".onnx", ".data", ".xml")
    try:
        return [*settings, *weight_files(folder, allow_pickle=True)]
    except ValueError:
        return [*settings, *(path for path in folder.iterdir() if path.suffix.lower() in kinds and path.is_file())]


def _of_saved(folder: Path, check: bool) -> dict[str, str]:
    """Of a model's settings and its parts, as its manifest says, or as their files are."""
    manifest = _manifest(folder)
    table = manifest.pop("parts")
    said = {name: str(part["sha256"]) for name, part in table.items()}
    if check:
        said = {name: parts.sha256(folder / part["path"], allow_pickle=True) for name, part in table.items()}
    return {"": hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest(), **said}


def _manifest(folder: Path) -> dict[str, Any]:
    found = parts.read_json(folder / parts.MANIFEST)
    if not isinstance(found.get("parts"), dict):
        raise ValueError(f"{folder}: no parts")
    return found


def _of_file(path: Path) -> str:
    """The hub's cache calls a large file by its hash."""
    real = path.resolve()
    known = _SHA256.fullmatch(real.name) and real.parent.name == "blobs"
    return real.name if known else digest_of(path).sha256


def _joint(hashes: dict[str, str]) -> str | None:
    return parts.joint_sha256([f"{name}={hashes[name]}\n" for name in sorted(hashes)]) if hashes else None
