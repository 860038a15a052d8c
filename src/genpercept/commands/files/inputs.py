"""Which images a command is about, and what their results are called."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from genpercept.core.texts import listed
from genpercept.imaging import sidecars, video
from genpercept.imaging.read import SUFFIXES, shown

# Pictures that are not read, and films, which are where they are named: who has some in a folder wants to know that they were
# left out.
_PICTURES = (
    *(".heic", ".heif", ".hif", ".avif", ".jxl", ".jxr", ".jfif", ".jpe", ".j2k", ".jpx", ".jpc", ".qoi"),
    *(".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".orf", ".rw2"),
    *(".raf", ".pef", ".srw", ".raw", ".3fr", ".iiq", ".x3f", ".erf", ".kdc"),
    *(".hdr", ".exr", ".pfm", ".dds", ".psd", ".psb", ".xcf", ".svg", ".eps", ".ai", ".pdf", ".ico", ".icns"),
    *(".pcx", ".sgi", ".fits", ".fit", ".dcm", ".nii", ".czi", ".svs", ".ndpi"),
    *video.SUFFIXES,
    ".insv",
)
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")


@dataclass
class Found:
    """The images, a line for each input without any, and what was left out: results of ours, and pictures not read.

    root: the folder below which names of results are paths, where folders were walked; None elsewhere.
    """

    files: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    results: list[Path] = field(default_factory=list)
    unread: list[Path] = field(default_factory=list)
    root: Path | None = None

    @property
    def notes(self) -> list[str]:
        """What was left out, a line for each kind."""
        notes = []
        if self.results:
            notes.append(f"{_count(self.results)} skipped: results of an earlier run")
        films = [path for path in self.unread if video.is_film(path)]
        if others := [path for path in self.unread if not video.is_film(path)]:
            kinds = " ".join(suffix[1:] for suffix in SUFFIXES)
            notes.append(f"{_count(others)} skipped: {_names(others)} (these are read: {kinds})")
        if films:
            pattern = f"'{shown(films[0].with_name('*' + films[0].suffix))}'"
            notes.append(
                f"{_count(films)} skipped: {_names(films)}; films are predicted when they are named: {pattern}"
            )
        return notes


def _count(files: Sequence[Path]) -> str:
    return "1 file" if len(files) == 1 else f"{len(files):,} files"


def _names(files: Sequence[Path]) -> str:
    return listed([shown(Path(path.name)) for path in files], 8)


def gather(inputs: Iterable[str | Path], *, recursive: bool = False) -> Found:
    """Files, folders (their images; recursive: those of their subfolders, too) and patterns -> what they are.

    Each file once, in the order given; folders and patterns sorted by name. A file that is named is taken whatever its
    suffix, and whether it exists shows when it is read. What a sidecar of ours names is a result, and no input.
    """
    found = Found()
    files: dict[Path, Path] = {}
    is_result = _results()
    unread: dict[Path, Path] = {}
    roots: list[str] = []
    for given in inputs:
        path = Path(given)
        try:
            paths, others, problem = _expand(path.expanduser(), str(given), recursive)
        except (OSError, ValueError, RuntimeError) as error:  # names no file system takes, no permission, no such ~user
            paths, others, problem = [], [], f"{shown(path)}: cannot be opened ({error}); check the path"
        if recursive and path.expanduser().is_dir():
            roots.append(os.path.abspath(path.expanduser()))  # noqa: PTH100
        else:
            roots += [os.path.dirname(os.path.abspath(file)) for file in paths]  # noqa: PTH100, PTH120
        results = [file for file in paths if is_result(file)]
        ours = set(results)
        kept = [file for file in paths if file not in ours]
        for file in kept:
            files.setdefault(file.absolute(), file)
        found.results += results
        unread |= {file.absolute(): file for file in others}
        if paths and not kept:
            problem = f"{shown(path)}: nothing but results of an earlier run; name other images"
        if problem:
            found.problems.append(problem)
    found.files, found.unread = list(files.values()), list(unread.values())
    found.root = Path(os.path.commonpath(roots)) if recursive and roots else None
    return found


def name_results(files: Sequence[Path], root: Path | None = None) -> list[str]:
    """A name per file, all different: its stem; with its suffix where two files of a folder share that, or a hash of both.

    Where stems of different folders meet (000.png of every kind of defect), all names are paths below the folder that the
    files have in common, "crack/000": names that only some files got could not be joined with a ground truth. Likewise, always,
    below `root`, where one is given. Compared without case, as some file systems do. ValueError names two files whose results
    cannot be told apart.
    """
    folders = [Path(os.path.abspath(file)).parent for file in files]  # noqa: PTH100 (no link is followed: trees keep shape)
    stems: dict[str, set[Path]] = {}
    same_stem: Counter[tuple[Path, str]] = Counter()
    same_name: Counter[tuple[Path, str]] = Counter()  # x.jpg and X.jpg
    for file, folder in zip(files, folders, strict=True):
        stems.setdefault(file.stem.casefold(), set()).add(folder)
        same_stem[folder, file.stem.casefold()] += 1
        same_name[folder, file.name.casefold()] += 1
    spread = root is not None or any(len(homes) > 1 for homes in stems.values())
    common = (root or Path(os.path.commonpath(folders))) if spread and files else Path()
    names = []
    for file, folder in zip(files, folders, strict=True):
        name = file.stem
        if same_name[folder, file.name.casefold()] > 1:
            name += f"_{hashlib.sha256(os.fsencode(file.name)).hexdigest()[:8]}"
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


def _expand(path: Path, given: str, recursive: bool) -> tuple[list[Path], list[Path], str]:
    """(images, pictures that are not read, what is wrong with the input or "")."""
    name = shown(path)
    if path.is_dir():
        closed: list[OSError] = []
        found, unread = _sorted_out(_walk(path, closed) if recursive else _files(path))
        if closed:
            first = f"{shown(Path(str(closed[0].filename)))}: cannot be opened ({closed[0].strerror})"
            more = f", nor can {len(closed) - 1} other folders" if closed[1:] else ""
            return found, unread, f"{first}{more}; change its permissions"
        kinds = " ".join(s[1:] for s in SUFFIXES)
        deeper = "" if recursive or found else _deeper(path)
        if films := [film for film in unread if video.is_film(film)]:
            deeper = f"; its films are predicted when they are named, as by '{name}/*{films[0].suffix}'"
        problem = f"{name}: a folder without images ({kinds}); name another, or a pattern such as '*/*.jpg'{deeper}"
        return found, unread, "" if found else problem
    if _URL.match(given) and not path.exists():
        return [], [], f"{given}: URLs are not fetched; download the image first, or pipe it in: predict - --out ..."
    if glob.has_magic(given) and not path.exists():
        matches = sorted(Path(p) for p in glob.glob(str(path), recursive=True) if Path(p).is_file())  # noqa: PTH207
        found, unread = _sorted_out(matches)
        if not found:  # '*' beside notes means the images; '*.raw' means all
            return matches, [], "" if matches else f"{name}: the pattern matches no file; check it"
        return found, unread, ""
    return [path], [], ""


def _files(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return [folder / entry.name for entry in entries if entry.is_symlink() or not entry.is_dir()]


def _walk(folder: Path, closed: list[OSError]) -> Iterator[Path]:
    """The files below a folder; `closed` gets those that cannot be opened.

    Links to folders are followed, each folder once; hidden ones are left out.
    """
    seen: set[tuple[int, int]] = set()
    for where, folders, names in os.walk(folder, followlinks=True, onerror=closed.append):
        about = Path(where).stat()
        if (about.st_dev, about.st_ino) in seen:
            folders.clear()
            continue
        seen.add((about.st_dev, about.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(where, name) for name in names)


def _sorted_out(listing: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """(images, pictures that are not read), each sorted; neither has hidden files, of which some systems leave many."""
    seen = sorted(path for path in listing if not path.name.startswith("."))
    images = [path for path in seen if path.suffix.lower() in SUFFIXES and path.is_file()]
    kept = set(images)
    return images, [p for p in seen if p not in kept and _is_picture(p)]


def _is_picture(path: Path) -> bool:
    """By its name. A link that leads nowhere is one, too."""
    return path.suffix.lower() in (*_PICTURES, *SUFFIXES) and not path.is_dir()


def _deeper(folder: Path) -> str:
    below = any(entry.is_dir() and not entry.name.startswith(".") for entry in os.scandir(folder))
    return "; --recursive looks into its subfolders" if below else ""


def _results() -> Callable[[Path], bool]:
    """Whether a file is a result of this program, by the sidecar beside it. Each folder is listed once."""
    listing = lru_cache(None)(_listing)
    read = lru_cache(64)(sidecars.read)

    def is_result(file: Path) -> bool:
        for sidecar in sidecars.of(file):
            if sidecar.name in listing(file.parent) and (about := read(sidecar)) and file.name in sidecars.names(about):
                return True
        return False

    return is_result


def _listing(folder: Path) -> frozenset[str]:
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if entry.name.endswith((".json", sidecars.CLAIM)))
    except OSError:
        return frozenset()
