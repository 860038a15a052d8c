"""An image file of every format and pixel type that is read, and what reading one takes at its peak."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile

Writer = Callable[[Path, np.ndarray], None]


def picture(size: tuple[int, int]) -> np.ndarray:
    """(H, W, 4) uint8 of a size (width, height): ramps with some noise, nowhere black."""
    w, h = size
    x, y = (np.arange(n, dtype=np.uint32) for n in (w, h))
    ramps = [
        x[None] * 3 // 7 + y[:, None] // 5,
        x[None] // 2 + y[:, None] // 3,
        y[:, None] + 0 * x[None],
        x[None] + y[:, None] // 9,
    ]
    noise = np.random.default_rng(0).integers(0, 16, (h, 1, 1), np.uint8)
    return (np.stack([ramp % 199 for ramp in ramps], -1).astype(np.uint8) + 16) + noise


def _saved(suffix: str, mode: str = "RGB", **options: Any) -> tuple[str, Writer]:
    """By Pillow, in one of its modes."""

    def write(path: Path, rgba: np.ndarray) -> None:
        image = Image.fromarray(rgba, "RGBA") if mode in ("RGBA", "LA") else Image.fromarray(rgba[..., :3].copy())
        if mode == "LAB":
            image = Image.merge("LAB", image.split())
        else:
            image = image.quantize(63) if mode == "P" else image.convert(mode)
        if suffix in (".heic", ".heif"):
            import pillow_heif

            pillow_heif.register_heif_opener()
        image.save(path, **options)

    return suffix, write


def _array(suffix: str, make: Callable[[np.ndarray], np.ndarray], **options: Any) -> tuple[str, Writer]:
    """By Pillow, of an array of one channel."""
    return suffix, lambda path, rgba: Image.fromarray(make(rgba)).save(path, **options)


def _tiff(make: Callable[[np.ndarray], np.ndarray], **options: Any) -> tuple[str, Writer]:
    """By tifffile: pixel types that Pillow does not write."""

    def write(path: Path, rgba: np.ndarray) -> None:
        import tifffile

        tifffile.imwrite(path, make(rgba), **options)

    return ".tif", write


def _frames(suffix: str, mode: str = "RGB", **options: Any) -> tuple[str, Writer]:
    """Three frames or pages."""

    def write(path: Path, rgba: np.ndarray) -> None:
        first = Image.fromarray(rgba, "RGBA").convert(mode)
        more = [Image.fromarray(np.roll(rgba, n, 0), "RGBA").convert(mode) for n in (3, 7)]
        first.save(path, save_all=True, append_images=more, **options)

    return suffix, write


def _png16(path: Path, rgba: np.ndarray) -> None:
    from genpercept.imaging.png import png_bytes

    path.write_bytes(png_bytes(rgba[..., :3].astype(np.uint16) * 257))


def _netpbm(path: Path, rgba: np.ndarray) -> None:
    """Numbers as text."""
    h, w = rgba.shape[:2]
    path.write_text(f"P3\n{w} {h} 255\n" + " ".join(map(str, rgba[..., :3].ravel())) + "\n", encoding="ascii")


def _rle(path: Path, rgba: np.ndarray) -> None:
    """A BMP in runs, which Pillow reads and does not write."""
    h, w = rgba.shape[:2]
    palette = b"".join(bytes((i, i, i, 0)) for i in range(256))
    body = bytearray()
    for row in rgba[::-1, :, 0]:
        for start in range(0, w, 255):
            body += bytes((min(255, w - start), row[start]))
        body += b"\0\0"
    body += b"\0\1"
    fields = [40, w, h, 1 | 8 << 16, 1, len(body), 0, 0, 256, 0]
    info = b"".join(int(f).to_bytes(4, "little") for f in fields)
    start = 14 + len(info) + len(palette)
    head = b"BM" + (start + len(body)).to_bytes(4, "little") + bytes(4) + start.to_bytes(4, "little")
    path.write_bytes(head + info + palette + body)


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _wide(rgba: np.ndarray) -> np.ndarray:
    return rgba[..., 0].astype(np.uint16) * 257


def _float(rgba: np.ndarray) -> np.ndarray:
    return rgba[..., 0].astype(np.float32) / np.float32(255)


def _float_rgb(rgba: np.ndarray) -> np.ndarray:
    return rgba[..., :3].astype(np.float32) / np.float32(255)


# What it is -> (suffix, writer)
PIXEL_TYPES: dict[str, tuple[str, Writer]] = {
    "PNG, RGB": _saved(".png", compress_level=1),
    "PNG, RGBA": _saved(".png", "RGBA", compress_level=1),
    "PNG, grey": _saved(".png", "L", compress_level=1),
    "PNG, grey and alpha": _saved(".png", "LA", compress_level=1),
    "PNG, palette": _saved(".png", "P", compress_level=1),
    "PNG, palette with a transparent colour": _saved(".png", "P", compress_level=1, transparency=5),
    "PNG, palette with alpha": _saved(".png", "P", compress_level=1, transparency=bytes(range(0, 240, 4))),
    "PNG, RGB with a transparent colour": _saved(".png", compress_level=1, transparency=(20, 21, 22)),
    "PNG, 1 bit": _saved(".png", "1", compress_level=1),
    "PNG, 1 bit with a transparent one": _saved(".png", "1", compress_level=1, transparency=1),
    "PNG, grey of 16 bits": _array(".png", _wide, compress_level=1),
    "PNG, RGB of 16 bits": (".png", _png16),
    "PNG, turned by EXIF": _saved(".png", compress_level=1, exif=_exif(6)),
    "JPEG, RGB": _saved(".jpg", quality=90),
    "JPEG, grey": _saved(".jpg", "L"),
    "JPEG, CMYK": _saved(".jpg", "CMYK"),
    "JPEG, turned by EXIF": _saved(".jpg", exif=_exif(6)),
    "JPEG, progressive": _saved(".jpg", progressive=True),
    "JPEG, progressive, colours in full": _saved(".jpg", progressive=True, subsampling=0),
    "TIFF, RGB": _saved(".tif"),
    "TIFF, RGBA, LZW": _saved(".tif", "RGBA", compression="tiff_lzw"),
    "TIFF, 1 bit, group 4": _saved(".tif", "1", compression="group4"),
    "TIFF, CMYK": _saved(".tif", "CMYK"),
    "TIFF, YCbCr": _saved(".tif", "YCbCr"),
    "TIFF, LAB": _saved(".tif", "LAB"),
    "TIFF, JPEG inside": _saved(".tif", compression="jpeg"),
    "TIFF, three pages": _frames(".tif", compression="tiff_deflate"),
    "TIFF, grey of 16 bits": _array(".tif", _wide),
    "TIFF, grey of 32 bits": _array(".tif", lambda rgba: rgba[..., 0].astype(np.int32) * 257),
    "TIFF, grey floats": _array(".tif", _float),
    "TIFF, RGB of 16 bits, deflate": _tiff(
        lambda rgba: rgba[..., :3].astype(np.uint16) * 257, photometric="rgb", compression="zlib"
    ),
    "TIFF, RGB floats": _tiff(_float_rgb, photometric="rgb"),
    "TIFF, RGB floats, deflate": _tiff(_float_rgb, photometric="rgb", compression="zlib"),
    "TIFF, RGB floats, tiles, planes": _tiff(
        lambda rgba: _float_rgb(rgba).transpose(2, 0, 1).copy(),
        photometric="rgb",
        planarconfig="separate",
        tile=(256, 256),
        compression="zlib",
    ),
    "TIFF, RGB and 4 channels more": _tiff(
        lambda rgba: np.concatenate([rgba, rgba[..., :3]], -1), photometric="rgb", extrasamples=[0] * 4
    ),
    "GIF": _saved(".gif", "P"),
    "GIF, animated": _frames(".gif", "P"),
    "BMP, RGB": _saved(".bmp"),
    "BMP, palette": _saved(".bmp", "P"),
    "BMP, runs": (".bmp", _rle),
    "PPM": _saved(".ppm"),
    "PGM of 16 bits": _array(".pgm", _wide),
    "PBM": _saved(".pbm", "1"),
    "PPM, text": (".ppm", _netpbm),
    "TGA": _saved(".tga", "RGBA"),
    "TGA, runs": _saved(".tga", compression="tga_rle"),
    "WebP": _saved(".webp", method=0),
    "WebP, lossless": _saved(".webp", lossless=True, method=0, quality=0),
    "WebP, with alpha": _saved(".webp", "RGBA", method=0),
    "WebP, animated": _frames(".webp", method=0),
    "JPEG 2000": _saved(".jp2"),
    "JPEG 2000, tiles": _saved(".jp2", tile_size=(256, 256)),
    "AVIF": _saved(".avif", speed=10),
    "AVIF, with alpha": _saved(".avif", "RGBA", speed=10),
    "AVIF, animated": _frames(".avif", speed=10),
    "HEIC": _saved(".heic"),
    "HEIC, with alpha": _saved(".heic", "RGBA"),
}


def write_pixel_type(folder: Path, kind: str, size: tuple[int, int]) -> Path:
    """A file of the kind, of size (width, height)."""
    suffix, write = PIXEL_TYPES[kind]
    path = folder / f"{kind.replace(', ', '_').replace(' ', '_')}_{size[0]}{suffix}"
    kept = ImageFile.MAXBLOCK
    write(path, picture(size))
    ImageFile.MAXBLOCK = kept
    return path


_MEASURE = """
import json, sys, time, warnings
from pathlib import Path
from genpercept.imaging.read import read

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024

warnings.simplefilter("ignore")
small, path = sys.argv[1:]
try:
    read(small)  # so that codecs and what they need once are there
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    before, start = peak(), time.perf_counter()
    read(path)
    print(json.dumps(peak() - before))
except ValueError as error:
    sys.exit(str(error))
"""


def peak_of_reading(small: Path, path: Path, source: Path | None = None) -> int | None:
    """Bytes by which a fresh process grows at most while it reads `path`, after `small` of its kind; None: it is refused.

    source: the folder of another checkout's packages. Linux alone counts like this.
    """
    command = [sys.executable, "-c", _MEASURE, str(small), str(path)]
    env = dict(os.environ) if source is None else {**os.environ, "PYTHONPATH": str(source)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    return int(done.stdout) if done.returncode == 0 else None
