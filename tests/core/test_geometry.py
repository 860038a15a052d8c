"""The way to the network's size and back: nothing is lost at the edges, nothing shifts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genpercept.core.values import Geometry, resize

sizes = st.integers(1, 70)


@settings(max_examples=150, deadline=None)
@given(
    sizes,
    sizes,
    st.one_of(st.none(), st.integers(0, 80)),
    st.sampled_from([1, 8, 14]),
    st.sampled_from(["fit", "official"]),
)
def test_geometry_sizes(h: int, w: int, resolution: int | None, stride: int, mode: str) -> None:
    g = Geometry.plan((h, w), resolution, stride, mode)
    image = torch.rand(1, 3, h, w)
    x = g.apply(image)
    assert x.shape == (1, 3, *g.padded) and float(x.min()) >= 0 and float(x.max()) <= 1 + 1e-5
    assert g.invert(x).shape == image.shape
    if mode == "fit":
        assert all(p % stride == 0 and 0 <= p - r < stride for p, r in zip(g.padded, g.resized, strict=True))
    if resolution:
        assert max(g.resized) in (resolution, resolution - 1) if mode == "official" else max(g.resized) == resolution
        if mode == "fit":
            assert abs(g.resized[0] * w - g.resized[1] * h) <= max(h, w) / 2 + 1e-9 or 1 in g.resized
    else:
        assert g.resized == (h, w)


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
