"""Tasks: labels as the release normalises them, raw maps of every space decoded, mirrored maps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genpercept.core.values import Geometry, Sample
from genpercept.imaging.prediction import Prediction
from genpercept.metrics import METRICS
from genpercept.tasks import TASKS, ArrayTask, JudgingTask, MergingTask, PostProcessedTask, _keypoints, depth
from genpercept.tasks._task import on_host, packed, unpacked
from genpercept.tasks.disparity import normalise
from tests.support.paths import GOLDEN

AFFINE = ("depth", "disparity")
TRAINED = [name for name in TASKS.names() if TASKS.find(name).labels]


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
    """Three equal channels in [-1, 1]; what is not a depth is invalid, and far where it is the sky."""
    s = sample()
    target = TASKS.find(name).encode(s)
    assert target.map.shape == (1, 3, 12, 16) and target.map.dtype == torch.float32 and target.space == "image"
    assert torch.equal(target.map[:, 0], target.map[:, 2]) and target.map.abs().max() <= 1
    assert (~target.valid).sum() == 3 and (target.map[0, :, 0, :2] == -1).all()
    assert (target.map[0, :, 0, 2] == (1 if name == "depth" else -1)).all()
    assert s.depth is not None
    order = s.depth[target.valid[0, 0]].argsort()
    steps = target.map[0, 0][target.valid[0, 0]][order].diff()
    assert (steps >= 0).all() if name == "depth" else (steps <= 0).all()  # disparity: 1 is near


def painted_by_the_public_code(depth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """What Marigold's and GenPercept's training paints, written down anew: one scale for all that is stored, clipped."""
    stored = np.where(np.isinf(depth), 655.35, np.nan_to_num(depth))  # the sky of Virtual KITTI, and holes
    low, high = np.quantile(stored[valid], [0.02, 0.98])
    return np.clip((stored - low) / (high - low) * 2 - 1, -1, 1)


def test_invalid_depth_is_painted_as_the_public_code_does() -> None:
    """Holes are near, the sky and what lies beyond the range far; by option all of it near, or far."""
    s = sample((24, 32))
    assert s.depth is not None
    s.depth[5:9, 3:12], s.depth[0:3, 10:] = 80.0, torch.inf  # beyond the range; the sky
    s.depth[12, 4], s.depth[13, 4] = torch.nan, 0.0
    s.valid = torch.isfinite(s.depth) & (s.depth < 50) & (s.depth > 0)
    target = TASKS.find("depth").encode(s)
    want = painted_by_the_public_code(s.depth.numpy(), s.valid.numpy())
    for channel in target.map[0]:
        np.testing.assert_allclose(channel.numpy(), want, atol=1e-5)
    hole, sky, beyond = (target.map[0, 0, y, x].item() for y, x in ((13, 4), (1, 20), (6, 6)))
    assert (hole, sky, beyond, target.map[0, 0, 12, 4].item()) == (-1, 1, 1, -1)
    off = ~target.valid[0, 0]
    assert off.sum() == (~s.valid).sum() > 60
    for name, near, far, published in (("depth", -1, 1, None), ("disparity", 1, -1, -1)):
        for how, value in (("near", near), ("far", far), ("published", published)):
            other = TASKS.find(name).with_options(invalid=how).encode(s)
            assert value is None or (other.map[0, :, off] == value).all(), (name, how)
            assert torch.equal(other.map[0, 0][~off], TASKS.find(name).encode(s).map[0, 0][~off])
    with pytest.raises(ValueError, match="invalid='sky': choose published, near, far"):
        TASKS.find("depth").with_options(invalid="sky")


@pytest.mark.parametrize(("how", "value"), [("near", -1.0), ("far", 1.0), ("published", 1.0)])
def test_an_image_of_sky_alone_is_painted_too(how: str, value: float) -> None:
    depth = torch.full((4, 4), torch.inf)
    target = TASKS.find("depth").with_options(invalid=how).encode(Sample("s", torch.zeros(3, 4, 4), depth=depth))
    assert not target.valid.any() and (target.map == value).all()
    flat = torch.full((4, 4), 3.0)
    flat[0] = torch.inf
    target = TASKS.find("depth").with_options(invalid=how).encode(Sample("s", torch.zeros(3, 4, 4), depth=flat))
    assert (target.map[0, :, 0] == value).all() and not target.map[0, :, 1:].any()


@pytest.mark.parametrize("name", AFFINE)
@pytest.mark.parametrize("depth", [torch.zeros(4, 4), torch.full((4, 4), 3.0), torch.full((4, 4), 1e-30)])
def test_labels_without_range(name: str, depth: torch.Tensor) -> None:
    target = TASKS.find(name).encode(Sample("s", torch.zeros(3, 4, 4), depth=depth))
    assert torch.equal(target.map, torch.where(target.valid, 0.0, -1.0).expand(1, 3, 4, 4))


@pytest.mark.parametrize("name", TASKS.names())
def test_decode_takes_the_spaces_it_names(name: str) -> None:
    task = TASKS.find(name)
    for space in task.spaces:
        raw = torch.randn(1, task.outputs(space), 16, 24, generator=torch.Generator().manual_seed(0))
        pred = task.decode(raw, Geometry((26, 40), (13, 20), (16, 24)))
        shape = (1, 17) if task.kind == "keypoints" else (26, 40)
        assert pred.kind == task.kind and pred.values.shape[:2] == shape
        assert pred.raw is not None and np.array_equal(pred.raw, raw[0].numpy())


def test_an_answer_leaves_a_gpu_in_one_piece_and_keeps_its_bits() -> None:
    """Values of floats or ids and a raw map, end to end: also where they do not lie so, and what is no number."""
    raw = torch.rand(1, 4, 5, 3).permute(0, 3, 1, 2)
    raw[0, 0, 0, :2] = torch.tensor([torch.nan, -torch.inf])
    for values in (torch.rand(7, 9, 3).permute(2, 0, 1), torch.tensor([[1, -1], [2**31 - 1, 2]], dtype=torch.int32)):
        bits = packed([values, raw[0]])
        assert bits.shape == (values.numel() + raw.numel(),)
        for got, want in zip(unpacked(bits, [values, raw[0]]), on_host(values, raw), strict=True):
            np.testing.assert_array_equal(got.numpy(), want)
            assert got.numpy().dtype == want.dtype and got.untyped_storage().data_ptr() == bits.data_ptr()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in TASKS.names()),
        ("depth", {"clip": "channels", "stretch": True}),
        ("depth", {"log": True}),
        ("normals", {"clip": False}),
        ("dis", {"minmax": False, "threshold": 0.5}),
        ("matting", {"postprocess": False}),
    ],
)
@pytest.mark.parametrize("original", [(26, 41), (7, 9), (13, 20), (40, 1)])
def test_an_array_is_decoded_as_a_tensor_is(name: str, options: dict[str, Any], original: tuple[int, int]) -> None:
    """To a few 1e-7 of the range, larger and smaller than the network's size; what thresholds do, but where both are near."""
    task = TASKS.find(name).with_options(**options)
    assert isinstance(task, ArrayTask) and task.takes_arrays
    for space in task.spaces:
        raw = torch.randn(1, task.outputs(space), 16, 24, generator=torch.Generator().manual_seed(0))
        raw[..., :3, :4] = 0  # of normals: without a direction
        geometry = Geometry(original, (13, 20), (16, 24))
        wanted, found = task.decode(raw, geometry), task.decode(raw.numpy(), geometry)
        assert found.values.dtype == wanted.values.dtype and found.meta == wanted.meta
        apart = np.abs(found.values.astype(np.float64) - wanted.values)
        assert (apart > 2e-6).mean() < 0.002 and np.array_equal(found.raw, wanted.raw)
        mirrored = task.flip(raw.numpy())
        assert isinstance(mirrored, np.ndarray) and np.array_equal(mirrored, task.flip(raw).numpy())


@pytest.mark.parametrize("name", AFFINE)
def test_affine_maps_are_stretched_over_their_own_image(name: str) -> None:
    """The minimum and maximum of padding do not count; scale and shift do not matter; a flat map is all zeros."""
    task, geometry = TASKS.find(name), Geometry((13, 20), (13, 20), (16, 24))
    raw = torch.randn(1, 1, 16, 24, generator=torch.Generator().manual_seed(0))
    raw[..., 13:, :], raw[..., 20:] = 99.0, -99.0
    values = task.decode(raw, geometry).values
    inner = raw[0, 0, :13, :20].numpy()
    np.testing.assert_allclose(values, (inner - inner.min()) / (inner.max() - inner.min()), atol=1e-6)
    np.testing.assert_allclose(task.decode(raw * 1e4 - 7, geometry).values, values, atol=1e-5)
    assert not task.decode(torch.full((1, 1, 16, 24), 5.0), geometry).values.any()


def test_logarithms_of_depth_are_not_clipped() -> None:
    """exp of the channels' mean, by the image's own minimum and maximum, without its padding."""
    task, geometry = TASKS.find("depth").with_options(log=True), Geometry((13, 20), (13, 20), (16, 24))
    raw = 2 * torch.randn(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    raw[..., 13:, :], raw[..., 20:] = 99.0, -99.0
    depth = np.exp(raw[0, :, :13, :20].numpy().astype(np.float64).mean(0))
    np.testing.assert_allclose(
        task.decode(raw, geometry).values, (depth - depth.min()) / (depth.max() - depth.min()), atol=1e-6
    )


def test_runs_of_logarithms_are_averaged_before_exp() -> None:
    task, geometry = TASKS.find("depth").with_options(log=True), Geometry((13, 20), (13, 20), (16, 24))
    assert isinstance(task, MergingTask)
    runs = torch.randn(3, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    merged = task.merge_runs(runs, geometry)
    assert merged is not None and merged.uncertainty is not None
    logs = runs[..., :13, :20].numpy().astype(np.float64).mean(1)
    depth = np.exp(logs.mean(0))
    unit = depth.max() - depth.min()
    np.testing.assert_allclose(merged.values, (depth - depth.min()) / unit, atol=1e-6)
    np.testing.assert_allclose(merged.uncertainty, np.exp(logs).std(0, ddof=1) / unit, atol=1e-6)
    assert TASKS.find("depth").merge_runs(runs, geometry) is None


def test_labels_of_logarithms() -> None:
    """2 and 98 % of the logarithm to -1 and 1; a missing depth is near, the sky is far."""
    s = sample()
    assert s.depth is not None
    target = TASKS.find("depth").with_options(log=True).encode(s)
    valid = target.valid[0, 0]
    logs = s.depth[valid].double().log()
    low, high = logs.quantile(0.02), logs.quantile(0.98)
    want = ((logs - low) / (high - low) * 2 - 1).clamp(-1, 1).float()
    torch.testing.assert_close(target.map[0, 0][valid], want, rtol=0, atol=1e-5)
    assert target.map[0, 0, 0, :3].tolist() == [-1, -1, 1]
    with pytest.raises(ValueError, match="logarithms are not clipped"):
        TASKS.find("depth").with_options(log=True, clip="channels")


@pytest.mark.parametrize("name", AFFINE)
def test_painted_maps_keep_their_range(name: str) -> None:
    raw = torch.tensor([-3.0, -1.0, 0.0, 0.5]).expand(1, 3, 1, 4)
    values = TASKS.find(name).decode(raw, Geometry((1, 4), (1, 4), (1, 4))).values
    np.testing.assert_allclose(values, [[0, 0, 0.5, 0.75]])


def full_sample(size: tuple[int, int] = (48, 36)) -> Sample:
    """A sample with every label there is."""
    g = torch.Generator().manual_seed(1)
    s = sample(size)
    s.normals = torch.nn.functional.normalize(torch.randn(3, *size, generator=g), dim=0)
    s.class_ids = torch.randint(-1, 19, size, generator=g)
    s.mask, s.defect = torch.rand(size, generator=g) > 0.5, torch.rand(size, generator=g) > 0.9
    s.alpha = torch.rand(size, generator=g)
    points = torch.rand(2, 17, 3, generator=g) * torch.tensor([size[1], size[0], 2.99])
    points[..., 2] = points[..., 2].floor()
    s.keypoints = points
    return s


def mirrored(s: Sample) -> Sample:
    from genpercept.training.samples.augment import mirror
    from genpercept.training.samples.records import from_sample, to_sample

    return to_sample(mirror(from_sample(s)))


@pytest.mark.parametrize("name", TRAINED)
def test_flip_of_a_label_is_the_label_of_the_mirrored_scene(name: str) -> None:
    """Twice is as before; once is the label of the mirrored sample, in every space."""
    task, s = TASKS.find(name), full_sample()
    for space in task.spaces:
        label = task.encode(s, space)
        assert label.space == space and label.map.shape[1] == (1 if space == "classes" else task.outputs(space))
        assert torch.equal(task.flip(task.flip(label.map)), label.map)
        torch.testing.assert_close(task.flip(label.map), task.encode(mirrored(s), space).map, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", TRAINED)
def test_a_decoded_label_is_the_truth(name: str) -> None:
    """encode, then decode, scores (nearly) perfectly in the task's own metric; options survive JSON."""
    task, s = TASKS.find(name), full_sample()
    if name == "pose":
        s = task.prepare(s, None)
    if name in ("dis", "matting", "anomaly"):  # a mask that reaches 0 and 1, so that min-max changes nothing
        s.alpha = (s.mask.float() + 0.0) if s.mask is not None else None
    size = (s.image.shape[-2], s.image.shape[-1])
    target = task.encode(s, "image" if "image" in task.spaces else task.spaces[0])
    prediction = task.decode(target.map, Geometry(size, size, size))
    truth = task.truth(s)
    figures = METRICS.find(task.metric)(**task.metric_options()).update(prediction.values, **truth, name="s")
    perfect = {"abs_rel": 0.05, "mean": 1.0, "mae": 1e-6, "sad": 1e-6}  # depth labels are cut at quantiles
    ideal = {"miou": 1.0, "pixel_auroc": 1.0, "ap": 1.0}
    found = {k: v for k, v in figures.items() if k in perfect | ideal}
    assert found and all(v <= perfect[k] if k in perfect else v >= ideal[k] - 1e-6 for k, v in found.items()), figures
    assert task.with_options(**json.loads(json.dumps(task.options))).options == task.options
    with pytest.raises(ValueError, match="no option 'colour'"):
        task.with_options(colour=1)


def test_class_colours_and_logits_agree() -> None:
    """Noise smaller than half the distance between colours changes nothing; unlabelled pixels are not valid."""
    task, s = TASKS.find("segmentation").with_options(classes="cityscapes19"), full_sample()
    assert s.class_ids is not None
    colours, ids = task.encode(s), task.encode(s, "classes")
    assert torch.equal(colours.valid[0, 0], s.class_ids >= 0) and torch.equal(ids.valid, colours.valid)
    geometry = Geometry((48, 36), (48, 36), (48, 36))
    noise = torch.rand(colours.map.shape, generator=torch.Generator().manual_seed(0)) * 0.02
    logits = torch.nn.functional.one_hot(ids.map[0, 0].long(), 19).permute(2, 0, 1)[None].float()
    known = (s.class_ids >= 0).numpy()
    for raw in (colours.map + noise, logits):
        prediction = task.decode(raw, geometry)
        assert np.array_equal(prediction.values[known], s.class_ids.numpy()[known])
        assert prediction.meta["classes"][0] == "road" and prediction.values.dtype == np.int32
    with pytest.raises(ValueError, match="cityscapes19 has 19 classes"):
        s.class_ids[0, 0] = 19
        task.encode(s)


def test_own_class_tables_travel_with_the_model(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"names": ["sea", "land"], "colours": [[0, 0, 255], [0, 255, 0]]}))
    task = TASKS.find("segmentation").with_options(classes=str(path))
    path.unlink()
    again = TASKS.find("segmentation").with_options(**json.loads(json.dumps(task.options)))
    assert again.outputs("classes") == 2 and again.metric_options() == {"num_classes": 2}  # type: ignore[union-attr]


def test_matting_post_processing() -> None:
    """Min-max, above 0.95 to 1, below 0.1 to 0; and an image without contrast is not stretched."""
    task, g = TASKS.find("matting"), Geometry((1, 5), (1, 5), (1, 5))
    raw = torch.tensor([-0.8, -0.75, 0.0, 0.78, 0.8]).expand(1, 3, 1, 5)
    np.testing.assert_allclose(task.decode(raw, g).values, [[0, 0, 0.5, 1, 1]], atol=1e-6)
    np.testing.assert_allclose(task.decode(raw * 0.01 - 0.95, g).values, np.zeros((1, 5)), atol=1e-6)
    plain = task.with_options(postprocess=False)
    np.testing.assert_allclose(plain.decode(raw, g).values, [[0.1, 0.125, 0.5, 0.89, 0.9]], atol=1e-6)
    with pytest.raises(ValueError, match="clear must be the smaller"):
        task.with_options(clear=0.5, opaque=0.4)
    assert task.decode(raw, g).meta["post_processing"] == "min-max, then 1 above 0.95 and 0 below 0.1"
    assert plain.decode(raw, g).meta["post_processing"] == "none"


@pytest.mark.parametrize(("name", "options"), [("dis", {"threshold": 0.5}), ("matting", {"opaque": 0.5, "clear": 0.4})])
def test_thresholds_hold_at_the_images_size(name: str, options: dict[str, float]) -> None:
    """Cut before it is resized, a step would be a ramp again: of values between clear and opaque, or soft ones."""
    task = TASKS.find(name).with_options(**options)
    raw = torch.linspace(-1, 1, 8).expand(1, 3, 4, 8)
    values = task.decode(raw, Geometry((32, 64), (4, 8), (4, 8))).values
    kept = (values > 0) & (values < 1)
    assert values.shape == (32, 64) and values.min() == 0 and values.max() == 1
    assert not kept.any() if name == "dis" else ((values[kept] >= 0.4) & (values[kept] <= 0.5)).all()


def test_dis_is_stretched_and_keeps_the_raw_map() -> None:
    task, g = TASKS.find("dis"), Geometry((1, 3), (1, 3), (1, 3))
    raw = torch.tensor([-0.5, 0.0, 0.5]).expand(1, 3, 1, 3)
    prediction = task.decode(raw, g)
    np.testing.assert_allclose(prediction.values, [[0, 0.5, 1]])
    assert prediction.raw is not None and float(prediction.raw.max()) == 0.5
    np.testing.assert_allclose(task.with_options(minmax=False).decode(raw, g).values, [[0.25, 0.5, 0.75]])
    cut = task.with_options(threshold=0.5)
    np.testing.assert_array_equal(cut.decode(raw, g).values, [[0, 1, 1]])
    words = [t.decode(raw, g).meta["post_processing"] for t in (task, cut, task.with_options(minmax=False))]
    assert words == ["min-max", "min-max, then 1 from 0.5 on and 0 below", "none"]
    assert isinstance(task, PostProcessedTask) and task.post_processing == words[0]


@pytest.mark.parametrize(("height", "spread"), [(64, 0.0), (256, 0.0), (96, 1.5)])
def test_heatmaps_are_located_below_a_pixel(height: int, spread: float) -> None:
    """Wherever a joint lies, it is found to a fiftieth of a heatmap's pixel: 0.08 pixels of the crop."""
    g = torch.Generator().manual_seed(0)
    size = (height, height * 3 // 4)
    points = torch.rand(17, 3, generator=g) * torch.tensor([size[1] * 0.8, size[0] * 0.8, 0]) + torch.tensor(
        [size[1] * 0.1, size[0] * 0.1, 2]
    )
    maps, labelled = _keypoints.heatmaps(points, size, spread)
    assert labelled.all() and maps.shape == (17, size[0] // 4, size[1] // 4)
    found = _keypoints.locate(maps, size)
    assert np.abs(found[:, :2] - points[:, :2].numpy()).max() < 0.08
    plain = np.stack(np.divmod(maps.flatten(1).argmax(1).numpy(), size[1] // 4)[::-1], 1) * 4 + 2
    assert np.abs(plain - points[:, :2].numpy()).max() > 1.0, "the refinement has something to do"


@pytest.mark.parametrize("sigma", [0.75, 1.0, 1.5, 2.0])
def test_joints_at_a_border_are_found_as_well(sigma: float) -> None:
    """Perfect Gaussians, drawn here and not by the task, from half a heatmap's pixel outside of the crop to its middle.

    The mean error is below 0.3 heatmap pixels at every distance from the edge; in fact it is below 0.01.
    """
    rng, (h, w) = np.random.default_rng(3), (32, 24)
    for distance in (-0.5, -0.25, 0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 6.0):
        for edge in ("left", "right", "top", "bottom", "corner"):
            near, along = np.full(60, distance - 0.5), rng.uniform(-0.5, 23.5, 60)  # in pixels' middles
            x, y = {
                "left": (near, along),
                "right": (w - 1 - near, along),
                "top": (along, near),
                "bottom": (along, h - 1 - near),
                "corner": (near, h - 1 - near),
            }[edge]
            square = (np.arange(w) - x[:, None, None]) ** 2 + (np.arange(h)[:, None] - y[:, None, None]) ** 2
            maps = torch.from_numpy(np.exp(-square / (2 * sigma**2))).float()
            found = _keypoints.locate(maps, (h * 4, w * 4))[:, :2] / 4 - 0.5
            error = np.linalg.norm(found - np.stack([x, y], 1), axis=1)
            assert error.mean() < 0.01 and error.max() < 0.05, (distance, edge, error.mean())


def test_joints_are_found_in_noise_and_in_maps_that_are_no_peak() -> None:
    rng, (h, w) = np.random.default_rng(4), (64, 48)
    at = rng.uniform(4, 43, (300, 2))
    square = (np.arange(w) - at[:, :1, None]) ** 2 + (np.arange(h)[:, None] - at[:, 1:, None]) ** 2
    maps = np.exp(-square / 8) + rng.normal(0, 0.05, (300, h, w))
    found = _keypoints.locate(torch.from_numpy(maps), (h, w))[:, :2] - 0.5
    assert np.linalg.norm(found - at, axis=1).mean() < 0.1
    lonely = torch.zeros(2, h, w)
    lonely[0, 5, 7] = 1.0  # a single pixel; and a flat map
    np.testing.assert_allclose(_keypoints.locate(lonely, (h, w)), [[7.5, 5.5, 1], [0.5, 0.5, 0]])
    assert np.isfinite(_keypoints.locate(torch.rand(17, 2, 1), (8, 4))).all()


def test_regions_and_merge_are_inverse() -> None:
    """A person's joints go into the crop of the box and come back, at the image's border too."""
    pose, image = TASKS.find("pose"), torch.rand(1, 3, 90, 120)
    boxes = np.array([[10, 5, 40, 60, 0.9], [100, 60, 30, 40, 0.5]])
    regions = pose.regions(image, boxes)  # type: ignore[union-attr]
    assert [tuple(r.image.shape) for r in regions] == [(1, 3, 256, 192)] * 2 and [r.score for r in regions] == [
        0.9,
        0.5,
    ]
    points = np.random.default_rng(0).uniform(12, 44, (17, 3)).astype(np.float32)
    inside = _keypoints.to_region(points, regions[0])
    np.testing.assert_allclose(_keypoints.to_image(inside, regions[0]), points, atol=1e-4)
    crops = [Prediction(_keypoints.to_region(points, r)[None], "keypoints", raw=np.zeros((17, 4, 4))) for r in regions]
    merged = pose.merge(crops, regions)  # type: ignore[union-attr]
    np.testing.assert_allclose(merged.values[0], points, atol=1e-4)
    assert len(merged.meta["scores"]) == 2 and pose.merge([], []).values.shape == (0, 17, 3)  # type: ignore[union-attr]
    for bad in ([[0, 0, 0, 5]], [[0, 0, np.nan, 5]], [[0, 0, 5]]):
        with pytest.raises(ValueError, match="boxes of shape"):
            pose.regions(image, np.array(bad, float))  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="outside of the image"):
        pose.regions(image, np.array([[500, 500, 10, 10.0]]))  # type: ignore[union-attr]


def test_pose_trains_on_crops_of_labelled_people() -> None:
    pose, s = TASKS.find("pose"), full_sample((120, 160))
    crop = pose.prepare(s, np.random.default_rng(0))  # type: ignore[union-attr]
    assert crop.image.shape == (3, 256, 192) and crop.keypoints is not None and crop.keypoints.shape == (1, 17, 3)
    assert torch.equal(pose.prepare(s, None).image, pose.prepare(s, None).image)  # type: ignore[union-attr]
    target = pose.encode(crop)
    assert target.valid.shape == target.map.shape
    assert torch.equal(target.valid[0, :, 0, 0], crop.keypoints[0, :, 2] > 0)
    wide = pose.with_options(sigma=4.0).encode(crop)
    assert wide.map[target.valid].sum() > 3 * target.map[target.valid].sum()  # 4 is twice 2, in both directions
    s.keypoints = torch.zeros(1, 17, 3)
    empty = pose.encode(pose.prepare(s, None))  # type: ignore[union-attr]
    assert not empty.valid.any() and not empty.map.any()


def test_pose_judges_crops_by_the_area_of_the_person() -> None:
    """In pixels of the crop; half of the person's box where no area is labelled, not the crop, which is far larger."""
    pose, s = TASKS.find("pose"), full_sample((120, 160))
    s.boxes, s.meta = torch.tensor([[10.0, 20.0, 30.0, 40.0]]), {}
    share = (40 * 1.25 / 256) ** 2  # pixels of the image in one of the crop
    (guessed,) = pose.prepare(s, None).meta["areas"]
    assert guessed == pytest.approx(0.53 * 30 * 40 / share, rel=0.05)
    s.meta = {"areas": [300.0]}
    assert pose.prepare(s, None).meta["areas"] == [pytest.approx(300 / share, rel=0.05)]


def test_synthetic_defects() -> None:
    """Where the mask is, the image changed; elsewhere it hardly did; keyed by the generator; real defects stay alone."""
    task, s = TASKS.find("anomaly").with_options(synthetic=1.0), full_sample((64, 64))
    s.defect = torch.zeros(64, 64, dtype=torch.bool)
    shares = []
    for seed in range(20):
        spoilt = task.prepare(s, np.random.default_rng(seed))  # type: ignore[union-attr]
        assert spoilt.defect is not None and torch.equal(
            spoilt.image,
            task.prepare(s, np.random.default_rng(seed)).image,  # type: ignore[union-attr]
        )
        change = (spoilt.image - s.image).abs().mean(0)
        shares.append(float(spoilt.defect.float().mean()))
        if spoilt.defect.any():
            far = ~torch.nn.functional.max_pool2d(spoilt.defect.float()[None], 9, 1, 4)[0].bool()
            assert change[spoilt.defect].mean() > 5 * change[far].mean()
    assert 0.001 < np.mean(shares) < 0.3 and np.count_nonzero(shares) > 15
    assert task.prepare(s, None) is s  # type: ignore[union-attr]
    s.defect[3, 3] = True
    assert task.prepare(s, np.random.default_rng(0)) is s  # type: ignore[union-attr]


def test_thresholds_are_the_least_that_so_few_good_ones_exceed() -> None:
    task, rng = TASKS.find("anomaly"), np.random.default_rng(5)
    assert isinstance(task, JudgingTask)
    good = [Prediction(rng.random((6, 7)).astype(np.float32) * 0.8, "anomaly") for _ in range(20)]
    scores, pixels = [p.values.max() for p in good], np.concatenate([p.values.ravel() for p in good])
    for image_rate, pixel_rate in ((0.0, 0.0), (0.05, 0.01), (0.3, 0.5)):
        options = task.fitted(good, image_rate, pixel_rate).options
        for values, rate, limit in ((scores, image_rate, "image_threshold"), (pixels, pixel_rate, "pixel_threshold")):
            above = int((np.asarray(values) > options[limit]).sum())
            assert above == int(rate * len(values)) and options[limit] in values, (limit, rate)
    fitted = task.fitted(good, 0.0, 0.0)
    strange = Prediction(np.full((2, 2), 0.9, np.float32), "anomaly")
    assert fitted.judge(strange)["anomalous"] and not fitted.judge(good[0])["anomalous"]
    assert fitted.judge(strange)["defect_share"] == 1 and fitted.judge(good[0])["defect_share"] == 0
    assert list(task.judge(strange)) == ["image_score"], "no verdict without thresholds"
    with pytest.raises(ValueError, match="thresholds need good images"):
        task.fitted([], 0.1, 0.1)
    with pytest.raises(ValueError, match="a false positive rate of 1: must be at least 0 and below 1"):
        task.fitted(good, 1.0, 0.1)
    with pytest.raises(ValueError, match="image_threshold=2: must be a number from 0 to 1"):
        task.with_options(image_threshold=2)


def test_quantiles_of_depth_are_torch_s() -> None:
    """Without sorting, the same bits, also where neighbours are equal or infinite."""
    for n in (1, 2, 49, 50, 51, 1000, 12345):
        for values in (
            torch.rand(n) * 100,
            torch.rand(n).mul(9).round(),
            torch.rand(n).masked_fill(torch.rand(n) < 0.3, torch.inf),
        ):
            expected = torch.quantile(values, torch.tensor(depth.QUANTILES))
            assert torch.equal(depth.quantiles(values).nan_to_num(-1), expected.nan_to_num(-1))
