"""Predictions on disk: one file per sample, whole or absent, under a key of all that decides its pixels."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genpercept.commands.files.results import prepare_folder
from genpercept.core import files
from genpercept.core.values import Sample
from genpercept.imaging.prediction import Prediction
from genpercept.imaging.read import shown

SETTINGS = "settings.json"
_INPUT = "input_crc32"  # in a prediction's meta


def key(facts: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that change with any of the facts."""
    plain = json.loads(files.to_json(facts))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def claim(out: Path, settings: Mapping[str, Any], resume: bool) -> None:
    """Make `out` the folder of this evaluation. ValueError where it holds something else, or other settings' results.

    With `resume` other settings are allowed: their predictions are kept apart by their keys.
    """
    if out.is_dir() and any(p.name != SETTINGS and not p.name.startswith(".genpercept-") for p in out.iterdir()):
        known = _read(out / SETTINGS)
        if known is None:
            raise ValueError(f"{shown(out)}: not empty, and not the folder of an evaluation; choose another --out")
        new = json.loads(files.to_json(settings))
        changed = sorted(k for k in {*known, *new} if known.get(k) != new.get(k))
        if changed and not resume:
            raise ValueError(
                f"{shown(out)}: holds an evaluation of other settings ({', '.join(changed)}); choose another --out, or "
                "--resume to go on here: what the settings do not touch is kept"
            )
    prepare_folder(out)
    files.write_json(out / SETTINGS, settings)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


@dataclass(frozen=True)
class Cache:
    """The predictions of one model under one way of predicting for one data set."""

    folder: Path

    @classmethod
    def open(cls, out: Path, facts: Mapping[str, Any], fresh: bool) -> Cache:
        """DIR/predictions/KEY, with facts.json in it. fresh: without what an earlier run left there."""
        folder = out / "predictions" / key(facts)
        if fresh and folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files.sweep(folder)
        files.write_json(folder / "facts.json", facts)
        return cls(folder)

    def path(self, name: str) -> Path:
        """Of the sample's prediction; readable, and different for different names."""
        slug = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[-60:]
        return self.folder / f"{slug}-{hashlib.sha1(name.encode()).hexdigest()[:10]}.npz"

    def drop(self, keep: set[str]) -> None:
        """Delete all predictions but those of these names."""
        kept = {self.path(name) for name in keep}
        for path in self.folder.glob("*.npz"):
            if path not in kept:
                path.unlink(missing_ok=True)


def save(path: Path, prediction: Prediction, sample: Sample) -> None:
    """Write what a metric reads, uncompressed: reading must not cost more than the metric."""
    slim = replace(prediction, raw=None, uncertainty=None, meta={**prediction.meta, _INPUT: fingerprint(sample.image)})
    arrays: dict[str, Any] = {"values": slim.values, "kind": np.array(slim.kind)}
    arrays["meta"] = np.array(files.to_json(slim.meta))
    if slim.valid is not None:
        arrays["valid"] = slim.valid
    files.write_arrays(path, arrays)


def load(path: Path, sample: Sample) -> Prediction:
    """The sample's prediction. ValueError for a damaged file, or one that was made from another image."""
    prediction = Prediction.load(path)
    if prediction.meta.get(_INPUT) != fingerprint(sample.image):
        raise ValueError(
            f"{shown(path)}: made from another image than {sample.name!r} is now; delete {shown(path.parent)}, or leave "
            "--resume out"
        )
    return prediction


def fingerprint(image: torch.Tensor) -> int:
    """CRC-32 of the image's bytes: tells an image from one that took its place."""
    return zlib.crc32(np.ascontiguousarray(image.numpy()).reshape(-1).view(np.uint8).data)
