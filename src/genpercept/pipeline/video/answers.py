"""What the network said of each frame, on disk until its shot is over: memory must not grow with a clip's length.

One file a frame, 16 bits a value as PNGs have it (1/131070 of the range off at most), compressed. A file is whole or absent, so
that a killed run goes on behind the last one.
"""

from __future__ import annotations

import io
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from genpercept.core.files import atomic, to_json, unsynced
from genpercept.imaging.kinds import KINDS
from genpercept.imaging.painters import span
from genpercept.imaging.prediction import Prediction

try:
    from isal import isal_zlib as _deflate
except ImportError:  # no wheel for this machine
    import zlib as _deflate  # type: ignore[no-redef]

_TOP = 65535


class Answers:
    """Of a clip, by frame index, in a folder that is there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __contains__(self, index: int) -> bool:
        return self._path(index).is_file()

    def put(self, index: int, prediction: Prediction) -> None:
        arrays = _packed(prediction) | {"about": np.array(to_json({"kind": prediction.kind, "meta": prediction.meta}))}
        file = io.BytesIO()
        np.savez(file, **arrays)  # type: ignore[arg-type]
        with unsynced(), atomic(self._path(index)) as temp:
            temp.write_bytes(_deflate.compress(file.getvalue(), 1))

    def take(self, index: int) -> Prediction:
        """KeyError where it is not there, or is damaged, as after a power cut: then it is gone, to be made anew."""
        path = self._path(index)
        try:
            with np.load(io.BytesIO(_deflate.decompress(path.read_bytes())), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            about = json.loads(str(arrays["about"]))
            return _unpacked(arrays, about["kind"], about["meta"])
        except Exception as error:
            with suppress(OSError):
                path.unlink()
            raise KeyError(index) from error

    def drop(self, index: int) -> None:
        self._path(index).unlink(missing_ok=True)

    def _path(self, index: int) -> Path:
        return self._folder / f"{index + 1:06d}.answer"


def _packed(prediction: Prediction) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    values = prediction.values
    row = KINDS[prediction.kind]
    if row.ids or row.layout == "points":
        found["values"] = values
    else:
        known = values if prediction.valid is None else values[prediction.valid]
        low, high = row.limits or span(known[np.isfinite(known)])
        scaled = (np.nan_to_num(values) - low) / max(high - low, 1e-12)
        found["values"] = _planes(np.rint(np.clip(scaled, 0, 1) * _TOP).astype(np.uint16))
        found["range"] = np.array((low, high), np.float64)
    if prediction.valid is not None:
        found["valid"] = prediction.valid
    if prediction.uncertainty is not None:
        found["uncertainty"] = prediction.uncertainty
    return found


def _unpacked(arrays: dict[str, np.ndarray], kind: str, meta: dict[str, Any]) -> Prediction:
    values = arrays["values"]
    if "range" in arrays:
        low, high = arrays["range"]
        values = (_joined(values) / np.float32(_TOP) * np.float32(high - low) + np.float32(low)).astype(np.float32)
        row = KINDS[kind]
        if row.directions:
            values /= np.maximum(np.sqrt((values**2).sum(-1, keepdims=True)), 1e-6)
    return Prediction(values, kind, arrays.get("valid"), arrays.get("uncertainty"), None, meta)


def _planes(pixels: np.ndarray) -> np.ndarray:
    """Differences along the rows, their high and low bytes apart: what a smooth map is smallest as."""
    left = pixels.copy()
    left[:, 1:] -= pixels[:, :-1]  # modulo 65536
    return np.stack([left >> 8, left & 255]).astype(np.uint8)


def _joined(planes: np.ndarray) -> np.ndarray:
    high, low = planes.astype(np.uint16)
    return np.cumsum(high << 8 | low, axis=1, dtype=np.uint16)
