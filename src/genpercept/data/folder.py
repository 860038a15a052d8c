"""Your own data: a folder of images and labels, or a manifest that lists them. docs/training.md describes both.

ROOT/images/a.jpg    ROOT/depth/a.png (16 bits) or a.npy    ROOT/normals/a.png or a.npy    ROOT/valid/a.png ...
a folder for each label that there is, called as its row of genpercept.core.labels, which also says how its files are read
ROOT/manifest.jsonl or .csv   (or ROOT is that file)   {"image": "x/a.jpg", "depth": "y/a.npy", "split": "val", ...}
ROOT/dataset.toml    what the files do not say: depth_scale, normals_axes, intrinsics, licence
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any, Self

import numpy as np
import torch
from PIL import Image

from genpercept.core.labels import LABELS
from genpercept.core.names import hint
from genpercept.core.texts import one_line, read_csv, read_lines, read_numbered
from genpercept.core.values import Sample
from genpercept.data import _prepared
from genpercept.imaging.read import SUFFIXES, read, shown

SPLITS = ("train", "val", "test")
_VAL_EVERY = 20  # without declared splits, every so many-th sample is for validation
_LABEL_SUFFIXES = (".npy", ".png", ".tif", ".tiff")
_TEXT_KEYS = ("split", "intrinsics", "caption")


@dataclass(frozen=True)
class Options:
    """dataset.toml, or data.options in a recipe, which come last.

    depth_scale: units per metre of 16-bit depth images. normals_axes: "ours" (x right, y up, z towards the viewer) or
    "opencv" (x right, y down, z away). intrinsics: fx, fy, cx, cy in pixels, of samples that do not say theirs.
    """

    depth_scale: float = 1000.0
    normals_axes: str = "ours"
    intrinsics: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.depth_scale, int | float) or not self.depth_scale > 0:
            raise ValueError(f"depth_scale {self.depth_scale!r}: must be positive (1000 for millimetres)")
        if self.normals_axes not in ("ours", "opencv"):
            raise ValueError(f"normals_axes {self.normals_axes!r}: choose 'ours' or 'opencv'")
        if self.intrinsics and len(self.intrinsics) != 4:
            raise ValueError(f"intrinsics {list(self.intrinsics)}: give four numbers, fx, fy, cx, cy in pixels")


@dataclass(frozen=True)
class Entry:
    """A sample's files. A label whose file is missing has the path at which it was looked for."""

    name: str
    image: Path
    labels: Mapping[str, Path]
    options: Options
    split: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Folder:
    name = "folder"
    licence = "yours"
    about = None

    overrides: Mapping[str, Any] = field(default_factory=dict)

    def with_options(self, **options: Any) -> Self:
        """Options that come before those of dataset.toml. ValueError for an unknown one."""
        _checked(Options(), options, "data.options")
        return replace(self, overrides=options)

    def index(self, root: Path | None, split: str) -> Sequence[Any]:
        """Entries of "train", "val", "test" or "all". Where no split is declared, every 20th is for "val", none for "test".

        Declared: in a manifest by its `split`, in a folder by ROOT/SPLIT.txt, one name a line.
        """
        if root is None:
            raise ValueError("data set 'folder' needs its folder or manifest: set root")
        if (made := _prepared.manifest_of(root)) is not None:
            return _prepared.entries(self.name, _prepared.changed_options(self), root, made, split)
        if split not in (*SPLITS, "all"):
            raise ValueError(f"split {split!r}: choose one of {', '.join(SPLITS)}, all")
        manifest = _manifest(Path(root))
        home = manifest.parent if manifest else Path(root)
        options = _checked(_declared(home), dict(self.overrides), "data.options")
        entries = list(_listed(manifest, options) if manifest else _found(home, options))
        if not entries:
            raise ValueError(
                f"{shown(Path(root))}: no images in it; see docs/training.md for the layouts that are read"
            )
        entries = _with_splits(entries, home)
        chosen = [e for e in entries if split in ("all", e.split)]
        if not chosen:
            there = sorted({e.split for e in entries})
            raise ValueError(f"{shown(Path(root))}: no samples of split {split!r}; there are {', '.join(there)}, all")
        return chosen

    def load(self, entry: Entry | _prepared.PreparedEntry) -> Sample:
        """The image and its labels. ValueError that names the file, for what is missing, unreadable or does not fit."""
        if isinstance(entry, _prepared.PreparedEntry):
            return _prepared.load(entry)
        image = read(entry.image)
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        pixels = pixels.float() / 255 if image.dtype == np.uint8 else pixels.float()
        size = (image.shape[0], image.shape[1])
        labels = {name: _read(name, path, entry.options, size) for name, path in entry.labels.items()}
        sample = Sample(entry.name, pixels, caption=entry.caption).with_labels(labels)
        if entry.options.intrinsics:
            fx, fy, cx, cy = entry.options.intrinsics
            sample.intrinsics = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float32)
        if sample.depth is not None:
            known = torch.isfinite(sample.depth) & (sample.depth > 0)
            sample.valid = known if sample.valid is None else sample.valid & known
        return sample


def unread(root: Path, names: Sequence[str]) -> list[str]:
    """Folders beside images/ that hold a file named as one of the images, but are called as no label is."""
    if root.is_file() or not (root / "images").is_dir():
        return []
    others = sorted(p for p in root.iterdir() if p.is_dir() and p.name not in ("images", *_with_files()))
    return [p.name for p in others if any(_label(p, name).is_file() for name in names)]


# What is there ------------------------------------------------------------------------------------------------------------


def _manifest(root: Path) -> Path | None:
    if root.is_file():
        if root.suffix not in (".csv", ".jsonl"):
            raise ValueError(f"{shown(root)}: a manifest ends in .csv or .jsonl; or give the folder")
        return root
    if not root.is_dir():
        raise ValueError(f"{shown(root)}: no such folder")
    return next((p for p in (root / "manifest.jsonl", root / "manifest.csv") if p.is_file()), None)


def _declared(home: Path) -> Options:
    path = home / "dataset.toml"
    if not path.is_file():
        return Options()
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{shown(path)}: not a TOML file: {error}") from None
    table.pop("licence", None)
    return _checked(Options(), table, shown(path))


def _checked(options: Options, changes: Mapping[str, Any], source: str) -> Options:
    known = [f.name for f in fields(Options)]
    for key in changes:
        if key not in known:
            raise ValueError(f"{source}: unknown key {key!r}; {hint(key, known)}")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in changes.items()}
    try:
        return replace(options, **values)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def _found(home: Path, options: Options) -> Iterator[Entry]:
    """Images under images/ and, for each folder of labels that there is, the file of the same name."""
    if not (home / "images").is_dir():
        raise ValueError(f"{shown(home)}: neither images/ nor manifest.jsonl nor manifest.csv in it")
    images = sorted(p for p in (home / "images").rglob("*") if p.suffix.lower() in SUFFIXES)
    labels = [name for name in _with_files() if (home / name).is_dir()]
    seen: dict[str, Path] = {}
    for image in images:
        name = image.relative_to(home / "images").with_suffix("").as_posix()
        if name in seen:
            raise ValueError(f"{shown(image)}: {seen[name].name} has the same name, so their labels would be the same")
        seen[name] = image
        yield Entry(name, image, {label: _label(home / label, name) for label in labels}, options)


def _label(folder: Path, name: str) -> Path:
    candidates = [folder / f"{name}{suffix}" for suffix in _LABEL_SUFFIXES]
    return next((p for p in candidates if p.is_file()), folder / f"{name}.*")


def _listed(manifest: Path, options: Options) -> Iterator[Entry]:
    readable = _with_files()
    for line, row in _rows(manifest):
        where = f"{shown(manifest)}, line {line}"
        known = ("image", *readable, *_TEXT_KEYS)
        if unknown := [key for key in row if key not in known]:
            raise ValueError(f"{where}: unknown key {unknown[0]!r}; {hint(unknown[0], known)}")
        if not row.get("image"):
            raise ValueError(f"{where}: names no image")
        split = str(row.get("split") or "")
        if split and split not in SPLITS:
            raise ValueError(f"{where}: split {split!r}: choose one of {', '.join(SPLITS)}")
        own = {"intrinsics": _numbers(row["intrinsics"], where)} if row.get("intrinsics") else {}
        labels = {label: _inside(manifest, row[label], where) for label in readable if row.get(label)}
        image = _inside(manifest, row["image"], where)
        name = PurePosixPath(str(row["image"])).with_suffix("").as_posix()
        yield Entry(name, image, labels, _checked(options, own, where), split, str(row.get("caption") or ""))


def _rows(manifest: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if manifest.suffix == ".csv":
        yield from enumerate(read_csv(manifest, " as text", encoding="utf-8-sig"), 2)
        return
    for number, line in read_numbered(manifest, " as text", encoding="utf-8-sig"):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{shown(manifest)}, line {number}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise ValueError(f"{shown(manifest)}, line {number}: must be a JSON object")
        yield number, row


def _inside(manifest: Path, value: Any, where: str) -> Path:
    path = Path(str(value))
    if path.is_absolute():
        raise ValueError(f"{where}: {value}: paths are relative to the manifest, so that the data can be moved")
    return manifest.parent / path


def _numbers(value: Any, where: str) -> list[float]:
    try:
        return [float(x) for x in (value.split() if isinstance(value, str) else value)]
    except (TypeError, ValueError):
        raise ValueError(f"{where}: intrinsics {value!r}: give four numbers, fx fy cx cy in pixels") from None


def _with_splits(entries: list[Entry], home: Path) -> list[Entry]:
    """Each entry with its split: the declared one, or every 20th (the last one of few) for validation."""
    lists = {s: home / f"{s}.txt" for s in SPLITS if (home / f"{s}.txt").is_file()}
    if lists:
        of = {name.strip(): split for split, path in lists.items() for name in read_lines(path)}
        known = {e.name for e in entries}
        if missing := [name for name in of if name not in known]:
            raise ValueError(f"{shown(lists[of[missing[0]]])}: lists {missing[0]!r}, which is not among the images")
        return [replace(e, split=of.get(e.name, "unlisted")) for e in entries]
    if any(e.split for e in entries):
        return [e if e.split else replace(e, split="train") for e in entries]
    n, every = len(entries), min(_VAL_EVERY, len(entries))
    return [replace(e, split="val" if n > 1 and i % every == every - 1 else "train") for i, e in enumerate(entries)]


# Reading labels -----------------------------------------------------------------------------------------------------------


def _array(path: Path) -> np.ndarray:
    """A .npy file's array, or an image's values as they are stored."""
    name = shown(path)
    if not path.is_file():
        raise ValueError(f"{name}: no such label")
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        with Image.open(path) as image:
            return np.asarray(image)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise ValueError(f"{name}: a damaged label ({one_line(error)}); export it again") from None


def _with_files() -> list[str]:
    return [name for name, row in LABELS.items() if row.has_files]


def _read(name: str, path: Path, options: Options, size: tuple[int, int]) -> torch.Tensor:
    """A label's file as its row reads it. ValueError that names the file, for what the row refuses, and for another size."""
    row, stored = LABELS[name], _array(path)
    try:
        label = row.from_file(stored, asdict(options))
    except ValueError as error:
        raise ValueError(f"{shown(path)}: {error}") from None
    if row.channels and label.shape[:2] != size:
        (h, w), (ih, iw) = label.shape[:2], size
        raise ValueError(f"{shown(path)}: {h} x {w} pixels, but its image has {ih} x {iw}; export one size")
    return torch.from_numpy(np.ascontiguousarray(row.first(label)))


PLUGIN = Folder()
