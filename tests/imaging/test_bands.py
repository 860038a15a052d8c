"""What is written is made band by band: the bits of the formulas on whole maps, with a fraction of their memory."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from genpercept.core.values import to_tensor
from genpercept.imaging import painters, png, png16
from genpercept.imaging.encode import encode16
from genpercept.imaging.png import bands, png_bytes
from genpercept.imaging.prediction import Prediction

SHAPES = [(1, 1), (1, 7), (5, 1), (1500, 901), (3, 900_000)]  # the last two are several bands


def noise(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(1).random(shape, np.float32)


@pytest.mark.parametrize("shape", [*SHAPES, (700, 800, 3)])
def test_sixteen_bits(shape: tuple[int, ...]) -> None:
    values = noise(shape) * 2 - 1 if len(shape) == 3 else noise(shape)
    kind, low = ("normals", -1) if len(shape) == 3 else ("depth_affine", 0)
    valid = noise(shape[:2]) > 0.1
    found, _ = encode16(Prediction(values, kind, valid))
    expected = np.rint(np.clip((np.nan_to_num(values) - low) / (1 - low), 0, 1) * 65535).astype(np.uint16)
    expected[~valid] = 0
    assert found.dtype == np.uint16 and (found == expected).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [*SHAPES, (9, 7, 1), (9, 7, 2), (1500, 301, 3), (700, 411, 4)])
def test_png_is_read_by_every_reader(shape: tuple[int, ...], dtype: type[np.generic], tmp_path: Path) -> None:
    """Ours, Pillow and OpenCV see the pixels that were written; Pillow has 8 bits of colours of 16."""
    ramp = np.add.outer(np.arange(shape[0]) * 37, np.arange(shape[1]) * 3)
    ramp = ramp if len(shape) == 2 else ramp[..., None] + np.array((0, 5, 9, 11))[: shape[2]]
    pixels = (ramp ^ (noise(shape) * 4).astype(int)).astype(dtype)
    found = png_bytes(pixels, "words")
    plain = pixels[..., 0] if shape[2:] == (1,) else pixels
    with Image.open(io.BytesIO(found)) as image:
        assert image.size == (shape[1], shape[0]) and image.info["Description"] == "words"
        seen = np.asarray(image)
    if dtype is np.uint16 and plain.ndim == 3:
        (tmp_path / "x.png").write_bytes(found)
        assert (png16.read(tmp_path / "x.png") == plain).all()
        plain = plain >> 8
        seen = seen[..., ::3] if shape[2:] == (2,) else seen  # grey and opacity, of which it makes four
    assert seen.dtype.itemsize <= np.dtype(dtype).itemsize and (seen == plain).all()
    if shape[2:] != (2,):  # which OpenCV makes four of
        other = cv2.imdecode(np.frombuffer(found, np.uint8), cv2.IMREAD_UNCHANGED)
        colours = {3: (2, 1, 0), 4: (2, 1, 0, 3)}.get(other.shape[-1] if other.ndim == 3 else 0)
        other = other[..., colours] if colours else other
        assert other.dtype == dtype and (other == (pixels[..., 0] if shape[2:] == (1,) else pixels)).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_without_isal(dtype: type[np.generic], monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = (noise((60, 50, 3)) * 999).astype(dtype)
    wanted = png_bytes(pixels)
    monkeypatch.setattr(png, "_deflate", zlib)
    found = png_bytes(pixels)
    decoded = [cv2.imdecode(np.frombuffer(each, np.uint8), cv2.IMREAD_UNCHANGED) for each in (wanted, found)]
    assert (decoded[0] == decoded[1]).all() and (decoded[0][..., ::-1] == pixels).all()


def test_bands_cover_all_rows_once() -> None:
    for shape in ((1, 1), (5, 3_000_000), (4000, 3000), (700, 800, 3)):
        rows = [row for part in bands(shape) for row in range(part.start, part.stop)]
        assert rows == list(range(shape[0])) and len(list(bands(shape))) <= shape[0]


@pytest.mark.parametrize("part", [7, 2**18])
def test_colours(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = noise((61, 83)) * 1.2 - 0.1
    whole = painters.spectral(x)
    monkeypatch.setattr(painters, "_PART", part)
    assert whole.shape == (61, 83, 3) and (painters.spectral(x) == whole).all()
    assert all((painters.spectral(x[y : y + 1]) == whole[y]).all() for y in range(61))


def test_tensor_of_an_image() -> None:
    image = np.random.default_rng(2).integers(0, 256, (123, 77, 3), np.uint8)
    plain = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    assert torch.equal(to_tensor(image), plain) and to_tensor(image).is_contiguous()
    unit = noise((9, 8, 3))
    assert torch.equal(to_tensor(unit), torch.from_numpy(unit).permute(2, 0, 1)[None])
