"""Strip by strip is the same as at once: torch's own weights, and sums that differ in their last bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from genpercept.core import resampling
from genpercept.core.values import Geometry, planes, to_tensor

NEAR = 5e-7  # of a range of 1
SIZES = [((300, 401), (72, 96)), ((72, 96), (300, 401)), ((50, 60), (49, 70)), ((33, 20), (1, 1)), ((1, 1), (40, 30))]
SIZES += [((90, 7), (30, 7)), ((90, 7), (90, 3)), ((64, 9), (20, 1)), ((5, 900), (5, 80))]


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3))


def at_once(x_1CHW: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    if size[1] == 1:  # which torch 2.13 gets wrong
        return F.interpolate(x_1CHW.mT, (1, size[0]), mode="bilinear", antialias=True).mT
    return F.interpolate(x_1CHW, size, mode="bilinear", antialias=True)


@pytest.mark.parametrize(
    ("source", "target"), [(3000, 72), (72, 1000), (480, 72), (100, 99), (99, 100), (2, 1), (7, 3), (641, 640), (2, 9)]
)
def test_weights_are_torchs_to_the_bit(source: int, target: int) -> None:
    first, weights = resampling.taps(source, target)
    found = np.zeros((target, source + weights.shape[1]), np.float32)
    np.put_along_axis(found, first[:, None] + np.arange(weights.shape[1]), weights, 1)
    rows = F.interpolate(torch.eye(source)[None, None], (target, source), mode="bilinear", antialias=True)[0, 0]
    assert np.array_equal(found[:, :source], rows.numpy()) and not found[:, source:].any()


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_strips_are_the_rows_of_the_whole(source: tuple[int, int], target: tuple[int, int]) -> None:
    x = noise(3, *source)
    found = torch.full((3, *target), torch.nan)
    for rows, strip in resampling.strips(x, target):
        found[:, rows] = strip
    torch.testing.assert_close(found, at_once(x[None], target)[0], rtol=0, atol=NEAR)


@pytest.mark.parametrize("mode", ["fit", "official"])
@pytest.mark.parametrize(("height", "width"), [(301, 402), (60, 41), (97, 1), (1, 97), (20, 30)])
def test_an_image_of_8_bits_as_the_network_sees_it(height: int, width: int, mode: str) -> None:
    """Larger than the network's size and smaller; "official" rounds to 8 bits, so that it has to be the same bits."""
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    geometry = Geometry.plan((height, width), 40, 8, mode)
    found, wanted = geometry.apply_array(pixels), geometry.apply(to_tensor(pixels))
    assert found.shape == (1, 3, *geometry.padded) and found.is_contiguous()
    torch.testing.assert_close(found, wanted, rtol=0, atol=0 if mode == "official" else NEAR)
    floats = pixels.astype(np.float32) / 255
    torch.testing.assert_close(geometry.apply_array(floats), wanted, rtol=0, atol=0 if mode == "official" else NEAR)


@pytest.mark.parametrize(("source", "target"), [*SIZES, ((30, 40), (30, 9)), ((30, 40), (7, 40)), ((2, 3), (2, 900))])
def test_an_array_is_resized_as_a_tensor_is(source: tuple[int, int], target: tuple[int, int]) -> None:
    x = torch.stack([noise(3, *source), noise(3, *source).flip(0)])
    found = resampling.resize(x.numpy(), target)
    assert found.shape == (2, 3, *target) and found.dtype == np.float32
    np.testing.assert_allclose(found, at_once(x, target).numpy(), rtol=0, atol=NEAR)
    same = x.numpy()
    assert resampling.resize(same, source) is same


@pytest.mark.parametrize("mode", ["fit", "official"])
@pytest.mark.parametrize(("height", "width"), [(301, 402), (60, 41), (97, 1), (1, 97), (20, 30)])
def test_an_array_as_the_network_sees_it(height: int, width: int, mode: str) -> None:
    """Of bytes and of floats, padded by its edge; "official" has the same bits, because it rounds."""
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    geometry = Geometry.plan((height, width), 40, 8, mode)
    wanted = geometry.apply(to_tensor(pixels)).numpy()
    for given in (pixels, pixels.astype(np.float32) / 255):
        found = geometry.apply_pixels(given)
        assert found.shape == wanted.shape and found.dtype == np.float32 and found.flags.c_contiguous
        np.testing.assert_allclose(found, wanted, rtol=0, atol=0 if mode == "official" else NEAR)
        np.testing.assert_allclose(
            geometry.apply(planes(given)), wanted, rtol=0, atol=0 if mode == "official" else NEAR
        )


def test_answers_come_back_as_at_once() -> None:
    geometry = Geometry.plan((301, 402), 40, 8)
    answer = noise(2, 3, *geometry.padded)
    h, w = geometry.resized
    torch.testing.assert_close(geometry.invert(answer), at_once(answer[..., :h, :w], (301, 402)), rtol=0, atol=NEAR)
    np.testing.assert_allclose(
        geometry.invert(answer.numpy()), at_once(answer[..., :h, :w], (301, 402)).numpy(), rtol=0, atol=NEAR
    )
    traced = answer.requires_grad_()
    assert geometry.invert(traced).requires_grad


def test_a_prediction_is_that_of_the_plain_way_to_one_step_of_16_bits() -> None:
    """File to file: pixels to floats, torch's interpolation there and back, the formula of 16 bits on the whole map."""
    from skimage import data

    import genpercept
    from genpercept.imaging.encode import encode16
    from genpercept.pipeline.call import Run

    pixels = np.ascontiguousarray(data.coffee())
    for task in ("depth", "normals"):
        pipe = genpercept.load(f"mini/{task}", device="cpu")
        geometry = pipe.geometry(pixels.shape[:2])
        with torch.inference_mode():
            raw = pipe._forward(geometry.apply(to_tensor(pixels)), Run(pipe.paradigm(), 1, [0]), None)
        h, w = geometry.resized
        plain = at_once(raw.clamp(-1, 1)[..., :h, :w], pixels.shape[:2])[0]
        if task == "depth":
            wanted = (at_once(raw.mean(1, keepdim=True).clamp(-1, 1)[..., :h, :w], pixels.shape[:2])[0, 0] + 1) / 2
        else:
            wanted = (F.normalize(plain, dim=0).permute(1, 2, 0) + 1) / 2
        steps = np.rint(wanted.numpy() * 65535).astype(int) - encode16(pipe(pixels))[0]
        assert np.abs(steps).max() <= 1
