"""SHA-256 of arrays, predictions, files, models and texts, each under a name, with a few words for whoever has to explain it.

Left out, because it is of the time or the place and not of the answer: the JSON keys in VOLATILE; the paths of the working
folder, of the version under test and of this checkout, wherever they are in a text; and what the parts name beside their cases.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

VOLATILE = ("timing", "seconds", "versions", "date", "_diffusers_version")  # of any JSON, at any depth
_TIME = re.compile(r"<section><h2>Time</h2>.*?</section>", re.DOTALL)  # of a report
_BYTES = (".png", ".jpg", ".npy", ".npz", ".exr", ".ply", ".csv", ".tex")  # that hold neither time nor place


class Entries:
    """`found`: name -> [SHA-256, what it is of]; `failed`: name -> what a case that ended in an error said."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}
        self.failed: dict[str, str] = {}
        self._places = {str(Path.cwd().resolve()): "WORK", os.environ.get("PYTHONPATH") or "SOURCE": "SOURCE"}
        self._places[str(Path(__file__).parents[2])] = "ROOT"  # after it: the source may lie in it
        self._places["genpercept/checkpoints/assets"] = "genpercept/assets"  # where the embedded models lay before

    @contextmanager
    def case(self, name: str) -> Iterator[None]:
        """An error is recorded as this case's answer, so that the others go on."""
        print(f"  {name}", flush=True)
        try:
            yield
        except (Exception, SystemExit) as error:  # noqa: BLE001  # whatever a version under test may raise
            said = f"{type(error).__name__}: {error}"
            self.text(f"{name}/error", said)
            self.failed[name] = said + "\n" + traceback.format_exc(limit=-3)

    def add(self, name: str, data: bytes, about: str) -> None:
        if name in self.found:
            raise KeyError(f"{name}: recorded twice")
        self.found[name] = [hashlib.sha256(data).hexdigest(), about]

    def array(self, name: str, array: Any) -> None:
        """Type, shape and values."""
        value = np.ascontiguousarray(array)
        shape = "x".join(map(str, value.shape))
        mean = f" mean {np.nan_to_num(value.astype(np.float64)).mean():.9g}" if value.dtype.kind in "biuf" else ""
        text = value.dtype.str + shape
        data = repr(value.tolist()).encode() if value.dtype.kind in "OU" else value.tobytes()
        self.add(name, text.encode() + data, f"{value.dtype} {shape}{mean if value.size else ''}")

    def text(self, name: str, text: str) -> None:
        for path, name_of_it in self._places.items():
            text = text.replace(path, name_of_it)
        self.add(name, text.encode(), text if len(text) <= 200 else f"{text[:200]}... ({len(text)} characters)")

    def json(self, name: str, value: Any) -> None:
        self.text(name, json.dumps(timeless(value), sort_keys=True, default=str))

    def prediction(self, name: str, prediction: Any) -> None:
        """Its arrays, what it says of itself, and its picture."""
        for part in ("values", "valid", "uncertainty", "raw"):
            value = getattr(prediction, part)
            if value is None:
                self.text(f"{name}/{part}", "None")
            else:
                self.array(f"{name}/{part}", value)
        self.json(f"{name}/meta", {"kind": prediction.kind, **prediction.meta})
        if prediction.kind != "keypoints":  # drawn on the image
            self.array(f"{name}/picture", np.asarray(prediction.colourise()))

    def file(self, name: str, path: Path, each: bool = False) -> None:
        """What it holds, decoded, and its bytes where they hold neither time nor place. each: a hash for each tensor."""
        suffix = path.suffix.lower()
        if suffix == ".json":
            self.json(name, json.loads(path.read_text(encoding="utf-8")))
        elif suffix == ".npz":
            self._npz(name, path)
        elif suffix == ".npy":
            self.array(f"{name}/array", np.load(path))
        elif suffix in (".png", ".jpg"):
            self._picture(name, path)
        elif suffix == ".safetensors":
            self.tensors(name, path, each)
        elif suffix not in _BYTES:
            self.text(name, _TIME.sub("", path.read_text(encoding="utf-8")))
        if suffix in _BYTES:
            data = path.read_bytes()
            self.add(f"{name}/bytes", data, f"{len(data)} bytes")

    def folder(self, name: str, folder: Path, leave: tuple[str, ...] = (), each: bool = False) -> None:
        """Every file below, and that there are no others. leave: names of files and folders that are passed over."""
        below = [p.relative_to(folder) for p in sorted(folder.rglob("*")) if p.is_file()]
        kept = [p for p in below if not set(p.parts) & set(leave)]
        self.json(f"{name}/files", [str(p) for p in kept])
        for path in kept:
            self.file(f"{name}/{path}", folder / path, each)

    def tensors(self, name: str, path: Path, each: bool = False) -> None:
        """Types, shapes and values, in one hash or in one for each tensor."""
        from safetensors import safe_open

        found = Entries()
        with safe_open(path, "pt") as file:
            for key in sorted(file.keys()):
                tensor = file.get_tensor(key)
                half = tensor.dtype.is_floating_point and tensor.element_size() < 4
                kind = f" as {tensor.dtype}" if half else ""
                plain = tensor.float() if half else tensor  # exact, and NumPy has no bfloat16
                found.array(f"{name}/{key}{kind}", plain.numpy())
        if each:
            self.found |= found.found
        else:
            joined = json.dumps({key: digest for key, (digest, _) in found.found.items()})
            self.add(name, joined.encode(), f"{len(found.found)} tensors")

    def _npz(self, name: str, path: Path) -> None:
        with np.load(path) as file:
            for key in sorted(file.files):
                if key == "meta":
                    self.json(f"{name}/{key}", json.loads(str(file[key])))
                else:
                    self.array(f"{name}/{key}", file[key])

    def _picture(self, name: str, path: Path) -> None:
        with Image.open(path) as image:
            self.json(f"{name}/info", {"mode": image.mode, **{k: str(v) for k, v in image.info.items()}})
            self.array(f"{name}/pixels", np.asarray(image))


def timeless(value: Any) -> Any:
    """JSON without what is of the time or the machine."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in VOLATILE}
    return [timeless(v) for v in value] if isinstance(value, list | tuple) else value
