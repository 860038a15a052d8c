"""Block by block or all at once: the same bits, for every mode of Pillow; and the memory that it takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genpercept.imaging import pixels
from genpercept.imaging.decode import BYTES_PER_PIXEL
from genpercept.imaging.pixels import blocks, to_rgb
from genpercept.imaging.read import read
from tests.support.pixel_types import PIXEL_TYPES, peak_of_reading, write_pixel_type

# ---- the formulas as they are meant, on whole images


def plain_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16"):
        return grey(sixteen(np.asarray(image.convert("I"))))
    if image.mode == "I":
        values = np.asarray(image)
        return grey(sixteen(values) if values.min() >= 0 and values.max() <= 65535 else stretched(values))
    if image.mode == "F":
        values = np.asarray(image)
        low, high = float(values.min()), float(values.max())
        if low < 0 or high > 255:
            return grey(stretched(values))
        return grey(np.rint(values * (255.0 if high <= 1 else 1.0)).astype(np.uint8))
    if image.has_transparency_data:
        if image.mode in ("1", "La"):
            image = image.convert("L" if image.mode == "1" else "LA")
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))
    return np.asarray(image.convert("RGB"))


def sixteen(values: np.ndarray) -> np.ndarray:
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def stretched(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    return np.rint((values.astype(np.float64) - low) * (255.0 / max(high - low, 1e-30))).astype(np.uint8)


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


def plain_upright(image: np.ndarray, orientation: int) -> np.ndarray:
    turned = image.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else image
    rows = slice(None, None, -1) if orientation in (3, 4, 7, 8) else slice(None)
    columns = slice(None, None, -1) if orientation in (2, 3, 6, 7) else slice(None)
    return turned[rows, columns]


# ---- images of every mode


def noise(size: tuple[int, int], channels: int) -> np.ndarray:
    return np.random.default_rng(channels).integers(0, 256, (size[1], size[0], channels), np.uint8)


def of_mode(mode: str, size: tuple[int, int]) -> Image.Image:
    """Noise, transparent in places where the mode, or what follows its +, has room for it."""
    name, _, transparent = mode.partition("+")
    rgba = Image.fromarray(noise(size, 4), "RGBA")
    values = noise(size, 1)[..., 0]
    if name in ("F", "F255", "Fwide"):
        floats = values.astype(np.float32) / np.float32(255)
        return Image.fromarray({"F": floats, "F255": floats * 255, "Fwide": floats * 1e6 - 7}[name])
    if name in ("I", "Iwide"):
        return Image.fromarray(values.astype(np.int32) * (257 if name == "I" else -8_000_000))
    if name.startswith("I;16"):
        order = ">u2" if name == "I;16B" else "<u2"
        wide = (values.astype(np.uint16) * 256 + 77).astype(order)
        return Image.frombuffer(name, size, wide.tobytes(), "raw", name, 0, 1)
    if name == "La":
        image = rgba.convert("LA").convert("La")
    elif name == "RGBa":
        image = rgba.convert("RGBa")
    elif name in ("P", "PA"):
        image = rgba.convert("RGB").quantize(17).convert(name)
    elif name == "LAB":
        image = Image.merge("LAB", rgba.split()[:3])
    elif name == "1":
        image = Image.fromarray(values > 99)
    else:
        image = rgba.convert(name)
    if name == "PA":
        image.putalpha(rgba.getchannel("A"))
    if transparent:
        image.info["transparency"] = {"1": 255, "L": 3, "RGB": (9, 9, 9), "P": 2, "Pbytes": bytes([0, 128, 255, 9])}[
            name + ("bytes" if transparent == "bytes" else "")
        ]
    return image


MODES = [
    *("RGB", "L", "1", "P", "CMYK", "YCbCr", "LAB", "HSV", "RGBX", "RGBA", "LA", "PA", "La", "RGBa"),
    *("1+t", "L+t", "RGB+t", "P+t", "P+bytes", "I", "Iwide", "I;16", "I;16B", "F", "F255", "Fwide"),
]


@pytest.mark.parametrize("mode", MODES)
def test_blocks_give_the_bits_of_the_whole(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for block, size in ((7, (33, 5)), (64, (13, 29)), (2**17, (300, 500))):
        monkeypatch.setattr(pixels, "_BLOCK", block)
        image = of_mode(mode, size)
        expected = plain_rgb(image.copy())
        assert expected.std() > 0
        for orientation in (1, 5) if block == 2**17 else range(9):
            found = to_rgb(image, mode, orientation)
            assert found.dtype == np.uint8 and found.flags.c_contiguous and found.flags.writeable
            assert (found == plain_upright(expected, orientation)).all(), (size, orientation)


def test_blocks_cover_all_once_and_are_small() -> None:
    for size in ((1, 1), (300_000, 1), (300_000, 3), (1, 300_000), (400, 1000)):
        seen = np.zeros(size[::-1], int)
        for left, top, right, bottom in blocks(size):
            seen[top:bottom, left:right] += 1
            assert 0 < (right - left) * (bottom - top) <= 2**17
        assert (seen == 1).all()


# ---- memory


@pytest.mark.parametrize(
    "kind",
    [
        *("PNG, RGBA", "PNG, palette with alpha", "PNG, 1 bit with a transparent one", "PNG, grey of 16 bits"),
        *("TIFF, grey floats", "TIFF, RGB floats", "JPEG, turned by EXIF"),
    ],
)
def test_peak_of_reading_is_at_most_eight_bytes_a_pixel(tmp_path: Path, kind: str) -> None:
    w, h = 2500, 2000
    peak = peak_of_reading(write_pixel_type(tmp_path, kind, (40, 30)), write_pixel_type(tmp_path, kind, (w, h)))
    assert peak is not None and 3 * w * h < peak < BYTES_PER_PIXEL * w * h + 8e6


@pytest.mark.parametrize("kind", PIXEL_TYPES)
def test_every_pixel_type_is_read(tmp_path: Path, kind: str) -> None:
    found = read(write_pixel_type(tmp_path, kind, (40, 30)))
    assert found.shape == ((40, 30, 3) if "turned" in kind else (30, 40, 3)) and found.std() > 3
