"""What is written is made band by band: the bits of the formulas on whole maps, with a fraction of their memory."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch

from genpercept.core.values import to_tensor
from genpercept.imaging import painters
from genpercept.imaging.encode import bands, encode16, png16_bytes
from genpercept.imaging.prediction import Prediction

SHAPES = [(1, 1), (1, 7), (5, 1), (1500, 901), (3, 1_200_000)]  # the last two are several bands


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


@pytest.mark.parametrize("shape", [*SHAPES, (1500, 301, 3)])
def test_png_of_sixteen_bits(shape: tuple[int, ...]) -> None:
    """The same file as of one piece: what resumed runs and checksums rely on."""
    ramp = np.add.outer(np.arange(shape[0]) * 37, np.arange(shape[1]) * 3)
    pixels = (ramp if len(shape) == 2 else ramp[..., None] + (0, 5, 9)).astype(np.uint16) ^ (noise(shape) * 4).astype(
        np.uint16
    )
    rows = np.ascontiguousarray(pixels, dtype=">u2").reshape(shape[0], -1).view(np.uint8)
    filtered = np.full((shape[0], rows.shape[1] + 1), 2, np.uint8)
    filtered[0, 1:] = rows[0]
    filtered[1:, 1:] = rows[1:] - rows[:-1]
    body = zlib.compress(filtered.tobytes(), 4)
    found = png16_bytes(pixels, "words")
    start = found.index(b"IDAT")
    assert found[start - 4 : start] == struct.pack(">I", len(body))
    assert found[start + 4 : start + 4 + len(body)] == body
    assert found[start + 4 + len(body) :][:4] == struct.pack(">I", zlib.crc32(b"IDAT" + body))


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
