"""genpercept.json of a model's folder: read, every value checked before anything is made of it, and its parts found."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genpercept.checkpoints import hub, schema
from genpercept.checkpoints import parts as checkpoint
from genpercept.core.files import write_json
from genpercept.core.names import choose
from genpercept.core.options import RESIZE_MODES
from genpercept.core.registry import Registry
from genpercept.core.texts import one_line
from genpercept.core.values import PublicSize
from genpercept.models import image_prompt
from genpercept.models.backbones import BACKBONES
from genpercept.models.codecs import CODECS
from genpercept.models.heads import HEADS
from genpercept.models.paradigms import PARADIGMS
from genpercept.pipeline import joint
from genpercept.tasks import TASKS

_NAMED: dict[str, Registry[Any]] = {  # keys that name a plugin
    "task": TASKS,
    "paradigm": PARADIGMS,
    "head": HEADS,
    "codec": CODECS,
    "backbone": BACKBONES,
}
_NEEDED = ("format", *_NAMED, "resolution", "parts")
SEAL = "sha256"  # key of the hash over all else
# Keys of the settings and what they may be. Others are whoever's who saved the model, and nothing here reads them
_TYPES: dict[str, Any] = {
    "format": int,
    "family": str,
    "family_options": dict,
    "variant": str,
    **dict.fromkeys(_NAMED, str),
    "task_options": dict,
    "paradigm_options": dict,
    "recipe": dict,
    "decided": dict,
    "conditions": dict[str, list[float]],
    joint.KEY: dict[str, dict],
    "ensembling": dict[str, int | float | str | None],
    image_prompt.FOLDER: dict,
    "replaced": dict,
    "distilled": dict,
    "specialised": dict,
    "skipped": dict,
    "prompt_tokens": int,
    "model_sha256": str,
    SEAL: str,
}
_INTEGERS = {"resolution": (0, 16384), "num_inference_steps": (1, 1000)}  # 0: an image's own size
_TEXTS = ("prompt", "base", "model", "licence", "caution")  # caution: what everybody who uses it is told
_LONGEST = 10_000  # letters of a text
_MOST_TOKENS, _WIDEST = 1024, 65536  # of a prompt's embedding
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ODD = (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, IndexError)


def read_manifest(folder: Path) -> dict[str, Any]:
    """genpercept.json of a model folder, each value checked.

    ValueError, naming the file and the key, when the folder is something else, when it is newer than this version reads, and
    for values that no model has.
    """
    path = folder / checkpoint.MANIFEST
    if not has_manifest(folder):
        if (folder / "model_index.json").is_file():
            kind = checkpoint.read_json(folder / "model_index.json").get("_class_name")
            raise ValueError(
                f"{folder}: a {kind}, which is not trained to predict anything; fine-tune it first (genpercept train), "
                "or build the untrained pipeline with GenPerceptPipeline.from_base"
            )
        raise ValueError(f"{folder}: no {checkpoint.MANIFEST} in it: not a model that genpercept saved; check the path")
    info = checkpoint.read_json(path)
    if absent := [key for key in _NEEDED if key not in info]:
        raise ValueError(f"{path}: lacks {', '.join(absent)}; copy or save the model again")
    if isinstance(info["format"], int) and info["format"] != checkpoint.FORMAT:
        raise ValueError(
            f"{folder}: format {info['format']}, but this version reads {checkpoint.FORMAT}; upgrade genpercept"
        )
    check_settings(path, info)
    _check_parts(path, info["parts"])
    return info


def has_manifest(folder: Path) -> bool:
    """Whether the folder is to be read as a model of ours: what lies there under that name may be anything yet."""
    path = folder / checkpoint.MANIFEST
    return path.exists() or path.is_symlink()


def check_settings(path: Path, info: Mapping[str, Any]) -> None:
    """ValueError for settings of a pipeline, of the file `path`, that none can have: types, bounds, names, options."""
    for key, hint in _TYPES.items():
        if info.get(key) is not None or key in _NAMED:
            schema.check(path, key, info.get(key), hint)
    for key, (low, high) in _INTEGERS.items():
        value = info.get(key)
        whole = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        if not whole and (value is not None or key in _NEEDED):
            raise _wrong(path, key, value, f"an integer from {low} to {high}")
    for key in _TEXTS:
        if not isinstance(info.get(key) or "", str) or len(info.get(key) or "") > _LONGEST:
            raise _wrong(path, key, info[key], f"a text of at most {_LONGEST} letters")
    if (mode := info.get("resize_mode")) not in (None, *RESIZE_MODES):
        raise _wrong(path, "resize_mode", mode, f"one of {', '.join(RESIZE_MODES)}")
    _check_axes(path, info.get("axes"))
    _check_size(path, info.get("official_size"))
    for kind, known in _NAMED.items():
        _known(kind, info[kind], known, path)
    for kind in ("task", "paradigm"):
        _check_options(path, f"{kind}_options", _NAMED[kind].find(info[kind]), info.get(f"{kind}_options") or {})
    if info.get(image_prompt.FOLDER) is not None:
        image_prompt.checked(path, info[image_prompt.FOLDER])
    _check_rows(path, info)


def _check_rows(path: Path, info: Mapping[str, Any]) -> None:
    """ValueError for rows of a joint model that none can have, or of which none is of its task."""
    rows = info.get(joint.KEY) or {}
    if rows and info["task"] not in rows:
        raise _wrong(path, "task", info["task"], f"one of {joint.KEY}: {', '.join(rows)}")
    for task, row in rows.items():
        _known("task", task, TASKS, path)
        if strange := sorted(row.keys() - joint.ROW.keys()):
            raise _wrong(path, f"{joint.KEY}.{task}.{strange[0]}", row[strange[0]], f"one of {', '.join(joint.ROW)}")
        whole = joint.ROW | row
        for key in ("task_options", "ensembling"):
            schema.check(path, f"{joint.KEY}.{task}.{key}", whole[key], _TYPES[key])
        _check_options(path, f"{joint.KEY}.{task}.task_options", TASKS.find(task), whole["task_options"])
        _check_axes(path, whole["axes"])
        _check_size(path, whole["official_size"])


def _check_axes(path: Path, axes: Any) -> None:
    """ValueError for what is no 3 x 3 matrix between axes."""
    rows = axes if isinstance(axes, list) and len(axes) == 3 else [None]
    whole = all(isinstance(row, list) and len(row) == 3 and all(_is_part(x) for x in row) for row in rows)
    if axes is not None and not whole:
        raise _wrong(path, "axes", axes, "three lists of three numbers from -1 to 1, or null")


def _check_size(path: Path, rule: Any) -> None:
    """ValueError for what is no rule of sizes."""
    try:
        PublicSize(**(rule or {}))
    except _ODD as error:
        raise ValueError(f"{path}: official_size: {one_line(error, 200)}; copy or save the model again") from None


def _is_part(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1 <= value <= 1


def _check_options(path: Path, key: str, plugin: Any, options: Mapping[str, Any]) -> None:
    """ValueError for options that the plugin does not take, and for names of files: a saved model has all in itself."""
    for name, value in options.items():
        if isinstance(value, str) and (len(value) > _LONGEST or re.search(r"[/\\]|\.(json|toml)$", value)):
            raise _wrong(path, f"{key}.{name}", value, "a value, not the name of a file")
    try:
        plugin.with_options(**options)
    except _ODD as error:
        raise ValueError(f"{path}: {key}: {one_line(error, 200)}; save the model again") from None


def _check_parts(path: Path, parts: Any) -> None:
    """ValueError unless `parts` says of each part its path and its hash."""
    if not isinstance(parts, dict):
        raise _wrong(path, "parts", parts, "an object: of each part its path and sha256")
    for name, entry in parts.items():
        if not name.isprintable():
            raise _wrong(path, "parts", name, "named by words")
        if not isinstance(entry, dict):
            raise _wrong(path, f"parts.{name}", entry, "an object with path and sha256")
        where = entry.get("path")
        if not isinstance(where, str) or not where or not where.isprintable():
            raise _wrong(path, f"parts.{name}.path", where, "the path of a folder or file in the model's folder")
        for key in ("sha256", *(["config_sha256"] if "config_sha256" in entry else [])):  # older ones lack the latter
            digest = entry.get(key)
            if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
                raise _wrong(path, f"parts.{name}.{key}", digest, "64 hexadecimal digits")


def _wrong(path: Path, key: str, value: Any, wanted: str) -> ValueError:
    shown = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:60]}..."
    return ValueError(f"{path}: {key} is {shown}: must be {wanted}; copy or save the model again")


def _known(kind: str, name: str, registry: Registry[Any], path: Path) -> None:
    """ValueError where a model needs a plugin that there is not: most often that of a package which is not installed."""
    if name in registry:
        return
    try:
        choose(kind, name, registry.names(), f"{path}: ")
    except ValueError as error:
        raise ValueError(f"{error}; or install the package that gives {registry.group} {name!r}") from None


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of a genpercept.json with `sha256` of all of it, its parts' hashes among them."""
    plain = json.loads(json.dumps(manifest, default=str))  # as it is read again
    return plain | {SEAL: _digest(plain)}


def is_as_saved(folder: Path, manifest: Mapping[str, Any]) -> bool:
    """Whether genpercept.json and each part's config.json are as they were saved, by what the first says of all of them.

    A model was whole when it was saved: then hashes of its weights alone tell whether it still is, and nothing has to be
    built. False for models of before there was such a hash.
    """
    if manifest.get(SEAL) != _digest(manifest):
        return False
    try:
        configs = {name: part_path(folder, name, manifest["parts"]) / "config.json" for name in manifest["parts"]}
    except ValueError:
        return False
    said = {name: entry.get("config_sha256") for name, entry in manifest["parts"].items()}
    return all(said[name] == (checkpoint.sha256(c) if c.is_file() else None) for name, c in configs.items())


def _digest(manifest: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in manifest.items() if key != SEAL}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def needed_parts(info: Mapping[str, Any]) -> list[str]:
    """The parts that a model of these settings is made of."""
    names = ["unet"]
    names += ["vae"] if CODECS.find(info["codec"]).class_name is not None else []
    names += ["head"] if HEADS.find(info["head"]).class_name is not None else []
    if info.get(image_prompt.FOLDER):
        return [*names, image_prompt.FOLDER]
    return names + (["prompt_embeds"] if BACKBONES.find(info["backbone"]).input == "latent" else [])


def part_path(folder: Path, part: str, parts: Mapping[str, Any]) -> Path:
    """Where a part lies: in the model's folder. Embedded models, which come with the package, share parts beside theirs.

    ValueError for a part that the manifest does not name, that lies elsewhere, or that is not there.
    """
    manifest = folder / checkpoint.MANIFEST
    if part not in parts:
        raise ValueError(f"{manifest}: names no part {part!r}; copy or save the model again")
    try:
        home, path = folder.resolve(), (folder / parts[part]["path"]).resolve()
    except (OSError, RuntimeError):  # of links in a circle
        raise ValueError(f"{manifest}: part {part!r} leads nowhere ({parts[part]['path']})") from None
    embedded = hub.embedded_root().resolve()
    inside = embedded if home.is_relative_to(embedded) else home
    if inside not in path.parents:
        raise ValueError(f"{manifest}: part {part!r} lies outside the model's folder ({parts[part]['path']})")
    if not path.exists():
        raise ValueError(f"{path}: missing, but {checkpoint.MANIFEST} names it as part {part!r}; copy the model again")
    return path


def check_prompt_shapes(path: Path, found: Mapping[str, tuple[int, ...]]) -> None:
    """ValueError for a file of a prompt whose tensors, by the shapes in its header, are not one (1, tokens, width).

    Before anything is read of it: a header may promise hundreds of gigabytes.
    """
    shape = found.get("prompt_embeds", (0,))
    checkpoint.check_shapes(path, {"prompt_embeds": shape}, dict(found))
    if len(shape) != 3 or shape[0] != 1 or not 0 < shape[1] <= _MOST_TOKENS or not 0 < shape[2] <= _WIDEST:
        raise ValueError(f"{path}: prompt_embeds is {list(shape)}, needs (1, tokens, width); copy the model again")


def predictor_backbone(folder: Path) -> tuple[str, Path]:
    """The plugin of a saved model's backbone, and where that lies."""
    info = read_manifest(folder)
    return str(info["backbone"]), part_path(folder, "unet", info["parts"])


def set_task_options(folder: Path, **options: Any) -> None:
    """Change options of the task that a saved model has. ValueError for a folder, an option or a value that is wrong."""
    info = read_manifest(folder)
    info["task_options"] = TASKS.find(info["task"]).with_options(**info["task_options"]).with_options(**options).options
    write_json(folder / checkpoint.MANIFEST, info)
