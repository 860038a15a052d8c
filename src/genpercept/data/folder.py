"""Your own data: a folder of images and labels, or a manifest that lists them. docs/training.md describes both.

ROOT/images/a.jpg    ROOT/depth/a.png (16 bits) or a.npy    ROOT/normals/a.png or a.npy    ROOT/valid/a.png ...
a folder for each label that there is, called as its row of genpercept.core.labels, which also says how its files are read
ROOT/manifest.jsonl or .csv   (or ROOT is that file)   {"image": "x/a.jpg", "depth": "y/a.npy", "split": "val", ...}
ROOT/dataset.toml    what the files do not say: depth_scale, normals_axes, intrinsics, ignore, upright, licence
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from genpercept.core.labels import LABELS
from genpercept.core.notes import note
from genpercept.core.values import Sample
from genpercept.data import _prepared
from genpercept.data._own import SPLITS, Entry, NoSamples, Options, checked, entries, unread
from genpercept.imaging.read import read, shown
from genpercept.imaging.stored import orientation_of, read_stored, turned

__all__ = ["PLUGIN", "Entry", "Folder", "Options", "unread"]


@dataclass(frozen=True)
class Folder:
    name = "folder"
    licence = "yours"
    about = None

    overrides: Mapping[str, Any] = field(default_factory=dict)

    def with_options(self, **options: Any) -> Self:
        """Options that come before those of dataset.toml. ValueError for an unknown one."""
        checked(Options(), options, "data.options")
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
        found = entries(Path(root), self.overrides)
        chosen = [e for e in found if split in ("all", e.split)]
        if not chosen:
            there = sorted({e.split for e in found})
            raise NoSamples(f"{shown(Path(root))}: no samples of split {split!r}; there are {', '.join(there)}, all")
        return chosen

    def load(self, entry: Entry | _prepared.PreparedEntry) -> Sample:
        """The image and its labels. ValueError that names the file, for what is missing, unreadable or does not fit."""
        if isinstance(entry, _prepared.PreparedEntry):
            return _prepared.load(entry)
        image = read(entry.image)
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        pixels = pixels.float() / 255 if image.dtype == np.uint8 else pixels.float()
        turn = _Turn(*orientation_of(entry.image), (image.shape[0], image.shape[1]), entry.options.upright)
        labels = {name: _read(name, path, entry.options, turn) for name, path in entry.labels.items()}
        sample = Sample(entry.name, pixels, caption=entry.caption).with_labels(labels)
        if entry.options.intrinsics:
            fx, fy, cx, cy = entry.options.intrinsics
            sample.intrinsics = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float32)
        if sample.depth is not None:
            known = torch.isfinite(sample.depth) & (sample.depth > 0)
            sample.valid = known if sample.valid is None else sample.valid & known
        return sample


@dataclass(frozen=True)
class _Turn:
    """How an image's EXIF orientation turns it. stored, shown: its (height, width) before and after."""

    orientation: int
    stored: tuple[int, int]
    shown: tuple[int, int]
    upright: bool | None  # whether labels are turned already, where their size does not tell

    def of(self, size: tuple[int, ...], ours: bool) -> int:
        """By which orientation a label of this size is to be turned. ours: `predict` wrote it, of the image as it is shown."""
        if self.orientation == 1 or size != self.stored or ours:
            return 1
        if size == self.shown:
            if self.upright:
                return 1
            if self.upright is None:
                note(
                    "EXIF turns the image, and its label with it, which has the size of both; where labels are as images are "
                    "shown, set upright = true in dataset.toml (false: this is right)",
                    f"orientation {self.orientation}",
                )
        return self.orientation


def _read(name: str, path: Path, options: Options, turn: _Turn) -> torch.Tensor:
    """A label's file as its row reads it. ValueError that names the file, for what the row refuses, and for another size."""
    if not path.is_file():
        raise ValueError(f"{shown(path)}: no such label")
    row, stored = LABELS[name], read_stored(path, ("values", name, "pred", "gt")).upright()
    try:
        label = row.from_file(stored.for_label(row), asdict(options))
    except ValueError as error:
        raise ValueError(f"{shown(path)}: {error}") from None
    if row.channels:
        size = (label.shape[0], label.shape[1])
        if (orientation := turn.of(size, bool(stored.kind))) != 1:
            label = turned(label, orientation)
            label = row.turn(label, orientation) if row.turn else label
        if label.shape[:2] != turn.shown:
            (h, w), (ih, iw) = size, turn.shown
            raise ValueError(f"{shown(path)}: {h} x {w} pixels, but its image has {ih} x {iw}; export one size")
    return torch.from_numpy(np.ascontiguousarray(row.first(label)))


PLUGIN = Folder()
