"""Prepared trees: the samples of any data set in a form that is quick to read, with values equal to what its reader gives.

OUT/prepared.json                  the data set, its options, and of each split the samples, those that cannot be read included
OUT/samples/NAME-DIGEST.safetensors   one sample: the image, its labels, and as metadata what is no tensor

A data set recognises such a tree where its root is one, and reads it in place of its published layout. A value is stored in a
smaller type where that loses nothing: images of 8 bits as bytes, floats that are halves as halves, ids in 8 or 16 bits.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from genpercept.core import files
from genpercept.core.texts import one_line
from genpercept.core.values import Sample
from genpercept.data._entries import files_of, said_by
from genpercept.imaging.read import shown

MANIFEST = "prepared.json"
FORMAT = 1
_BYTES, _HALF = "bytes", "half"  # how a tensor is stored, beside the names of integer types
_TAG = "__genpercept__"  # of what JSON has no form for


@dataclass(frozen=True)
class PreparedEntry:
    """A sample of a prepared tree. problem: why the original cannot be read. said: the original entry's own plain fields."""

    name: str
    file: Path
    problem: str = ""
    said: Mapping[str, Any] = field(default_factory=dict)

    def __getattr__(self, key: str) -> Any:
        """A field of the original entry, such as its category."""
        said = self.__dict__.get("said", {})
        if key in said:
            return said[key]
        raise AttributeError(key)


def manifest_of(root: Path | None) -> dict[str, Any] | None:
    """What a prepared tree says of itself; None where the root is none. ValueError for a torn one or one of another format."""
    path = Path(root).expanduser() / MANIFEST if root is not None else None
    if path is None or not path.is_file():
        return None
    try:
        found = files.read_json(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{shown(path)}: not readable ({one_line(error)}); prepare the data set again") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError(f"{shown(path)}: not format {FORMAT}; prepare the data set again with this version")
    return found


def entries(name: str, options: Mapping[str, Any], root: Path, manifest: Mapping[str, Any], split: str) -> list[Any]:
    """Of a split of a prepared tree. ValueError for another data set's, other options, or a split that was not prepared."""
    root = Path(root).expanduser()
    if manifest["dataset"] != name:
        raise ValueError(
            f"{shown(root)}: prepared from data set {manifest['dataset']!r}; read it by that name, not {name!r}"
        )
    if manifest["options"] != plain(options):
        raise ValueError(
            f"{shown(root)}: prepared with options {manifest['options'] or 'left as they are'}, but {plain(options) or 'none'}"
            " are set: set the same, or prepare it with these into another folder"
        )
    if split not in manifest["splits"]:
        there = ", ".join(manifest["splits"])
        raise ValueError(f"{shown(root)}: split {split!r} was not prepared; there are {there}")
    return [
        PreparedEntry(row["name"], root / "samples" / row["file"], row.get("problem", ""), row.get("said", {}))
        for row in manifest["splits"][split]
    ]


def load(entry: PreparedEntry) -> Sample:
    """The sample, or the ValueError that reading the original gave."""
    if entry.problem:
        raise ValueError(entry.problem)
    try:
        with safe_open(entry.file, "pt") as stored:
            said = json.loads(stored.metadata()["sample"])
            tensors = {name: _unpacked(stored.get_tensor(name), how) for name, how in said["tensors"].items()}
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{shown(entry.file)}: cannot be read ({one_line(error)}); prepare it again") from None
    sample = Sample(said["name"], tensors.pop("image"), caption=said["caption"], domain=said["domain"])
    sample.meta = _from_json(said["meta"])
    return sample.with_labels(tensors)


def pack(sample: Sample, eight_bits: bool = False) -> bytes:
    """The sample's file. eight_bits: the image is rounded to 8 bits. ValueError for a value that could not come back equal."""
    image = (sample.image * 255).round().clamp(0, 255) / 255 if eight_bits else sample.image
    given = {"image": image, **sample.labels()}
    packed = {name: _packed(value.detach().contiguous(), name) for name, value in given.items()}
    said = {
        "name": sample.name,
        "caption": sample.caption,
        "domain": sample.domain,
        "meta": _to_json(sample.meta),
        "tensors": {name: how for name, (_, how) in packed.items()},
    }
    for name, (stored, how) in packed.items():
        if not _same(_unpacked(stored, how), given[name]):
            raise ValueError(f"{sample.name}: {name} of type {given[name].dtype} cannot be stored without loss")
    return save({name: stored for name, (stored, _) in packed.items()}, {"sample": json.dumps(said)})


def _packed(value: Tensor, name: str) -> tuple[Tensor, str]:
    if name == "image" and value.dtype == torch.float32:
        small = (value * 255).round().clamp(0, 255).byte()
        if torch.equal(small.float() / 255, value):
            return small, _BYTES
    if value.dtype == torch.float32:
        half = value.half()
        if _same(half.float(), value):
            return half, _HALF
    if value.dtype == torch.int64 and value.numel():
        low, high = int(value.min()), int(value.max())
        for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32):
            if torch.iinfo(dtype).min <= low and high <= torch.iinfo(dtype).max:
                return value.to(dtype), "int64"
    return value.clone(), ""  # tensors of one file must not share memory


def _unpacked(stored: Tensor, how: str) -> Tensor:
    if how == _BYTES:
        return stored.float() / 255
    return stored.float() if how == _HALF else stored.to(torch.int64) if how else stored.clone()


def _same(a: Tensor, b: Tensor) -> bool:
    """Equal in type and value; NaN is NaN, and 0 is not -0."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if not a.is_floating_point():
        return torch.equal(a, b)
    missing = a.isnan()
    return bool(
        torch.equal(missing, b.isnan())
        and torch.equal(a.masked_fill(missing, 0), b.masked_fill(missing, 0))
        and torch.equal(a.signbit() | missing, b.signbit() | missing)
    )


def _to_json(value: Any) -> Any:
    """Plain values as JSON has them; tuples, arrays and other keys than texts are tagged. ValueError for anything else."""
    if isinstance(value, tuple):
        return {_TAG: "tuple", "items": [_to_json(one) for one in value]}
    if isinstance(value, list):
        return [_to_json(one) for one in value]
    if isinstance(value, np.ndarray | np.generic):
        kind = "array" if isinstance(value, np.ndarray) else "scalar"
        return {_TAG: kind, "dtype": str(value.dtype), "items": value.tolist()}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and key != _TAG for key in value):
            return {key: _to_json(one) for key, one in value.items()}
        return {_TAG: "dict", "items": [[_to_json(key), _to_json(one)] for key, one in value.items()]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"meta has a {type(value).__name__}, which is no plain value")


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json(one) for one in value]
    if not isinstance(value, dict):
        return value
    if _TAG not in value:
        return {key: _from_json(one) for key, one in value.items()}
    items = value["items"]
    if value[_TAG] == "tuple":
        return tuple(_from_json(one) for one in items)
    if value[_TAG] == "dict":
        return {_from_json(key): _from_json(one) for key, one in items}
    array = np.array(items, value["dtype"])
    return array if value[_TAG] == "array" else array[()]


def plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as the manifest keeps them."""
    return json.loads(files.to_json(options))


def file_name(entry: Any) -> str:
    """Of an entry's sample: another one where one of its files has another size or time of change."""
    stamps = [[path.name, *((s.st_size, s.st_mtime_ns) if (s := _stat(path)) else ())] for path in files_of(entry)]
    digest = hashlib.sha256(json.dumps([said_by(entry), stamps]).encode()).hexdigest()
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", entry.name)[-80:]
    return f"{readable}-{digest[:16]}.safetensors"


def _stat(path: Path) -> Any:
    try:
        return path.stat()
    except OSError:
        return None


def row_of(entry: Any, problem: str) -> dict[str, Any]:
    """An entry as the manifest keeps it."""
    said = {
        key: value for key, value in said_by(entry).items() if key != "name" and isinstance(value, str | int | float)
    }
    found: dict[str, Any] = {"name": entry.name, "file": file_name(entry)}
    return found | ({"problem": problem} if problem else {}) | ({"said": said} if said else {})


def changed_options(plugin: Any) -> dict[str, Any]:
    """Options of a data set that are not its defaults'."""
    default = type(plugin)()
    return {
        f.name: getattr(plugin, f.name) for f in fields(plugin) if getattr(plugin, f.name) != getattr(default, f.name)
    }
