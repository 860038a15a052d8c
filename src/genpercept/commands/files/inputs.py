"""Which images a command is about, and what their results are called."""

from __future__ import annotations

import glob
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
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
    """A name per file, all different: its stem; with its suffix where two files of a folder share that, or a hash of both.

    Where stems of different folders meet (000.png of every kind of defect), all names are paths below the folder that the
    files have in common, "crack/000": names that only some files got could not be joined with a ground truth. Compared
    without case, as some file systems do. ValueError names two files whose results cannot be told apart.
    """
    folders = [Path(os.path.abspath(file)).parent for file in files]  # noqa: PTH100 (no link is followed: trees keep shape)
    stems: dict[str, set[Path]] = {}
    same_stem: Counter[tuple[Path, str]] = Counter()
    same_name: Counter[tuple[Path, str]] = Counter()  # x.jpg and X.jpg
    for file, folder in zip(files, folders, strict=True):
        stems.setdefault(file.stem.casefold(), set()).add(folder)
        same_stem[folder, file.stem.casefold()] += 1
        same_name[folder, file.name.casefold()] += 1
    spread = any(len(homes) > 1 for homes in stems.values())
    common = Path(os.path.commonpath(folders)) if spread else Path()
    names = []
    for file, folder in zip(files, folders, strict=True):
        name = file.stem
        if same_name[folder, file.name.casefold()] > 1:
            name += f"_{hashlib.sha256(file.name.encode()).hexdigest()[:8]}"
        elif same_stem[folder, file.stem.casefold()] > 1:
            name += f"_{file.suffix[1:]}"
        names.append((folder.relative_to(common) / name).as_posix() if spread else name)
    owner: dict[str, Path] = {}
    for file, name in zip(files, names, strict=True):
        other = owner.setdefault(name.casefold(), file)
        if other is not file:
            raise ValueError(
                f"{shown(other)} and {shown(file)} would both become {name}: predict them into different folders"
            )
    return names


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
