"""Losses: equal to the public implementation, per sample, finite whatever comes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genpercept import plugins

GOLDEN = np.load(Path(__file__).parent / "golden" / "losses.npz")
NAMES = plugins.names("losses")


def golden(prefix: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return tuple(torch.from_numpy(GOLDEN[f"{prefix}_{name}"]) for name in ("pred", "gt", "mask"))  # type: ignore[return-value]


def pooled(per_sample: torch.Tensor, valid: torch.Tensor) -> float:
    """The public code averages over the valid pixels of the batch; ours per sample first."""
    n = valid.flatten(1).sum(1).double()
    return float((per_sample.double() * n).sum() / n.sum())


@pytest.mark.parametrize(
    ("key", "name", "options"),
    [
        ("loss_ssi_least_square", "ssi", {}),
        ("loss_ssi_medium", "ssi", {"align": "median", "paper_exact": True}),
        ("loss_grad_3d_scales1", "gradient", {}),
        ("loss_grad_4d_as_shipped", "gradient", {"paper_exact": True}),
    ],
)
def test_golden(key: str, name: str, options: dict) -> None:
    pred, gt, valid = golden("loss")
    value = pooled(plugins.find("losses", name)(pred, gt, valid, **options), valid)
    assert value == pytest.approx(float(GOLDEN[key]), rel=1e-6)


def test_golden_angular() -> None:
    pred, gt, valid = golden("normal")
    value = pooled(plugins.find("losses", "angular")(pred, gt, valid), valid)
    assert value == pytest.approx(float(GOLDEN["loss_angular"]), rel=1e-6)


def test_golden_gradient_over_scales() -> None:
    """Four scales: each is pooled over its own pixels there, so each is compared on its own, then their sum."""
    pred, gt, valid = golden("loss")
    gradient = plugins.find("losses", "gradient")
    total, ours = 0.0, torch.zeros(len(pred))
    for step in (1, 2, 4, 8):
        part = [x[..., ::step, ::step] for x in (pred, gt, valid)]
        single = gradient(*part)
        total, ours = total + pooled(single, part[2]), ours + single
    assert total == pytest.approx(float(GOLDEN["loss_grad_3d_scales4"]), rel=1e-6)
    torch.testing.assert_close(gradient(pred, gt, valid, scales=4), ours)


def channels(name: str) -> int:
    return {"latent": 4, "angular": 3}.get(name, 1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", ["empty", "constant", "zeros", "equal", "huge", "nan_outside", "one_pixel"])
def test_finite(name: str, case: str) -> None:
    """A finite loss and gradient; both zero where no pixel is valid."""
    g = torch.Generator().manual_seed(0)
    pred = torch.randn(2, channels(name), 9, 7, generator=g)
    target, valid = torch.randn(pred.shape, generator=g), torch.rand(2, 1, 9, 7, generator=g) > 0.4
    match case:
        case "empty":
            valid[:] = False
        case "constant":
            pred = torch.full_like(pred, 0.3)
        case "zeros":
            pred, target = torch.zeros_like(pred), torch.zeros_like(target)
        case "equal":
            pred = target.clone()
        case "huge":
            pred = pred * 1e30
        case "nan_outside":
            target = torch.where(valid, target, torch.nan)
        case "one_pixel":
            valid[:] = False
            valid[..., 4, 3] = True
    pred.requires_grad_(True)
    loss = plugins.find("losses", name)(pred, target, valid)
    assert loss.shape == (2,) and loss.dtype == torch.float32
    (gradient,) = torch.autograd.grad(loss.sum(), pred)
    assert torch.isfinite(loss).all() and torch.isfinite(gradient).all()
    if case == "empty":
        assert loss.abs().max() == 0 and gradient.abs().max() == 0
    if case == "equal" and name != "angular":  # acos is clamped short of zero
        assert loss.max() < 1e-5


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 2**31), keep=st.floats(0.01, 1))
@settings(max_examples=20, deadline=None)
def test_per_sample_and_masked(name: str, seed: int, keep: float) -> None:
    """A batch gives what its samples give alone, and what lies under the mask does not matter."""
    g = torch.Generator().manual_seed(seed)
    pred, target = (torch.randn(3, channels(name), 8, 10, generator=g) for _ in range(2))
    valid = torch.rand(3, 1, 8, 10, generator=g) < keep
    loss = plugins.find("losses", name)
    together = loss(pred, target, valid)
    alone = torch.cat([loss(pred[i : i + 1], target[i : i + 1], valid[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone)
    assert (together >= 0).all()
    torch.testing.assert_close(loss(torch.where(valid, pred, 7.0), torch.where(valid, target, -5.0), valid), together)


@given(scale=st.floats(0.1, 10), shift=st.floats(-5, 5), align=st.sampled_from(["least_squares", "median"]))
@settings(max_examples=30, deadline=None)
def test_ssi_ignores_scale_and_shift(scale: float, shift: float, align: str) -> None:
    g = torch.Generator().manual_seed(1)
    target, valid = torch.randn(1, 1, 12, 12, generator=g), torch.rand(1, 1, 12, 12, generator=g) > 0.3
    assert float(plugins.find("losses", "ssi")(target * scale + shift, target, valid, align=align)) < 1e-4
