"""A folder with a model for each category, as `genpercept fit` leaves it: which model is whose."""

from __future__ import annotations

from pathlib import Path

from genpercept.core.texts import read_json
from genpercept.imaging.read import shown

FIT = "fit.json"  # {"categories": {NAME: folder of its model, from here}, ...}


def read(folder: Path) -> dict[str, Path] | None:
    """The folder of each category's model; None where there is no fit.json. ValueError for one that names no category."""
    path = folder.expanduser() / FIT
    if not path.is_file():
        return None
    try:
        found = {str(name): path.parent / model for name, model in read_json(path)["categories"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'{shown(path)}: expected {{"categories": {{NAME: FOLDER}}}}: {error}') from None
    if not found:
        raise ValueError(f"{shown(path)}: names no category; fit some first")
    return found


def category_of(image: Path, categories: dict[str, Path]) -> str | None:
    """The category that an image belongs to: the last folder of its path that is named after one; None: there is none."""
    return next((part for part in reversed(image.absolute().parent.parts) if part in categories), None)
