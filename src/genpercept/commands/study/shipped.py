"""Studies that come with the package, by name; their files lie beside its recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from genpercept.core.names import hint
from genpercept.training import recipe_names

Scale = Literal["mini", "full"]
SCALES: tuple[Scale, ...] = ("mini", "full")
_OURS = recipe_names.FOLDER / recipe_names.STUDIES
FOLDERS: dict[Scale, Path] = {"full": _OURS, "mini": _OURS / "mini"}


def find(name: str, scale: Scale) -> Path:
    """A study's file, or that of the package's study by its name. ValueError lists those there are."""
    if name.endswith(".toml"):
        path = Path(name).expanduser()
        known = names(_scale_of(path))
        if not path.exists() and path.stem in known:
            full = "" if _scale_of(path) == "mini" else " --scale full"
            raise ValueError(f"{name}: no such study; it is part of the package: `genpercept study {path.stem}{full}`")
        return path
    if name in names(scale):
        return FOLDERS[scale] / f"{name}.toml"
    other: Scale = "full" if scale == "mini" else "mini"
    there = f"there is one of --scale {other}" if name in names(other) else hint(name, names(scale))
    raise ValueError(f"no study {name!r} of scale {scale}: {there}; `genpercept study --list` has all")


def names(scale: Scale) -> list[str]:
    """The package's studies of a scale."""
    return sorted(path.stem for path in FOLDERS[scale].glob("*.toml"))


def listing() -> list[tuple[str, str]]:
    """The words that `genpercept study` takes for each, with what it is about."""
    return [
        (f"{name}{' --scale full' if scale == 'full' else ''}", recipe_names.about(FOLDERS[scale] / f"{name}.toml"))
        for scale in SCALES
        for name in names(scale)
    ]


def _scale_of(path: Path) -> Scale:
    return "mini" if path.parent.name == "mini" else "full"
