"""Self-contained HTML pages out of the templates beside this file: pictures inside, nothing from elsewhere."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from genpercept.core import files

MAX_EDGE = 640  # pixels; a page of a hundred pictures stays under 5 MB


@dataclass(frozen=True)
class Picture:
    """A picture inside a page: its `data:` address, its size there in pixels, and the words under it."""

    uri: str
    width: int
    height: int
    words: str = ""


def picture(image: Image.Image | np.ndarray, words: str = "", max_edge: int = MAX_EDGE) -> Picture:
    """Of a PIL picture, or uint8 (H, W, 3): as WebP, shrunk to `max_edge` pixels."""
    shown = (image if isinstance(image, Image.Image) else Image.fromarray(image)).convert("RGB")
    if max(shown.size) > max_edge:
        shown.thumbnail((max_edge, max_edge), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    shown.save(stream, "WEBP", quality=88)
    return Picture("data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode(), *shown.size, words)


def render(template: str, **context: Any) -> str:
    """The document: `template` of the folder `templates`, which extends base.html; what it is given is plain text.

    context: `title` and `lead`, which every page has, and what else the template names.
    """
    return _environment().get_template(template).render(**context)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("genpercept.imaging"),
        autoescape=True,
        undefined=StrictUndefined,  # a name that the template has and nobody gave is an error, not a gap
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def save(path: Path, document: str) -> None:
    """Write the page, whole or not at all. ValueError when the folder cannot be written to."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(path, document)
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {error}") from None
