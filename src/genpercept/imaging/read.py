"""Any image to (H, W, 3) RGB. What cannot be read is a one-line ValueError: what was given, the rule, what to do.

Conventions, because formats leave them open:

- Transparency is composited over white, as viewers show it; colours hidden under it never reach a network.
- 16-bit greys are scaled by 1/257, so that 0 and 65535 become 0 and 255 (never clipped, never their low byte).
- 32-bit integers within [0, 65535] are 16-bit greys. Floats within [0, 1] are fractions of white, within [0, 255] 8-bit
  greys. All other 32-bit images carry no white level: their smallest to largest value is stretched to 0 .. 255.
- EXIF orientation is applied, to opened PIL images as well. Of several frames or pages the first is taken.
- Embedded colour profiles are ignored, as by the public training and evaluation code of the field.
"""

from __future__ import annotations

import os
import struct
import sys
import threading
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image, UnidentifiedImageError

from genpercept.core.texts import one_line, shown

if TYPE_CHECKING:
    from torch import Tensor

Source: TypeAlias = "str | os.PathLike[str] | Image.Image | np.ndarray | Tensor"

SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".avif"),
)
# Pillow also opens formats that start other programs (EPS: Ghostscript) or are no photographs; those stay closed.
_PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "TGA", "JPEG2000", "AVIF")

MAX_PIXELS = 178_956_970  # where Pillow refuses, too; a 16k x 8k image is within
_MAX_PIXELS_VARIABLE = "GENPERCEPT_MAX_PIXELS"

_DECODE_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError, AttributeError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)
_EXIF_ORIENTATION = 0x0112
_pillow_limit = threading.Lock()


def read(source: Source, max_pixels: int | None = None) -> np.ndarray:
    """One image as (H, W, 3) RGB: uint8 in [0, 255], or float32 in [0, 1] where the source is float.

    source: a path; a PIL image; an array (H, W) or (H, W, 1..4), uint8, uint16, bool or float in [0, 1]; a tensor
    (H, W), (C, H, W) or (1, C, H, W), uint8 or float in [0, 1]. max_pixels: refuse larger files before decoding them
    (default: the environment variable GENPERCEPT_MAX_PIXELS, or 178,956,970).

    Raises ValueError for all else: missing, damaged, empty or too large files, NaN, values out of range.
    """
    if isinstance(source, str | os.PathLike):
        return _from_file(Path(source).expanduser(), max_pixels)
    if isinstance(source, Image.Image):
        return _from_pil(source, "the PIL image")
    if isinstance(source, np.ndarray):
        return _from_array(source, "array")
    torch = sys.modules.get("torch")  # whoever holds a tensor has imported torch; nobody else should wait for it
    if torch is not None and isinstance(source, torch.Tensor):
        return _from_tensor(source)
    raise ValueError(f"an image of type {type(source).__name__}: give a path, a PIL image, an array or a tensor")


def read_many(source: Source | list[Any] | tuple[Any, ...]) -> tuple[list[np.ndarray], bool]:
    """(images, single): a list or tuple of sources, or a (B, C, H, W) tensor, gives many; anything else gives one."""
    if isinstance(source, list | tuple):
        if not source:
            raise ValueError("an empty list of images: give at least one")
        return [read(one) for one in source], False
    if _is_batch(source):
        return [read(one) for one in source], False  # type: ignore[union-attr]
    return [read(source)], True


def to_tensor(image_HWC: np.ndarray) -> Tensor:
    """What `read` gives -> (1, 3, H, W) float32 in [0, 1]."""
    import torch

    x = torch.from_numpy(image_HWC).permute(2, 0, 1)[None]
    return (x.float() / 255 if image_HWC.dtype == np.uint8 else x.float()).contiguous()


def pixel_limit(max_pixels: int | None = None) -> int:
    """The largest number of pixels that is decoded. ValueError where argument or variable is no positive integer."""
    given: int | str = os.environ.get(_MAX_PIXELS_VARIABLE, MAX_PIXELS) if max_pixels is None else max_pixels
    try:
        limit = int(given)
    except ValueError:
        limit = 0
    if limit < 1:
        raise ValueError(f"pixel limit {given!r}: {_MAX_PIXELS_VARIABLE} or max_pixels must be a positive integer")
    return limit


def _from_file(path: Path, max_pixels: int | None) -> np.ndarray:
    name = shown(path)
    limit = pixel_limit(max_pixels)
    _check_file(path, name)
    try:
        image = _open(path)
    except UnidentifiedImageError:
        kinds = " ".join(s[1:] for s in SUFFIXES)
        raise ValueError(f"{name}: not an image, whatever its name says; these are read: {kinds}") from None
    except _DECODE_ERRORS as error:
        raise ValueError(f"{name}: damaged header ({_reason(error)}); get or export the file again") from error
    with image:
        w, h = image.size
        if w < 1 or h < 1:
            raise ValueError(f"{name}: {w} x {h} pixels; both edges must be at least 1")
        if w * h > limit:
            raise ValueError(
                f"{name}: {w} x {h} pixels, over the limit of {limit:,}; shrink it, or raise {_MAX_PIXELS_VARIABLE}"
            )
        return _from_pil(image, name)


def _check_file(path: Path, name: str) -> None:
    if "\0" in str(path):
        raise ValueError(f"{name}: a path with a null character; check the path")
    try:
        found = path.stat()
        if path.is_dir():
            raise ValueError(f"{name}: a folder, not an image; name a file in it")
        if not path.is_file():
            raise ValueError(f"{name}: not a regular file; save the image to a file first")
        if found.st_size == 0:
            raise ValueError(f"{name}: an empty file (0 bytes); get or export it again")
        with path.open("rb"):
            pass
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{name}: no such file; check the path") from None
    except PermissionError:
        raise ValueError(f"{name}: no permission to read it; change its permissions or run as its owner") from None
    except OSError as error:
        raise ValueError(f"{name}: cannot be opened ({_reason(error)}); check the path") from error


def _open(path: Path) -> Image.Image:
    # Our limit can be raised and has its own message; Pillow's is a global, so it is set aside under a lock. Only the
    # header is parsed here.
    with _pillow_limit:
        Image.init()
        formats = [f for f in _PILLOW_FORMATS if f in Image.OPEN]
        pillows = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            return Image.open(path, formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = pillows


def _from_pil(image: Image.Image, name: str) -> np.ndarray:
    if image.width < 1 or image.height < 1:
        raise ValueError(f"{name}: {image.width} x {image.height} pixels; both edges must be at least 1")
    try:
        image.load()
        rgb = _rgb(image, name)
    except MemoryError:
        raise ValueError(f"{name}: {image.width} x {image.height} pixels do not fit in memory; shrink it") from None
    except _Refused:
        raise
    except _DECODE_ERRORS as error:
        kind = image.format or "image"
        raise ValueError(f"{name}: damaged or truncated {kind} ({_reason(error)}); get or export it again") from error
    return np.array(_upright(rgb, _orientation(image)), order="C")  # a copy: contiguous, and the caller's own


class _Refused(ValueError):
    """Our own refusal, not to be taken for a decoder's."""


def _rgb(image: Image.Image, name: str) -> np.ndarray:
    """Any mode of Pillow -> (H, W, 3) uint8."""
    if image.mode.startswith("I;16"):
        return _grey(_by_257(np.asarray(image.convert("I"))))
    if image.mode == "I":
        values = np.asarray(image)
        sixteen_bit = values.min() >= 0 and values.max() <= 65535
        return _grey(_by_257(values) if sixteen_bit else _stretched(values))
    if image.mode == "F":
        return _grey(_float_grey(np.asarray(image), name))
    if image.has_transparency_data:
        if image.mode in ("1", "La"):  # which Pillow takes to RGBA only by way of these
            image = image.convert("L" if image.mode == "1" else "LA")
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))
    return np.asarray(image.convert("RGB"))


def _by_257(values: np.ndarray) -> np.ndarray:
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _float_grey(values: np.ndarray, name: str) -> np.ndarray:
    if not np.isfinite(values).all():
        raise _Refused(f"{name}: holds NaN or infinite values; replace them by a number first")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 255:
        return _stretched(values)
    return np.rint(values * (255.0 if high <= 1 else 1.0)).astype(np.uint8)


def _stretched(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    return np.rint((values.astype(np.float64) - low) * (255.0 / max(high - low, 1e-30))).astype(np.uint8)


def _grey(values_HW: np.ndarray) -> np.ndarray:
    return np.repeat(values_HW[..., None], 3, axis=2)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except _DECODE_ERRORS:
        return 1  # damaged metadata: the pixels are whole, and viewers show them as they are stored


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Undo EXIF orientation 1 .. 8 of (H, W, C); other values are taken as 1."""
    turned = image.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else image
    rows = slice(None, None, -1) if orientation in (3, 4, 7, 8) else slice(None)
    columns = slice(None, None, -1) if orientation in (2, 3, 6, 7) else slice(None)
    return turned[rows, columns]


def _from_tensor(tensor: Any) -> np.ndarray:
    shape = tuple(tensor.shape)
    x = tensor.detach()
    if x.ndim == 4:
        if shape[0] != 1:
            raise ValueError(f"tensor {shape}: a batch where one image is read; pass it to the pipeline or as a list")
        x = x[0]
    if x.ndim == 3:
        if x.shape[0] not in (1, 2, 3, 4):
            hint = "; permute (H, W, C) to (C, H, W)" if x.shape[-1] in (1, 3, 4) else ""
            raise ValueError(f"tensor {shape}: must be (C, H, W) or (B, C, H, W) with 1 to 4 channels{hint}")
        x = x.permute(1, 2, 0)
    if x.is_floating_point():
        x = x.float()
    return _from_array(x.cpu().numpy(), "tensor")


def _from_array(array: np.ndarray, what: str) -> np.ndarray:
    shape = tuple(array.shape)
    x = array[..., None] if array.ndim == 2 else array
    if x.ndim != 3 or x.shape[2] not in (1, 2, 3, 4):
        hint = "; transpose (C, H, W) to (H, W, C)" if array.ndim == 3 and shape[0] in (1, 3, 4) else ""
        raise ValueError(f"{what} {shape}: must be (H, W) or (H, W, C) with 1 to 4 channels{hint}")
    if x.size == 0:
        raise ValueError(f"{what} {shape}: an empty image; both edges must be at least 1 pixel")
    return _three_channels(_in_range(x, what))


def _in_range(x: np.ndarray, what: str) -> np.ndarray:
    """To uint8, or to float32 in [0, 1]; refuse everything whose white level is unknown."""
    if x.dtype == np.uint8:
        return x
    if x.dtype == np.bool_:
        return x.astype(np.uint8) * 255
    if x.dtype == np.uint16:
        return _by_257(x)
    if not np.issubdtype(x.dtype, np.floating):
        raise ValueError(f"{what} of {x.dtype}: must be uint8, uint16, bool, or float in [0, 1]; convert it")
    if not np.isfinite(x).all():
        raise ValueError(f"{what} of {x.dtype} holds NaN or infinite values; replace them by numbers in [0, 1]")
    low, high = float(x.min()), float(x.max())
    if low < -1e-5 or high > 1 + 1e-5:  # rounding of earlier steps is not a mistake; everything else is
        hint = (
            "scale [-1, 1] by (x + 1) / 2" if -1 - 1e-5 <= low < 0 and high <= 1 + 1e-5 else "divide by the white level"
        )
        raise ValueError(f"{what} of {x.dtype} with values {low:.6g} to {high:.6g}: float images are in [0, 1]; {hint}")
    return np.clip(x.astype(np.float32), 0.0, 1.0)


def _three_channels(x: np.ndarray) -> np.ndarray:
    """(H, W, 1..4) -> (H, W, 3), a copy; alpha, the last of 2 or 4 channels, over white."""
    c = x.shape[2]
    colour = x[..., : c - 1] if c in (2, 4) else x
    if c in (2, 4):
        white = 255.0 if x.dtype == np.uint8 else 1.0
        alpha = x[..., -1:].astype(np.float32) / white
        mixed = colour * alpha + white * (1 - alpha)
        colour = (np.rint(mixed) if x.dtype == np.uint8 else mixed).astype(x.dtype)
    if colour.shape[2] == 1:
        colour = np.repeat(colour, 3, axis=2)
    return np.array(colour, order="C")


def _is_batch(source: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor) and source.ndim == 4


def _reason(error: BaseException) -> str:
    """The decoder's message on one line."""
    return one_line(getattr(error, "strerror", None) or error, 120)
