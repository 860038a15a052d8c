"""Which files hold the weights of a part: one list of names and one rule, for every part of every model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from genpercept.checkpoints.stand_ins import read_json
from genpercept.core.texts import listed

SUFFIX = ".safetensors"
PICKLE_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth")
TRANSFORMERS = ("model.safetensors",)
NAMES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors", *TRANSFORMERS)
# In order: diffusers' and transformers' names; then whatever single pickle there is. Never a trainer's own state.
PICKLE_NAMES = ("diffusion_pytorch_model.bin", "diffusion_pytorch_model.fp16.bin", "pytorch_model.bin")
STEMS = tuple(dict.fromkeys(name.partition(".")[0] for name in (*NAMES, *PICKLE_NAMES)))  # what all these begin with
_STATE = re.compile(r"optimi[sz]er|scheduler|scaler|random_states|training_args|rng_state")


def weight_files(folder: Path, *, allow_pickle: bool = False, names: Sequence[str] = NAMES) -> list[Path]:
    """The weight files of one part: a single file, or the shards of an index. ValueError when there are none.

    allow_pickle: where there are no safetensors, pickles too. names: of safetensors, the likeliest first.
    """
    for name in names:
        if (folder / name).is_file():
            return [folder / name]
        if _index(folder, name).is_file():
            return _shards(folder, name)
    if found := _pickled(folder):
        if not allow_pickle:
            raise pickle_refused(folder, found[0].name)
        return _shards(folder, PICKLE_NAMES[0]) if _index(folder, PICKLE_NAMES[0]).is_file() else found[:1]
    raise ValueError(f"{folder}: no weights: expected {names[0]}; copy or download the folder again")


def is_pickle(path: Path) -> bool:
    """By its suffix, as torch's and diffusers' own loaders tell."""
    return path.suffix in PICKLE_SUFFIXES


def pickle_refused(where: Path, name: str) -> ValueError:
    """What to say of a pickle that was not allowed."""
    return ValueError(
        f"{where}: holds only {name}, a pickle, which can run code when read: convert it to safetensors "
        "(docs/checkpoints.md), or pass --allow-pickle (allow_pickle=True), which reads nothing but tensors from it"
    )


def _pickled(folder: Path) -> list[Path]:
    """The folder's pickles of weights, the likeliest first."""
    found = [p for p in sorted(folder.glob("*")) if p.is_file() and is_pickle(p) and not _STATE.search(p.name)]
    return sorted(found, key=lambda p: PICKLE_NAMES.index(p.name) if p.name in PICKLE_NAMES else len(PICKLE_NAMES))


def _index(folder: Path, name: str) -> Path:
    """Where the shards of `name` are listed."""
    return folder / f"{name}.index.json"


def _shards(folder: Path, name: str) -> list[Path]:
    """The files that the index of `name` lists. ValueError when it is no index, or one of them is not there."""
    index = _index(folder, name)
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict) or not all(isinstance(file, str) for file in table.values()) or not table:
        raise ValueError(f"{index}: has no weight_map (tensor to file); copy or download it again")
    files, suffix = sorted(set(table.values())), Path(name).suffix
    if strange := [n for n in files if Path(n).name != n or not n.endswith(suffix)]:
        raise ValueError(f"{index}: names {strange[0]}, which is no {suffix} file beside it")
    if missing := [n for n in files if not (folder / n).is_file()]:
        raise ValueError(f"{index}: names {listed(missing)}, not there; copy or download the folder again")
    return [folder / file for file in files]
