"""What a model folder holds: family, task, parts, sizes, dtypes, and what is missing. Reads headers, not weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from genpercept import checkpoint, hub, plugins
from genpercept._folder import read_manifest

_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def main(model: str, subfolder: str | None = None) -> int:
    """Print what `model` (embedded name, folder or hub id) is; 0 when whole, 1 when parts are damaged or missing."""
    folder = hub.resolve(model, subfolder=subfolder)
    index = folder / "model_index.json"
    base = not (folder / checkpoint.MANIFEST).is_file() and index.is_file()
    info = _base_info(folder) if base else read_manifest(folder)
    print(f"model       {model}\nfolder      {folder}")
    for key in ("family", "task", "paradigm", "head", "resolution", "axes", "prompt", "base", "licence"):
        if key in info:
            print(f"{key:<11} {info[key] if info[key] != '' else '(empty)'}")
    problems: list[str] = []
    for name, part in info["parts"].items():
        line, problem = _describe(folder, name, part, info)
        print(f"{'part ' + name:<20} {line}")
        problems += [problem] if problem else []
    for problem in problems:
        print(f"problem: {problem}")
    print("whole: every tensor that the parts need is there" if not problems else f"{len(problems)} problem(s)")
    return 1 if problems else 0


def _base_info(folder: Path) -> dict[str, Any]:
    index = checkpoint.read_json(folder / "model_index.json")
    parts = {
        name: {"path": name}
        for name, value in index.items()
        if isinstance(value, list) and value[0] and (folder / name / "config.json").is_file()
    }
    scheduler = checkpoint.read_json(folder / "scheduler" / "scheduler_config.json")
    return {
        "family": f"{index.get('_class_name')} (a base to train from, not a predictor)",
        "paradigm": f"text to image, {scheduler.get('prediction_type', 'epsilon')}",
        "parts": parts,
        "backbone": "sd21",
        "codec": "kl",
    }


def _describe(folder: Path, name: str, part: dict[str, Any], info: dict[str, Any]) -> tuple[str, str]:
    """One line about a part, and its problem ("" when whole)."""
    path = folder / part["path"]
    try:
        files = checkpoint.weight_files(path) if path.is_dir() else [path]
        shapes: dict[str, tuple[int, ...]] = {}
        dtypes: set[str] = set()
        for file in files:
            shapes |= checkpoint.tensor_shapes(file)
            with safe_open(file, framework="pt") as handle:
                stored = {str(handle.get_slice(key).get_dtype()) for key in handle.keys()}  # noqa: SIM118 (not a mapping)
            dtypes |= {_DTYPES.get(name, name) for name in stored}
        count = sum(math.prod(s) for s in shapes.values())
        size = sum(f.stat().st_size for f in files) / 1e6
        line = f"{count:,} parameters, {'/'.join(sorted(dtypes))}, {size:.1f} MB, {part['path']}"
        _check(path, name, shapes, info)
        if "sha256" in part and checkpoint.sha256(path) != part["sha256"]:
            return line, f"{path}: its SHA-256 is not the one of {checkpoint.MANIFEST}: changed or damaged"
        return line, ""
    except ValueError as error:
        return f"damaged, {part['path']}", str(error)


def _check(path: Path, name: str, shapes: dict[str, tuple[int, ...]], info: dict[str, Any]) -> None:
    """Compare what is stored with what the part's own config needs, on the meta device."""
    if name == "unet":
        plugin: Any = plugins.find("backbones", info["backbone"])
    elif name == "vae":
        plugin = plugins.find("codecs", info["codec"])
    elif name == "head":
        plugin = plugins.find("heads", info["head"])
    else:
        return
    with torch.device("meta"):
        module = plugin.build(checkpoint.read_json(path / "config.json"))
    rename = getattr(plugin, "rename", str)
    checkpoint.check_shapes(
        path, {k: tuple(v.shape) for k, v in module.state_dict().items()}, {rename(k): s for k, s in shapes.items()}
    )
