"""Predictions to files, each whole or absent (`genpercept.core.files`).

Encodings (also in the PNG's text and in the JSON sidecar):

- png: 16 bits per channel. depth_affine, disparity_affine, mask, alpha: grey, value = pixel / 65535. anomaly: so, or
  value = low + pixel / 65535 * (high - low) where scores leave [0, 1]. normals: RGB, n = pixel / 65535 * 2 - 1.
  class_ids: grey, pixel = id, 65535 where there is none. Pixels that are not valid are 0 (npz says which).
- color: 8-bit RGB to look at. npy: `values` alone. npz: values, valid, uncertainty, raw and meta.
- exr: float32, channel Y or R G B, and `valid` where something is not.
- ply: coloured points in the camera frame, x right, y up, z towards the viewer.
- intrinsics: images side by side in png and color (light gamma-encoded in color alone); in exr channels such as albedo.R.
- mask: 8-bit black and white, at 0.5. cutout: the image's foreground as RGBA, its colours freed from the background's.
- coco: keypoints as COCO results, a list of {image_id, category_id, keypoints, score, bbox}.
"""

from __future__ import annotations

import io
import json
import math
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from genpercept.core.files import atomic, plain, to_json, write_array, write_bytes
from genpercept.imaging.colour import colourise
from genpercept.imaging.cutout import cutout
from genpercept.names import hint

_RANGES: dict[str, tuple[float, float]] = {
    "depth_affine": (0, 1),
    "disparity_affine": (0, 1),
    "mask": (0, 1),
    "alpha": (0, 1),
    "normals": (-1, 1),
    "intrinsics": (0, 1),
}
_NO_CLASS = 65535
_FOREGROUND = 0.5  # from which a mask's pixel is white
DEFAULT_FOV = 60.0  # degrees, horizontal: a phone's main camera
# An affine depth does not say where the camera is; without a distance the nearest points would fall into its centre.
_NEAR = 0.25


class Result(Protocol):
    """What the writers need to know of a Prediction."""

    @property
    def values(self) -> np.ndarray: ...
    @property
    def kind(self) -> str: ...
    @property
    def valid(self) -> np.ndarray | None: ...
    @property
    def uncertainty(self) -> np.ndarray | None: ...
    @property
    def raw(self) -> np.ndarray | None: ...
    @property
    def meta(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Scene:
    """What pictures and points need beside the prediction: image (H, W, 3), horizontal field of view in degrees."""

    image: np.ndarray | None = None
    fov: float = DEFAULT_FOV
    name: str = ""  # of the image, without its suffix


@dataclass(frozen=True)
class Format:
    """`write(path, result, scene)`, what it appends to the stem, and the kinds it can hold (None: all)."""

    suffix: str
    write: Callable[[Path, Result, Scene], None]
    kinds: tuple[str, ...] | None = None


# ---- writers


def legend(kind: str) -> str:
    """The key of `meta` that says what a picture of this kind shows."""
    return "targets" if kind == "intrinsics" else "colours"


def target_names(result: Result) -> list[str]:
    """Names of the intrinsic images in their order."""
    count = result.values.shape[-1] // 3
    return [str(t["name"]) for t in result.meta.get("targets") or ()] or [f"image{i + 1}" for i in range(count)]


def encode16(result: Result) -> tuple[np.ndarray, str]:
    """(H, W) or (H, W, 3) uint16, and how to get the values back, in words. Intrinsic images side by side: (H, n W, 3)."""
    values, kind = result.values, result.kind
    keep = _keep(result)
    if kind == "class_ids":
        ids = values.astype(np.int64)
        if ids.max(initial=0) >= _NO_CLASS:
            raise ValueError(f"class id {ids.max()}: a 16-bit PNG holds ids up to {_NO_CLASS - 1}; use npy")
        return np.where(keep & (ids >= 0), ids, _NO_CLASS).astype(
            np.uint16
        ), f"pixel = class id, {_NO_CLASS} where none"
    low, high = _RANGES.get(kind) or _span(values[keep])
    scaled = np.clip((np.nan_to_num(values) - low) / (high - low), 0, 1)
    pixels = np.rint(scaled * 65535).astype(np.uint16)
    pixels[~keep] = 0
    if kind == "intrinsics":
        pixels = np.concatenate(np.split(pixels, pixels.shape[-1] // 3, axis=-1), axis=1)
        return pixels, f"value = pixel / 65535; side by side: {', '.join(target_names(result))}"
    words = "pixel / 65535" if (low, high) == (0, 1) else f"{low:.9g} + pixel / 65535 * {high - low:.9g}"
    return pixels, f"value = {words}"


def png16_bytes(pixels: np.ndarray, text: str = "") -> bytes:
    """(H, W) or (H, W, 3) uint16 -> a PNG of 16 bits per channel (Pillow writes no 16-bit RGB)."""
    h, w = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels, dtype=">u2").reshape(h, -1).view(np.uint8)
    filtered = np.full((h, rows.shape[1] + 1), 2, np.uint8)  # filter type 2: the difference to the row above
    filtered[0, 1:] = rows[0]
    filtered[1:, 1:] = rows[1:] - rows[:-1]  # modulo 256, as uint8 wraps
    header = struct.pack(">IIBBBBB", w, h, 16, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    chunks = [(b"IHDR", header)]
    if text:
        chunks.append((b"tEXt", b"Description\0" + text.encode("latin-1", "replace")))
    chunks += [(b"IDAT", zlib.compress(filtered.tobytes(), 4)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def _png(path: Path, result: Result, scene: Scene) -> None:
    pixels, words = encode16(result)
    write_bytes(path, png16_bytes(pixels, f"{result.kind}: {words}"))


def _color(path: Path, result: Result, scene: Scene) -> None:
    buffer = io.BytesIO()
    image = scene.image if result.kind == "keypoints" else None
    colourise(result.values, result.kind, result.valid, image, result.meta.get(legend(result.kind))).save(
        buffer, "PNG", compress_level=4
    )
    write_bytes(path, buffer.getvalue())


def _npy(path: Path, result: Result, scene: Scene) -> None:
    write_array(path, result.values)


def _npz(path: Path, result: Result, scene: Scene) -> None:
    arrays = {"values": result.values, "kind": np.array(result.kind), "meta": np.array(to_json(result.meta))}
    for name in ("valid", "uncertainty", "raw"):
        array = getattr(result, name)
        if array is not None:
            arrays[name] = array
    with atomic(path) as temp, temp.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _exr(path: Path, result: Result, scene: Scene) -> None:
    try:
        import OpenEXR
    except ImportError:
        raise ValueError("format exr needs OpenEXR: pip install 'genpercept[exr]', or choose npy") from None
    values = np.ascontiguousarray(result.values, np.float32)
    channels: dict[str, np.ndarray] = {"RGB" if values.ndim == 3 else "Y": values}
    if result.kind == "intrinsics":
        names = [f"{name}.{c}" for name in target_names(result) for c in "RGB"]
        channels = {name: np.ascontiguousarray(values[..., i]) for i, name in enumerate(names)}
    if not _keep(result).all():
        channels["valid"] = _keep(result).astype(np.float32)
    header = {
        "compression": OpenEXR.ZIP_COMPRESSION,
        "type": OpenEXR.scanlineimage,
        "comments": f"{result.kind}: values as they are",
    }
    with atomic(path) as temp:
        OpenEXR.File(header, channels).write(str(temp))


def _ply(path: Path, result: Result, scene: Scene) -> None:
    """Back-projected points. Relative: scale and shift of an affine depth are unknown, and so is the field of view."""
    if not 0 < scene.fov < 180:
        raise ValueError(f"field of view {scene.fov:g}: must lie between 0 and 180 degrees")
    keep = _keep(result)
    h, w = keep.shape
    near = result.values if result.kind == "depth_affine" else 1 / (result.values.clip(0) + _NEAR)
    distance = near + _NEAR if result.kind == "depth_affine" else near
    focal = w / 2 / math.tan(math.radians(scene.fov) / 2)
    y, x = np.nonzero(keep)
    z = distance[y, x]
    points = np.empty(len(z), dtype=[(n, "<f4") for n in "xyz"] + [(n, "u1") for n in ("red", "green", "blue")])
    points["x"] = (x + 0.5 - w / 2) / focal * z
    points["y"] = -(y + 0.5 - h / 2) / focal * z
    points["z"] = -z
    rgb = scene.image if scene.image is not None else np.asarray(colourise(result.values, result.kind, result.valid))
    if rgb.dtype != np.uint8:
        rgb = np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)
    if rgb.shape[:2] != (h, w):
        raise ValueError(
            f"an image of {rgb.shape[0]} x {rgb.shape[1]} pixels for a prediction of {h} x {w}: give its own"
        )
    for c, name in enumerate(("red", "green", "blue")):
        points[name] = rgb[y, x, c]
    rule = f"{_NEAR} + value" if result.kind == "depth_affine" else f"1 / ({_NEAR} + value)"
    header = [
        *("ply", "format binary_little_endian 1.0", f"comment relative geometry, not metres: distance = {rule} of"),
        f"comment {result.kind}, whose scale and shift are unknown; horizontal field of view: {scene.fov:g} degrees",
        *("comment axes: x right, y up, z towards the viewer", f"element vertex {len(z)}"),
        *(f"property float {n}" for n in "xyz"),
        *(f"property uchar {n}" for n in ("red", "green", "blue")),
        "end_header\n",
    ]
    write_bytes(path, "\n".join(header).encode("ascii") + points.tobytes())


def _mask(path: Path, result: Result, scene: Scene) -> None:
    _image(path, np.where(result.values >= _FOREGROUND, 255, 0).astype(np.uint8))


def _cutout(path: Path, result: Result, scene: Scene) -> None:
    if scene.image is None:
        raise ValueError("format cutout needs the image: give image=")
    _image(path, cutout(scene.image, result.values))


def _image(path: Path, pixels: np.ndarray) -> None:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=4)
    write_bytes(path, buffer.getvalue())


def _coco(path: Path, result: Result, scene: Scene) -> None:
    """One entry per person, as pycocotools' loadRes takes them; its joints' scores stand in for visibility."""
    image_id = int(scene.name) if scene.name.isdigit() else scene.name
    people = result.values.astype(float)
    scores = result.meta.get("scores") or people[..., 2].mean(-1).tolist()
    boxes = result.meta.get("boxes") or [None] * len(people)
    entries = [
        {"image_id": image_id, "category_id": 1, "keypoints": np.round(p.ravel(), 3).tolist(), "score": score}
        | ({} if box is None else {"bbox": box})
        for p, score, box in zip(people, scores, boxes, strict=True)
    ]
    write_bytes(path, (json.dumps(plain(entries), allow_nan=False) + "\n").encode())


_MAPS = ("depth_affine", "disparity_affine", "normals", "class_ids", "mask", "alpha", "anomaly", "intrinsics")

FORMATS: dict[str, Format] = {
    "png": Format(".png", _png, _MAPS),
    "color": Format("_color.png", _color),
    "npy": Format(".npy", _npy),
    "npz": Format(".npz", _npz),
    "exr": Format(".exr", _exr, _MAPS),
    "ply": Format(".ply", _ply, ("depth_affine", "disparity_affine")),
    "mask": Format("_mask.png", _mask, ("mask", "alpha")),
    "cutout": Format("_cutout.png", _cutout, ("mask", "alpha")),
    "coco": Format("_coco.json", _coco, ("keypoints",)),
}
DEFAULT_FORMATS = ("png", "color")
_NEEDS = {"exr": ("OpenEXR", "exr"), "cutout": ("pymatting", "matting")}  # format -> package, extra


def default_formats(kind: str) -> tuple[str, ...]:
    """Of a kind, what is written when nobody says."""
    return ("coco", "color") if kind == "keypoints" else DEFAULT_FORMATS


def check_formats(formats: Iterable[str], kind: str | None = None) -> tuple[str, ...]:
    """The names, each once. ValueError for none, an unknown one, one that cannot hold `kind` or lacks its package."""
    chosen = tuple(dict.fromkeys(formats))
    if not chosen:
        raise ValueError(f"no output format: choose from {', '.join(FORMATS)}")
    for name in chosen:
        if name not in FORMATS:
            raise ValueError(f"unknown output format {name!r}: {hint(name, FORMATS)}")
        kinds = FORMATS[name].kinds
        if kind is not None and kinds is not None and kind not in kinds:
            able = [n for n, f in FORMATS.items() if f.kinds is None or kind in f.kinds]
            raise ValueError(f"format {name} cannot hold {kind}: choose from {', '.join(able)}")
        package, extra = _NEEDS.get(name, ("", ""))
        if package and find_spec(package) is None:
            raise ValueError(f"format {name} needs {package}: pip install 'genpercept[{extra}]', or choose another")
    return chosen


def _keep(result: Result) -> np.ndarray:
    values = result.values
    finite = np.isfinite(values if values.ndim == 2 else values.sum(-1))
    return finite if result.valid is None else finite & result.valid


def _span(inside: np.ndarray) -> tuple[float, float]:
    """[0, 1] where it holds all, else lowest to highest."""
    low, high = (float(inside.min()), float(inside.max())) if inside.size else (0.0, 1.0)
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, max(high, low + 1e-12))
