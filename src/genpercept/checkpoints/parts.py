"""Weights on disk: parts in diffusers' layout, checked to the last tensor before a model may speak.

Safetensors, and pickles only where allow_pickle says so. A missing, unexpected, misshaped or non-finite tensor is a
ValueError that lists it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from genpercept.checkpoints import budget, pickles, regular, shapes, stand_ins
from genpercept.checkpoints.stand_ins import read_json
from genpercept.checkpoints.weights import SUFFIX, is_pickle, pickle_refused, weight_files
from genpercept.core import dtypes
from genpercept.core.files import blocks
from genpercept.core.texts import class_shown, listed, one_line

MANIFEST = "genpercept.json"
FORMAT = 1
_SHOWN = 120  # letters of another library's message
_HEADER = 16 << 20  # bytes of a safetensors header at most: of 700 tensors it has 70,000
_NAME, _EDGE = 300, 1 << 40  # letters of a tensor's name, and numbers along one of its edges, at most
_REAL = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I64", "I32", "I16", "I8", "U8", "BOOL")


class PartPlugin(Protocol):
    """What a backbone, a codec and a head have in common: a module that lies on disk. They inherit what they leave as it is.

    A file's tensors are taken by `skip`, under the names of `rename`, as `convert` gives them.
    """

    name: str
    class_name: str | None  # of the module, as config.json says it; None for a plugin without weights
    older_names: tuple[str, ...] = ()  # of the class, in configurations that are read, too

    def build(self, config: dict) -> nn.Module:
        """The module with random weights. On the meta device under `torch.device("meta")`. ValueError when there is none."""
        ...

    def check(self, config: dict, path: Path) -> None:
        """ValueError that names `path` and the key where a config holds what its plugin cannot build by; nothing by default."""

    def skip(self, tensor: str) -> bool:
        """Whether a file's tensor of this name is no weight of the module. None is, by default."""
        return False

    def rename(self, tensor: str) -> str:
        """The module's name of a file's tensor; the file's own by default."""
        return tensor

    def convert(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """A file's tensors, renamed, as the module holds them: split or joined; as they are by default."""
        return tensors


class Header(NamedTuple):
    """What a file says of a tensor before its values are read. dtype: torch's name of it, such as "float16"."""

    shape: tuple[int, ...]
    dtype: str


def no_model_in(folder: Path) -> ValueError:
    """What to say of a folder in which no model lies: where one does, if its folders hold some."""
    inside = sorted({p.parent.name for name in (MANIFEST, "config.json") for p in folder.glob(f"*/{name}")})
    more = "check the path"
    if inside:
        more = f"it holds models in {', '.join(inside)}: pass one of these folders (of a hub id: its subfolder)"
    return ValueError(f"{folder}: no {MANIFEST}, model_index.json or config.json in it; {more}")


def write_config(path: Path, value: Mapping[str, Any], *, sort_keys: bool = False) -> None:
    """A JSON object laid out as diffusers' config.json and model_index.json; what JSON has no word for becomes text.

    Not atomic by itself: for files of a folder that is.
    """
    path.write_text(json.dumps(value, indent=2, sort_keys=sort_keys, default=str) + "\n", encoding="utf-8")


def sha256(folder_or_file: Path, *, allow_pickle: bool = False) -> str:
    """SHA-256 over the weight files of a part (or over one file), hexadecimal."""
    files = [folder_or_file]
    if folder_or_file.is_dir():
        files = weight_files(folder_or_file, allow_pickle=allow_pickle)
    digest = hashlib.sha256()
    for path in files:
        for block in blocks(path):
            digest.update(block)
    return digest.hexdigest()


def hashes(folder_or_file: Path) -> dict[str, str]:
    """What a manifest says of a part: `sha256` of its weights, and `config_sha256` where a config.json builds it."""
    found = {"sha256": sha256(folder_or_file)}
    if (config := folder_or_file / "config.json").is_file():
        found["config_sha256"] = sha256(config)
    return found


def joint_sha256(hashes: Sequence[str]) -> str:
    """One hash of a model's parts, out of theirs in their order."""
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def headers(path: Path, *, allow_pickle: bool = False) -> dict[str, Header]:
    """Names, shapes and dtypes in a weight file, without its values. ValueError for a damaged file or a refused pickle."""
    if is_pickle(path):
        found = _read_pickle(path, allow_pickle, shapes_only=True)
        return {name: Header(tuple(t.shape), dtypes.torch_name(t.dtype)) for name, t in found.items()}
    with _open(path, "np") as file:  # which reads no values, and so needs no torch
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        stored = {name: (tuple(s.get_shape()), str(s.get_dtype())) for name, s in slices.items()}
    for name, (shape, dtype) in stored.items():
        if not name.isprintable() or len(name) > _NAME:
            raise ValueError(f"{path}: a tensor is named {name[:_NAME]!r}, as none is; download the file again")
        if dtype not in _REAL or any(edge > _EDGE for edge in shape):
            raise ValueError(f"{path}: {name} is {dtype} {list(shape)}, which no network here has; download it again")
    return {name: Header(shape, dtypes.from_safetensors(dtype)) for name, (shape, dtype) in stored.items()}


def tensor_shapes(path: Path, *, allow_pickle: bool = False) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a weight file, from its header alone."""
    return {name: header.shape for name, header in headers(path, allow_pickle=allow_pickle).items()}


def read_tensors(path: Path, *, allow_pickle: bool = False) -> dict[str, Tensor]:
    """All tensors of a weight file, on the CPU, in the dtype they are stored in.

    Copied out of the mapped file: there they lie at odd addresses, where some kernels round differently (seen: 1e-5), and a
    file that is replaced later must not change a model in use.
    """
    if is_pickle(path):
        return _read_pickle(path, allow_pickle)
    with _open(path) as file:
        return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118


def read_tensor(folder: Path, name: str) -> Tensor | None:
    """One tensor of a part, without the others; None where no safetensors file of it has one of this name."""
    for path in weight_files(folder, allow_pickle=True):
        if path.suffix == SUFFIX:
            with _open(path) as file:
                if name in file.keys():  # noqa: SIM118
                    return file.get_tensor(name).clone()
    return None


def load_part(
    part: PartPlugin,
    folder: Path,
    dtype: torch.dtype | None = None,
    rename: Callable[[str], str] | None = None,
    config: dict[str, Any] | None = None,
    extra: Mapping[str, Tensor] | None = None,
    *,
    allow_pickle: bool = False,
) -> nn.Module:
    """Build the plugin's module from `folder`/config.json and fill it. Evaluation mode; float32 unless `dtype`.

    The module is built on the meta device, so nothing is initialised twice. config: in place of the file's. extra: tensors
    that the folder is known not to hold. allow_pickle: .bin and .ckpt too, read as tensors only. Within `shapes.shapes_only` it
    stays on the meta device. ValueError lists what does not fit.
    """
    config = read_json(folder / "config.json") if config is None else config
    check_config(part, folder, config)
    files = weight_files(folder, allow_pickle=allow_pickle)
    stored = {k: tuple(v.shape) for k, v in (extra or {}).items()}
    for path in files:
        there = todays_shapes(part, tensor_shapes(path, allow_pickle=allow_pickle), rename)
        if twice := sorted(there.keys() & stored.keys()):
            raise ValueError(f"{path}: holds {listed(twice)}, which another file of the part has too; copy it again")
        stored.update(there)
    module = skeleton(part, folder, config, stored)
    check_shapes(folder, {k: tuple(v.shape) for k, v in module.state_dict().items()}, stored)
    if shapes.wanted():
        return module.to("meta").eval()  # tables that are computed, not stored, too
    tensors = dict(extra or {})
    for path in files:
        tensors.update(_todays(part, read_tensors(path, allow_pickle=allow_pickle), rename))
    check_finite(folder, tensors)
    own = {k: v.shape for k, v in module.state_dict().items()}
    tensors = {k: t.reshape(own[k]).to(dtype or torch.float32) for k, t in tensors.items()}
    module.load_state_dict(tensors, strict=True, assign=True)
    return module.eval()


def _todays(
    part: PartPlugin, tensors: Mapping[str, Tensor], rename: Callable[[str], str] | None = None
) -> dict[str, Tensor]:
    """A file's tensors as the plugin's module names and shapes them. rename: in place of the plugin's."""
    name_of = rename or part.rename
    return part.convert({name_of(k): t for k, t in tensors.items() if not part.skip(k)})


def todays_shapes(
    part: PartPlugin, shapes: Mapping[str, tuple[int, ...]], rename: Callable[[str], str] | None = None
) -> dict[str, tuple[int, ...]]:
    """As `load_part` would see the tensors of a file with these shapes."""
    try:
        tensors = {k: torch.empty(s, device="meta") for k, s in shapes.items()}
        return {k: tuple(t.shape) for k, t in _todays(part, tensors, rename).items()}
    except (RuntimeError, IndexError, OverflowError) as error:  # of shapes that no such network has
        raise ValueError(f"{part.name!r}: tensors of shapes that no {part.class_name} has ({_line(error)})") from None


def check_config(part: PartPlugin, folder: Path, config: dict[str, Any]) -> None:
    """ValueError for the config of another class, and for settings that the plugin's cannot have."""
    if config.get("_class_name", part.class_name) not in (part.class_name, *part.older_names):
        raise ValueError(
            f"{folder}: holds a {class_shown(config['_class_name'])}, but {part.name!r} needs a {part.class_name}"
        )
    part.check(config, folder / "config.json")


def skeleton(
    part: PartPlugin, folder: Path, config: dict[str, Any], stored: Mapping[str, tuple[int, ...]]
) -> nn.Module:
    """The plugin's module on the meta device: shapes without weights. ValueError for a config that it cannot be built by.

    stored: shapes of the tensors that are to fill it, by which the config is bounded while the module is being built.
    """
    check_config(part, folder, config)
    try:
        with torch.device("meta"), budget.of(stored):
            return part.build(config)
    except budget.Exceeded as error:
        raise ValueError(f"{folder / 'config.json'}: does not fit its weights: {error}; copy both again") from None
    except Exception as error:  # noqa: BLE001  # of diffusers and transformers, whose configs say anything
        raise ValueError(
            f"{folder / 'config.json'}: no {part.class_name} can be built by it ({_line(error)}); copy or download it again"
        ) from None


def check_shapes(
    where: Path,
    expected: dict[str, tuple[int, ...]],
    stored: dict[str, tuple[int, ...]],
    settings: str = "its config.json",
) -> None:
    """ValueError naming every kind of difference between what a module needs and what a file holds. settings: who needs it."""
    problems = []
    if missing := sorted(expected.keys() - stored.keys()):
        problems.append(f"missing {listed(missing)}")
    if unexpected := sorted(stored.keys() - expected.keys()):
        problems.append(f"unexpected {listed(unexpected)}")
    wrong = [k for k in sorted(expected.keys() & stored.keys()) if not _same_shape(expected[k], stored[k])]
    if wrong:
        problems.append(f"misshaped {listed([f'{k} is {list(stored[k])}, needs {list(expected[k])}' for k in wrong])}")
    if problems:
        raise ValueError(f"{where}: the weights do not fit {settings}: {'; '.join(problems)}; nothing was loaded")


def check_finite(where: Path, tensors: dict[str, Tensor]) -> None:
    """ValueError naming the tensors with NaN or infinite values."""
    bad = [k for k, t in sorted(tensors.items()) if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    if bad:
        raise ValueError(
            f"{where}: NaN or infinite values in {listed(bad)}; the file is damaged or its training diverged"
        )


def _open(path: Path, framework: str = "pt") -> Any:
    try:
        stand_ins.refuse_stand_in(path)
        _refuse_long_header(path)
        return safe_open(path, framework=framework)
    except (SafetensorError, OSError, RuntimeError) as error:  # the last where it cannot be mapped
        raise ValueError(
            f"{path}: not a readable safetensors file ({_line(error)}); copy or download it again"
        ) from None


def _refuse_long_header(path: Path) -> None:
    """ValueError for a header that takes long to read, and much memory: the format's own bound is 100 MB."""
    with regular.opened(path) as file:
        length = int.from_bytes(file.read(8), "little")
    if _HEADER < length <= path.stat().st_size:  # a longer one than the file is the library's to refuse
        raise ValueError(f"{path}: its header has {length >> 20} MB, which no network's has; download the file again")


def _read_pickle(path: Path, allow_pickle: bool, *, shapes_only: bool = False) -> dict[str, Tensor]:
    if not allow_pickle:
        raise pickle_refused(path.parent, path.name)
    stand_ins.refuse_stand_in(path)
    return pickles.read_tensors(path, shapes_only=shapes_only)


def _line(error: Exception) -> str:
    text = one_line(error)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _same_shape(expected: Sequence[int], stored: Sequence[int]) -> bool:
    """Equal up to trailing 1s: older exports store linear layers as 1 x 1 convolutions and the other way round."""
    return tuple(expected) == tuple(stored) or (len(expected) != len(stored) and _trim(expected) == _trim(stored))


def _trim(shape: Sequence[int]) -> tuple[int, ...]:
    edges = list(shape)
    while edges and edges[-1] == 1:
        edges.pop()
    return tuple(edges)
