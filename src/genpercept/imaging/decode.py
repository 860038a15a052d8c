"""Image files to (H, W, 3) uint8: what is checked before decoding, what it costs, and what is said when it fails.

Any exception of a decoder becomes one line that names the file. Memory is counted from the header: beside the result (3 bytes
for each pixel) there is the decoder's image (1 to 4), and what some decoders need beyond that.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from genpercept.core.texts import one_line, shown
from genpercept.imaging import other_formats, tiff, whole
from genpercept.imaging.budget import READING
from genpercept.imaging.pixels import Refused, TooManyPixels, to_rgb

SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".avif", ".heic", ".heif"),
)
# Pillow also opens formats that start other programs (EPS: Ghostscript) or are no photographs; those stay closed.
PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "TGA", "JPEG2000", "AVIF")

MAX_PIXELS = 178_956_970  # where Pillow refuses, too; a 16k x 8k image is within
VARIABLE = "GENPERCEPT_MAX_PIXELS"

BYTES_PER_PIXEL = 8  # at the peak of reading, of ordinary formats: what a limit in pixels counts with
_COSTLY = {"WEBP": 16, "AVIF": 12, "JPEG2000": 20, "HEIF": 9}  # measured: benchmarks/memory/reading.md
_TEXT = 11  # of numbers as text

# What is to be learnt of an image beside its pixels, when they have been read; the file is opened but once.
Look = Callable[[Image.Image], None]
_EXIF_ORIENTATION = 0x0112
_pillow_limit = threading.Lock()


def pixel_limit(max_pixels: int | None = None) -> int:
    """The largest number of pixels that is decoded. ValueError where argument or variable is no positive integer."""
    given: int | str = os.environ.get(VARIABLE, MAX_PIXELS) if max_pixels is None else max_pixels
    try:
        limit = int(given)
    except ValueError:
        limit = 0
    if limit < 1:
        raise ValueError(f"pixel limit {given!r}: {VARIABLE} or max_pixels must be a positive integer")
    return limit


def from_file(path: Path, max_pixels: int | None, look: Look | None = None) -> np.ndarray:
    """(H, W, 3) uint8. ValueError of one line for all that cannot be read, or is over the limit. look: is shown the image."""
    name, limit = shown(path), pixel_limit(max_pixels)
    _check_file(path, name)
    try:
        image = _open(path)
    except UnidentifiedImageError:
        return _not_pillows(path, name, limit, look)
    except Exception as error:
        raise ValueError(f"{name}: damaged header ({reason(error)}); get or export the file again") from error
    with image:
        try:
            bytes_each = cost(image)
            check_size(image.size, bytes_each, str(image.format), limit, name)
            other_formats.check_raw(image, path, name)
        except Refused:
            raise
        except Exception as error:
            raise Refused(f"{name}: damaged header ({reason(error)}); get or export the file again") from error
        with READING.take(image.width * image.height * bytes_each):
            return from_pil(image, name, path, look)


def from_pil(image: Image.Image, name: str, path: Path | None = None, look: Look | None = None) -> np.ndarray:
    """A PIL image of any mode; with `path`, of the file that it was opened from, it is checked to be there in full."""
    if image.width < 1 or image.height < 1:
        raise Refused(f"{name}: {image.width} x {image.height} pixels; both edges must be at least 1")
    try:
        if path is not None:
            whole.check_header(image, path, name)
        tiff.mend_ycbcr(image)
        image.load()
        if path is not None:
            whole.check_pixels(image, path, name)
        if look is not None:
            look(image)
        return to_rgb(image, name, orientation(image))
    except MemoryError as error:
        raise Refused(f"{name}: {image.width} x {image.height} pixels do not fit in memory; shrink it") from error
    except Refused:
        raise
    except Exception as error:
        kind = image.format or "image"
        raise Refused(f"{name}: damaged or truncated {kind} ({reason(error)}); get or export it again") from error


def cost(image: Image.Image) -> int:
    """Bytes for each pixel at the peak of reading an opened image, by what its header says."""
    if image.format in ("JPEG", "MPO") and "progressive" in image.info:
        shares = [h * v for _, h, v, _ in getattr(image, "layer", ())]  # of a block of pixels, by component
        coefficients = 2 * sum(shares) / max(1, *shares)  # of all scans are kept until the last one
        return max(BYTES_PER_PIXEL, 5 + round(coefficients))
    if any(tile[0] == "ppm_plain" for tile in getattr(image, "tile", ())):
        return _TEXT
    return _COSTLY.get(str(image.format), BYTES_PER_PIXEL)


def check_size(size: tuple[int, int], bytes_each: int, kind: str, limit: int, name: str) -> None:
    """ValueError for an empty image, and for one that takes more memory than `limit` pixels of an ordinary format."""
    w, h = size
    if w < 1 or h < 1:
        raise Refused(f"{name}: {w} x {h} pixels; both edges must be at least 1")
    most = limit * BYTES_PER_PIXEL // max(bytes_each, BYTES_PER_PIXEL)
    if w * h > most:
        why = "" if most == limit else f" for this {kind}, whose decoder takes {bytes_each} bytes for each"
        raise TooManyPixels(
            f"{name}: {w} x {h} pixels, over the limit of {most:,}{why}; shrink it, or raise --max-pixels or {VARIABLE}"
        )


def reason(error: BaseException) -> str:
    """The decoder's message on one line; the exception's kind where it says nothing."""
    return one_line(getattr(error, "strerror", None) or str(error) or type(error).__name__, 120)


def _check_file(path: Path, name: str) -> None:
    if "\0" in str(path):
        raise ValueError(f"{name}: a path with a null character; check the path")
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise ValueError(f"{name}: a folder, not an image; name a file in it")
        if not stat.S_ISREG(found.st_mode):
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
        raise ValueError(f"{name}: cannot be opened ({reason(error)}); check the path") from error


def _open(path: Path) -> Image.Image:
    # Our limit can be raised and has its own message; Pillow's is a global, so it is set aside under a lock. Only the
    # header is parsed here.
    with _pillow_limit:
        pillows = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            Image.preinit()
            try:
                return Image.open(path, formats=_known())
            except UnidentifiedImageError:
                Image.init()  # sixty modules more, which JPEG and PNG need not wait for
                return Image.open(path, formats=_known())
        finally:
            Image.MAX_IMAGE_PIXELS = pillows


def _known() -> list[str]:
    """Of our formats those that Pillow has loaded."""
    return [name for name in PILLOW_FORMATS if name in Image.OPEN]


def _not_pillows(path: Path, name: str, limit: int, look: Look | None) -> np.ndarray:
    """A file of none of Pillow's formats, by the reader of its own format, or the line that says why there is none."""
    try:
        head = other_formats.head(path)
        if other_formats.is_heif(head):
            with other_formats.open_heif(path, name) as image:
                check_size(image.size, cost(image), "HEIF", limit, name)
                with READING.take(image.width * image.height * cost(image)):
                    return from_pil(image, name, look=look)
        other_formats.check_known(head, path, name)
        if tiff.is_tiff(head):
            return tiff.read(path, name, lambda size, each: check_size(size, each, "TIFF", limit, name))
    except Refused:
        raise
    except MemoryError as error:
        raise ValueError(f"{name}: does not fit in memory; shrink it") from error
    except Exception as error:
        raise ValueError(f"{name}: damaged or truncated ({reason(error)}); get or export it again") from error
    kinds = " ".join(s[1:] for s in SUFFIXES)
    raise ValueError(f"{name}: not an image, whatever its name says; these are read: {kinds}")


def orientation(image: Image.Image) -> int:
    """Of EXIF, 1 to 8; 1 where the image has none."""
    try:
        found = int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # noqa: BLE001  # damaged metadata: the pixels are whole, and viewers show them as they are stored
        return 1
    return found if 1 <= found <= 8 else 1
