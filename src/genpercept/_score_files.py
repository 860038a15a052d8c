"""What `genpercept score` reads: samples in files, matched by name, as the arrays that metrics take."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from genpercept.prediction import Prediction

_EXTENSIONS = (".npy", ".npz", ".png")  # of one sample in several formats the first counts
# What data sets and `predict` append to an image's name: x_depth.npy and x.png are the same sample.
_SUFFIXES = (
    *("_depth", "_disparity", "_normals", "_normal", "_segmentation", "_dis", "_matting", "_pose", "_anomaly"),
    *("_valid", "_mask", "_trimap", "_skeleton", "_alpha", "_pred", "_gt"),
    *("_leftImg8bit", "_gtFine_labelTrainIds", "_gtFine_labelIds"),  # Cityscapes
)
_ASIDE = ("_color", "_colour", "_colored", "_coloured", "_uncertainty")  # lies beside predictions, is none
_LISTED = 3
_NO_CLASS = 65535  # what `predict` writes into 16-bit PNG of class ids where there is none


class Pair(NamedTuple):
    """Files of one sample. gt None: a picture known to be good (anomaly). extras: by the metric's keyword."""

    name: str
    pred: Path
    gt: Path | None
    valid: Path | None = None
    extras: dict[str, Path] = {}  # noqa: RUF012 (never written to)
    category: str = ""


# ---- matching


def match(pred: Path, gt: Path, extras: dict[str, Path] | None = None) -> list[Pair]:
    """Two files are one pair; two folders are matched by stem, and every file must find its partner.

    extras: further files or folders, such as valid or trimap, of which every sample has one.
    """
    given = {"prediction": pred, "ground truth": gt, **(extras or {})}
    _require_there(given)
    if pred.is_file():
        return [_pair(pred.stem, pred, gt, extras or {})]
    preds, gts = by_stem(pred), by_stem(gt)
    _require_partners(preds, gts, "prediction", gt)
    _require_partners(gts, preds, "ground truth", pred)
    found = {key: by_stem(folder) for key, folder in (extras or {}).items()}
    for key, files in found.items():
        _require_partners(gts, files, "ground truth", given[key])
    return [
        _pair(stem, path, gts[stem], {key: files[stem] for key, files in found.items()}) for stem, path in preds.items()
    ]


def _pair(name: str, pred: Path, gt: Path, extras: dict[str, Path]) -> Pair:
    rest = dict(extras)
    return Pair(name, pred, gt, rest.pop("valid", None), rest)


def _require_there(given: dict[str, Path]) -> None:
    for what, path in given.items():
        if not path.exists():
            raise ValueError(f"{path}: no such {what} file or folder")
    if len({path.is_dir() for path in given.values()}) > 1:
        raise ValueError(f"give files or folders, not both: {', '.join(map(str, given.values()))}")


def match_tree(pred: Path, gt: Path) -> list[Pair]:
    """Folders in MVTec's layout, matched by path: CATEGORY/KIND/NAME, or CATEGORY/NAME, or KIND/NAME, or NAME.

    Folders called test and ground_truth are not part of a path; where there is a ground_truth, only what lies in one
    is ground truth, so that the data set's own root will do. Two levels are KIND/NAME where a ground_truth or a kind
    called good lies directly in a given folder, else CATEGORY/NAME. Pictures of the kind good need no mask.
    """
    _require_there({"prediction": pred, "ground truth": gt})
    if pred.is_file():
        return [Pair(pred.stem, pred, gt)]
    preds, gts = _tree(pred), _tree(gt)
    good = {key for key in preds if "good" in key.split("/")[:-1]}
    _require_partners({k: p for k, p in preds.items() if k not in good}, gts, "prediction", gt)
    _require_partners(gts, preds, "ground truth", pred)
    kinds = (gt / "ground_truth").is_dir() or gt.name == "ground_truth" or any(k.startswith("good/") for k in preds)
    return [
        Pair(key, path, gts.get(key), category=key.partition("/")[0] if key.count("/") > kinds else "")
        for key, path in preds.items()
    ]


def _tree(root: Path) -> dict[str, Path]:
    """`by_stem` of all folders below, each name with its folders before it."""
    folders = [root, *sorted(p for p in root.rglob("*") if p.is_dir())]
    truth = [f for f in folders if "ground_truth" in f.relative_to(root).parts]
    found: dict[str, Path] = {}
    for folder in truth or folders:
        if not any(_files(folder)):
            continue
        parts = [p for p in folder.relative_to(root).parts if p not in ("test", "ground_truth")]
        found |= {"/".join((*parts, stem)): path for stem, path in by_stem(folder).items()}
    if not found:
        raise ValueError(f"{root}: no {', '.join(_EXTENSIONS)} files in it")
    return found


def by_stem(folder: Path) -> dict[str, Path]:
    """Samples of a folder by their name without task suffix and extension, sorted; npy before npz before png."""
    found: dict[str, Path] = {}
    for path in _files(folder):
        stem = base_stem(path.stem)
        other = found.get(stem)
        if other is not None and other.suffix.lower() == path.suffix.lower():
            raise ValueError(f"{folder}: {other.name} and {path.name} are both sample {stem!r}: keep one")
        if other is None or _EXTENSIONS.index(path.suffix.lower()) < _EXTENSIONS.index(other.suffix.lower()):
            found[stem] = path
    if not found:
        raise ValueError(f"{folder}: no {', '.join(_EXTENSIONS)} files in it")
    return dict(sorted(found.items()))


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in _EXTENSIONS and not path.stem.endswith(_ASIDE) and path.is_file():
            yield path


def base_stem(stem: str) -> str:
    """`room_depth_mask` -> `room`; a stem that is nothing but a suffix stays."""
    for suffix in _SUFFIXES:
        if stem.endswith(suffix) and stem != suffix:
            return base_stem(stem.removesuffix(suffix))
    return stem


def _require_partners(these: dict[str, Path], those: dict[str, Path], what: str, where: Path) -> None:
    alone = [these[stem].name for stem in these if stem not in those]
    if alone:
        more = f" and {len(alone) - _LISTED} more" if len(alone) > _LISTED else ""
        raise ValueError(f"{what} without a partner of the same stem in {where}: {', '.join(alone[:_LISTED])}{more}")


# ---- reading


def stored_kind(path: Path) -> str | None:
    """What a saved Prediction says it is, in its npz or in the JSON beside it; None for other files."""
    try:
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return str(file["kind"]) if "kind" in file.files else None
        kind = json.loads(path.with_suffix(".json").read_text(encoding="utf-8")).get("kind")
        return kind if isinstance(kind, str) else None
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile):
        return None  # no sidecar of ours; a damaged npz is reported when it is read


def read_values(task: str, path: Path, scale: float | None, scale_name: str) -> NDArray[np.floating[Any]]:
    """A map in physical units: npy and npz as stored (divided by `scale` if they hold integers), png decoded."""
    array = _read(path, ("values", task, "pred", "gt", "depth"))
    if task == "normals" and array.dtype == np.uint8:
        return _decode_normals(array, deep=_is_deep_png(path))
    if array.dtype.kind not in "uif":
        raise ValueError(f"{path}: holds {array.dtype} values: expected numbers")
    if array.dtype.kind == "f":
        return array
    if task == "normals":
        raise ValueError(f"{path}: normals are read from 8-bit RGB or floating point, not from {array.dtype}")
    if array.ndim != 2:
        raise ValueError(f"{path}: has {array.shape[-1]} channels: expected a single-channel map, not a picture")
    if scale is None:
        option = "--" + scale_name.replace("_", "-")
        raise ValueError(f"{path}: holds integers; say with {option} how many make a metre (1000: mm, 256: KITTI)")
    if not scale > 0:
        raise ValueError(f"{scale_name} {scale}: must be positive")
    return array / float(scale)


def _decode_normals(pixels: NDArray[np.uint8], deep: bool) -> NDArray[np.floating[Any]]:
    """n = 2p - 1, and exactly -1 where black. deep: upper bytes of 16 bits, taken as the middle of their range."""
    unit = (pixels + np.float32(0.5)) / 256 if deep else pixels.astype(np.float32) / 255
    unit[(pixels == 0).all(-1)] = 0
    return unit * 2 - 1


def _is_deep_png(path: Path) -> bool:
    """Whether it is a PNG of 16 bits per channel, of which Pillow gives only the upper byte when there are colours."""
    with path.open("rb") as file:
        header = file.read(26)
    return header[:4] == b"\x89PNG" and header[24:25] == b"\x10"


def read_ids(path: Path) -> NDArray[np.integer[Any]]:
    """(H, W) class ids of npy, npz or a single-channel PNG; of palettes the indices, of 16 bits 65535 as -1."""
    array = _read(path, ("values", "class_ids", "pred", "gt"), palette=True)
    if array.ndim != 2 or array.dtype.kind not in "uib":
        what = f"{array.dtype} of shape {array.shape}"
        raise ValueError(f"{path}: holds {what}: expected one class id per pixel, not a coloured picture")
    return np.where(array == _NO_CLASS, -1, array.astype(np.int64)) if array.dtype == np.uint16 else array


def read_unit(path: Path) -> NDArray[Any]:
    """(H, W) mask or matte: 8 bits and floating point as stored, 16 bits as fractions of 65535."""
    array = _grey(_read(path, ("values", "mask", "alpha", "pred", "gt")), path)
    return array / 65535 if array.dtype == np.uint16 else array


def read_scores(path: Path) -> NDArray[Any]:
    """(H, W) anomaly scores: as stored, or by the encoding that `predict` wrote into the PNG."""
    array = _grey(_read(path, ("values", "anomaly", "map", "pred")), path)
    if path.suffix.lower() != ".png":
        return array
    with Image.open(path) as image:
        words = str(image.info.get("Description", ""))
    code = re.search(r"value = (?:(\S+) \+ )?pixel / 65535(?: \* (\S+))?$", words)
    return array if code is None else float(code[1] or 0) + array / 65535 * float(code[2] or 1)


def read_points(path: Path) -> Prediction:
    """(N, 17, 3) keypoints out of npy, or the whole Prediction out of an npz that has one."""
    if path.suffix.lower() == ".npz":
        return Prediction.load(path)
    if path.suffix.lower() != ".npy":
        raise ValueError(f"{path}: keypoints are read from npy and npz")
    array = _read(path, ())
    try:
        return Prediction(array, "keypoints")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _grey(array: NDArray[Any], path: Path) -> NDArray[Any]:
    """(H, W) out of that or of equal channels. ValueError for a coloured picture."""
    if array.ndim == 3 and path.suffix.lower() == ".png" and (array == array[..., :1]).all():
        array = array[..., 0]
    if array.ndim != 2:
        raise ValueError(f"{path}: has shape {array.shape}: expected a single-channel map, not a picture")
    return array


def read_mask(path: Path) -> NDArray[np.bool_]:
    """(H, W) bool: True where the file is above 0 (in any channel)."""
    array = _read(path, ("valid", "mask", "values"))
    above = np.asarray(array > 0)
    return np.any(above, axis=-1) if above.ndim == 3 else above


def _read(path: Path, keys: tuple[str, ...], palette: bool = False) -> NDArray[Any]:
    """An array from npy, npz (the only one, or the first of `keys`) or an image; ValueError names the file."""
    if path.suffix.lower() not in _EXTENSIONS:
        raise ValueError(f"{path}: is no {', '.join(_EXTENSIONS)} file")
    try:
        if path.suffix.lower() == ".png":
            with Image.open(path) as image:
                if image.mode == "P" and palette:
                    return np.array(image)
                to = {"P": "RGB", "RGBA": "RGB", "LA": "L"}.get(image.mode)
                return np.array(image.convert(to) if to else image)
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            names = loaded.files
            key = next((k for k in keys if k in names), names[0] if len(names) == 1 else None)
            if key is None:
                raise ValueError(f"holds {', '.join(names)}: expected one array, or one called {keys[0]!r}")
            return loaded[key]
    except UnidentifiedImageError:
        raise ValueError(f"{path}: not an image") from None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None
