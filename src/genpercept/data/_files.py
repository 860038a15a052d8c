"""What the adapters of published data sets share: what they say of themselves, options, reading files, and errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Self, cast

import numpy as np
import torch
from torch import Tensor

from genpercept.core import texts
from genpercept.core.labels import LABELS
from genpercept.core.names import choose
from genpercept.core.texts import listed, one_line, read_numbered
from genpercept.core.values import Sample
from genpercept.data import _prepared
from genpercept.imaging.read import SUFFIXES, read, shown
from genpercept.imaging.stored import Stored, read_stored

_SHOWN = 6  # names listed of what a folder holds
_TEXTS = ("caption", "domain")  # that a data set may provide beside labels


@dataclass(frozen=True)
class About:
    """A published data set, in words and names: what `genpercept data list` and docs/datasets.md say of it.

    layout: one line per pattern under the root, as published. provides: the labels that its samples have. protocols:
    task -> the named protocol of `genpercept.metrics` that the field evaluates it by ("" where a task has only one).
    """

    title: str
    url: str
    obtain: str
    licence: str
    layout: tuple[str, ...]
    provides: tuple[str, ...]
    splits: tuple[str, ...]
    protocols: Mapping[str, str]
    classes: str | None = None  # name of the class table in genpercept.core.classes
    reference: str = ""  # paper
    extra: str = ""  # of pip install 'genpercept[EXTRA]', where reading it needs one

    def __post_init__(self) -> None:
        for name in self.provides:
            if name not in _TEXTS and name not in LABELS:
                choose("label", name, (*LABELS, *_TEXTS), f"data set {self.title!r}: ")


@dataclass(frozen=True)
class FileDataset:
    """Base of the adapters, frozen dataclasses whose fields are the options. Subclasses give name, about, index, load."""

    name: ClassVar[str]
    about: ClassVar[About]

    def __init_subclass__(cls) -> None:
        """Every adapter reads its published layout, or a tree that `genpercept data prepare` made of it."""
        super().__init_subclass__()
        _also_prepared(cls)

    @property
    def licence(self) -> str:
        return self.about.licence

    def with_options(self, **options: Any) -> Self:
        """The same data set with these options. ValueError for an unknown one."""
        known = tuple(f.name for f in fields(self))
        for key in options:
            if not known:
                raise ValueError(f"data set {self.name!r} has no options, but got {key!r}")
            choose(f"option of data set {self.name!r}", key, known)
        return replace(self, **options)

    def check(self, split: str) -> None:
        """ValueError for a split that there is not, or that needs other options, wherever the files are."""
        if split not in self.about.splits:
            raise ValueError(f"{self.name}: split {split!r}: choose one of {', '.join(self.about.splits)}")

    def index(self, root: Path | None, split: str) -> Sequence[Any]:
        raise NotImplementedError

    def load(self, entry: Any) -> Sample:
        raise NotImplementedError

    # ---- checks --------------------------------------------------------------------------------------------------------

    def folder(self, root: Path | None, split: str) -> Path:
        """The root as a folder that exists, after checking the split. ValueError otherwise."""
        self.check(split)
        if root is None:
            raise ValueError(f"data set {self.name!r} needs its folder: set root (--root). {self.about.obtain}")
        root = Path(root).expanduser()
        if not root.is_dir():
            raise ValueError(f"{shown(root)}: no such folder; expected {self.about.title} there")
        return root

    def wrong_layout(self, root: Path, expected: str) -> NoReturn:
        """ValueError: what was looked for, what the root holds instead, and the whole layout."""
        names = sorted(p.name + ("/" if p.is_dir() else "") for p in root.iterdir())
        found = listed(names, _SHOWN)
        layout = "; ".join(self.about.layout)
        raise ValueError(
            f"{shown(root)}: not the layout of {self.about.title}: expected {expected}; found {found or 'nothing'}. "
            f"Layout: {layout}"
        )


def _also_prepared(cls: type[FileDataset]) -> None:
    index, load = cls.index, cls.load

    @wraps(index)
    def index_either(self: Any, root: Path | None, split: str) -> Sequence[Any]:
        manifest = _prepared.manifest_of(root)
        if manifest is None or root is None:
            return index(self, root, split)
        return _prepared.entries(self.name, _prepared.changed_options(self), root, manifest, split)

    @wraps(load)
    def load_either(self: Any, entry: Any) -> Sample:
        return _prepared.load(entry) if isinstance(entry, _prepared.PreparedEntry) else load(self, entry)

    cls.index, cls.load = index_either, load_either  # type: ignore[method-assign]


# Reading ------------------------------------------------------------------------------------------------------------------


def need(path: Path) -> Path:
    """The path, or a ValueError where no such file is."""
    if not path.is_file():
        raise ValueError(f"{shown(path)}: no such file; the data set is incomplete")
    return path


def read_rgb(path: Path, upright: bool = True) -> Tensor:
    """Image file -> (3, H, W) float32 in [0, 1]. ValueError that names the file.

    upright=False: pixels as they are stored, whatever the EXIF orientation says, for labels that go with those.
    """
    image = read(need(path)) if upright else read(_stored(path).colours)
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    return pixels.float() / 255 if image.dtype == np.uint8 else pixels.float()


def _stored(path: Path) -> Stored:
    try:
        return read_stored(need(path))
    except ValueError as error:
        raise ValueError(f"{error}; fetch it again") from None


def read_values(path: Path, dtypes: tuple[str, ...] = (), ndim: int = 2) -> np.ndarray:
    """The values of a PNG, TIFF or .npy file as they are stored. ValueError for a damaged one, other types or dimensions.

    dtypes: names such as "uint16" that the format may have; Pillow's 32-bit reading of 16-bit PNGs is taken back.
    """
    array = _stored(path).array
    if array.dtype == np.int32 and "uint16" in dtypes and array.min(initial=0) >= 0 and array.max(initial=0) < 65536:
        array = array.astype(np.uint16)
    if dtypes and str(array.dtype) not in dtypes:
        raise ValueError(f"{shown(path)}: stored as {array.dtype}, but the data set has {' or '.join(dtypes)}")
    if array.ndim != ndim:
        raise ValueError(f"{shown(path)}: shape {list(array.shape)}; expected {ndim} dimensions")
    return array


def read_hdf5(path: Path, key: str = "dataset", item: int | None = None) -> np.ndarray:
    """One array of an HDF5 file, or only its `item`-th row. ValueError for a damaged file or a missing key or row.

    Needs the extra `data`.
    """
    import h5py

    need(path)
    try:
        with h5py.File(path, "r") as file:
            if key not in file:
                raise ValueError(f"{shown(path)}: no array {key!r} in it; there are {', '.join(file.keys())}")
            values = cast("h5py.Dataset", file[key])
            if item is not None and not 0 <= item < len(values):
                raise ValueError(f"{shown(path)}: {key!r} has {len(values)} items; number {item} was wanted")
            return np.asarray(values[() if item is None else item])
    except OSError as error:
        raise ValueError(f"{shown(path)}: a damaged HDF5 file ({one_line(error)}); fetch it again") from None


def read_grey(path: Path) -> np.ndarray:
    """An 8-bit mask, matte or trimap as (H, W) uint8, however its file stores grey: palette, RGB, RGBA, 1 bit.

    ValueError for a colour picture.
    """
    stored = _stored(path)
    try:
        array = stored.single
    except ValueError as error:
        raise ValueError(f"{shown(path)}: {error}") from None
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    if array.dtype != np.uint8:
        raise ValueError(f"{shown(path)}: stored with {array.dtype} values, but the data set has 8 bits")
    return array


def read_json(path: Path) -> Any:
    """What a JSON file holds. ValueError for a missing or damaged one."""
    try:
        return texts.read_json(need(path), errors="replace")
    except ValueError as error:
        raise ValueError(f"{error}; fetch it again") from None


def images_in(folder: Path) -> list[Path]:
    """The image files directly in a folder, by name; none where it does not exist."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def same_stem(folder: Path, image: Path, default: str = ".png") -> Path:
    """The file of a label folder that has the image's name, whatever its suffix; a path that is not there if none has."""
    for suffix in (default, *SUFFIXES):
        if (path := folder / f"{image.stem}{suffix}").is_file():
            return path
    return folder / f"{image.stem}{default}"


def read_list(path: Path, columns: int) -> list[list[str]]:
    """A public split list: so many paths a line, separated by spaces; further columns are kept. ValueError with the line."""
    rows = []
    for number, line in read_numbered(Path(path).expanduser(), " as a split list"):
        rows.append(line.split())
        if len(rows[-1]) < columns:
            raise ValueError(
                f"{shown(Path(path))}, line {number}: {len(rows[-1])} columns; a list for this set has {columns}"
            )
    return rows


def check_first(first: Path, split_list: Path | str) -> None:
    """ValueError unless the first file that a split list names is there: most often root is another folder than it means."""
    if not first.is_file():
        raise ValueError(
            f"{shown(Path(split_list))}: its first file is not there ({shown(first)}): give the root that its paths start from"
        )


def same_size(path: Path, label: np.ndarray | Tensor, image: Tensor) -> None:
    """ValueError where a label (H, W[, C]) is not of its image's size."""
    if tuple(label.shape[:2]) != tuple(image.shape[-2:]):
        h, w = label.shape[:2]
        raise ValueError(f"{shown(path)}: {h} x {w} pixels, but its image has {image.shape[-2]} x {image.shape[-1]}")


# Depth and normals --------------------------------------------------------------------------------------------------------


def as_depth(metres: np.ndarray, known: np.ndarray | bool = True) -> tuple[Tensor, Tensor]:
    """Metres (H, W) -> depth float32, 0 where unknown, and valid: `known`, finite and above 0."""
    valid = np.isfinite(metres) & (metres > 0) & known
    return torch.from_numpy(np.where(valid, metres, 0).astype(np.float32)), torch.from_numpy(valid)


def as_normals(vectors: np.ndarray, rays: np.ndarray | None = None) -> Tensor:
    """Vectors (H, W, 3) in our axes -> unit normals (3, H, W) float32, 0 where unknown (zero or not finite).

    rays (H, W, 3) from the camera, in our axes: normals that point away from the viewer along them are turned around.
    """
    n = vectors.astype(np.float32)
    length = np.sqrt(np.einsum("hwc,hwc->hw", n, n))
    known = (length > 0.5) & np.isfinite(length)
    scale = np.divide(1, length, out=np.zeros_like(length), where=known)
    n[~known] = 0
    if rays is not None:
        r = rays.astype(np.float32)
        away = np.einsum("hwc,hwc->hw", n, r) * scale > 1e-3 * np.sqrt(np.einsum("hwc,hwc->hw", r, r))
        scale[away] *= -1
    return torch.from_numpy(np.ascontiguousarray((n * scale[..., None]).transpose(2, 0, 1)))


def pinhole(fx: float, fy: float, cx: float, cy: float) -> Tensor:
    """Intrinsics (3, 3) float32 in pixels."""
    return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float32)


def pinhole_at(camera: Sequence[float], size: tuple[float, float], wanted: tuple[int, int]) -> Tensor:
    """Intrinsics of the same view at `wanted` (H, W) pixels, from fx, fy, cx, cy at `size` pixels."""
    fx, fy, cx, cy = camera
    sy, sx = wanted[0] / size[0], wanted[1] / size[1]
    return pinhole(fx * sx, fy * sy, cx * sx, cy * sy)


def pinhole_rays(k: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Intrinsics (3, 3) -> directions (H, W, 3) from the camera through the pixels, in our axes (z = -1)."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    fx, fy, cx, cy = float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2])
    return np.stack([(x - cx) / fx, -(y - cy) / fy, np.full_like(x, -1)], -1)


def read_eval_normals(path: Path) -> np.ndarray:
    """Ground-truth normals (H, W, 3) as the public evaluations ship them, in our axes; 0 where unknown.

    .png, 8 bits, of DSINE and FrameNet: (n + 1) / 2 with x left, y up, z towards the viewer, black unknown (DSINE's
    words: x right, y down, z front, normals outward, a wall facing the camera is (0, 0, 1)). .npy, floats, of Marigold:
    our axes.
    """
    if path.suffix == ".npy":
        return read_values(path, ("float16", "float32", "float64"), ndim=3)
    values = read_values(path, ("uint8",), ndim=3)[..., :3]
    known = (values.sum(-1, keepdims=True, dtype=np.int64) > 0).astype(np.float32)
    return (values.astype(np.float32) / 255 * 2 - 1) * known * np.array([-1, 1, 1], np.float32)
