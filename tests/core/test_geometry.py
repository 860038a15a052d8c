"""The way to the network's size and back: nothing is lost at the edges, nothing shifts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from genpercept.core.values import Geometry, PublicSize, resize

sizes = st.integers(1, 70)


@settings(max_examples=150, deadline=None)
@given(
    sizes,
    sizes,
    st.one_of(st.none(), st.integers(0, 80)),
    st.sampled_from([1, 8, 14]),
    st.sampled_from(["fit", "area", "official"]),
)
def test_geometry_sizes(h: int, w: int, resolution: int | None, stride: int, mode: str) -> None:
    g = Geometry.plan((h, w), resolution, stride, mode)
    image = torch.rand(1, 3, h, w)
    x = g.apply(image)
    assert x.shape == (1, 3, *g.padded) and float(x.min()) >= 0 and float(x.max()) <= 1 + 1e-5
    assert g.invert(x).shape == image.shape
    if mode != "official":
        assert all(p % stride == 0 and 0 <= p - r < stride for p, r in zip(g.padded, g.resized, strict=True))
    if resolution and mode == "area":
        scale = resolution * (3 / (4 * h * w)) ** 0.5
        assert g.resized == (max(1, round(h * scale)), max(1, round(w * scale)))
    elif resolution:
        assert max(g.resized) in (resolution, resolution - 1) if mode == "official" else max(g.resized) == resolution
        if mode == "fit":
            assert abs(g.resized[0] * w - g.resized[1] * h) <= max(h, w) / 2 + 1e-9 or 1 in g.resized
    else:
        assert g.resized == (h, w)


@pytest.mark.parametrize(
    ("size", "resized"),
    [
        ((480, 640), (72, 96)),  # 4:3 as "fit"
        ((640, 480), (96, 72)),
        ((375, 1242), (46, 151)),  # a frame of KITTI: as many pixels, where "fit" leaves it 29 x 96
        ((512, 512), (83, 83)),
        ((1, 4000), (1, 5258)),
    ],
)
def test_area_gives_every_shape_the_same_number_of_pixels(size: tuple[int, int], resized: tuple[int, int]) -> None:
    assert Geometry.plan(size, 96, 8, "area").resized == resized


MULTIPLE = PublicSize(multiple=64, pillow="bilinear")


@pytest.mark.parametrize(
    ("size", "resolution", "wanted"),
    [
        ((100, 150), 0, (128, 128)),
        ((100, 150), 64, (64, 64)),
        ((64, 128), None, (64, 128)),
        ((96, 160), None, (128, 128)),  # halves go to the even multiple
        ((33, 700), None, (64, 704)),
        ((1, 700), None, (64, 704)),  # at least one
        ((480, 640), 768, (576, 768)),
        ((471, 640), 768, (576, 768)),  # 565.2
    ],
)
def test_public_sizes_are_rounded_to_a_multiple(
    size: tuple[int, int], resolution: int | None, wanted: tuple[int, int]
) -> None:
    g = Geometry.plan(size, resolution, 8, "official", MULTIPLE)
    assert (g.resized, g.padded) == (wanted, wanted)
    assert Geometry.plan(size, resolution, 8, "fit", MULTIPLE) == Geometry.plan(size, resolution, 8)


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_public_code_resizes_by_pillow(name: str) -> None:
    """Its sums are of integers: not what torch gives. Bytes, floats and arrays alike."""
    pixels = np.random.default_rng(0).integers(0, 256, (50, 75, 3), np.uint8)
    g = Geometry.plan((50, 75), 0, 8, "official", PublicSize(64, name))
    wanted = np.asarray(Image.fromarray(pixels).resize((64, 64), Image.Resampling[name.upper()]), np.float32) / 255
    for image in (pixels, pixels.astype(np.float32) / 255):
        np.testing.assert_array_equal(g.apply_pixels(image)[0].transpose(1, 2, 0), wanted)
        np.testing.assert_array_equal(g.apply_array(image)[0].permute(1, 2, 0).numpy(), wanted)
    by_torch = resize(torch.from_numpy(pixels / 255.0).permute(2, 0, 1)[None], (64, 64))[0].permute(1, 2, 0).numpy()
    assert np.abs(by_torch - wanted).max() > 1e-3


@pytest.mark.parametrize("options", [{"multiple": 0}, {"multiple": 64.0}, {"pillow": "lanczos9"}])
def test_a_public_size_is_checked(options: dict) -> None:
    with pytest.raises(ValueError, match=r"must be an integer|choose"):
        PublicSize(**options)


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, st.sampled_from([None, 0]))
def test_native_size_is_the_identity(h: int, w: int, resolution: int | None) -> None:
    g = Geometry.plan((h, w), resolution, 8)
    image = torch.rand(2, 3, h, w)
    x = g.apply(image)
    assert torch.equal(g.invert(x), image)
    assert torch.equal(x[..., h:, :w], image[..., -1:, :].expand(-1, -1, g.padded[0] - h, -1))  # replicated
    assert torch.equal(x[..., :, w:], x[..., w - 1 : w].expand(-1, -1, -1, g.padded[1] - w))


@settings(max_examples=60, deadline=None)
@given(st.integers(4, 60), st.integers(4, 60), st.integers(8, 120))
def test_resizing_shifts_nothing(h: int, w: int, resolution: int) -> None:
    """A linear ramp is still that ramp after the way there and back, away from the edges."""
    g = Geometry.plan((h, w), resolution, 8)
    y = (torch.arange(h) + 0.5)[:, None].expand(h, w) / h
    x = (torch.arange(w) + 0.5).expand(h, w) / w
    ramp = torch.stack([y, x])[None].float()
    back = g.invert(g.apply(ramp))
    # Antialiasing widens the kernel by the factor of shrinking; that far from the edge, replication bends the ramp.
    margins = [int(2.5 * max(1.0, o / r, r / o)) + 2 for o, r in zip(g.original, g.resized, strict=True)]
    for axis, (size, margin) in enumerate(zip(g.original, margins, strict=True)):
        if size > 2 * margin:
            inner = slice(margin, size - margin)
            error = (back - ramp)[0, axis].abs()
            error = error[inner] if axis == 0 else error[:, inner]
            assert float(error.max()) * size < 0.1  # pixels; a mixed up half-pixel convention gives 0.5


@pytest.mark.parametrize(("size", "to"), [((22, 4), (8, 1)), ((5, 1), (20, 1)), ((4, 22), (8, 1))])
def test_one_pixel_wide(size: tuple[int, int], to: tuple[int, int]) -> None:
    """As the same image on its side."""
    x = torch.rand(1, 3, *size)
    torch.testing.assert_close(resize(x, to), resize(x.mT, (to[1], to[0])).mT)


@pytest.mark.parametrize(
    ("size", "resolution", "mode", "says"),
    [((0, 4), 8, "fit", "at least 1"), ((4, 4), -1, "fit", "positive"), ((4, 4), 8, "crop", "fit")],
)
def test_geometry_refuses(size: tuple[int, int], resolution: int, mode: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Geometry.plan(size, resolution, 8, mode)


def test_resize_keeps_the_tensor_when_nothing_changes() -> None:
    x = torch.rand(1, 3, 5, 6)
    assert resize(x, (5, 6)) is x
