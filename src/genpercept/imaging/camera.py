"""The camera of a photograph: a pinhole, by what somebody says, the data set, or the file's EXIF; else one that is assumed.

EXIF (CIPA DC-008) tells a field of view in two ways. `FocalLengthIn35mmFilm` is the focal length at which a frame of
36 x 24 mm sees as much along its diagonal (43.27 mm). `FocalLength` is in millimetres, and `FocalPlaneXResolution`
counts the sensor's pixels for each unit of length. The first is taken where both are there: programs that shrink a
photograph leave the second as it was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

Source = Literal["option", "data set", "EXIF", "assumed"]
DEFAULT_FOV = 60.0  # degrees, horizontal: a phone's main camera

_EXIF_IFD = 0x8769
_FOCAL, _FOCAL_35, _ZOOM = 0x920A, 0xA405, 0xA404
_PLANE_X, _PLANE_UNIT = 0xA20E, 0xA210
_WIDTH, _HEIGHT = 0xA002, 0xA003
_ORIENTATION = 0x0112
_DIAGONAL = math.hypot(36, 24)  # mm, of 35 mm film
_MM = {
    2: 25.4,
    3: 10.0,
    4: 1.0,
    5: 1e-3,
}  # of FocalPlaneResolutionUnit: inch, centimetre, and two that some cameras write
_SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange width and height
_LEAST, _MOST = 1.0, 170.0  # degrees, of a field of view that is believed
_ASPECT = 0.02  # by which the edges' ratio may differ from what EXIF says, before the photograph counts as cropped


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion. Lengths are in pixels of an image of `size` (height, width).

    focal: of x and y. center: the principal point; the middle of the first pixel is at (0.5, 0.5). source: who says so.
    note: what makes it doubtful. Raises ValueError for focal lengths that are not positive and finite.
    """

    focal: tuple[float, float]
    center: tuple[float, float]
    size: tuple[int, int]
    source: Source
    note: str = ""

    def __post_init__(self) -> None:
        if not all(math.isfinite(f) and f > 0 for f in self.focal) or not all(map(math.isfinite, self.center)):
            raise ValueError(f"camera with focal lengths {self.focal}: they must be positive and finite, in pixels")
        if self.source not in get_args(Source):
            raise ValueError(f"camera of {self.source!r}: choose one of {', '.join(get_args(Source))}")

    @classmethod
    def of_fov(cls, degrees: float, size: tuple[int, int], source: Source = "option") -> Camera:
        """By a horizontal field of view; the principal point is the image's middle. ValueError outside (0, 180)."""
        check_fov(degrees)
        return cls._centred(size[1] / 2 / math.tan(math.radians(degrees) / 2), size, source)

    @classmethod
    def of_matrix(cls, matrix: np.ndarray, size: tuple[int, int], source: Source = "data set") -> Camera:
        """By a matrix (3, 3) [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels. ValueError for another shape, or a skew."""
        k = np.asarray(matrix, np.float64)
        if k.shape != (3, 3) or not np.allclose(k[[0, 1, 2, 2], [1, 0, 0, 1]], 0, atol=1e-6 * abs(k).max()):
            raise ValueError(f"camera matrix of shape {k.shape}: must be (3, 3) in pixels, without skew")
        return cls((float(k[0, 0]), float(k[1, 1])), (float(k[0, 2]), float(k[1, 2])), size, source)

    @classmethod
    def of_meta(cls, meta: Mapping[str, Any]) -> Camera:
        """What `to_meta` gave, as it comes back of a JSON file. ValueError where it is something else."""
        try:
            focal, center, size = (tuple(meta[key]) for key in ("focal", "center", "size"))
            (fx, fy), (cx, cy), (h, w) = focal, center, size
            found = cls((float(fx), float(fy)), (float(cx), float(cy)), (int(h), int(w)), meta["source"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"meta['camera']: not a camera ({error!r}); leave it out") from error
        return replace(found, note=str(meta.get("note", "")))

    def to_meta(self) -> dict[str, Any]:
        """As plain values, with the horizontal field of view in degrees, for a Prediction's meta and a sidecar."""
        told = {"fov": round(self.fov, 3), "source": self.source, "focal": [round(f, 3) for f in self.focal]}
        told |= {"center": [round(c, 3) for c in self.center], "size": list(self.size)}
        return told | ({"note": self.note} if self.note else {})

    @property
    def fov(self) -> float:
        """Horizontal field of view in degrees."""
        left, right = self.center[0], self.size[1] - self.center[0]
        return math.degrees(math.atan(left / self.focal[0]) + math.atan(right / self.focal[0]))

    @property
    def words(self) -> str:
        """In one line, for a file's own text."""
        said = {"option": "as given", "data set": "of the data set", "EXIF": "by EXIF", "assumed": "assumed"}
        return f"horizontal field of view: {self.fov:.4g} degrees, {said[self.source]}"

    def at(self, size: tuple[int, int]) -> Camera:
        """The same camera for the image resized to `size`."""
        if size == self.size:
            return self
        y, x = size[0] / self.size[0], size[1] / self.size[1]
        focal, center = (self.focal[0] * x, self.focal[1] * y), (self.center[0] * x, self.center[1] * y)
        return replace(self, focal=focal, center=center, size=size)

    def directions(self) -> tuple[np.ndarray, np.ndarray]:
        """(W,) and (H,) float32: x to the right and y up, at a distance of 1, of the pixels' middles."""
        h, w = self.size
        x = (np.arange(w) + 0.5 - self.center[0]) / self.focal[0]
        y = -(np.arange(h) + 0.5 - self.center[1]) / self.focal[1]
        return x.astype(np.float32), y.astype(np.float32)

    @classmethod
    def _centred(cls, focal: float, size: tuple[int, int], source: Source, note: str = "") -> Camera:
        return cls((focal, focal), (size[1] / 2, size[0] / 2), size, source, note)


def check_fov(degrees: float) -> None:
    """ValueError for a field of view that no pinhole camera has."""
    if not 0 < degrees < 180:
        raise ValueError(f"field of view {degrees:g}: must lie between 0 and 180 degrees")


def of_exif(image: Image.Image) -> Camera | None:
    """The camera of an opened photograph, upright as its orientation says; None where EXIF does not tell.

    The header's EXIF is parsed, no pixel is read. Damaged or absurd values are none.
    """
    try:
        exif = image.getexif()
        tags = exif.get_ifd(_EXIF_IFD)
        width, height = image.size  # as it is stored
        focal, note = _focal(tags, width, height)
        if focal is None:
            return None
        size = (width, height) if int(exif.get(_ORIENTATION, 1)) in _SIDEWAYS else (height, width)
        found = Camera._centred(focal, size, "EXIF", note)  # pyright: ignore[reportPrivateUsage]
    except Exception:  # noqa: BLE001  # damaged metadata: the pixels are whole, and a camera can be assumed
        return None
    return found if _LEAST <= found.fov <= _MOST else None


def _focal(tags: Mapping[int, Any], width: int, height: int) -> tuple[float | None, str]:
    """(focal length in pixels of the image as it is stored, what makes it doubtful)."""
    taken = (
        _number(tags, _WIDTH),
        _number(tags, _HEIGHT),
    )  # the edges when it was taken, as far as programs leave them
    notes = []
    if taken[0] and taken[1]:
        ratio = (width / taken[0]) / (height / taken[1])
        if abs(ratio - 1) > _ASPECT and abs(width * taken[0] / (height * taken[1]) - 1) > _ASPECT:
            notes.append(f"EXIF is of {taken[0]:.0f} x {taken[1]:.0f} pixels: cropped? then it sees less")
    if (zoom := _number(tags, _ZOOM)) and abs(zoom - 1) > 1e-3:
        notes.append(f"digital zoom {zoom:g}, which the focal length may hold already, or not")
    if millimetres := _number(tags, _FOCAL_35):
        return millimetres * math.hypot(width, height) / _DIAGONAL, "; ".join(notes)
    real, density = _number(tags, _FOCAL), _number(tags, _PLANE_X)
    unit = _MM.get(int(tags.get(_PLANE_UNIT, 2)))
    if real and density and unit:
        shrunk = max(width, height) / max(taken) if all(taken) else 1.0
        return real * density / unit * shrunk, "; ".join(notes)
    return None, ""


def _number(tags: Mapping[int, Any], tag: int) -> float:
    """A positive value; 0 where it is missing, and where a camera says so that it does not know."""
    value = tags.get(tag)
    try:
        found = float(value[0] if isinstance(value, tuple) else value)  # type: ignore[arg-type,index]
    except (TypeError, ValueError, ZeroDivisionError, IndexError):
        return 0.0
    return found if math.isfinite(found) and found > 0 else 0.0
