"""Which images a command is about, and what their results are called."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from genpercept.imaging.read import SUFFIXES, shown


def gather(inputs: Iterable[str | Path]) -> tuple[list[Path], list[str]]:
    """Files, folders (their images, not those of subfolders) and patterns -> (files, one line per input without any).

    Each file once, in the order given; folders and patterns sorted by name. A file that is named is taken whatever its
    suffix, and whether it exists shows when it is read.
    """
    files: dict[Path, Path] = {}
    problems = []
    for given in inputs:
        path = Path(given)
        try:
            found, problem = _expand(path.expanduser(), str(given))
        except (OSError, ValueError, RuntimeError) as error:  # names no file system takes, no permission, no such ~user
            found, problem = [], f"{shown(path)}: cannot be opened ({error}); check the path"
        for file in found:
            files.setdefault(file.absolute(), file)
        if problem:
            problems.append(problem)
    return list(files.values()), problems


def name_results(files: Sequence[Path]) -> list[str]:
    """A name per file, all different: its stem, or where stems meet, with its folder's name, its suffix or a hash.

    Compared without case, as some file systems do. ValueError names two files whose results cannot be told apart.
    """
    ways: tuple[Callable[[Path], str], ...] = (
        lambda p: p.stem,
        lambda p: f"{p.absolute().parent.name}_{p.stem}",
        lambda p: f"{p.stem}_{p.suffix[1:]}",
        lambda p: f"{p.absolute().parent.name}_{p.stem}_{p.suffix[1:]}",
        lambda p: f"{p.stem}_{hashlib.sha256(str(p.absolute()).encode()).hexdigest()[:8]}",
    )
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(file.stem.casefold(), []).append(file)
    names: dict[Path, str] = {}
    for members in groups.values():
        for way in ways:
            names.update({file: way(file) for file in members})
            if len({names[file].casefold() for file in members}) == len(members):
                break
    owner: dict[str, Path] = {}
    for file in files:
        other = owner.setdefault(names[file].casefold(), file)
        if other is not file:
            raise ValueError(
                f"{shown(other)} and {shown(file)} would both become {names[file]}: predict them into different folders"
            )
    return [names[file] for file in files]


def _expand(path: Path, given: str) -> tuple[list[Path], str]:
    name = shown(path)
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if _is_image(p) and not p.name.startswith("."))
        kinds = " ".join(s[1:] for s in SUFFIXES)
        problem = f"{name}: a folder without images ({kinds}); name another, or a pattern such as '*/*.jpg'"
        return found, "" if found else problem
    if glob.has_magic(given) and not path.exists():
        matches = sorted(Path(p) for p in glob.glob(str(path), recursive=True) if Path(p).is_file())  # noqa: PTH207
        found = [p for p in matches if _is_image(p)] or matches  # '*' beside notes means the images; '*.raw' means all
        return found, "" if found else f"{name}: the pattern matches no file; check it"
    return [path], ""


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()
