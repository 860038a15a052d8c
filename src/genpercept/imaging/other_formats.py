"""Formats that Pillow does not read by itself: HEIF by its extra, and a line for those that are not read."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from genpercept.imaging.pixels import Refused

RAW_SUFFIXES = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw")
_DNG_VERSION = 50706  # a TIFF tag
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

# How files begin that are images, and what to do with them.
_KNOWN = (
    (b"#?R", "Radiance HDR holds light without a white level; tone-map it to an 8-bit or 16-bit PNG first"),
    (b"\x76\x2f\x31\x01", "OpenEXR holds light without a white level; tone-map it to an 8-bit or 16-bit PNG first"),
    (b"8BPS", "a Photoshop document; export it as PNG or TIFF"),
    (b"%PDF", "a PDF; export its page as PNG"),
    (b"\xff\x0a", "JPEG XL is not read; convert it to PNG or JPEG"),
    (b"\0\0\0\x0cJXL ", "JPEG XL is not read; convert it to PNG or JPEG"),
)


def head(path: Path) -> bytes:
    """How a file begins."""
    with path.open("rb") as file:
        return file.read(64)


def is_heif(head: bytes) -> bool:
    """HEIC and its relatives, AVIF not among them."""
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS and b"avif" not in head[:12]


def open_heif(path: Path, name: str) -> Image.Image:
    """The header alone is parsed. ValueError where the extra is missing."""
    try:
        import pillow_heif
    except ImportError:
        raise Refused(
            f"{name}: HEIC is read by an extra: pip install 'genpercept[heic]', or convert it to JPEG"
        ) from None
    return pillow_heif.HeifImageFile(path)


def check_known(head: bytes, path: Path, name: str) -> None:
    """Refused, with what to do, for images of a known format that is not read."""
    if path.suffix.lower() in RAW_SUFFIXES:
        raise _raw(name)
    for begins, what in _KNOWN:
        if head.startswith(begins):
            raise Refused(f"{name}: {what}")


def check_raw(image: Image.Image, path: Path, name: str) -> None:
    """Refused for a camera's raw file, of which Pillow would read the thumbnail: most are a kind of TIFF."""
    if image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        if _DNG_VERSION in tags or path.suffix.lower() in RAW_SUFFIXES:
            raise _raw(name)


def _raw(name: str) -> Refused:
    return Refused(f"{name}: a camera's raw file; develop it to JPEG, PNG or TIFF first")
