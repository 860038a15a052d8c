"""The package's own free photographs, which need no upload."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from genpercept.commands.app.pictures import preview
from genpercept.commands.app.store import Photograph


@dataclass(frozen=True)
class Example:
    """A photograph and who made it."""

    photograph: Photograph
    credit: str


def examples() -> list[Example]:
    """Those of `genpercept demo`; none where the packages that bring them are not installed."""
    from genpercept.commands.demo.photographs import photographs

    try:
        cases = photographs()
    except ValueError:
        return []
    return [Example(_photograph(case.name, case.image), case.note) for case in cases]


def _photograph(name: str, image: np.ndarray) -> Photograph:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return Photograph(f"{name}.png", buffer.getvalue(), image, preview(image), example=name)
