"""Files of all kinds: what decoders raise, what files lack, what they would cost, and formats that are read elsewhere."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, features

from genpercept.imaging import decode
from genpercept.imaging.budget import Budget
from genpercept.imaging.read import read
from tests.support.commands import Call
from tests.support.pixel_types import PIXEL_TYPES, picture, write_pixel_type
from tools.campaigns import reader

RGB = picture((64, 48))[..., :3].copy()


def saved(kind: str, image: Image.Image | None = None, **options: object) -> bytearray:
    buffer = io.BytesIO()
    (image or Image.fromarray(RGB)).save(buffer, kind, **options)
    return bytearray(buffer.getvalue())


def refusal(path: Path, content: bytes | None = None, **options: int) -> str:
    """The one line with which a file is refused."""
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as error:
        read(path, **options)
    assert path.name in str(error.value)
    return str(error.value)


# ---- what decoders raise


def test_avif_that_its_decoder_gives_up(tmp_path: Path) -> None:
    """Its decoder raises a RuntimeError, the traceback of which --debug is to show."""
    content = saved("AVIF")
    start = content.index(b"mdat") + 4
    content[start : start + 36] = b"\xff" * 36
    assert "damaged or truncated AVIF" in refusal(tmp_path / "x.avif", content)
    with pytest.raises(ValueError) as error:
        read(tmp_path / "x.avif")
    assert isinstance(error.value.__cause__, RuntimeError)


@pytest.mark.parametrize(
    "raised", [RuntimeError, AssertionError, KeyError("x"), RecursionError, MemoryError, LookupError()]
)
@pytest.mark.parametrize("where", ["open", "load"])
def test_whatever_a_decoder_raises_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: type[Exception] | Exception, where: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    path = tmp_path / "x.png"
    path.write_bytes(saved("PNG"))
    monkeypatch.setattr(*((Image, "open") if where == "open" else (Image.Image, "load")), fail)
    assert refusal(path)


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit])
def test_interrupts_are_not_errors_of_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: type[BaseException]
) -> None:
    def fail(*_: object) -> None:
        raise raised

    path = tmp_path / "x.png"
    path.write_bytes(saved("PNG"))
    monkeypatch.setattr(Image.Image, "load", fail)
    with pytest.raises(raised):
        read(path)


# ---- what files lack


def png(height: int, image: Image.Image) -> bytes:
    content = saved("PNG", image)
    content[20:24] = struct.pack(">I", height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "LA", "RGBA", "I;16"])
@pytest.mark.parametrize("height", [49, 96, 100_000])
def test_png_without_all_of_its_rows(tmp_path: Path, mode: str, height: int) -> None:
    image = (
        Image.fromarray(RGB[..., 0].astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(RGB).convert(mode)
    )
    says = refusal(tmp_path / "x.png", png(height, image))
    assert f"claims 64 x {height} pixels, but holds" in says
    (tmp_path / "x.png").write_bytes(png(48, image))
    assert read(tmp_path / "x.png").shape == (48, 64, 3)


def test_interlaced_png(tmp_path: Path) -> None:
    """Made by hand, since Pillow writes none: all seven passes, and without the last one."""

    def content(passes: int) -> bytes:
        grid = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
        rows = [row for x, y, dx, dy in grid[:passes] for row in RGB[y::dy, x::dx]]
        data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
        header = struct.pack(">IIBBBBB", 64, 48, 8, 2, 0, 0, 1)
        chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
            for name, body in chunks
        )

    (tmp_path / "x.png").write_bytes(content(7))
    assert (read(tmp_path / "x.png") == RGB).all()
    assert "but holds" in refusal(tmp_path / "x.png", content(6))


def test_black_rows_are_not_missing_rows(tmp_path: Path) -> None:
    for name, options in (("x.png", {}), ("x.jpg", {}), ("g.jpg", {"quality": 95})):
        image = RGB.copy()
        image[-20:] = 128 if name.startswith("g") else 0
        Image.fromarray(image).save(tmp_path / name, **options)
        assert np.abs(read(tmp_path / name)[-8:].astype(int) - image[-8:]).max() <= 3


@pytest.mark.parametrize(
    ("mode", "progressive"), [("RGB", False), ("L", False), ("CMYK", False), ("RGB", True), ("L", True)]
)
def test_jpeg_that_ends_early_though_with_its_end_marker(tmp_path: Path, mode: str, progressive: bool) -> None:
    whole = saved("JPEG", Image.fromarray(RGB).convert(mode), progressive=progressive)
    at = next(i for m in (b"\xff\xc0", b"\xff\xc2") if (i := whole.find(m)) > 0) + 5
    assert whole[at : at + 2] == struct.pack(">H", 48)
    (tmp_path / "x.jpg").write_bytes(whole)
    assert read(tmp_path / "x.jpg").shape == (48, 64, 3)
    for height in (60, 96, 60_000):
        whole[at : at + 2] = struct.pack(">H", height)
        assert f"claims 64 x {height} pixels" in refusal(tmp_path / "x.jpg", whole)


def test_jpeg_cut_and_closed(tmp_path: Path) -> None:
    whole = saved("JPEG", quality=95)
    assert "ends before the last of them" in refusal(tmp_path / "x.jpg", whole[: len(whole) // 2] + b"\xff\xd9")
    (tmp_path / "x.jpg").write_bytes(whole + b"more, such as a film")
    assert read(tmp_path / "x.jpg").shape == (48, 64, 3)


def test_tiff_without_all_of_its_strips(tmp_path: Path) -> None:
    content = saved("TIFF")
    start = struct.unpack("<I", content[4:8])[0]
    for i in range(struct.unpack("<H", content[start : start + 2])[0]):
        at = start + 2 + 12 * i
        if struct.unpack("<H", content[at : at + 2])[0] == 257:  # ImageLength
            content[at + 8 : at + 12] = struct.pack("<I", 96)
    assert "does not say where all of them are" in refusal(tmp_path / "x.tif", content)


def test_jpeg2000_without_all_of_its_tiles(tmp_path: Path) -> None:
    content = saved("JPEG2000")
    at, box = content.index(b"\xff\x51"), content.index(b"ihdr")
    content[at + 10 : at + 14] = content[box + 4 : box + 8] = struct.pack(">I", 96)
    assert "holds 1 of its 2 tiles" in refusal(tmp_path / "x.jp2", content)
    Image.fromarray(RGB).save(tmp_path / "tiles.jp2", tile_size=(16, 16))
    assert (read(tmp_path / "tiles.jp2") == RGB).all()


@pytest.mark.parametrize("kind", [kind for kind in PIXEL_TYPES if "progressive" not in kind])
def test_files_that_are_cut(tmp_path: Path, kind: str) -> None:
    path = write_pixel_type(tmp_path, kind, (40, 30))
    content = path.read_bytes()
    for share in (0.3, 0.6):
        if "animated" not in kind and "pages" not in kind:  # of which the first one may be whole
            refusal(path, content[: int(len(content) * share)])


# ---- what they would cost


def test_costly_decoders_have_a_lower_limit(tmp_path: Path) -> None:
    for kind, suffix, cost in (("WEBP", ".webp", 16), ("JPEG2000", ".jp2", 20), ("PNG", ".png", 8)):
        path = tmp_path / f"x{suffix}"
        path.write_bytes(saved(kind))
        least = -(-64 * 48 * cost // 8)
        assert read(path, max_pixels=least).shape == (48, 64, 3)
        assert "over the limit of" in refusal(path, max_pixels=least - 1)


def test_progressive_jpegs_cost_by_their_colours(tmp_path: Path) -> None:
    for subsampling, cost in ((2, 8), (0, 11)):
        (tmp_path / "x.jpg").write_bytes(saved("JPEG", progressive=True, subsampling=subsampling))
        with Image.open(tmp_path / "x.jpg") as image:
            assert decode.cost(image) == cost


def test_a_header_that_cannot_be_counted_with_is_damaged(tmp_path: Path) -> None:
    data = bytearray(saved("JPEG", progressive=True))
    components = data.index(b"\xff\xc2") + 10
    data[components + 1 : components + 8 : 3] = bytes(3)  # sampling 0 x 0
    (tmp_path / "x.jpg").write_bytes(data)
    assert "damaged" in refusal(tmp_path / "x.jpg")


def test_limit_holds_for_what_pillow_does_not_read(tmp_path: Path) -> None:
    for kind in ("HEIC", "TIFF, RGB floats", "TIFF, RGB floats, deflate"):
        path = write_pixel_type(tmp_path, kind, (40, 30))
        assert "40 x 30 pixels, over the limit of" in refusal(path, max_pixels=1199)
        assert read(path, max_pixels=5000).shape == (30, 40, 3)


def test_readers_share_a_budget() -> None:
    budget, most, lock = Budget(100), 0, threading.Lock()

    def hold(count: int) -> None:
        nonlocal most
        with budget.take(count):
            with lock:
                most = max(most, budget.taken)
            time.sleep(0.002)

    threads = [threading.Thread(target=hold, args=(count,)) for count in (60, 50, 30, 20, 90, 10) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert 60 < most <= 100 and budget.taken == 0
    with budget.take(1000):  # one is always let through
        assert budget.taken == 1000
    with pytest.raises(KeyError), budget.take(7):
        raise KeyError
    assert budget.taken == 0


def test_files_take_from_the_budget_while_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(decode, "to_rgb", lambda image, *_: taken.append(decode.READING.taken) or np.zeros((1, 1, 3)))
    for name, cost in (("x.png", 8), ("x.webp", 16)):
        Image.fromarray(RGB).save(tmp_path / name)
        read(tmp_path / name)
        assert taken.pop() == 64 * 48 * cost and decode.READING.taken == 0


def test_max_pixels_of_a_command(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(decode.VARIABLE, raising=False)
    Image.fromarray(RGB).save(tmp_path / "x.png")
    code, _, said = call("predict", str(tmp_path / "x.png"), "--out", str(tmp_path / "o"), "--max-pixels", "3071")
    assert code == 2 and "over the limit of 3,071" in said and "--max-pixels" in said
    assert decode.pixel_limit() == decode.MAX_PIXELS


# ---- formats of other readers


def test_heic_without_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_pixel_type(tmp_path, "HEIC", (40, 30))
    assert np.abs(read(path).astype(int) - picture((40, 30))[..., :3]).mean() < 12
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert "pip install 'genpercept[heic]'" in refusal(path)


def test_turned_heic(tmp_path: Path) -> None:
    """A HEIC is turned by a property of its own, which counts; an EXIF orientation beside it repeats that."""
    import pillow_heif

    pillow_heif.register_heif_opener()
    image, exif = picture((128, 64))[..., :3].copy(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image).save(tmp_path / "x.heic", exif=exif, quality=95)
    assert np.abs(read(tmp_path / "x.heic").astype(int) - image).mean() < 12
    content = bytearray((tmp_path / "x.heic").read_bytes())
    at = content.index(b"pixi")  # a property that decoders do not need gives its place away
    content[at : at + 5] = b"irot\3"
    (tmp_path / "x.heic").write_bytes(content)
    found = read(tmp_path / "x.heic")
    assert found.shape == (128, 64, 3) and np.abs(found.astype(int) - image[::-1].swapaxes(0, 1)).mean() < 12


FLOATS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]] = {
    "fractions of white": (lambda x: x, lambda x: np.rint(x * np.float32(255))),
    "8-bit values": (lambda x: x * 255, lambda x: np.rint(x * np.float32(255))),
    "stretched": (lambda x: x * 4000 - 1000, lambda x: np.rint((x - x.min()) * (255 / (x.max() - x.min())))),
}


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"planarconfig": "separate"}])
@pytest.mark.parametrize("rule", FLOATS)
def test_float_colours(tmp_path: Path, rule: str, options: dict[str, object]) -> None:
    unit = np.random.default_rng(0).random((30, 41, 3), np.float32)
    make, expected = FLOATS[rule]
    stored = make(unit).transpose(2, 0, 1) if "planarconfig" in options else make(unit)
    tifffile.imwrite(tmp_path / "x.tif", stored, photometric="rgb", byteorder=">", **options)
    assert np.abs(read(tmp_path / "x.tif").astype(int) - expected(unit)).max() <= 1


def test_many_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seven = np.concatenate([RGB, RGB[..., :1], RGB], -1)
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, seven, photometric="rgb", extrasamples=[0] * 4)
    assert (read(path) == RGB).all()
    tifffile.imwrite(path, seven.astype(np.float32), photometric="minisblack", planarconfig="contig")
    assert "which channels are red, green and blue" in refusal(path)
    tifffile.imwrite(path, np.full((4, 5, 3), np.nan, np.float32), photometric="rgb")
    assert "NaN" in refusal(path)
    tifffile.imwrite(path, RGB.astype(np.int64), photometric="rgb")
    assert "int64 x 3, RGB" in refusal(path)
    monkeypatch.setitem(sys.modules, "tifffile", None)
    assert "pip install 'genpercept[tiff]'" in refusal(path)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x.hdr", b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 2 +X 2\n" + bytes(16), "tone-map it"),
        ("x.exr", b"\x76\x2f\x31\x01" + bytes(40), "tone-map it"),
        ("x.dng", b"x\n", "a camera's raw file"),
        ("x.psd", b"8BPS" + bytes(60), "Photoshop"),
        ("x.jxl", b"\xff\x0a" + bytes(60), "JPEG XL"),
        ("x.heic", b"x\n", "not an image"),
    ],
)
def test_other_formats_are_named(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    assert says in refusal(tmp_path / name, content)


def test_raw_files_are_not_their_thumbnails(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "x.nef", "TIFF")
    assert "a camera's raw file" in refusal(tmp_path / "x.nef")
    tifffile.imwrite(tmp_path / "x.tif", RGB, photometric="rgb", extratags=[(50706, 1, 4, b"\1\4\0\0", True)])
    assert "a camera's raw file" in refusal(tmp_path / "x.tif")


# ---- the campaign in short


def test_campaign(tmp_path: Path) -> None:
    tally = reader.run(mutants=570, seed=7, workers=1, minutes=2, found=tmp_path / "found")
    assert tally.done == 570 and tally.bad == []
    assert sum(counts["refused"] for counts in tally.outcomes.values()) > 200
    assert sum(counts["image"] for counts in tally.outcomes.values()) > 50
    assert 0 < tally.peak < 2**28


def test_common_files_load_no_other_formats(tmp_path: Path) -> None:
    """In a fresh process: JPEG and PNG are read without Pillow's other plugins, and those are there when they are needed."""
    for kind in decode.PILLOW_FORMATS:
        if kind != "AVIF" or features.check("avif"):
            (tmp_path / f"{kind}.img").write_bytes(saved(kind))
    code = f"""
import sys
from pathlib import Path
from genpercept.imaging.read import read
folder = Path({str(tmp_path)!r})
for kind in ("PNG", "JPEG", "BMP", "PPM", "GIF"):
    assert read(folder / f"{{kind}}.img").shape == {RGB.shape}, kind
assert not {{"PIL.TgaImagePlugin", "PIL.WebPImagePlugin", "PIL.Hdf5StubImagePlugin"}} & set(sys.modules)
for path in sorted(folder.iterdir()):
    assert read(path).shape == {RGB.shape}, path
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
