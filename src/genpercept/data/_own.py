"""What lies in a folder of your own: images, the label of each by its name, manifests, splits. No image is read here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

from genpercept.core.labels import LABELS
from genpercept.core.names import hint
from genpercept.core.texts import json_value, listed, read_numbered, read_table, read_toml, shown, slashes
from genpercept.imaging.read import SUFFIXES
from genpercept.imaging.stored import ASIDE, bare
from genpercept.imaging.stored import SUFFIXES as LABEL_SUFFIXES


class NoSamples(ValueError):
    """A split that has none, of a data set that is all right otherwise."""


SPLITS = ("train", "val", "test")
_VAL_EVERY = 20  # without declared splits, every so many-th sample is for validation
_TEXT_KEYS = ("split", "intrinsics", "caption")
_ENDINGS = ("_gt", "_label", "_pred")  # that a label of any kind may have behind its image's name
_NEVER = ("__MACOSX",)  # folders of archives; as all that begins with a dot


@dataclass(frozen=True)
class Options:
    """dataset.toml, or data.options in a recipe, which come last.

    depth_scale: units per metre of 16-bit depth images. normals_axes: "ours" (x right, y up, z towards the viewer) or
    "opencv" (x right, y down, z away). intrinsics: fx, fy, cx, cy in pixels, of samples that do not say theirs. ignore:
    numbers in class_ids that mean no class, beside 255 and 65535. upright: whether labels of images that their EXIF
    orientation turns are as the image is shown (True) or as its pixels are stored (False); None: by their size, stored where
    that does not tell.
    """

    depth_scale: float = 1000.0
    normals_axes: str = "ours"
    intrinsics: tuple[float, ...] = ()
    ignore: tuple[int, ...] = ()
    upright: bool | None = None

    def __post_init__(self) -> None:
        if not _is_number(self.depth_scale) or not self.depth_scale > 0:
            raise ValueError(f"depth_scale {self.depth_scale!r}: must be positive (1000 for millimetres)")
        if self.normals_axes not in ("ours", "opencv"):
            raise ValueError(f"normals_axes {self.normals_axes!r}: choose 'ours' or 'opencv'")
        if self.intrinsics and (len(self.intrinsics) != 4 or not all(map(_is_number, self.intrinsics))):
            raise ValueError(f"intrinsics {list(self.intrinsics)}: give four numbers, fx, fy, cx, cy in pixels")
        if not isinstance(self.ignore, tuple) or not all(isinstance(n, int) and _is_number(n) for n in self.ignore):
            raise ValueError(f"ignore {self.ignore!r}: give whole numbers, such as [0, 254]")
        if self.upright is not None and not isinstance(self.upright, bool):
            raise ValueError(f"upright {self.upright!r}: choose true or false")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class Entry:
    """A sample's files. A label whose file is missing has the path at which it was looked for."""

    name: str
    image: Path
    labels: Mapping[str, Path]
    options: Options
    split: str = ""
    caption: str = ""


def entries(root: Path, overrides: Mapping[str, Any]) -> list[Entry]:
    """All of a folder, or of a manifest, with their splits. ValueError that names the file, and the line."""
    manifest = _manifest(root)
    home = manifest.parent if manifest else root
    options = checked(_declared(home), overrides, "data.options")
    found = list(_listed(manifest, options) if manifest else _found(home, options))
    if not found:
        raise ValueError(f"{shown(root)}: no images in it; see docs/training.md for the layouts that are read")
    return _with_splits(found, home)


def unread(root: Path, names: Sequence[str]) -> list[str]:
    """Folders beside images/ that hold a file named as one of the images, but are called as no label is."""
    if root.is_file() or not (root / "images").is_dir():
        return []
    known = ("images", *with_files())
    others = sorted(p for p in root.iterdir() if p.is_dir() and p.name not in known and not _hidden(Path(p.name)))
    return [p.name for p in others if any(map(Shelf(p, p.name).has, names))]


def with_files() -> list[str]:
    return [name for name, row in LABELS.items() if row.has_files]


def checked(options: Options, changes: Mapping[str, Any], source: str) -> Options:
    """The options with changes. ValueError, begun by `source`, for unknown ones and for values that they cannot have."""
    known = [f.name for f in fields(Options)]
    for key in changes:
        if key not in known:
            raise ValueError(f"{source}: unknown key {key!r}; {hint(key, known)}")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in changes.items()}
    if isinstance(values.get("ignore"), int):
        values["ignore"] = (values["ignore"],)
    try:
        return replace(options, **values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{source}: {error}") from None


def _manifest(root: Path) -> Path | None:
    if root.is_file():
        if root.suffix.lower() not in (".csv", ".tsv", ".jsonl"):
            raise ValueError(f"{shown(root)}: a manifest ends in .csv, .tsv or .jsonl; or give the folder")
        return root
    if not root.is_dir():
        raise ValueError(f"{shown(root)}: no such folder")
    return next((p for p in (root / f"manifest.{kind}" for kind in ("jsonl", "csv", "tsv")) if p.is_file()), None)


def _declared(home: Path) -> Options:
    path = home / "dataset.toml"
    if not path.is_file():
        return Options()
    table = read_toml(path)
    table.pop("licence", None)
    return checked(Options(), table, shown(path))


# Folders ------------------------------------------------------------------------------------------------------------------


def _hidden(path: Path) -> bool:
    """What systems leave beside the files of people: .DS_Store, ._000.jpg, __MACOSX."""
    return any(part.startswith(".") or part in _NEVER for part in path.parts)


def _found(home: Path, options: Options) -> Iterator[Entry]:
    """Images under images/ and, for each folder of labels that there is, the file of the same name."""
    place = home / "images"
    if not place.is_dir():
        raise ValueError(f"{shown(home)}: neither images/ nor manifest.jsonl nor manifest.csv in it")
    images = sorted(p for p in place.rglob("*") if p.suffix.lower() in SUFFIXES and not _hidden(p.relative_to(place)))
    shelves = {name: Shelf(home / name, name) for name in with_files() if (home / name).is_dir()}
    seen: dict[str, Path] = {}
    for image in images:
        name = image.relative_to(place).with_suffix("").as_posix()
        if name in seen:
            raise ValueError(f"{shown(image)}: {seen[name].name} has the same name, so their labels would be the same")
        seen[name] = image
        yield Entry(name, image, {label: shelf.find(name) for label, shelf in shelves.items()}, options)


class Shelf:
    """The files of a folder of labels, by the names of their images.

    A label is called as its image, or with an ending more, such as that of `predict`: a.png, a_depth.png, a_gt.png.
    """

    def __init__(self, folder: Path, label: str) -> None:
        self._folder = folder
        self._endings = (f"_{label}", *(LABELS[label].endings if label in LABELS else ()), *_ENDINGS)
        self._exact: dict[Path, dict[str, Path]] = {}
        self._bare: dict[Path, dict[str, list[Path]]] = {}

    def find(self, name: str) -> Path:
        """The label of the image called so; where there is none, the path at which it was looked for.

        ValueError for two that could be it.
        """
        place, stem = (self._folder / name).parent, PurePosixPath(name).name
        if place not in self._exact:
            self._read(place)
        if (exact := self._exact[place].get(stem)) is not None:
            return exact
        close = self._bare[place].get(stem, [])
        if len({p.stem for p in close}) > 1:
            raise ValueError(
                f"{shown(place)}: which is the label of {name}, {listed([p.name for p in close])}? Keep one"
            )
        return close[0] if close else self._folder / f"{name}.*"

    def has(self, name: str) -> bool:
        return self.find(name).is_file()

    def _read(self, place: Path) -> None:
        exact, close = self._exact.setdefault(place, {}), self._bare.setdefault(place, {})
        there = [p for p in place.iterdir() if p.suffix.lower() in LABEL_SUFFIXES] if place.is_dir() else []
        for path in sorted(there, key=lambda p: (LABEL_SUFFIXES.index(p.suffix.lower()), p.name)):
            if _hidden(Path(path.name)) or not path.is_file():
                continue
            exact.setdefault(path.stem, path)
            if not path.stem.endswith(ASIDE) and (stem := bare(path.stem, self._endings)) != path.stem:
                close.setdefault(stem, []).append(path)


# Manifests ----------------------------------------------------------------------------------------------------------------


def _listed(manifest: Path, options: Options) -> Iterator[Entry]:
    readable = with_files()
    known = ("image", *readable, *_TEXT_KEYS)
    for line, row in _rows(manifest):
        where = f"{shown(manifest)}, line {line}"
        if unknown := [key for key in row if key not in known]:
            raise ValueError(f"{where}: unknown key {unknown[0]!r}; {hint(unknown[0], known)}")
        if not row.get("image"):
            raise ValueError(f"{where}: names no image")
        split = str(row.get("split") or "").strip()
        if split and split not in SPLITS:
            raise ValueError(f"{where}: split {split!r}: choose one of {', '.join(SPLITS)}")
        own = {"intrinsics": _numbers(row["intrinsics"], where)} if row.get("intrinsics") else {}
        labels = {label: _inside(manifest, row[label], where) for label in readable if row.get(label)}
        image = _inside(manifest, row["image"], where)
        name = image.relative_to(manifest.parent).with_suffix("").as_posix()
        yield Entry(name, image, labels, checked(options, own, where), split, str(row.get("caption") or ""))


def _rows(manifest: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    if manifest.suffix.lower() != ".jsonl":
        yield from read_table(manifest, " as a manifest")
        return
    for number, line in read_numbered(manifest, " as a manifest"):
        row = json_value(line, shown(manifest), number)
        if not isinstance(row, dict):
            raise ValueError(f"{shown(manifest)}, line {number}: must be a JSON object")
        yield number, row


def _inside(manifest: Path, value: Any, where: str) -> Path:
    if not isinstance(value, str):
        raise ValueError(f"{where}: {value!r}: give a path as text")
    literal = manifest.parent / value.strip()
    text = slashes(value)
    if Path(text).is_absolute() or text[1:3] == ":/":
        raise ValueError(f"{where}: {value}: paths are relative to the manifest, so that the data can be moved")
    return literal if "\\" in value and literal.is_file() else manifest.parent / text


def _numbers(value: Any, where: str) -> list[float]:
    try:
        return [float(x) for x in (value.replace(",", " ").split() if isinstance(value, str) else value)]
    except (TypeError, ValueError):
        raise ValueError(f"{where}: intrinsics {value!r}: give four numbers, fx fy cx cy in pixels") from None


# Splits -------------------------------------------------------------------------------------------------------------------


def _with_splits(found: list[Entry], home: Path) -> list[Entry]:
    """Each entry with its split: the declared one, or every 20th (the last one of few) for validation."""
    lists = {s: home / f"{s}.txt" for s in SPLITS if (home / f"{s}.txt").is_file()}
    if lists:
        of = _listed_splits(lists, _namer(found))
        return [replace(e, split=of.get(e.name, "unlisted")) for e in found]
    if any(e.split for e in found):
        return [e if e.split else replace(e, split="train") for e in found]
    n, every = len(found), min(_VAL_EVERY, len(found))
    return [replace(e, split="val" if n > 1 and i % every == every - 1 else "train") for i, e in enumerate(found)]


def _listed_splits(lists: Mapping[str, Path], named: Callable[[str], str | None]) -> dict[str, str]:
    """Name -> split. ValueError for a name that is no image's, and for one in two lists."""
    of: dict[str, str] = {}
    for split, path in lists.items():
        for line, text in read_numbered(path, " as a split list"):
            name = named(text)
            if name is None:
                raise ValueError(f"{shown(path)}, line {line}: lists {text.strip()!r}, which is not among the images")
            if of.setdefault(name, split) != split:
                raise ValueError(
                    f"{shown(path)}, line {line}: {text.strip()!r} is in {lists[of[name]].name}, too; keep it in one of them"
                )
    return of


def _namer(found: Sequence[Entry]) -> Callable[[str], str | None]:
    """What a list calls an image -> its name: that, its file's, or its path's from the root, with either slash."""
    names = {e.name for e in found}

    def named(text: str) -> str | None:
        plain = slashes(text)
        bare = str(PurePosixPath(plain).with_suffix("")) if PurePosixPath(plain).suffix.lower() in SUFFIXES else plain
        inside = [t.removeprefix("images/") for t in (plain, bare)]
        return next((t for t in (text.strip(), plain, bare, *inside) if t in names), None)

    return named
