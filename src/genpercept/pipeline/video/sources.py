"""What `pipe.video` takes as a clip."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from genpercept.core.texts import shown
from genpercept.imaging import read
from genpercept.imaging.video import DEFAULT_RATE, Clip, Film, Frame, Stills


@dataclass(frozen=True)
class Images:
    """Images of any kind that `imaging.read` takes, in a list, as a clip."""

    images: Sequence[Any]
    rate: Fraction

    @property
    def count(self) -> int | None:
        return len(self.images)

    @property
    def tick(self) -> Fraction:
        return 1 / self.rate

    def frames(self) -> Iterator[Frame]:
        yield from numbered(self.images, self.rate)


def clip_of(source: Any, rate: float | None = None, live: bool = False) -> Clip | Iterable[Frame]:
    """A film, a folder or a list as a Clip; with `live`, frames of anything that gives images. ValueError for all else."""
    if rate is not None and not rate > 0:
        raise ValueError(f"rate={rate:g}: frames a second, more than 0")
    often = DEFAULT_RATE if rate is None else Fraction(rate).limit_denominator(1001)
    if isinstance(source, str | os.PathLike):
        path = Path(source).expanduser()
        return Stills(images_in(path), often) if path.is_dir() else Film(path)
    if hasattr(source, "frames"):
        return source
    if isinstance(source, list | tuple | np.ndarray):
        if len(source) == 0:
            raise ValueError("an empty list of frames: give at least one")
        return Images(list(source), often)
    if live and isinstance(source, Iterable):
        return numbered(source, often)
    hint = ", or live=True, since it cannot be read twice" if isinstance(source, Iterable) else ""
    raise ValueError(f"a clip of type {type(source).__name__}: give a film's path, a folder, a list of images{hint}")


def numbered(images: Iterable[Any], rate: Fraction) -> Iterator[Frame]:
    """Images as frames, so many a second."""
    for index, source in enumerate(images):
        image = read.read(source)
        if image.dtype != np.uint8:
            image = np.rint(image * 255).astype(np.uint8)
        yield Frame(index, index / rate, image)


def images_in(folder: Path) -> list[Path]:
    """The images of a folder, sorted by name as `by_number` has it. ValueError where there are none."""
    names = (path for path in folder.iterdir() if path.suffix.lower() in read.SUFFIXES and path.name[0] != ".")
    found = sorted(names, key=by_number)
    if not found:
        raise ValueError(f"{shown(folder)}: a folder without images; name one whose images are the frames")
    return found


def by_number(path: Path) -> tuple[Any, ...]:
    """What sorts files by name, numbers in it by their value: frame_2 before frame_10."""
    parts = re.split(r"(\d+)", path.name.casefold())
    return str(path.parent), [(int(part), "") if i % 2 else (-1, part) for i, part in enumerate(parts)], path.name
