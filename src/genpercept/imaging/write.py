"""Predictions to files, each whole or absent (`genpercept.core.files`).

Encodings (also in the PNG's text and in the JSON sidecar):

- png: 16 bits per channel. Values within a kind's limits (depth, masks: 0 and 1; normals: -1 and 1) or, where it has none
  (anomaly), from lowest to highest if some leave [0, 1]: value = low + pixel / 65535 * (high - low). Metres: pixel / 1000,
  or coarser where that does not reach (`encode.STEPS`), 0 where unknown. Ids: pixel = id, 65535 where there is none.
  Pixels that are not valid are 0 (npz says which). `encode.decode16` is the inverse.
- color: 8-bit RGB to look at. npy: `values` alone. npz: values, valid, uncertainty, raw and meta.
- exr: float32, channel Y or R G B, and `valid` where something is not.
- points: (H, W, 3) float32 as .npy, a point for each pixel in the camera frame, x right, y up, z towards the viewer; NaN where
  there is none. ply: those that there are, coloured. mesh: PLY of triangles, cut where the depth has a step, with colours
  and normals. glb: the same in glTF with the photograph on it. In metres where the kind is; else the file says "shape up to
  scale and shift" in its comments or asset.extras, and the sidecar does.
- stacks (intrinsics): images side by side in png and color (light gamma-encoded in color alone); in exr channels such
  as albedo.R.
- mask: 8-bit black and white, at 0.5. cutout: the image's foreground as RGBA, its colours freed from the background's.
- overlay: 8-bit RGB, scores as heat over the image; what is above `meta["pixel_threshold"]`, where a model has one, outlined.
- coco: keypoints as COCO results, a list of {image_id, category_id, keypoints, score, bbox}.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from genpercept.core.files import atomic, blocks, plain, to_json, write_bytes
from genpercept.core.names import hint
from genpercept.imaging import glb, mesh, painters, ply, points
from genpercept.imaging.camera import Camera
from genpercept.imaging.colour import colourise, painted
from genpercept.imaging.cutout import cutout
from genpercept.imaging.encode import Result, coded, image_names, kept
from genpercept.imaging.kinds import KINDS, Kind
from genpercept.imaging.png import png_bytes, png_of

_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
_SCRATCH = 300  # measured: benchmarks/quality/mesh.md
_FOREGROUND = 0.5  # from which a mask's pixel is white


@dataclass(frozen=True)
class Scene:
    """What pictures and points need beside the prediction. image (H, W, 3); name: of the image, without its suffix.

    fov: horizontal field of view in degrees; else that of `camera`; else what the prediction's meta says, or 60 degrees.
    vertices: of a mesh at most.
    """

    image: np.ndarray | None = None
    fov: float | None = None
    name: str = ""
    camera: Camera | None = None
    vertices: int = mesh.VERTICES


@dataclass(frozen=True)
class Digest:
    """What tells whether a file is still the one that was written."""

    bytes: int
    sha256: str

    def fits(self, path: Path) -> bool:
        """Whether `path` holds just this; False where it cannot be read."""
        try:
            return path.stat().st_size == self.bytes and digest_of(path).sha256 == self.sha256
        except OSError:
            return False


@dataclass(frozen=True)
class Format:
    """`write(path, result, scene)`, which says what it has written; its suffix to the stem; whether it can hold a kind."""

    suffix: str
    write: Callable[[Path, Result, Scene], Digest]
    holds: Callable[[Kind], bool] = lambda kind: True
    spatial: bool = False  # whether a camera is taken for it
    scratch: int = 0  # bytes for each vertex of a mesh that writing it takes


# ---- writers


def digest_of(path: Path) -> Digest:
    """Of a file as it is now. OSError where it cannot be read."""
    digest, size = hashlib.sha256(), 0
    for block in blocks(path):
        digest.update(block)
        size += len(block)
    return Digest(size, digest.hexdigest())


def array(path: Path, values: np.ndarray) -> Digest:
    """`values` to `path` as .npy, atomically."""
    with atomic(path) as temp, temp.open("wb") as file:
        told = _Told(file)
        np.lib.format.write_array(told, values, allow_pickle=False)  # type: ignore[arg-type]
    return Digest(told.size, told.digest.hexdigest())


class _Told:
    """A file that hashes what goes through it. (NumPy writes to a real file in a way that hides why it failed.)"""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.digest, self.size = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self._file.write(data)


def _put(path: Path, data: bytes) -> Digest:
    write_bytes(path, data)
    return Digest(len(data), hashlib.sha256(data).hexdigest())


def legend(kind: str) -> str:
    """The key of `meta` that says what a picture of this kind shows."""
    return KINDS[kind].legend


def _png(path: Path, result: Result, scene: Scene) -> Digest:
    code = coded(result)
    return _put(path, png_of(code.shape, np.uint16, code.bands(), f"{result.kind}: {code.words}"))


def _color(path: Path, result: Result, scene: Scene) -> Digest:
    named = result.meta.get(legend(result.kind))
    return _put(path, png_bytes(painted(result.values, result.kind, result.valid, scene.image, named)))


def _npy(path: Path, result: Result, scene: Scene) -> Digest:
    return array(path, result.values)


def _npz(path: Path, result: Result, scene: Scene) -> Digest:
    arrays = {"values": result.values, "kind": np.array(result.kind), "meta": np.array(to_json(result.meta))}
    for name in ("valid", "uncertainty", "raw"):
        array = getattr(result, name)
        if array is not None:
            arrays[name] = array
    with atomic(path) as temp, temp.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return digest_of(path)


def _exr(path: Path, result: Result, scene: Scene) -> Digest:
    try:
        import OpenEXR
    except ImportError:
        raise ValueError("format exr needs OpenEXR: pip install 'genpercept[exr]', or choose npy") from None
    values = np.ascontiguousarray(result.values, np.float32)
    channels: dict[str, np.ndarray] = {"RGB" if values.ndim == 3 else "Y": values}
    if KINDS[result.kind].layout == "stack":
        names = [f"{name}.{c}" for name in image_names(result) for c in "RGB"]
        channels = {name: np.ascontiguousarray(values[..., i]) for i, name in enumerate(names)}
    if not kept(result).all():
        channels["valid"] = kept(result).astype(np.float32)
    header = {
        "compression": OpenEXR.ZIP_COMPRESSION,
        "type": OpenEXR.scanlineimage,
        "comments": f"{result.kind}: values as they are",
    }
    with atomic(path) as temp:
        try:
            OpenEXR.File(header, channels).write(str(temp))
        except RuntimeError as error:  # which says the system's error in its text alone
            for number in _OF_THE_DISK:
                if os.strerror(number) in str(error):
                    raise OSError(number, os.strerror(number)) from error
            raise
    return digest_of(path)


def _ply(path: Path, result: Result, scene: Scene) -> Digest:
    return _put(path, ply.of_points(points.of(result), _camera(result, scene), rgb_of(result, scene.image)))


def _points(path: Path, result: Result, scene: Scene) -> Digest:
    return array(path, points.back_projected(points.of(result).z, _camera(result, scene)))


def _mesh(path: Path, result: Result, scene: Scene) -> Digest:
    found, words, camera = _grid(result, scene)
    return _put(path, ply.of_mesh(found, words, camera, rgb_of(result, scene.image)))


def _glb(path: Path, result: Result, scene: Scene) -> Digest:
    found, words, camera = _grid(result, scene)
    return _put(path, glb.glb_bytes(found, rgb_of(result, scene.image), words, camera))


def _grid(result: Result, scene: Scene) -> tuple[mesh.Mesh, str, Camera]:
    distances, camera = points.of(result), _camera(result, scene)
    found = mesh.grid_mesh(distances.z, camera, vertices=scene.vertices, gap=mesh.step_width(result))
    return found, distances.words, camera


def _camera(result: Result, scene: Scene) -> Camera:
    return points.camera_of(result, scene.fov, scene.camera)


def spatial(result: Result, scene: Scene) -> dict[str, Any]:
    """What a sidecar says of points and meshes: what their lengths are, their axes, and the camera."""
    return {"lengths": points.of(result).words, "axes": ply.AXES, "camera": _camera(result, scene).to_meta()}


def rgb_of(result: Result, image: np.ndarray | None) -> np.ndarray:
    """(H, W, 3) uint8: the image, or, without one, the prediction's own colours. ValueError for one of another size."""
    rgb = image if image is not None else np.asarray(colourise(result.values, result.kind, result.valid))
    if rgb.shape[:2] != (size := result.values.shape[:2]):
        raise ValueError(
            f"an image of {rgb.shape[0]} x {rgb.shape[1]} pixels for a prediction of {size[0]} x {size[1]}: give its own"
        )
    return rgb if rgb.dtype == np.uint8 else np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)


def _mask(path: Path, result: Result, scene: Scene) -> Digest:
    return _put(path, png_bytes((result.values >= _FOREGROUND) * np.uint8(255)))


def _cutout(path: Path, result: Result, scene: Scene) -> Digest:
    if scene.image is None:
        raise ValueError("format cutout needs the image: give image=")
    return _put(path, png_bytes(cutout(scene.image, result.values)))


def _overlay(path: Path, result: Result, scene: Scene) -> Digest:
    if scene.image is None:
        raise ValueError("format overlay needs the image: give image=")
    values = np.where(kept(result), result.values, np.nan)
    return _put(path, png_bytes(painters.heat_over(values, scene.image, result.meta.get("pixel_threshold"))))


def _coco(path: Path, result: Result, scene: Scene) -> Digest:
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
    return _put(path, (json.dumps(plain(entries), allow_nan=False) + "\n").encode())


FORMATS: dict[str, Format] = {
    "png": Format(".png", _png, lambda kind: kind.is_image),
    "color": Format("_color.png", _color, lambda kind: kind.painter is not None),
    "npy": Format(".npy", _npy),
    "npz": Format(".npz", _npz),
    "exr": Format(".exr", _exr, lambda kind: kind.is_image),
    "ply": Format(".ply", _ply, lambda kind: kind.distance is not None, spatial=True),
    "points": Format("_points.npy", _points, lambda kind: kind.distance is not None, spatial=True),
    "mesh": Format("_mesh.ply", _mesh, lambda kind: kind.distance is not None, spatial=True, scratch=_SCRATCH),
    "glb": Format(".glb", _glb, lambda kind: kind.distance is not None, spatial=True, scratch=2 * _SCRATCH),
    "mask": Format("_mask.png", _mask, lambda kind: kind.foreground),
    "cutout": Format("_cutout.png", _cutout, lambda kind: kind.foreground),
    "overlay": Format("_overlay.png", _overlay, lambda kind: kind.scores),
    "coco": Format("_coco.json", _coco, lambda kind: kind.layout == "points"),
}
DEFAULT_FORMATS = ("png", "color")
_NEEDS = {
    "exr": ("OpenEXR", "exr"),
    "cutout": ("pymatting", "matting"),
    "glb": ("trimesh", "mesh"),
}  # format -> package, extra


def is_there(name: str) -> bool:
    """Whether the package that a format needs is installed."""
    return name not in _NEEDS or find_spec(_NEEDS[name][0]) is not None


def default_formats(kind: str) -> tuple[str, ...]:
    """Of a kind, what is written when nobody says."""
    row = KINDS.find(kind)
    return row.formats or tuple(name for name in DEFAULT_FORMATS if FORMATS[name].holds(row)) or ("npy",)


def check_formats(formats: Iterable[str], kind: str | None = None) -> tuple[str, ...]:
    """The names, each once. ValueError for none, an unknown one, one that cannot hold `kind` or lacks its package."""
    chosen = tuple(dict.fromkeys(formats))
    if not chosen:
        raise ValueError(f"no output format: choose from {', '.join(FORMATS)}")
    row = None if kind is None else KINDS.find(kind)
    for name in chosen:
        if name not in FORMATS:
            raise ValueError(f"unknown output format {name!r}: {hint(name, FORMATS)}")
        if row is not None and not FORMATS[name].holds(row):
            able = [n for n, f in FORMATS.items() if f.holds(row)]
            raise ValueError(f"format {name} cannot hold {kind}: choose from {', '.join(able)}")
        if not is_there(name):
            package, extra = _NEEDS[name]
            raise ValueError(f"format {name} needs {package}: pip install 'genpercept[{extra}]', or choose another")
    return chosen
