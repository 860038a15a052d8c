"""Parts of the training engine, without a run: checkpoints, optimisers, trackers, labels under augmentation."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from genpercept.core.rng import generator
from genpercept.training.optim import build
from genpercept.training.recipe import Logging, Optim
from genpercept.training.run import state, trackers
from genpercept.training.run.log import Reporter
from genpercept.training.run.unwritable import Unwritable
from genpercept.training.samples.augment import crop, mirror


def save(folder: Path, steps: int = 2) -> state.Checkpoints:
    checkpoints = state.Checkpoints(folder, keep=2)
    for step in range(1, steps + 1):
        weights = {"w": torch.full((100,), float(step))}
        checkpoints.save(state.State(step=step), weights, weights, {"state": {}, "param_groups": []})
    return checkpoints


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-7] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["weights.safetensors", "average.safetensors", "optimiser.pt"])
@pytest.mark.parametrize("damage", [flip_a_bit, Path.unlink, lambda p: p.write_bytes(p.read_bytes()[:50])])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, name: str, damage: Any) -> None:
    checkpoints = save(tmp_path)
    damage(checkpoints.list()[-1] / name)
    said: list[str] = []
    found = checkpoints.load_latest(said.append)
    assert found is not None and found[0].step == 1 and torch.equal(found[1]["w"], torch.ones(100))
    assert len(said) == 1 and "step-0000002" in said[0] and "falling back" in said[0] and "\n" not in said[0]


def test_a_half_written_state_is_passed_over(tmp_path: Path) -> None:
    checkpoints = save(tmp_path)
    (checkpoints.list()[-1] / "state.json").write_text('{"step": 2, "sec')
    found = checkpoints.load_latest(lambda line: None)
    assert found is not None and found[0].step == 1


def test_the_last_ones_are_kept(tmp_path: Path) -> None:
    assert [p.name for p in save(tmp_path, 4).list()] == ["step-0000003", "step-0000004"]


def test_a_full_disk_leaves_the_old_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = save(tmp_path)

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(state.UNWRITABLE, match="No space left"):
        checkpoints.save(state.State(step=3), {"w": torch.ones(1)}, {}, {})
    assert sorted(p.name for p in checkpoints.folder.iterdir()) == ["step-0000001", "step-0000002"]


@pytest.mark.parametrize(("kind", "name"), [("adam", "Adam"), ("adamw", "AdamW"), ("fused", "AdamW")])
def test_optimisers(kind: Any, name: str) -> None:
    """Groups keep their rates; adam adds weight decay to the gradient, the others do not."""
    p = torch.nn.Parameter(torch.tensor([1.0]))
    made = build.build([{"params": [p], "lr": 0.1}], Optim(kind=kind, weight_decay=0.5))
    assert type(made).__name__ == name and made.param_groups[0]["lr"] == 0.1
    p.grad = torch.zeros(1)
    made.step()
    assert p.item() == pytest.approx(0.9 if kind == "adam" else 0.95)  # Adam: m / sqrt(v) = 1; AdamW: 1 - lr decay


def test_8bit_without_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(ValueError, match="pip install bitsandbytes"):
        build.build([], Optim(kind="8bit"))


def fake_tracker(monkeypatch: pytest.MonkeyPatch, log: Any) -> list[Any]:
    """trackio, of which a call is kept and answered by `log`; the calls."""
    calls: list[Any] = []
    fake = SimpleNamespace(
        init=lambda **k: calls.append(k),
        log=lambda f, step: (calls.append((step, f)), log()),
        finish=lambda: calls.append("end"),
    )
    monkeypatch.setitem(sys.modules, "trackio", fake)
    return calls


def test_trackers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracker gets the run's name and recipe, the figures with their step, and an end."""
    calls = fake_tracker(monkeypatch, lambda: None)
    options = Logging(tensorboard=False, trackers=("trackio",), project="p")
    reporter = Reporter(tmp_path / "run 1", options, 10, config={"seed": 3})
    reporter.open(0)
    reporter.scalars(5, {"loss": 0.5})
    reporter.close()
    assert calls == [{"project": "p", "name": "run 1", "config": {"seed": 3}}, (5, {"train/loss": 0.5}), "end"]
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match="pip install wandb"):
        trackers.find(["trackio", "wandb"])


def test_a_tracker_that_fails_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its network is not the run's business; a full disk is, whoever meets it first."""

    def fails() -> None:
        raise ConnectionError("no route to the tracker")

    calls = fake_tracker(monkeypatch, fails)
    reporter = Reporter(tmp_path, Logging(tensorboard=False, trackers=("trackio",)), 10)
    reporter.open(0)
    for step in (5, 6):
        reporter.scalars(step, {"loss": 0.5})
    reporter.close()
    assert calls[1:] == [(5, {"train/loss": 0.5})]
    assert capsys.readouterr().err == "trackio is left out from here on: no route to the tracker\n"
    gone = tmp_path / "gone"
    reporter = Reporter(gone, Logging(tensorboard=False, trackers=("trackio",)), 10)
    reporter.open(0)
    with pytest.raises(Unwritable, match=r"gone: a file could not be written \(No such file or directory\)"):
        reporter.scalars(5, {"loss": 0.5})


def test_tensorboard_that_cannot_write_is_left_out_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its thread says nothing beside that."""
    (tmp_path / "tensorboard").touch()
    reporter = Reporter(tmp_path, Logging(), 10)
    reporter.open(0)
    reporter.scalars(5, {"loss": 0.5})
    reporter.close()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("tensorboard is left out from here on: ")


# Labels under augmentation, by numbers -----------------------------------------------------------------------------------


def plane(height: int = 40, width: int = 60) -> dict[str, Any]:
    """A slanted plane n . p = d seen by a pinhole camera: depth, normals and intrinsics that must stay consistent."""
    k = np.array([[50, 0, 28], [0, 45, 22], [0, 0, 1]], np.float32)
    normal = np.array([0.3, 0.2, 0.0])
    normal[2] = np.sqrt(1 - (normal**2).sum())
    return {
        "image": np.zeros((height, width, 3), np.uint8),
        "depth": _depth(k, normal, height, width),
        "normals": np.broadcast_to(normal.astype(np.float32), (height, width, 3)).copy(),
        "intrinsics": k,
    }


def _depth(k: np.ndarray, normal: np.ndarray, height: int, width: int) -> np.ndarray:
    """Of the plane 5 units away along `normal` (x right, y up, z towards the viewer)."""
    v, u = np.mgrid[:height, :width] + 0.5
    ray = np.stack([(u - k[0, 2]) / k[0, 0], -(v - k[1, 2]) / k[1, 1], -np.ones_like(u)], -1)
    return (-5 / (ray @ normal)).astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
def test_intrinsics_follow_crops_resizes_and_mirrors(seed: int) -> None:
    """The plane seen through the new intrinsics, with the new normal, is the depth map that came out."""
    out = crop(plane(), (20, 24), (0.6, 1.0), generator(seed, 0, 0, "augment"))
    out = mirror(out) if seed % 2 else out
    normal = out["normals"][0, 0].astype(np.float64)
    want = _depth(out["intrinsics"], normal, 20, 24)
    assert np.sign(normal[0]) == (-1 if seed % 2 else 1)
    np.testing.assert_allclose(out["depth"], want, rtol=0.02)  # nearest pixels: half a pixel of the plane's slope
    np.testing.assert_allclose(np.mean(out["depth"] / want), 1, atol=0.003)


def test_a_crop_by_numbers() -> None:
    """Half the width out of a 40 x 60 image at twice the size: the focal length doubles, the centre moves by the corner."""
    record = plane()
    record["keypoints"] = np.array([[10.0, 10.0, 2.0], [0.0, 0.0, 0.0]], np.float32)
    g = generator(0, 0, 0, "augment")
    g.uniform(1.0, 1.0)
    top, left = float(g.random()) * 20, float(g.random()) * 30
    out = crop(record, (40, 60), (0.5, 0.5), generator(0, 0, 0, "augment"))
    k = out["intrinsics"]
    assert k[0, 0] == 100 and k[1, 1] == 90
    assert k[0, 2] == pytest.approx((28 - left) * 2, abs=1e-4) and k[1, 2] == pytest.approx((22 - top) * 2, abs=1e-4)
    inside = left <= 10 and top <= 10
    want = [(10 - left) * 2, (10 - top) * 2, 2] if inside else [0, 0, 0]
    np.testing.assert_allclose(out["keypoints"], [want, [0, 0, 0]], atol=1e-4)


def test_a_mirror_swaps_left_and_right_joints() -> None:
    """COCO: nose 0; left and right eye 1, 2; ... ; left and right ankle 15, 16."""
    points = np.stack([np.arange(17.0), np.arange(17.0) + 100, np.full(17, 2.0)], 1).astype(np.float32)
    points[5] = 0  # the left shoulder is not labelled
    out = mirror(plane() | {"keypoints": points})["keypoints"]
    assert out[0].tolist() == [60, 100, 2]
    for left in range(1, 17, 2):
        if left != 5:
            assert out[left + 1].tolist() == [60 - left, 100 + left, 2]
        assert out[left].tolist() == [60 - (left + 1), 101 + left, 2]
    assert out[6].tolist() == [0, 0, 0]


def test_log_is_json_lines(tmp_path: Path) -> None:
    reporter = Reporter(tmp_path, Logging(tensorboard=False), 10)
    reporter.validation(4, {"loss": 0.25}, None)
    assert json.loads((tmp_path / "log.jsonl").read_text()) == {"step": 4, "loss": 0.25}


# Muon -------------------------------------------------------------------------------------------------------------------


def gradients(shapes: list[tuple[int, ...]], steps: int = 5) -> list[list[torch.Tensor]]:
    noise = torch.Generator().manual_seed(0)
    return [[torch.randn(shape, generator=noise) for shape in shapes] for _ in range(steps)]


def descend(
    optimiser: torch.optim.Optimizer, params: list[torch.nn.Parameter], steps: list[list[torch.Tensor]]
) -> None:
    for grads in steps:
        for p, grad in zip(params, grads, strict=True):
            p.grad = grad.reshape(p.shape).clone()
        optimiser.step()


def test_muon_is_torchs_on_matrices_and_adamw_on_the_rest() -> None:
    shapes = [(64, 96), (96, 64), (4, 64), (64,)]
    steps = gradients(shapes)
    ours = [torch.nn.Parameter(torch.ones(shape)) for shape in shapes]
    theirs = [torch.nn.Parameter(torch.ones(shape)) for shape in shapes]
    settings: dict[str, Any] = {"lr": 1e-2, "weight_decay": 0.1}
    descend(build.build([{"params": ours, "lr": 1e-2}], Optim(kind="muon", weight_decay=0.1)), ours, steps)
    descend(
        torch.optim.Muon(theirs[:2], adjust_lr_fn="match_rms_adamw", **settings), theirs[:2], [s[:2] for s in steps]
    )
    descend(torch.optim.AdamW(theirs[2:], **settings), theirs[2:], [s[2:] for s in steps])
    for a, b in zip(ours[:2], theirs[:2], strict=True):
        # bfloat16 inside, and a different order of sums
        assert float(((a - b).norm() / (b - 1).norm()).detach()) < 0.02
    for a, b in zip(ours[2:], theirs[2:], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_muon_takes_a_convolution_as_a_matrix() -> None:
    steps = gradients([(48, 4 * 9)])
    flat, kernel = torch.nn.Parameter(torch.ones(48, 36)), torch.nn.Parameter(torch.ones(48, 4, 3, 3))
    for p in (flat, kernel):
        descend(build.build([{"params": [p], "lr": 1e-2}], Optim(kind="muon")), [p], steps)
    torch.testing.assert_close(kernel.flatten(1), flat)


def test_muon_goes_on_from_its_state() -> None:
    shapes = [(64, 32, 3, 3), (64,)]
    steps = gradients(shapes)
    whole = [torch.nn.Parameter(torch.ones(shape)) for shape in shapes]
    descend(build.build([{"params": whole, "lr": 1e-2}], Optim(kind="muon")), whole, steps)
    parts = [torch.nn.Parameter(torch.ones(shape)) for shape in shapes]
    first = build.build([{"params": parts, "lr": 1e-2}], Optim(kind="muon"))
    descend(first, parts, steps[:2])
    second = build.build([{"params": parts, "lr": 1e-2}], Optim(kind="muon"))
    second.load_state_dict(first.state_dict())
    descend(second, parts, steps[2:])
    for a, b in zip(whole, parts, strict=True):
        assert torch.equal(a, b)
