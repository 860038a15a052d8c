"""Whole files under names of their own, and pictures to look at."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genpercept.commands.files.inputs import gather, name_results
from genpercept.imaging.colour import INVALID, colourise
from genpercept.imaging.painters import palette, spectral
from genpercept.imaging.png import png_bytes
from genpercept.imaging.prediction import Prediction


def decode_png(path: Path) -> np.ndarray:
    """An independent decoder of non-interlaced PNGs with filter 1; Pillow shows only 8 bits of 16-bit RGB."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, []
    while at < len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0] == zlib.crc32(name + body)
        chunks.append((name, body))
        at += 12 + size
    assert [chunks[0][0], chunks[-1][0]] == [b"IHDR", b"IEND"]
    w, h, bits, colour, _, _, interlace = struct.unpack(">IIBBBBB", chunks[0][1])
    channels = {0: 1, 2: 3}[colour]
    assert (bits, interlace) == (16, 0)
    raw = np.frombuffer(zlib.decompress(b"".join(b for n, b in chunks if n == b"IDAT")), np.uint8).reshape(h, -1)
    rows = np.zeros((h, w * channels * 2), np.uint8)
    for i, line in enumerate(raw):
        assert line[0] == 1
        rows[i] = np.cumsum(line[1:].reshape(w, -1), axis=0, dtype=np.uint8).ravel()
    return rows.view(">u2").astype(np.uint16).reshape((h, w, 3) if channels == 3 else (h, w))


# ---- inputs and names


def test_gather(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "none").mkdir()
    for name in ("b.jpg", "a.PNG", "notes.txt", ".hidden.jpg", "sub/c.jpg", "we[i]rd.jpg"):
        (tmp_path / name).touch()

    def names(*inputs: str | Path) -> list[str]:
        return [file.name for file in gather(inputs).files]

    assert names(tmp_path) == ["a.PNG", "b.jpg", "we[i]rd.jpg"] and not gather([tmp_path]).problems
    assert names(f"{tmp_path}/**/*.jpg") == ["b.jpg", "c.jpg", "we[i]rd.jpg"]
    assert names(f"{tmp_path}/*") == ["a.PNG", "b.jpg", "we[i]rd.jpg"]
    assert names(tmp_path / "we[i]rd.jpg") == ["we[i]rd.jpg"]
    assert len(names(tmp_path / "b.jpg", tmp_path / "b.jpg", tmp_path)) == 3
    problems = gather([tmp_path / "none", f"{tmp_path}/*.gif", "~nobody-there/x.jpg", "x" * 5000]).problems
    assert len(problems) >= 3 and "without images" in problems[0] and "matches no file" in problems[1]


def test_results_have_different_names() -> None:
    def names(*paths: str) -> list[str]:
        return name_results([Path(p) for p in paths])

    assert names("a/x.jpg", "a/y.v2.jpg") == ["x", "y.v2"]
    assert names("a/x.jpg", "b/x.jpg", "b/y.jpg") == ["a/x", "b/x", "b/y"]
    assert names("a/x.jpg", "a/x.png") == ["x_jpg", "x_png"]
    assert len({n.casefold() for n in names("a/x.jpg", "a/X.jpg")}) == 2
    assert names("1/a/x.jpg", "2/a/x.jpg") == ["1/a/x", "2/a/x"]
    assert names("a/x.jpg", "a/x.png", "b/x.jpg") == ["a/x_jpg", "a/x_png", "b/x"]
    assert names("a/x.jpg", "b/x.jpg", "c/a_x.jpg") == ["a/x", "b/x", "c/a_x"]
    with pytest.raises(ValueError, match="would both become"):
        names("a/x.jpg", "a/x.png", "a/x_jpg.png")


# ---- writing


def test_png16(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (13, 7), (5, 9, 3)):
        pixels = rng.integers(0, 65536, shape).astype(np.uint16)
        (tmp_path / "x.png").write_bytes(png_bytes(pixels, "depth: value = pixel / 65535"))
        assert (decode_png(tmp_path / "x.png") == pixels).all()
        with Image.open(tmp_path / "x.png") as image:
            assert image.text["Description"].startswith("depth")  # type: ignore[attr-defined]
            seen = np.asarray(image)
        assert (seen == (pixels if len(shape) == 2 else pixels >> 8)).all()


# ---- colours


def test_near_is_red_and_far_is_blue() -> None:
    x = np.linspace(0, 1, 11, dtype=np.float32)[None]
    depth = np.asarray(colourise(x, "depth_affine")).astype(int)
    assert depth[0, 0].tolist() == [0x9E, 0x01, 0x42] and depth[0, -1].tolist() == [0x5E, 0x4F, 0xA2]
    disparity = np.asarray(colourise(1 - x, "disparity_affine")).astype(int)
    assert np.abs(depth - disparity).max() <= 2
    assert spectral(np.array([-1.0, 2.0])).tolist() == spectral(np.array([0.0, 1.0])).tolist()


def test_normals_and_invalid_pixels() -> None:
    n = np.zeros((2, 2, 3), np.float32)
    n[..., 2] = 1
    n[1, 1] = np.nan
    rgb = np.asarray(colourise(n, "normals", np.array([[True, False], [True, True]])))
    assert rgb[0, 0].tolist() == [128, 128, 255]
    assert tuple(rgb[0, 1]) == INVALID == tuple(rgb[1, 1])


@pytest.mark.parametrize("kind", ["mask", "alpha", "anomaly", "class_ids", "depth_affine"])
def test_all_invalid_maps_are_grey(kind: str) -> None:
    values = np.zeros((3, 4), np.int32 if kind == "class_ids" else np.float32)
    assert (np.asarray(colourise(values, kind, np.zeros((3, 4), bool))) == INVALID).all()


def test_classes_differ_and_keep_their_colour() -> None:
    colours = palette(np.arange(150))
    assert len(np.unique(colours, axis=0)) == 150
    assert (palette(np.array([[3, -1]]))[0, 0] == colours[3]).all()


def test_anomaly_is_stretched_only_outside_the_unit_interval() -> None:
    inside = np.asarray(colourise(np.array([[0.0, 0.5]], np.float32), "anomaly"))
    outside = np.asarray(colourise(np.array([[3.0, 7.0]], np.float32), "anomaly"))
    assert inside[0, 1].tolist() == [0xBC, 0x37, 0x54] and outside[0, 1].tolist() == [0xFC, 0xFF, 0xA4]


def test_keypoints_are_drawn_where_they_are() -> None:
    people = np.zeros((1, 17, 3), np.float32)
    people[0, 0] = (30, 10, 1)
    image = np.full((40, 60, 3), 7, np.uint8)
    drawn = np.asarray(colourise(people, "keypoints", image=image))
    assert drawn.shape == image.shape and drawn[10, 30].tolist() == [255] * 3 and drawn[39, 0].tolist() == [7] * 3
    assert colourise(np.zeros((0, 17, 3)), "keypoints").size[0] > 0
    assert (image == 7).all()


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="has no colours"):
        colourise(np.zeros((2, 2)), "colour")


def test_an_overlay_is_the_image_where_nothing_is_strange(tmp_path: Path) -> None:
    """Heat covers the image by the score; what is above the threshold is outlined, and only that."""
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    scores = np.zeros((20, 30), np.float32)
    scores[5:12, 8:18] = 0.8
    prediction = Prediction(scores, "anomaly", meta={"pixel_threshold": 0.5})
    path, _ = prediction.save(tmp_path / "a", ["overlay"], image=image)
    over = np.asarray(Image.open(path))
    assert path.name == "a_overlay.png" and np.array_equal(over[scores == 0], image[scores == 0])
    rim = np.zeros((20, 30), bool)
    rim[5:12, 8:18] = True
    rim[6:11, 9:17] = False
    assert np.array_equal((over == (60, 255, 255)).all(-1), rim)
    heat = np.asarray(prediction.colourise())[8, 12].astype(float)
    np.testing.assert_allclose(over[8, 12], 0.4 * image[8, 12] + 0.6 * heat, atol=1)
    plain = Prediction(scores, "anomaly").save(tmp_path / "b", ["overlay"], image=image)[0]
    assert not (np.asarray(Image.open(plain)) == (60, 255, 255)).all(-1).any()
    with pytest.raises(ValueError, match="format overlay needs the image"):
        prediction.save(tmp_path / "c", ["overlay"])
    with pytest.raises(ValueError, match="format overlay cannot hold mask"):
        Prediction(scores, "mask").save(tmp_path / "d", ["overlay"], image=image)
