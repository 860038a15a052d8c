"""Reading any image; what cannot be read is one line that says why."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from genpercept.core.values import to_tensor
from genpercept.imaging.read import SUFFIXES, read, read_many
from tests.support.bad_images import bad_files


def gradient(h: int = 7, w: int = 11) -> np.ndarray:
    """(h, w, 3) uint8 without symmetry, so that every turn and every swap of channels shows."""
    y, x = np.mgrid[:h, :w]
    return np.stack([y * 20 % 256, x * 15 % 256, (3 * x + 7 * y) % 256], -1).astype(np.uint8)


# ---- reading: formats and modes


@pytest.mark.parametrize("suffix", [s for s in SUFFIXES if s not in (".pgm", ".pbm")])
def test_every_suffix_is_read(tmp_path: Path, suffix: str) -> None:
    smooth = np.repeat(np.linspace(0, 255, 32, dtype=np.uint8)[None, :, None], 3, 2).repeat(24, 0)
    path = tmp_path / f"x{suffix}"
    if suffix in (".heic", ".heif"):
        pillow_heif.register_heif_opener()
    Image.fromarray(smooth).save(path)
    found = read(path)
    assert found.shape == (24, 32, 3) and found.dtype == np.uint8
    assert np.abs(found.astype(int) - smooth).max() <= 12


@pytest.mark.parametrize(
    "mode", ["RGB", "L", "1", "P", "CMYK", "YCbCr", "LAB", "HSV", "RGBX", "RGBA", "LA", "PA", "La", "RGBa"]
)
def test_every_mode_gives_rgb(mode: str) -> None:
    rgb = Image.fromarray(np.full((5, 9, 3), (200, 30, 60), np.uint8))
    through = {"La": "LA", "RGBa": "RGBA"}.get(mode, mode)
    if mode == "LAB":
        image = Image.new("LAB", (9, 5), (128, 128, 128))
    elif mode in ("P", "PA"):
        image = rgb.quantize(4).convert(mode)
    else:
        image = rgb.convert(through)
        image = image if through == mode else image.convert(mode)
    found = read(image)
    assert found.shape == (5, 9, 3) and found.dtype == np.uint8
    if mode not in ("L", "LA", "La", "1", "LAB"):
        assert np.abs(found.astype(int) - (200, 30, 60)).max() <= 4
    else:
        assert (found[..., 0] == found[..., 1]).all() or mode == "LAB"


def test_lab_is_converted_not_relabelled() -> None:
    found = read(Image.new("LAB", (4, 4), (255, 128, 128))).astype(int)
    assert (found > 245).all()


def test_alpha_is_composited_over_white() -> None:
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = (0, 255, 128)
    for source in (Image.fromarray(rgba), rgba):
        assert read(source)[0, :, 0].tolist() == [255, 0, 127]
    half = rgba.astype(np.float32) / 255
    assert read(half)[0, 2, 0] == pytest.approx(127 / 255, abs=1e-6)
    la = np.zeros((2, 2, 2), np.uint8)
    assert (read(Image.fromarray(la, "LA")) == 255).all() and (read(la) == 255).all()


def test_palette_transparency_and_grey_transparency(tmp_path: Path) -> None:
    palette_image = Image.new("P", (2, 1))
    palette_image.putpalette([10, 20, 30, 40, 50, 60])
    palette_image.putpixel((1, 0), 1)
    palette_image.save(tmp_path / "p.png", transparency=1)
    assert read(tmp_path / "p.png")[0].tolist() == [[10, 20, 30], [255, 255, 255]]
    Image.fromarray(np.array([[0, 9]], np.uint8)).save(tmp_path / "l.png", transparency=9)
    assert read(tmp_path / "l.png")[0, :, 0].tolist() == [0, 255]


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "x.png")
    Image.fromarray(values).save(tmp_path / "x.tif")
    for source in (tmp_path / "x.png", tmp_path / "x.tif", values, Image.fromarray(values.astype(np.int32))):
        assert read(source)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_thirty_two_bits() -> None:
    assert read(Image.fromarray(np.array([[-100, 0, 155]], np.int32)))[0, :, 0].tolist() == [0, 100, 255]
    assert read(Image.fromarray(np.array([[0, 0.5, 1]], np.float32)))[0, :, 0].tolist() == [0, 128, 255]
    assert read(Image.fromarray(np.array([[0, 127, 255]], np.float32)))[0, :, 0].tolist() == [0, 127, 255]
    assert read(Image.fromarray(np.array([[-4, 0, 6]], np.float32)))[0, :, 0].tolist() == [0, 102, 255]
    assert read(Image.fromarray(np.full((2, 2), 1e6, np.float32))).max() == 0
    with pytest.raises(ValueError, match="NaN"):
        read(Image.fromarray(np.array([[np.nan, 1]], np.float32)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    image = Image.fromarray(gradient())
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "x.png", exif=exif)
    with Image.open(tmp_path / "x.png") as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
        assert (read(opened) == expected).all()
    found = read(tmp_path / "x.png")
    assert (found == expected).all() and found.flags.c_contiguous and found.flags.writeable


def test_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 3), c) for c in ("red", "blue")]
    for name in ("x.gif", "x.tif", "x.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        assert (read(tmp_path / name) == (255, 0, 0)).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (17, 31)])
def test_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.fromarray(gradient(*size)).save(tmp_path / "x.png")
    assert (read(tmp_path / "x.png") == gradient(*size)).all()


def test_8k(tmp_path: Path) -> None:
    Image.new("L", (7680, 4320), 9).save(tmp_path / "x.png")
    found = read(tmp_path / "x.png")
    assert found.shape == (4320, 7680, 3) and found[-1, -1].tolist() == [9, 9, 9]


# ---- reading: what is refused


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("text.jpg", "not an image"),
        ("cut.jpg", "truncated JPEG"),
        ("huge.png", "400000 x 250000 pixels, over the limit of 178,956,970"),
        ("empty.png", "0 bytes"),
        ("zero.png", "zero.png"),
        ("header.png", "header.png"),
        ("script.eps", "not an image"),
    ],
)
def test_bad_files_are_one_line_errors(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as error:
        read(bad_files(tmp_path)[name])
    assert name in str(error.value) and says in str(error.value)


def test_missing_folder_and_special_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    cases = {
        tmp_path / "none.jpg": "no such file",
        tmp_path: "a folder",
        tmp_path / "pipe.jpg": "not a regular file",
        tmp_path / ("x" * 300): "check the path",
        Path("bad\0name.jpg"): "check the path",
        Path("two\nlines.jpg"): "no such file",
    }
    for path, says in cases.items():
        with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as error:
            read(path)
        assert says in str(error.value), path


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.png").write_bytes(b"x")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ValueError, match="no permission"):
        read(tmp_path / "x.png")


def test_pixel_limit_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (20, 10)).save(tmp_path / "x.png")
    with pytest.raises(ValueError, match="limit of 199"):
        read(tmp_path / "x.png", max_pixels=199)
    monkeypatch.setenv("GENPERCEPT_MAX_PIXELS", "100")
    with pytest.raises(ValueError, match="limit of 100"):
        read(tmp_path / "x.png")
    assert read(tmp_path / "x.png", max_pixels=200).shape == (10, 20, 3)
    monkeypatch.setenv("GENPERCEPT_MAX_PIXELS", "many")
    with pytest.raises(ValueError, match="positive integer"):
        read(tmp_path / "x.png")
    pillows = Image.MAX_IMAGE_PIXELS
    assert pillows is not None  # the reader sets Pillow's own limit aside only while it opens


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_files_are_value_errors(data: st.DataObject) -> None:
    """Whatever bytes are changed: an image or a ValueError, nothing else."""
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"]))
    buffer = io.BytesIO()
    Image.fromarray(gradient(16, 16)).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = Path(
        f"/dev/shm/genpercept-test-{os.getpid()}.bin" if Path("/dev/shm").is_dir() else f"damaged-{os.getpid()}.bin"
    )
    path.write_bytes(bytes(content[: data.draw(st.integers(1, len(content)))]))
    try:
        assert read(path, max_pixels=10**6).dtype == np.uint8
    except ValueError as error:
        assert "\n" not in str(error)
    finally:
        path.unlink()


# ---- reading: arrays and tensors


def test_arrays_and_tensors_agree() -> None:
    rgb = gradient()
    unit = rgb.astype(np.float32) / 255
    chw = torch.from_numpy(rgb).permute(2, 0, 1)
    assert (read(rgb) == rgb).all() and read(rgb) is not rgb
    assert (read(chw) == rgb).all()
    for source in (unit, unit.astype(np.float64), chw / 255, (chw / 255)[None], (chw / 255).double()):
        found = read(source)
        assert found.dtype == np.float32 and np.abs(found - unit).max() < 1e-6
    assert read((chw / 255).bfloat16()).shape == rgb.shape
    assert (read(rgb[..., 0]) == rgb[..., :1]).all() and (read(chw[:1]) == rgb[..., :1]).all()
    assert read(rgb[..., 0] > 20).max() == 255


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (np.zeros((3, 9, 8), np.uint8), "transpose"),
        (torch.zeros(9, 8, 3), "permute"),
        (torch.zeros(2, 3, 8, 8), "a batch"),
        (np.zeros((0, 4, 3), np.uint8), "empty image"),
        (np.zeros((4, 4, 3), np.int64), "int64"),
        (np.full((4, 4, 3), np.nan), "NaN"),
        (np.full((4, 4, 3), 200.0), "divide by the white level"),
        (torch.linspace(-1, 1, 48).view(3, 4, 4), r"\(x \+ 1\) / 2"),
        (np.zeros(5, np.uint8), "must be"),
        (42, "type int"),
    ],
)
def test_wrong_arrays_are_refused(source: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read(source)  # type: ignore[arg-type]


def test_lists_and_batches() -> None:
    one, many = torch.rand(3, 4, 5), torch.rand(2, 3, 4, 5)
    assert read_many(one)[1] is True
    photographs, single = read_many(many)
    assert len(photographs) == 2 and single is False and np.allclose(photographs[1][0], many[1].permute(1, 2, 0))
    assert photographs[1][1] is None  # no camera is known of an array
    assert read_many([gradient(), one])[1] is False
    with pytest.raises(ValueError, match="empty list"):
        read_many([])


def test_to_tensor() -> None:
    x = to_tensor(gradient())
    assert x.shape == (1, 3, 7, 11) and x.dtype == torch.float32 and x.is_contiguous()
    assert torch.equal((x[0] * 255).round().byte(), torch.from_numpy(gradient()).permute(2, 0, 1))
    assert torch.equal(to_tensor(gradient().astype(np.float32) / 255), x)
