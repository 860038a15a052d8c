"""Recipes that come with the package, by name: `mini/depth` is the file recipes/mini/depth.toml beside this module."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from genpercept.core.names import hint
from genpercept.core.texts import read_text

FOLDER = Path(str(files("genpercept.training"))) / "recipes"
STUDIES = "studies"  # folder of studies and their suites, which are no recipes
_END = re.compile(r"(?<!Fig)[.;](?:\s|$)")  # of the first sentence of a file's comment
_RUN = re.compile(r"(?:.*/)?runs/(.+)/(?:model|best)/?")


def names() -> list[str]:
    """All recipes of the package, such as "mini/depth"; studies are not among them."""
    found = (path.relative_to(FOLDER).with_suffix("") for path in FOLDER.rglob("*.toml"))
    return sorted(path.as_posix() for path in found if path.parts[0] != STUDIES)


def find(given: str | Path, folder: Path = Path()) -> Path:
    """The file of a recipe: one of yours by its path, from `folder`, or the package's by its name.

    ValueError in one line where there is neither: it says the name of a recipe that used to be a file, or the nearest name.
    """
    path, text = folder / Path(given).expanduser(), Path(given).as_posix()
    if path.exists() and not (path.is_dir() and text in names()):
        return path
    if text in names():
        return FOLDER / f"{text}.toml"
    raise ValueError(f"{given}: no such recipe; {_advice(text)}")


def _advice(text: str) -> str:
    """What to pass instead: the name in a path to where recipes lay before, or the nearest one."""
    parts = Path(text.removesuffix(".toml")).parts
    for name in ("/".join(parts[-2:]), "/".join(parts[-1:])):
        if name in names():
            return f"it is part of the package, and its name is {name}"
    if text.endswith(".toml"):
        return "name a file, or one of `genpercept train --list`"
    return f"{hint(text, names()) if '/' in text else _within(text)}; `genpercept train --list` has all"


def _within(text: str) -> str:
    """Names whose last part is this one."""
    alike = [name for name in names() if name.rpartition("/")[2] == text]
    return f"did you mean {' or '.join(alike)}?" if alike else "a name has two parts, such as mini/depth"


def about(path: Path) -> str:
    """The first sentence of the comment that a recipe or study begins with; "" where there is none."""
    lines = []
    for line in read_text(path).splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return _END.split(" ".join(lines), maxsplit=1)[0]


def maker(model: str) -> str:
    """The name of the recipe whose run the folder of a model is called after, as runs/base/model is of mini/base; "" if none.

    Where several are called so, the one that is named whole (runs/paper/depth/model), else the paper's.
    """
    if (match := _RUN.fullmatch(model)) is None:
        return ""
    wanted, known = match[1], names()
    tries = (wanted, f"paper/{wanted}", f"mini/{wanted}", f"mini/{wanted.rstrip('0123456789')}")
    return next((name for name in tries if name in known), "")


def listing(folder: Path, found: list[str]) -> list[tuple[str, str]]:
    """Names of files below `folder`, each with what it is about."""
    return [(name, about(folder / f"{name}.toml").removeprefix(f"{name}: ")) for name in found]
