"""Tasks: labels as the release normalises them, raw maps of every space decoded, mirrored maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from genpercept import plugins
from genpercept.tasks.disparity import normalise
from genpercept.types import Geometry, Sample

GOLDEN = Path(__file__).parent / "golden"
AFFINE = ("depth", "disparity")
CHANNELS = {"image": 3, "affine": 1}


def sample(size: tuple[int, int] = (12, 16)) -> Sample:
    g = torch.Generator().manual_seed(0)
    depth = torch.rand(size, generator=g) * 9 + 1
    depth[0, 0], depth[0, 1], depth[0, 2] = 0, torch.nan, torch.inf
    return Sample("s", torch.rand(3, *size, generator=g), depth=depth)


def test_disparity_labels_are_the_official_ones() -> None:
    with np.load(GOLDEN / "dpt.npz") as file:
        raw, want = torch.from_numpy(file["depth_raw"][0]), file["disparity_norm"][0]
    np.testing.assert_allclose(normalise(raw, raw > 0), want, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", AFFINE)
def test_affine_labels(name: str) -> None:
    """Three equal channels in [-1, 1]; what is not a depth is invalid and -1."""
    s = sample()
    target = plugins.find("tasks", name).encode(s)
    assert target.map.shape == (1, 3, 12, 16) and target.map.dtype == torch.float32 and target.space == "image"
    assert torch.equal(target.map[:, 0], target.map[:, 2]) and target.map.abs().max() <= 1
    assert (~target.valid).sum() == 3 and (target.map[0, :, 0, :3] == -1).all()
    assert s.depth is not None
    order = s.depth[target.valid[0, 0]].argsort()
    steps = target.map[0, 0][target.valid[0, 0]][order].diff()
    assert (steps >= 0).all() if name == "depth" else (steps <= 0).all()  # disparity: 1 is near


@pytest.mark.parametrize("name", AFFINE)
@pytest.mark.parametrize("depth", [torch.zeros(4, 4), torch.full((4, 4), 3.0), torch.full((4, 4), 1e-30)])
def test_labels_without_range(name: str, depth: torch.Tensor) -> None:
    target = plugins.find("tasks", name).encode(Sample("s", torch.zeros(3, 4, 4), depth=depth))
    assert torch.equal(target.map, torch.where(target.valid, 0.0, -1.0).expand(1, 3, 4, 4))


@pytest.mark.parametrize("name", plugins.names("tasks"))
def test_decode_takes_the_spaces_it_names(name: str) -> None:
    task = plugins.find("tasks", name)
    assert "image" in task.spaces
    for space in task.spaces:
        raw = torch.randn(1, CHANNELS[space], 16, 24, generator=torch.Generator().manual_seed(0))
        pred = task.decode(raw, Geometry((26, 40), (13, 20), (16, 24)))
        assert pred.kind == task.kind and pred.values.shape[:2] == (26, 40)
        assert pred.raw is not None and np.array_equal(pred.raw, raw[0].numpy())


@pytest.mark.parametrize("name", AFFINE)
def test_affine_maps_are_stretched_over_their_own_image(name: str) -> None:
    """The minimum and maximum of padding do not count; scale and shift do not matter; a flat map is all zeros."""
    task, geometry = plugins.find("tasks", name), Geometry((13, 20), (13, 20), (16, 24))
    raw = torch.randn(1, 1, 16, 24, generator=torch.Generator().manual_seed(0))
    raw[..., 13:, :], raw[..., 20:] = 99.0, -99.0
    values = task.decode(raw, geometry).values
    inner = raw[0, 0, :13, :20].numpy()
    np.testing.assert_allclose(values, (inner - inner.min()) / (inner.max() - inner.min()), atol=1e-6)
    np.testing.assert_allclose(task.decode(raw * 1e4 - 7, geometry).values, values, atol=1e-5)
    assert not task.decode(torch.full((1, 1, 16, 24), 5.0), geometry).values.any()


@pytest.mark.parametrize("name", AFFINE)
def test_painted_maps_keep_their_range(name: str) -> None:
    raw = torch.tensor([-3.0, -1.0, 0.0, 0.5]).expand(1, 3, 1, 4)
    values = plugins.find("tasks", name).decode(raw, Geometry((1, 4), (1, 4), (1, 4))).values
    np.testing.assert_allclose(values, [[0, 0, 0.5, 0.75]])


@pytest.mark.parametrize("name", plugins.names("tasks"))
def test_flip_of_a_label_is_the_label_of_the_mirrored_scene(name: str) -> None:
    """Twice is as before; of depth, once is the label of the mirrored depth."""
    task, s = plugins.find("tasks", name), sample()
    s.normals = torch.nn.functional.normalize(torch.randn(3, 12, 16, generator=torch.Generator().manual_seed(1)), dim=0)
    label = task.encode(s)
    assert torch.equal(task.flip(task.flip(label.map)), label.map)
    mirrored = Sample("m", s.image.flip(-1))
    if task.labels == ("depth",) and s.depth is not None:
        mirrored.depth = s.depth.flip(-1)
    elif task.labels == ("normals",):
        mirrored.normals = s.normals.flip(-1) * torch.tensor([-1.0, 1.0, 1.0]).view(3, 1, 1)
    else:
        pytest.skip("its label is mirrored in a test of its own")
    torch.testing.assert_close(task.flip(label.map), task.encode(mirrored).map)
