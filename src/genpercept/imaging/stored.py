"""A file of a label, or of any map, as an array: npy, npz, exr and every image. The one reader of data sets and of scores.

What a file holds and what it means are two things. `read_stored` gives the first: numbers of the file's own depth, a palette's
indices beside its colours. What the numbers mean says a label's row (`genpercept.core.labels`), or a metric. Between them:

- `single`: one value per pixel. A palette's colours; equal channels; a colour on black that is in one channel alone;
  opacity, where that is the only content. Channels that disagree otherwise are a picture, and an error.
- `indices`: numbers of classes, of a palette its indices.
- What `predict` writes is known by its own words, and undone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from genpercept.core.labels import VALID, Label
from genpercept.core.notes import note
from genpercept.core.texts import listed, one_line, shown
from genpercept.imaging import png16
from genpercept.imaging.decode import PILLOW_FORMATS, orientation, pixel_limit
from genpercept.imaging.decode import SUFFIXES as IMAGES
from genpercept.imaging.encode import decode16, value_words
from genpercept.imaging.kinds import KINDS

# Of one sample in several formats the first counts.
SUFFIXES = (".npy", ".npz", ".exr", ".png", ".tif", ".tiff", *(s for s in IMAGES if s not in (".png", ".tif", ".tiff")))
ASIDE = (
    "_overlay",
    "_color",
    "_colour",
    "_colored",
    "_coloured",
    "_uncertainty",
    "_points",
)  # lies beside predictions, is none
KEYS = ("values", "pred", "gt")  # of arrays in an npz
_LOSSY = ("JPEG", "WEBP", "AVIF", "JPEG2000")
_CLOSE = {True: 24, False: 2}  # by how much channels of 8 bits that are equal may differ, of lossy and of other formats
_RINGING = 16
_MODES = (
    "1",
    "L",
    "LA",
    "RGB",
    "RGBA",
    "F",
    "I",
    "I;16",
    "I;16B",
    "I;16L",
    "I;16N",
)  # of Pillow, that are arrays as they are


@dataclass(frozen=True)
class Stored:
    """array: (H, W) or (H, W, C) as stored, of a palette its indices; npy and npz may hold any shape.

    palette: (N, 3 or 4) uint8, its colours. opacity: whether the last channel is. lossy: whether values may not be what was
    written. words: a PNG's description, in which `predict` tells its encoding. kind: of the prediction that it is. valid:
    (H, W) bool, where it says. orientation: its own, of EXIF.
    """

    path: Path
    array: np.ndarray
    palette: np.ndarray | None = None
    opacity: bool = False
    lossy: bool = False
    words: str = ""
    kind: str = ""
    valid: np.ndarray | None = None
    orientation: int = 1

    @property
    def size(self) -> tuple[int, ...]:
        return self.array.shape[:2]

    @property
    def colours(self) -> np.ndarray:
        """The array, of a palette its colours; opacity is the fourth channel, or the second beside a grey one."""
        return self.array if self.palette is None else self.palette[np.minimum(self.array, len(self.palette) - 1)]

    @property
    def single(self) -> np.ndarray:
        """One value per pixel, (H, W). ValueError for a colour picture."""
        array, opacity = self.colours, self.opacity
        if self.palette is not None:
            opacity = array.shape[-1] == 4
        if array.ndim == 3 and opacity:
            return _content(array[..., :-1], array[..., -1], self.lossy)
        return _agreed(array, self.lossy) if array.ndim == 3 and array.shape[-1] in (1, 3) else array

    @property
    def indices(self) -> np.ndarray:
        """Numbers of classes, (H, W): of a palette its indices. ValueError for a colour picture, and for a lossy format."""
        if self.lossy:
            raise ValueError("numbers of classes in a format that changes values (JPEG or the like); export PNG or npy")
        if self.palette is not None:
            return self.array
        if self.array.ndim == 3 and self.array.shape[-1] in (1, 3, 4) and not _equal(self.array[..., :3]):
            raise ValueError(
                "a colour picture, where one class number per pixel is wanted; export numbers, or a palette image"
            )
        return self.array[..., 0] if self.array.ndim == 3 and self.array.shape[-1] in (1, 2, 3, 4) else self.array

    def upright(self) -> Stored:
        """Turned as its own EXIF orientation says."""
        if self.orientation == 1:
            return self
        valid = None if self.valid is None else turned(self.valid, self.orientation)
        return replace(self, array=turned(self.array, self.orientation), valid=valid, orientation=1)

    def for_label(self, row: Label) -> np.ndarray:
        """What the row's rule is to be given; NaN, or -1 for classes, where the file says that nothing is valid."""
        self._check_kind(row)
        if row.classes or (np.issubdtype(row.dtype, np.integer) and row.limits is None):
            ids = self.indices
            return ids if self.valid is None else np.where(self.valid, ids.astype(np.int64), -1)
        if row.channels == 1:
            values = self._decoded(self.single)
            if self.lossy and values.dtype == np.uint8 and row.limits == (0, 1):
                values = _without_ringing(values, row)
        else:
            values = self.colours
        if self.valid is None or np.issubdtype(values.dtype, np.integer):
            return values
        return np.where(self.valid if values.ndim == 2 else self.valid[..., None], values, np.nan)

    def _decoded(self, values: np.ndarray) -> np.ndarray:
        """Values of `predict`'s 16-bit PNG."""
        return decode16(values, self.words) if value_words(self.words) and values.dtype == np.uint16 else values

    def _check_kind(self, row: Label) -> None:
        if self.kind not in KINDS or row.kind not in KINDS:
            return
        if KINDS[self.kind].distance != KINDS[row.kind].distance:
            raise ValueError(f"a prediction of kind {self.kind}, which is no {row.name}")
        if row.unit and KINDS[self.kind].limits:
            note(f"{row.name}: predictions of kind {self.kind} without a unit; they are taken for {row.unit}")


# Files ----------------------------------------------------------------------------------------------------------------


def read_stored(path: Path, keys: Sequence[str] = KEYS) -> Stored:
    """What a file holds. keys: of an npz with several arrays the first of these. ValueError that names the file."""
    if not path.is_file():
        raise ValueError(f"{shown(path)}: no such file")
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            return Stored(path, _plain(np.load(path, allow_pickle=False)))
        if suffix == ".npz":
            return _npz(path, keys)
        if suffix == ".exr":
            return _exr(path, keys)
        return _image(path)
    except ImportError:
        raise ValueError(f"{shown(path)}: reading it needs OpenEXR: pip install 'genpercept[exr]'") from None
    except MemoryError:
        raise ValueError(f"{shown(path)}: does not fit in memory") from None
    except UnidentifiedImageError:
        raise ValueError(f"{shown(path)}: not an image, or a damaged file") from None
    except Said as error:
        raise ValueError(f"{shown(path)}: {error}") from None
    except Exception as error:
        raise ValueError(f"{shown(path)}: cannot be read, a damaged file ({one_line(error, 160)})") from error


class Said(ValueError):
    """Our own words, not a decoder's."""


def bare(stem: str, endings: Sequence[str]) -> str:
    """`room_depth_mask` -> `room`; a stem that is nothing but an ending stays."""
    for ending in sorted(endings, key=len, reverse=True):
        if stem.endswith(ending) and stem != ending:
            return bare(stem.removesuffix(ending), endings)
    return stem


def orientation_of(path: Path) -> tuple[int, tuple[int, int]]:
    """The EXIF orientation of an image, and its (height, width) as it is stored. (1, (0, 0)) where it is none."""
    try:
        with _open(path) as image:
            return orientation(image), (image.height, image.width)
    except Exception:  # noqa: BLE001  # reading it says what is wrong
        return 1, (0, 0)


def turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W[, C]) as it is stored -> upright, by an EXIF orientation of 1 to 8."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    rows = slice(None, None, -1) if orientation in (3, 4, 7, 8) else slice(None)
    columns = slice(None, None, -1) if orientation in (2, 3, 6, 7) else slice(None)
    return array[rows, columns]


def _plain(array: np.ndarray) -> np.ndarray:
    """Numbers or truth values in the machine's own order of bytes."""
    if array.dtype.kind not in "fiub":
        raise Said(f"holds {array.dtype} values; it must hold numbers")
    return array.astype(array.dtype.newbyteorder("=")) if array.dtype.byteorder not in "=|" else array


def _npz(path: Path, keys: Sequence[str]) -> Stored:
    with np.load(path, allow_pickle=False) as file:
        names = file.files
        key = next((k for k in keys if k in names), names[0] if len(names) == 1 else None)
        if key is None:
            raise Said(f"holds {listed(names)}: expected one array, or one called {keys[0]!r}")
        kind = str(file["kind"]) if "kind" in names else ""
        valid = _plain(file[VALID]).astype(bool) if VALID in names and key != VALID else None
        return Stored(path, _plain(file[key]), kind=kind, valid=valid)


def _exr(path: Path, keys: Sequence[str]) -> Stored:
    import OpenEXR

    with OpenEXR.File(str(path)) as file:
        channels = {name: np.asarray(c.pixels) for name, c in file.channels().items()}
        comments = str(file.header().get("comments", ""))
    kind = comments.partition(":")[0]
    valid = channels.pop(VALID).astype(bool) if VALID in channels and len(channels) > 1 else None
    colour = next((name for name in ("RGB", "RGBA") if name in channels), None)
    names = [n for n in channels if n != "A"] or list(channels)
    name = colour or next((n for n in (*keys, "Y", "Z") if n in channels), names[0] if len(names) == 1 else None)
    if name is None:
        raise Said(f"has the channels {listed(list(channels))}: expected one, or R, G and B")
    array = _plain(channels[name])
    return Stored(path, array, opacity=name == "RGBA", kind=kind if kind in KINDS else "", valid=valid)


def _image(path: Path) -> Stored:
    with _open(path) as image:
        if image.width * image.height > pixel_limit():
            raise Said(f"{image.width} x {image.height} pixels, over the limit of {pixel_limit():,}")
        words = str(image.info.get("Description", ""))
        kind = words.partition(":")[0]
        facts = {
            "lossy": image.format in _LOSSY,
            "words": words,
            "kind": kind if kind in KINDS else "",
            "orientation": orientation(image),
        }
        if image.format == "PNG" and (deep := png16.read(path)) is not None:
            return Stored(path, deep, opacity=deep.shape[-1] in (2, 4), **facts)
        _refuse_lost_bits(image)
        if image.mode == "P":
            indices = np.array(image)
            return Stored(path, indices, _palette(image), **facts)
        array = _plain(
            np.array(image if image.mode in _MODES else image.convert("RGBA" if image.mode == "PA" else "RGB"))
        )
        if image.format == "PNG" and array.dtype == np.int32:
            array = array.astype(np.uint16)  # which Pillow once gave in 32 bits
        return Stored(path, array, opacity=image.mode in ("LA", "RGBA", "PA"), **facts)


def _open(path: Path) -> Image.Image:
    """Of the formats that hold pixels: Pillow would start other programs for some (EPS: Ghostscript)."""
    Image.init()
    return Image.open(path, formats=[name for name in PILLOW_FORMATS if name in Image.OPEN])


def _palette(image: Image.Image) -> np.ndarray:
    """(256, 3 or 4): with opacity where an entry that is used has some transparency."""
    strip = Image.new("P", (256, 1))
    strip.putdata(range(256))
    strip.putpalette(image.getpalette("RGB") or [])
    colours = np.array(strip.convert("RGB"))[0]
    given = image.info.get("transparency")
    if given is None:
        return colours
    opacity = np.full(256, 255, np.uint8)
    if isinstance(given, bytes):
        opacity[: len(given)] = np.frombuffer(given, np.uint8)[:256]
    else:
        opacity[int(given)] = 0
    return np.concatenate([colours, opacity[:, None]], 1)


def _refuse_lost_bits(image: Image.Image) -> None:
    """Pillow reads the upper 8 of 16 bits where there are colours, and does not say so."""
    bits = getattr(image, "tag_v2", {}).get(258, (8,)) if image.format == "TIFF" else (8,)
    if image.mode in ("LA", "RGB", "RGBA", "CMYK") and max(bits if isinstance(bits, tuple) else (bits,)) > 8:
        raise Said("colours of 16 bits in a TIFF, of which only the upper 8 could be read; export PNG or npy")


# Channels ---------------------------------------------------------------------------------------------------------------


def _equal(colours: np.ndarray) -> bool:
    return colours.shape[-1] == 1 or bool((colours == colours[..., :1]).all())


def _agreed(colours: np.ndarray, lossy: bool) -> np.ndarray:
    """(H, W, 1 or 3) -> (H, W). ValueError where the channels disagree."""
    if _equal(colours):
        return colours[..., 0]
    close = _CLOSE[lossy] if colours.dtype == np.uint8 else 0
    if close and int((colours.max(-1) - colours.min(-1)).max()) <= close:
        return _luminance(colours)
    there = [i for i in range(3) if (np.abs(colours[..., i].astype(np.float32)) > close).any()]
    if len(there) == 1:
        note("a colour on black: the one channel that it is in is read", ("red", "green", "blue")[there[0]])
        return colours[..., there[0]]
    y, x = np.argwhere((colours != colours[..., :1]).any(-1))[0]
    found = ", ".join(f"{v:g}" for v in colours[y, x])
    raise ValueError(
        f"red, green and blue disagree ({found} at row {y}, column {x}): a colour picture, where there is one value per pixel; "
        "export it in grey"
    )


def _without_ringing(values: np.ndarray, row: Label) -> np.ndarray:
    """What a lossy format made of black, and of a mask's white, back."""
    values = np.where(values < _RINGING, 0, values)
    return np.where(values > 255 - _RINGING, 255, values) if row.dtype is np.bool_ else values


def _luminance(colours: np.ndarray) -> np.ndarray:
    """As Pillow has it."""
    return np.array(Image.fromarray(np.ascontiguousarray(colours)).convert("L"))


def _content(colours: np.ndarray, opacity: np.ndarray, lossy: bool) -> np.ndarray:
    """Colours, or opacity where that is the only content. ValueError where both are one, and disagree."""
    top = np.iinfo(opacity.dtype).max if np.issubdtype(opacity.dtype, np.integer) else 1
    if (opacity == opacity.flat[0]).all():
        return _agreed(colours, lossy) if opacity.flat[0] > 0 else np.zeros_like(opacity)
    if (colours == colours[:1, :1]).all():
        note("the opacity is read: colours are the same everywhere")
        return opacity
    value = _agreed(np.where(opacity[..., None] > 0, colours, 0), lossy)  # what is seen on black
    if (value[opacity > 0] == top).all():
        note("the opacity is read: what is not transparent is white")
        return opacity
    if (opacity[value > 0] == top).all():
        note("what is transparent is read as black")
        return value
    raise ValueError(
        "colours and opacity both vary and disagree: which is the label? Export it in grey, without opacity"
    )
