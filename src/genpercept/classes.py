"""Class tables: names and colours of the classes that segmentation data sets label, and how one set's map to another's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

IGNORED = -1  # of class_ids: no class


@dataclass(frozen=True)
class ClassTable:
    """Classes 0 ... C - 1. colours (C, 3) uint8, all different: what the codec paints and pictures show."""

    name: str
    names: tuple[str, ...]
    colours: np.ndarray

    def __len__(self) -> int:
        return len(self.names)
