"""Which files hold the weights of a part: one list of names and one rule, for every part of every model, here and on the hub.

STEM is diffusers' or transformers' name. Plain weights are STEM.safetensors, or in shards by STEM.safetensors.index.json; a
variant such as fp16 is STEM.fp16.safetensors, or in shards by STEM.safetensors.index.fp16.json (as both libraries write it)
or STEM.fp16.safetensors.index.json. Pickles have the same names, ending in .bin.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

from genpercept.checkpoints.stand_ins import read_json
from genpercept.core.texts import listed

SUFFIX = ".safetensors"
PICKLE_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth")
_BIN = PICKLE_SUFFIXES[0]
_STEMS = {SUFFIX: ("diffusion_pytorch_model", "model"), _BIN: ("diffusion_pytorch_model", "pytorch_model")}
STEMS = tuple(dict.fromkeys(stem for stems in _STEMS.values() for stem in stems))
MAIN = f"{STEMS[0]}{SUFFIX}"  # as we write it
INDEX = 4 << 20  # bytes of an index at most
_VARIANT = r"[A-Za-z0-9_]+(?:-[A-Za-z0-9_]+)*"
_SHARD = re.compile(r"-\d{4,}-of-\d{4,}")
_STATE = re.compile(r"optimi[sz]er|scheduler|scaler|random_states|training_args|rng_state")  # a trainer's own
_OF_MODELS = ("genpercept.json", "model_index.json", "config.json", "unet", "transformer")
_wanted: ContextVar[str | None] = ContextVar("variant_wanted", default=None)


class Entry(NamedTuple):
    """A file by which the weights of a part are found: they themselves, or the index of their shards. variant: "" for plain."""

    name: str
    suffix: str
    variant: str

    @property
    def is_index(self) -> bool:
        return self.name.endswith(".json")


@contextmanager
def variant(name: str | None) -> Iterator[None]:
    """Within, parts that have weights of this variant are read from them; None: as anywhere else. ValueError for no name."""
    if name is not None and not re.fullmatch(_VARIANT, name):
        raise ValueError(f"variant {name!r}: is no variant of weights: name one such as fp16, bf16 or ema")
    token = _wanted.set(name)
    try:
        yield
    finally:
        _wanted.reset(token)


def wanted_variant() -> str | None:
    """What `variant` asks for here."""
    return _wanted.get()


def weight_files(folder: Path, *, allow_pickle: bool = False) -> list[Path]:
    """The weight files of one part: a single file, or the shards of an index; of a file itself, it. ValueError for none.

    Within `variant`, those of it; where it has none, and else, the plain ones, or the only variant that there is; several are a
    ValueError that names them. allow_pickle: where there are no safetensors, pickles too.
    """
    if folder.is_file():
        if is_pickle(folder) and not allow_pickle:
            raise pickle_refused(folder.parent, folder.name)
        return [folder]
    names = sorted(p.name for p in folder.glob("*") if p.is_file())
    entry = choose(names, _wanted.get(), str(folder))
    if entry is None:
        entry = _pickled(names, _wanted.get(), str(folder))
        if entry is not None and not allow_pickle:
            raise pickle_refused(folder, entry.name)
    if entry is None:
        raise ValueError(f"{folder}: no weights: expected {_expected(folder)}; copy or download the folder again")
    return _shards(folder, entry) if entry.is_index else [folder / entry.name]


def lone_file(path: Path) -> Path | None:
    """The file of a checkpoint that is one file: `path`, or the only weights in a folder without any config. Else None."""
    if path.is_file():
        return path if _is_weights(path) and not (path.parent / "config.json").is_file() else None
    if any((path / name).exists() for name in _OF_MODELS):
        return None
    files = [each for each in sorted(path.glob("*")) if _is_weights(each) and each.is_file()]
    return files[0] if len(files) == 1 else None


def _is_weights(path: Path) -> bool:
    return path.suffix in (SUFFIX, *PICKLE_SUFFIXES)


def choose(names: Iterable[str], wanted: str | None, where: str, suffix: str = SUFFIX) -> Entry | None:
    """The entry to read among the file names of a part; None where there is none. ValueError for several variants."""
    found = entries(names, suffix)
    for only in dict.fromkeys((wanted or "", "")):
        if of_it := [entry for entry in found if entry.variant == only]:
            return of_it[0]
    if len(variants := list(dict.fromkeys(entry.variant for entry in found))) > 1:
        known = ", ".join(sorted(variants))
        raise ValueError(f"{where}: has weights in the variants {known}, and no plain ones: pass --variant (variant=)")
    return found[0] if found else None


def entries(names: Iterable[str], suffix: str = SUFFIX) -> list[Entry]:
    """All entries of this suffix among file names, the likeliest first: by stem, and single files before indices."""
    names = sorted(names)
    found = []
    for stem in _STEMS[suffix]:
        for pattern in _patterns(stem, suffix):
            for name in names:
                match = pattern.fullmatch(name)
                if match and not _SHARD.search(name):
                    found.append(Entry(name, suffix, match["variant"] or ""))
    return found


def _patterns(stem: str, suffix: str) -> list[re.Pattern[str]]:
    start, end = re.escape(stem), re.escape(suffix)
    named = rf"(?:\.(?P<variant>{_VARIANT}))?"
    return [
        re.compile(start + named + end),
        re.compile(start + end + r"\.index" + named + r"\.json"),
        re.compile(start + named + end + r"\.index\.json"),
    ]


def shards_by_name(names: Iterable[str], entry: Entry) -> list[str]:
    """Names of an index's shards as both libraries give them: X.fp16-00001-of-00002, or X-00001-of-00002.fp16."""
    stem = entry.name.partition(".")[0]
    named = re.escape(f".{entry.variant}" if entry.variant else "")
    number, end = _SHARD.pattern, re.escape(entry.suffix)
    pattern = re.compile(rf"{re.escape(stem)}(?:{named}{number}|{number}{named}){end}")
    return [name for name in names if pattern.fullmatch(name)]


def needed(names: Sequence[str], wanted: str | None, *, allow_pickle: bool = False) -> list[str]:
    """Of a folder's file names those that reading its weights takes. Every variant, where none is chosen yet."""
    for suffix in (SUFFIX, *([_BIN] if allow_pickle else [])):
        try:
            entry = choose(names, wanted, "", suffix)
        except ValueError:
            chosen = entries(names, suffix)
        else:
            chosen = [] if entry is None else [entry]
        if chosen:
            shards = [name for each in chosen if each.is_index for name in shards_by_name(names, each)]
            return [*(each.name for each in chosen), *shards]
    return [name for name in names if is_pickle(Path(name)) and not _STATE.search(name)] if allow_pickle else []


def check_variant(folder: Path, wanted: str | None) -> None:
    """ValueError where no part of the model in `folder` has weights of this variant; None: nothing is asked."""
    if wanted is None:
        return
    places = [folder, *(p for p in sorted(folder.glob("*")) if p.is_dir())]
    names = [[p.name for p in place.glob("*") if p.is_file()] for place in places]
    known = {entry.variant for each in names for suffix in _STEMS for entry in entries(each, suffix)}
    if wanted not in known:
        there = ", ".join(sorted(known - {""})) or "plain weights alone"
        raise ValueError(f"{folder}: no part of it has weights in variant {wanted!r}; it has {there}: choose of these")


def is_pickle(path: Path) -> bool:
    """By its suffix, as torch's and diffusers' own loaders tell."""
    return path.suffix in PICKLE_SUFFIXES


def pickle_refused(where: Path, name: str) -> ValueError:
    """What to say of a pickle that was not allowed."""
    return ValueError(
        f"{where}: holds only {name}, a pickle, which can run code when read: convert it to safetensors "
        "(docs/checkpoints.md), or pass --allow-pickle (allow_pickle=True), which reads nothing but tensors from it"
    )


def _pickled(names: Sequence[str], wanted: str | None, where: str) -> Entry | None:
    """The pickle to read: by the libraries' names, or whatever single one there is."""
    if (entry := choose(names, wanted, where, _BIN)) is not None:
        return entry
    found = [name for name in names if is_pickle(Path(name)) and not _STATE.search(name)]
    return Entry(found[0], Path(found[0]).suffix, "") if found else None


def _expected(folder: Path) -> str:
    """What a part of this name would hold."""
    stem = "model" if folder.name.startswith("text_encoder") else STEMS[0]
    return f"{stem}{SUFFIX}"


def _shards(folder: Path, entry: Entry) -> list[Path]:
    """The files that an index lists. ValueError when it is no index, or one of them is not there."""
    index = folder / entry.name
    table = read_json(index, INDEX).get("weight_map")
    if not isinstance(table, dict) or not all(isinstance(file, str) for file in table.values()) or not table:
        raise ValueError(f"{index}: has no weight_map (tensor to file); copy or download it again")
    files = sorted(set(table.values()))
    if strange := [n for n in files if Path(n).name != n or not n.endswith(entry.suffix) or not n.isprintable()]:
        raise ValueError(f"{index}: names {strange[0][:80]!r}, which is no {entry.suffix} file beside it")
    if missing := [n for n in files if not (folder / n).is_file()]:
        raise ValueError(f"{index}: names {listed(missing)}, not there; copy or download the folder again")
    return [folder / file for file in files]
