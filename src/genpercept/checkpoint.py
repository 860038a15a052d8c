"""Weights on disk: parts in diffusers' layout, checked to the last tensor before a model may speak.

Safetensors only. A missing, unexpected, misshaped or non-finite tensor is a ValueError that lists it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from genpercept import plugins

MANIFEST = "genpercept.json"
FORMAT = 1
WEIGHT_NAMES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors", "model.safetensors")
_LISTED = 4  # tensors named in an error before "and N more"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. ValueError in one line when the file is missing or is not one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file: the model folder is incomplete; copy or download it again") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error}); copy or download it again") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: must hold a JSON object, not a {type(value).__name__}")
    return value


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of one part: a single file, or the shards of an index. ValueError when there are none."""
    for name in WEIGHT_NAMES:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            return [folder / shard for shard in sorted(set(read_json(index)["weight_map"].values()))]
    pickles = sorted(p.name for p in folder.glob("*.bin")) + sorted(p.name for p in folder.glob("*.ckpt"))
    if pickles:
        raise ValueError(
            f"{folder}: holds only {pickles[0]}, a pickle, which can run code when read: convert it to safetensors"
        )
    raise ValueError(f"{folder}: no weights: expected {WEIGHT_NAMES[0]}; copy or download the folder again")


def sha256(folder_or_file: Path) -> str:
    """SHA-256 over the weight files of a part (or over one file), hexadecimal."""
    files = weight_files(folder_or_file) if folder_or_file.is_dir() else [folder_or_file]
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a safetensors file, from its header alone."""
    with _open(path) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (not a mapping)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU, in the dtype they are stored in.

    Copied out of the mapped file: there they lie at odd addresses, where some kernels round differently (seen: 1e-5), and a
    file that is replaced later must not change a model in use.
    """
    with _open(path) as file:
        return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118


def load_part(
    kind: Literal["backbones", "codecs", "heads"],
    plugin: str,
    folder: Path,
    dtype: torch.dtype | None = None,
    rename: Callable[[str], str] | None = None,
    config: dict[str, Any] | None = None,
    extra: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """Build the plugin's module from `folder`/config.json and fill it. Evaluation mode; float32 unless `dtype`.

    The module is built on the meta device, so nothing is initialised twice. config: in place of the file's. extra: tensors
    that the folder is known not to hold. ValueError lists what does not fit.
    """
    config = read_json(folder / "config.json") if config is None else config
    part = plugins.find(kind, plugin)
    if config.get("_class_name", part.class_name) != part.class_name:
        raise ValueError(
            f"{folder}: holds a {config['_class_name']}, but {kind[:-1]} {plugin!r} needs a {part.class_name}"
        )
    with torch.device("meta"):
        module = part.build(config)
    files = weight_files(folder)
    name_of = rename or getattr(part, "rename", None) or _same
    stored = {k: tuple(v.shape) for k, v in (extra or {}).items()}
    for path in files:
        stored.update({name_of(k): s for k, s in tensor_shapes(path).items()})
    check_shapes(folder, {k: tuple(v.shape) for k, v in module.state_dict().items()}, stored)
    tensors = dict(extra or {})
    for path in files:
        tensors.update({name_of(k): t for k, t in read_tensors(path).items()})
    check_finite(folder, tensors)
    shapes = {k: v.shape for k, v in module.state_dict().items()}
    tensors = {k: t.reshape(shapes[k]).to(dtype or torch.float32) for k, t in tensors.items()}
    module.load_state_dict(tensors, strict=True, assign=True)
    return module.eval()


def check_shapes(where: Path, expected: dict[str, tuple[int, ...]], stored: dict[str, tuple[int, ...]]) -> None:
    """ValueError naming every kind of difference between what a module needs and what a file holds."""
    problems = []
    if missing := sorted(expected.keys() - stored.keys()):
        problems.append(f"missing {_names(missing)}")
    if unexpected := sorted(stored.keys() - expected.keys()):
        problems.append(f"unexpected {_names(unexpected)}")
    wrong = [k for k in sorted(expected.keys() & stored.keys()) if not _same_shape(expected[k], stored[k])]
    if wrong:
        problems.append(f"misshaped {_names([f'{k} is {list(stored[k])}, needs {list(expected[k])}' for k in wrong])}")
    if problems:
        raise ValueError(f"{where}: the weights do not fit its config.json: {'; '.join(problems)}; nothing was loaded")


def check_finite(where: Path, tensors: dict[str, Tensor]) -> None:
    """ValueError naming the tensors with NaN or infinite values."""
    bad = [k for k, t in sorted(tensors.items()) if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    if bad:
        raise ValueError(
            f"{where}: NaN or infinite values in {_names(bad)}; the file is damaged or its training diverged"
        )


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Write into a temporary sibling; on success it takes the target's place, on failure nothing of it is left.

    An existing target stays whole until the new one is complete.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    try:
        yield work
        work.chmod(0o755)
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent)) / "x"
            target.replace(old)
            work.replace(target)
            shutil.rmtree(old.parent)
        else:
            work.replace(target)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error}); copy or download it again") from None


def _same(name: str) -> str:
    return name


def _same_shape(expected: Sequence[int], stored: Sequence[int]) -> bool:
    """Equal up to trailing 1s: older exports store linear layers as 1 x 1 convolutions and the other way round."""
    return tuple(expected) == tuple(stored) or (len(expected) != len(stored) and _trim(expected) == _trim(stored))


def _trim(shape: Sequence[int]) -> tuple[int, ...]:
    edges = list(shape)
    while edges and edges[-1] == 1:
        edges.pop()
    return tuple(edges)


def _names(names: Sequence[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
