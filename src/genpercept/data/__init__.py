"""Data sets: each module's PLUGIN lists entries of a split and loads one as a Sample in physical units.

To write one begin with `FileDataset`, and read its files with the functions beside it here: docs/extend.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

from genpercept.core.registry import Registry
from genpercept.core.values import Sample
from genpercept.data import _prepared as prepared
from genpercept.data._entries import files_of, lacking, said_by
from genpercept.data._files import (
    About,
    FileDataset,
    images_in,
    read_grey,
    read_list,
    read_rgb,
    read_values,
    same_size,
    same_stem,
)
from genpercept.data._own import NoSamples

__all__ = [
    "DATASETS",
    "About",
    "Dataset",
    "FileDataset",
    "GroupedDataset",
    "NoSamples",
    "files_of",
    "find",
    "images_in",
    "lacking",
    "prepared",
    "read_grey",
    "read_list",
    "read_rgb",
    "read_values",
    "said_by",
    "same_size",
    "same_stem",
]


class Dataset(Protocol):
    """A frozen dataclass whose fields are its options, if it has any. Its entries have a `name`, by which samples go."""

    name: str

    @property
    def licence(self) -> str: ...

    @property
    def about(self) -> About | None:
        """What it provides, its splits and protocols; None where only its files can say."""
        ...

    def with_options(self, **options: Any) -> Self:
        """The data set with these options. ValueError for an unknown one, or for a value it cannot have."""
        ...

    def index(self, root: Path | None, split: str) -> Sequence[Any]:
        """Entries of `split` under `root`, cheap to make and to pickle. ValueError when the layout is not as published."""
        ...

    def load(self, entry: Any) -> Sample:
        """The labelled image behind an entry. ValueError that names the file when it cannot be read."""
        ...


@runtime_checkable
class GroupedDataset(Protocol):
    """A data set whose samples fall into parts that tables also show one by one. grouped: what a part is ("subset")."""

    grouped: str

    def group(self, entry: Any) -> str:
        """The part of an entry, by name."""
        ...


DATASETS = Registry[Dataset](__name__, "data set", "genpercept.datasets", Dataset)
find = DATASETS.find
