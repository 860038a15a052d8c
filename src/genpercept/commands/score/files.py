"""What `genpercept score` reads: samples in files, matched by name. How a file is read, its metric says."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from genpercept.core.registry import entries
from genpercept.core.texts import read_json
from genpercept.imaging.stored import ASIDE, bare
from genpercept.metrics import METRICS, MetricPlugin
from genpercept.metrics._files import EXTENSIONS, SUFFIXES, Pair

_LISTED = 3


class Matcher:
    """Finds the files of each sample. Of a file's name the ends do not count that data sets, `predict` and the metric add."""

    def __init__(self, plugin: MetricPlugin[Any]) -> None:
        named = {*METRICS.names(), *entries("genpercept.tasks")}  # our tasks are named as their metrics
        own = {*SUFFIXES, *(f"_{name}" for name in named), *plugin.suffixes}
        self._suffixes = tuple(own)
        self._tree_layout = plugin.tree

    def match(self, pred: Path, gt: Path, extras: dict[str, Path]) -> list[Pair]:
        """Two files are one pair; two folders are matched as the metric declares, and every file must find its partner.

        extras: further files or folders, such as valid or trimap, of which every sample with a ground truth has one.
        """
        given = {"prediction": pred, "ground truth": gt, **extras}
        _require_there(given)
        if pred.is_file():
            return [_pair(pred.stem, pred, gt, extras)]
        return self._match_tree(pred, gt, extras) if self._tree_layout else self._match_stems(pred, gt, extras)

    def _match_stems(self, pred: Path, gt: Path, extras: dict[str, Path]) -> list[Pair]:
        preds, gts = self.by_path(pred), self.by_path(gt)
        _require_partners(preds, gts, "prediction", gt)
        _require_partners(gts, preds, "ground truth", pred)
        found = {key: self.by_path(folder) for key, folder in extras.items()}
        for key, files in found.items():
            _require_partners(gts, files, "ground truth", extras[key])
        return [
            _pair(stem, path, gts[stem], {key: files[stem] for key, files in found.items()})
            for stem, path in preds.items()
        ]

    def _match_tree(self, pred: Path, gt: Path, extras: dict[str, Path]) -> list[Pair]:
        """Folders in MVTec's layout, matched by path: CATEGORY/KIND/NAME, or CATEGORY/NAME, or KIND/NAME, or NAME.

        Folders called test and ground_truth are not part of a path; where there is a ground_truth, only what lies in one
        is ground truth, so that the data set's own root will do. Two levels are KIND/NAME where a ground_truth or a kind
        called good lies directly in a given folder, else CATEGORY/NAME. Pictures of the kind good need no mask.
        """
        preds, gts = self._tree(pred), self._tree(gt)
        good = {key for key in preds if "good" in key.split("/")[:-1]}
        _require_partners({k: p for k, p in preds.items() if k not in good}, gts, "prediction", gt)
        _require_partners(gts, preds, "ground truth", pred)
        found = {key: self._tree(folder) for key, folder in extras.items()}
        for key, files in found.items():
            _require_partners(gts, files, "ground truth", extras[key])
        kinds = (gt / "ground_truth").is_dir() or gt.name == "ground_truth" or any(k.startswith("good/") for k in preds)
        return [
            _pair(
                key,
                path,
                gts.get(key),
                {extra: files[key] for extra, files in found.items() if key in files},
                key.partition("/")[0] if key.count("/") > kinds else "",
            )
            for key, path in preds.items()
        ]

    def _tree(self, root: Path) -> dict[str, Path]:
        """`by_stem` of all folders below, each name with its folders before it."""
        folders = [root, *sorted(p for p in root.rglob("*") if p.is_dir())]
        truth = [f for f in folders if "ground_truth" in f.relative_to(root).parts]
        found: dict[str, Path] = {}
        for folder in truth or folders:
            if not any(_files(folder)):
                continue
            parts = [p for p in folder.relative_to(root).parts if p not in ("test", "ground_truth")]
            found |= {"/".join((*parts, stem)): path for stem, path in self.by_stem(folder).items()}
        if not found:
            raise ValueError(f"{root}: no {', '.join(EXTENSIONS)} files in it")
        return found

    def by_path(self, folder: Path) -> dict[str, Path]:
        """`by_stem`; of a folder that has only folders in it, theirs, each name with its folders before it."""
        if any(_files(folder)):
            return self.by_stem(folder)
        below = [p for p in sorted(folder.rglob("*")) if p.is_dir() and any(_files(p))]
        names = {p: p.relative_to(folder).as_posix() for p in below}
        found = {f"{names[p]}/{stem}": path for p in below for stem, path in self.by_stem(p).items()}
        return found or self.by_stem(folder)  # which says that there is nothing

    def by_stem(self, folder: Path) -> dict[str, Path]:
        """Samples of a folder by their name without suffix and extension, sorted; npy before npz before png."""
        found: dict[str, Path] = {}
        for path in _files(folder):
            stem = self.base_stem(path.stem)
            other = found.get(stem)
            if other is not None and other.suffix.lower() == path.suffix.lower():
                raise ValueError(f"{folder}: {other.name} and {path.name} are both sample {stem!r}: keep one")
            if other is None or EXTENSIONS.index(path.suffix.lower()) < EXTENSIONS.index(other.suffix.lower()):
                found[stem] = path
        if not found:
            raise ValueError(f"{folder}: no {', '.join(EXTENSIONS)} files in it")
        return dict(sorted(found.items()))

    def base_stem(self, stem: str) -> str:
        """`room_depth_mask` -> `room`; a stem that is nothing but a suffix stays."""
        return bare(stem, self._suffixes)


def _pair(name: str, pred: Path, gt: Path | None, extras: dict[str, Path], category: str = "") -> Pair:
    rest = dict(extras)
    return Pair(name, pred, gt, rest.pop("valid", None), rest, category)


def _require_there(given: dict[str, Path]) -> None:
    for what, path in given.items():
        if not path.exists():
            raise ValueError(f"{path}: no such {what} file or folder")
    if len({path.is_dir() for path in given.values()}) > 1:
        raise ValueError(f"give files or folders, not both: {', '.join(map(str, given.values()))}")


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if (
            path.suffix.lower() in EXTENSIONS
            and not path.name.startswith(".")
            and not path.stem.endswith(ASIDE)
            and path.is_file()
        ):
            yield path


def _require_partners(these: dict[str, Path], those: dict[str, Path], what: str, where: Path) -> None:
    alone = [f"{stem.rpartition('/')[0]}/{path.name}".lstrip("/") for stem, path in these.items() if stem not in those]
    if alone:
        more = f" and {len(alone) - _LISTED} more" if len(alone) > _LISTED else ""
        raise ValueError(f"{what} without a partner of the same stem in {where}: {', '.join(alone[:_LISTED])}{more}")


def stored_kind(path: Path) -> str | None:
    """What a saved Prediction says it is, in its npz or in the JSON beside it; None for other files."""
    try:
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return str(file["kind"]) if "kind" in file.files else None
        kind = read_json(path.with_suffix(".json")).get("kind")
        return kind if isinstance(kind, str) else None
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile):
        return None  # no sidecar of ours; a damaged npz is reported when it is read
