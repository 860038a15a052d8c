"""Predictions to the bytes of an answer: which format a client gets, and what it holds."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from genpercept.commands.serve import scratch
from genpercept.commands.serve.limits import Asked, NoSuchFormat
from genpercept.core import files
from genpercept.imaging import write
from genpercept.imaging.encode import coded, kept
from genpercept.imaging.kinds import KINDS
from genpercept.imaging.prediction import Prediction

JSON = "json"
_MASK = "mask"  # the format, for whose threshold a request may ask
_PNG = "image/png"
_TYPES = {
    ".png": _PNG,
    ".npy": "application/x-npy",
    ".npz": "application/x-npz",
    ".exr": "image/x-exr",
    ".ply": "application/x-ply",
    ".glb": "model/gltf-binary",
    ".json": "application/json",
}


@dataclass(frozen=True)
class Answer:
    """seconds: by stage. name: of the file that a browser would save."""

    body: bytes
    media: str
    name: str
    format: str
    kind: str
    seconds: dict[str, float] = field(default_factory=dict)


def media_type(name: str) -> str:
    if name == JSON:
        return _TYPES[".json"]
    return _TYPES.get(Path(f"x{write.FORMATS[name].suffix}").suffix, "application/octet-stream")


def formats(kind: str) -> tuple[str, ...]:
    """Of a kind, what can be had here, the usual one first."""
    row = KINDS.find(kind)
    able = [name for name, each in write.FORMATS.items() if each.holds(row) and write.is_there(name)]
    usual = [name for name in write.default_formats(kind) if name in able]
    if not usual or media_type(usual[0]) == media_type(JSON):
        usual = [JSON, *usual]
    return tuple(dict.fromkeys((*usual, *able, JSON)))


def choose(kind: str, named: str | None, accept: str) -> str:
    """The format that a request names, or the first that its Accept header takes. NoSuchFormat says what there is."""
    return pick({name: media_type(name) for name in formats(kind)}, named, accept, kind)


def pick(offers: Mapping[str, str], named: str | None, accept: str, what: str) -> str:
    """The same of `offers`, {format: media type}, the usual one first. what: for the line."""
    if named is not None:
        if named not in offers:
            raise NoSuchFormat(f"format {named!r} is not to be had of {what}: choose from {', '.join(offers)}")
        return named
    for wanted in _accepted(accept):
        able = [name for name, media in offers.items() if _fits(media, wanted)]
        if able:
            return JSON if offers[able[0]] == media_type(JSON) else able[0]
    types = ", ".join(dict.fromkeys(offers.values()))
    raise NoSuchFormat(
        f"Accept: {accept[:100]}: {what} can be had as {types}; or choose ?format= of {', '.join(offers)}"
    )


def _accepted(accept: str) -> list[str]:
    """Media types of an Accept header, the most wanted first; those of the same weight as they stand."""
    found: list[tuple[float, str]] = []
    for part in accept.split(",")[:32]:
        name, *rest = (word.strip().lower() for word in part.split(";"))
        weight = 1.0
        for word in rest:
            if word.startswith("q="):
                try:
                    weight = float(word[2:])
                except ValueError:
                    weight = 0.0
        if name and weight > 0:
            found.append((weight, name))
    return [name for _, name in sorted(found, key=lambda each: -each[0])] or (["*/*"] if not accept.strip() else [])


def _fits(media: str, wanted: str) -> bool:
    return wanted in ("*/*", media) or (wanted.endswith("/*") and media.startswith(wanted[:-1]))


class Encoder:
    """Has a folder of its own for the formats' writers, which want a path; what is written there is read back and removed."""

    def __init__(self) -> None:
        self._folder = scratch.make()

    def close(self) -> None:
        scratch.remove(self._folder)

    def encode(
        self, prediction: Prediction, image: np.ndarray, name: str, asked: Asked, about: dict[str, Any]
    ) -> Answer:
        """`name`: of the format. image (H, W, 3): for pictures over it. about: what JSON says beside the prediction."""
        shown = _with_threshold(prediction, asked)
        if name == JSON:
            body = json.dumps(files.plain(about | self._facts(shown, image, asked)), allow_nan=False).encode()
            return Answer(body, media_type(name), f"{about['task']}.json", name, prediction.kind)
        body = self._bytes(name, shown, image, asked)
        return Answer(body, media_type(name), f"{about['task']}{write.FORMATS[name].suffix}", name, prediction.kind)

    def _bytes(self, name: str, result: Prediction, image: np.ndarray, asked: Asked) -> bytes:
        path = files.temporary(self._folder)
        try:
            with files.unsynced():
                write.FORMATS[name].write(path, result, write.Scene(image, asked.fov, "image"))
            return path.read_bytes()
        finally:
            path.unlink(missing_ok=True)

    def _facts(self, result: Prediction, image: np.ndarray, asked: Asked) -> dict[str, Any]:
        """For programs without NumPy: what it is, how its values lie, and the values themselves as a PNG or as numbers."""
        kind = KINDS[result.kind]
        told: dict[str, Any] = {"kind": result.kind, "meaning": kind.meaning, "height": image.shape[0]}
        told |= {"width": image.shape[1], "shape": list(result.values.shape), "meta": result.meta}
        if kind.layout == "points":
            return told | {"results": json.loads(self._bytes("coco", result, image, asked))}
        keep = kept(result)
        values = result.values[keep]
        told["valid_fraction"] = float(keep.mean())
        if values.size and not kind.ids:
            told |= {"minimum": float(values.min()), "maximum": float(values.max()), "mean": float(values.mean())}
        if kind.ids:
            ids, counts = np.unique(values, return_counts=True)
            told["pixels_by_id"] = {int(i): int(n) for i, n in zip(ids, counts, strict=True)}
        if result.uncertainty is not None:
            told["mean_uncertainty"] = float(result.uncertainty.mean())
        if kind.is_image:
            told["encoding"] = coded(result).words
            told["png"] = base64.b64encode(self._bytes("png", result, image, asked)).decode()
        return told


def _with_threshold(prediction: Prediction, asked: Asked) -> Prediction:
    """What the mask and the overlay are drawn of."""
    kind = KINDS[prediction.kind]
    if asked.threshold is None:
        return prediction
    if kind.scores:
        return replace(prediction, meta={**prediction.meta, "pixel_threshold": asked.threshold})
    if kind.foreground and asked.format == _MASK:
        return replace(prediction, values=(prediction.values >= asked.threshold).astype(np.float32))
    return prediction
