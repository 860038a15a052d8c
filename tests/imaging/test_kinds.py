"""The table of kinds: what each row promises, and that a row of another package is as good as ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from genpercept.core.values import Geometry
from genpercept.imaging import painters
from genpercept.imaging.colour import INVALID, colourise
from genpercept.imaging.encode import decode16, encode16
from genpercept.imaging.kinds import KINDS, Kind, MergeRule
from genpercept.imaging.prediction import Prediction
from genpercept.imaging.write import FORMATS, check_formats, default_formats
from genpercept.pipeline import call, ensemble
from tests.support.strangers import Install

H, W = 6, 9


def range_of(kind: Kind) -> tuple[float, float]:
    return kind.limits or ((0.5, 7.0) if kind.metric else (-3.0, 7.0))


def values_of(kind: Kind, seed: int = 0) -> np.ndarray:
    """Random values that the row allows; quantities reach both of their limits."""
    rng = np.random.default_rng(seed)
    if kind.layout == "points":
        joints = kind.axes[1] or 5
        return (rng.random((2, joints, 3)) * [W, H, 1]).astype(np.float32)
    channels = 6 if kind.layout == "stack" else kind.axes[2] if len(kind.axes) == 3 else None
    shape = (H, W) if channels is None else (H, W, channels)
    if kind.ids:
        return rng.integers(-1, 150, shape).astype(kind.dtype)
    low, high = range_of(kind)
    unit = rng.random(shape)
    unit.flat[0], unit.flat[-1] = 0, 1
    values = (low + unit * (high - low)).astype(np.float32)
    return values / np.linalg.norm(values, axis=-1, keepdims=True) if kind.directions else values


@pytest.mark.parametrize("name", KINDS)
def test_a_row_paints_its_values(name: str) -> None:
    kind, values = KINDS[name], values_of(KINDS[name])
    rgb = np.asarray(colourise(values, name, image=np.zeros((H, W, 3), np.uint8)))
    assert rgb.shape == (H, W * (2 if kind.layout == "stack" else 1), 3) and rgb.dtype == np.uint8
    assert len(np.unique(rgb.reshape(-1, 3), axis=0)) > 5 or kind.layout == "points"
    assert (rgb > 0).any()


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.is_image])
def test_sixteen_bits_come_back_by_the_words_in_the_png(tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    prediction = Prediction(values_of(kind), name)
    prediction.save(tmp_path / "x", ["png"])
    with Image.open(tmp_path / "x.png") as image:
        words = str(image.info["Description"])
    back = decode16(encode16(prediction)[0], words)
    assert back.shape == prediction.values.shape
    if kind.ids:
        assert (back == prediction.values).all()
        return
    low, high = range_of(kind)
    step = 1e-3 if kind.metric else (high - low) / 65535  # metres are whole millimetres
    assert np.abs(back - prediction.values).max() <= step * 0.501
    assert json.loads((tmp_path / "x.json").read_text())["png"] == words.removeprefix(f"{name}: ")


def test_words_of_others_are_refused() -> None:
    with pytest.raises(ValueError, match="says nothing of 16-bit values"):
        decode16(np.zeros((2, 2), np.uint16), "depth in millimetres")


@pytest.mark.parametrize("name", KINDS)
def test_default_formats_can_hold_it(name: str) -> None:
    formats = default_formats(name)
    assert formats and check_formats(formats, name) == formats


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.merge])
def test_equal_runs_merge_to_themselves(name: str) -> None:
    kind = KINDS[name]
    map_CHW = torch.from_numpy(values_of(kind)).reshape(H, W, -1).permute(2, 0, 1)
    merged, spread = ensemble.merge(name, torch.stack([map_CHW] * 3))
    torch.testing.assert_close(ensemble.settle(name, merged), map_CHW, rtol=0, atol=1e-4)
    assert spread.shape[-2:] == (H, W) and float(spread.max()) < 1e-3
    shape = tuple(spread.shape) if spread.ndim == 2 else (H, W, len(spread))
    assert kind.uncertainty_shape((H, W, len(map_CHW))) == shape


def test_every_merge_rule_has_its_function() -> None:
    assert set(ensemble._RULES) == set(get_args(MergeRule))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"layout": "volume"}, "layout='volume': choose one of 'map', 'stack', 'points'"),
        ({"merge": "median"}, "merge='median': choose one of 'affine'"),
        ({"distance": "metres"}, "distance='metres': choose one of 'depth'"),
        ({"dtype": np.int32}, "ids have no mean: set merge=None"),
        ({"layout": "points", "axes": (None, 4, 3)}, "points have no mean: set merge=None"),
        ({"axes": (None,)}, "a map has 2 or 3 axes"),
        ({"layout": "stack"}, "a stack or points 3"),
    ],
)
def test_a_row_that_contradicts_itself_is_refused(row: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=f"kind 'x': .*{says}"):
        Kind("x", "nothing", **row)


# ---- rows of another package

STRANGERS = {
    row.name: row
    for row in (
        Kind("albedo", "share of the light that a surface reflects", axes=(None, None, 3), limits=(0, 1)),
        Kind("flow", "motion in pixels", axes=(None, None, 2)),
        Kind("instances", "instance ids", dtype=np.int16, merge=None),
        Kind("hands", "hands", axes=(None, 21, 3), layout="points", merge=None),
        Kind("height", "metres above the ground", paint=painters.heat, limits=(0, 50)),
    )
}


@pytest.fixture
def strangers(install: Install) -> None:
    """Another package's rows, found by their entry points."""
    install({KINDS.group: STRANGERS})


@pytest.mark.usefixtures("strangers")
def test_rows_of_others_stand_behind_ours() -> None:
    assert list(KINDS)[-len(STRANGERS) :] == list(STRANGERS) and KINDS["albedo"] is STRANGERS["albedo"]
    with pytest.raises(ValueError, match="unknown kind 'albeddo': did you mean 'albedo'"):
        Prediction(np.zeros((2, 2, 3)), "albeddo")
    assert [STRANGERS[name].shape for name in ("albedo", "hands", "height")] == ["(H, W, 3)", "(N, 21, 3)", "(H, W)"]


@pytest.mark.usefixtures("strangers")
@pytest.mark.parametrize(
    ("name", "formats", "default"),
    [
        ("albedo", "png color npy npz exr", ("png", "color")),
        ("flow", "npy npz", ("npy",)),
        ("instances", "png color npy npz exr", ("png", "color")),
        ("hands", "color npy npz coco", ("color",)),
        ("height", "png color npy npz exr", ("png", "color")),
    ],
)
def test_a_strangers_kind_is_written_and_read_back(
    tmp_path: Path, name: str, formats: str, default: tuple[str, ...]
) -> None:
    values = values_of(STRANGERS[name])
    prediction = Prediction(values, name, uncertainty=np.ones(values.shape[:2]), meta={"model": "m"})
    assert default_formats(name) == default
    for format_name in FORMATS:
        if format_name in formats.split():
            written = prediction.save(tmp_path / format_name, [format_name])
            assert written[0].stat().st_size > 0 and json.loads(written[-1].read_text())["kind"] == name
        else:
            with pytest.raises(ValueError, match=f"format {format_name} cannot hold {name}: choose from"):
                prediction.save(tmp_path / format_name, [format_name])
    back = Prediction.load(tmp_path / "npz.npz")
    assert back.kind == name and back.values.dtype == STRANGERS[name].dtype and (back.values == values).all()
    assert (np.load(tmp_path / "npy.npy") == values).all()


@pytest.mark.usefixtures("strangers")
def test_a_strangers_colours_are_its_values(tmp_path: Path) -> None:
    values = values_of(STRANGERS["albedo"])
    valid = np.ones((H, W), bool)
    valid[0, 0] = False
    prediction = Prediction(values, "albedo", valid=valid)
    rgb = np.asarray(prediction.colourise())
    assert (rgb[valid] == np.rint(values[valid] * 255)).all() and tuple(rgb[0, 0]) == INVALID
    pixels, words = encode16(prediction)
    assert words == "value = pixel / 65535" and np.abs(decode16(pixels, words) - values)[valid].max() <= 0.501 / 65535
    openexr = pytest.importorskip("OpenEXR")
    prediction.save(tmp_path / "x", ["exr"])
    with openexr.File(str(tmp_path / "x.exr")) as file:
        assert (file.channels()["RGB"].pixels == values).all()


@pytest.mark.usefixtures("strangers")
def test_a_strangers_ids_points_and_own_colours() -> None:
    ids = np.asarray(colourise(np.array([[0, 1, 2, 1]], np.int16), "instances"))
    assert len(np.unique(ids.reshape(-1, 3), axis=0)) == 3
    assert encode16(Prediction(np.array([[3, -1]]), "instances"))[1] == "pixel = id, 65535 where none"
    hand = np.zeros((1, 21, 3))
    hand[0, 4] = (5, 3, 1)
    assert np.asarray(colourise(hand, "hands", image=np.zeros((H, W, 3), np.uint8)))[3, 5].tolist() == [255] * 3
    tall = np.array([[0.0, 50.0]], np.float32)
    assert np.asarray(colourise(tall, "height"))[0].tolist() == np.asarray(colourise(tall, "anomaly"))[0].tolist()
    with pytest.raises(ValueError, match=r"'flow' has no colours: choose one of .*albedo, instances, hands, height"):
        colourise(np.zeros((2, 2, 2), np.float32), "flow")


class _Albedo:
    """As much of a task as decoding asks for: raw maps in [-1, 1] are values in [0, 1]."""

    kind = "albedo"

    def decode(self, raw: Tensor, geometry: Geometry) -> Prediction:
        values = geometry.invert((raw.clamp(-1, 1) + 1) / 2)[0].permute(1, 2, 0)
        return Prediction(values.numpy(), self.kind, raw=raw[0].numpy(), meta={"from": "albedo"})


@pytest.mark.usefixtures("strangers")
def test_runs_of_a_strangers_task_are_merged() -> None:
    geometry = Geometry.plan((13, 20), 0, 8)
    raw = torch.rand(3, 3, *geometry.padded, generator=torch.Generator().manual_seed(0)) * 2 - 1
    task: Any = _Albedo()
    runs = np.stack([call.decode(task, one, geometry, {}).values for one in raw.split(1)])
    merged = call.decode(task, raw, geometry, {})
    np.testing.assert_allclose(merged.values, runs.mean(0), atol=1e-6)
    assert merged.uncertainty is not None and merged.raw is not None and merged.meta == {"from": "albedo"}
    np.testing.assert_allclose(merged.uncertainty, runs.std(0, ddof=1).mean(-1), atol=1e-5)
    with pytest.raises(ValueError, match=r"unknown reduction for albedo; choose from \(none\)"):
        call.decode(task, raw, geometry, {"reduction": "mean"})
    turned = call.turned(raw, [[-1, 0, 0], [0, 1, 0], [0, 0, 1]], "albedo")
    assert turned is raw  # a model's axes turn directions alone
