"""`genpercept score`: figures of predictions against ground truth in files, as JSON."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from genpercept.metrics import Metric, _arrays
from genpercept.plugins import find

_EXTENSIONS = (".npy", ".npz", ".png")  # of one sample in several formats the first counts
# What data sets and `predict` append to an image's name: x_depth.npy and x.png are the same sample.
_SUFFIXES = ("_depth", "_disparity", "_normals", "_normal", "_valid", "_mask", "_pred", "_gt")
_PICTURES = ("_color", "_colour", "_colored", "_coloured")  # to look at, not to measure
_LISTED = 3


class Pair(NamedTuple):
    name: str
    pred: Path
    gt: Path
    valid: Path | None


def main(
    task: str,
    pred: Path | str,
    gt: Path | str,
    valid: Path | str | None = None,
    protocol: str | None = None,
    *,
    pred_scale: float | None = None,
    gt_scale: float | None = None,
    per_image: bool = False,
    **options: Any,
) -> int:
    """Score files, or folders matched by stem, and print one JSON object: the figures, `images`, `empty`, `task`.

    npy, npz and png. `pred_scale`, `gt_scale`: what a stored integer is divided by to be metres (256: KITTI, 1000:
    millimetres). Normals in PNG are (n + 1) / 2, black where there is none. `per_image` adds the figures of
    each sample. `options` as in `genpercept.metrics.score`; those that are None are left to the protocol. Raises
    ValueError for files without a partner, unreadable ones, shapes that differ, unknown tasks, protocols and options.
    """
    chosen = {key: value for key, value in options.items() if value is not None}
    make = find("metrics", task)
    make(protocol=protocol, **chosen)  # names are checked before any file is read
    pairs = match(Path(pred), Path(gt), Path(valid) if valid is not None else None)
    kinds = {kind for pair in pairs if (kind := stored_kind(pair.pred))}
    chosen = _arrays.options_for(task, kinds, chosen)
    metric = make(protocol=protocol, **chosen)
    if pred_scale is None and chosen.get("align") != "none":
        pred_scale = 65535  # any would do: the alignment takes it out
    for pair in pairs:
        mask = None if pair.valid is None else read_mask(pair.valid)
        truth = read_values(task, pair.gt, gt_scale, "gt_scale")
        if task == "normals" and pair.gt.suffix.lower() == ".png":
            # Black decodes to (-1, -1, -1), which is no zero vector any more; DSINE masks on the PNG, and so do we.
            truth[(truth <= -1).all(-1)] = 0
        metric.update(read_values(task, pair.pred, pred_scale, "pred_scale"), truth, mask, name=pair.name)
    print(to_json(task, protocol, chosen, metric, per_image))
    return 0


def to_json(task: str, protocol: str | None, options: dict[str, Any], metric: Metric, per_image: bool) -> str:
    """The figures at the top level, what they were made with beside them. NaN is null: JSON has none."""
    empty = sorted(name for name, row in metric.rows.items() if all(math.isnan(v) for v in row.values()))
    result: dict[str, Any] = {
        **_without_nan(metric.compute()),
        "images": len(metric.rows),
        "empty": empty,
        "task": task,
        "protocol": protocol,
        "options": options,
    }
    if per_image:
        result["per_image"] = {name: _without_nan(row) for name, row in metric.rows.items()}
    return json.dumps(result, indent=2, default=str)


def _without_nan(row: dict[str, float]) -> dict[str, float | None]:
    return {key: value if math.isfinite(value) else None for key, value in row.items()}


def match(pred: Path, gt: Path, valid: Path | None = None) -> list[Pair]:
    """Two files are one pair; two folders are matched by stem, and every file must find its partner."""
    given = {"prediction": pred, "ground truth": gt} | ({"mask": valid} if valid is not None else {})
    for what, path in given.items():
        if not path.exists():
            raise ValueError(f"{path}: no such {what} file or folder")
    if len({path.is_dir() for path in given.values()}) > 1:
        raise ValueError(f"give files or folders, not both: {', '.join(map(str, given.values()))}")
    if pred.is_file():
        return [Pair(pred.stem, pred, gt, valid)]
    preds, gts = by_stem(pred), by_stem(gt)
    _require_partners(preds, gts, "prediction", gt)
    _require_partners(gts, preds, "ground truth", pred)
    masks = by_stem(valid) if valid is not None else {}
    if valid is not None:
        _require_partners(gts, masks, "ground truth", valid)
    return [Pair(stem, path, gts[stem], masks.get(stem)) for stem, path in preds.items()]


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
        if path.suffix.lower() in _EXTENSIONS and not path.stem.endswith(_PICTURES) and path.is_file():
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


def read_mask(path: Path) -> NDArray[np.bool_]:
    """(H, W) bool: True where the file is above 0 (in any channel)."""
    array = _read(path, ("valid", "mask", "values"))
    above = np.asarray(array > 0)
    return np.any(above, axis=-1) if above.ndim == 3 else above


def _read(path: Path, keys: tuple[str, ...]) -> NDArray[Any]:
    """An array from npy, npz (the only one, or the first of `keys`) or an image; ValueError names the file."""
    try:
        if path.suffix.lower() == ".png":
            with Image.open(path) as image:
                return np.array(image.convert("RGB") if image.mode in ("P", "RGBA") else image)
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
