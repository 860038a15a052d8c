"""Merging runs: diffusers' ensembling as oracle, and what holds for any runs."""

import pytest
import torch
from diffusers import MarigoldDepthPipeline, MarigoldNormalsPipeline
from torch import Tensor

from genpercept.pipeline import ensemble


def runs(seed: int, m: int = 4, noise: float = 0.02) -> tuple[Tensor, Tensor]:
    """A map (24, 40) in [0, 1], and m affine views of it with noise, (m, 1, 24, 40) in [0, 1]."""
    g = torch.Generator().manual_seed(seed)
    truth = torch.rand(6, 10, generator=g).repeat_interleave(4, 0).repeat_interleave(4, 1)
    truth = (truth - truth.min()) / (truth.max() - truth.min())
    scale, shift = torch.rand(m, 1, 1, generator=g) * 0.5 + 0.4, torch.rand(m, 1, 1, generator=g) * 0.1
    views = truth * scale + shift + noise * torch.randn(m, 24, 40, generator=g)
    return truth, views.clamp(0, 1)[:, None]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("reduction", ["median", "mean"])
def test_affine_maps_merge_as_in_diffusers(seed: int, reduction: str) -> None:
    """The same runs bit by bit, hence the same rounding errors, which this solver follows."""
    _, maps = runs(seed, m=3 + seed)
    want, spread = MarigoldDepthPipeline.ensemble_depth(maps, output_uncertainty=True, reduction=reduction)
    got, uncertainty = ensemble.merge("depth_affine", maps, reduction=reduction)
    assert spread is not None
    torch.testing.assert_close(got, want[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(uncertainty, spread[0, 0], rtol=0, atol=1e-4)


def test_large_maps_are_aligned_at_a_smaller_size_as_in_diffusers() -> None:
    _, maps = runs(9)
    want, _ = MarigoldDepthPipeline.ensemble_depth(maps, max_res=20)
    torch.testing.assert_close(ensemble.merge("disparity_affine", maps, max_res=20)[0], want[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("reduction", ["closest", "mean"])
def test_normals_merge_as_in_diffusers(reduction: str) -> None:
    g = torch.Generator().manual_seed(1)
    normals = torch.randn(3, 8, 9, generator=g) + 0.3 * torch.randn(5, 3, 8, 9, generator=g)
    normals = torch.nn.functional.normalize(normals, dim=1)
    want, spread = MarigoldNormalsPipeline.ensemble_normals(normals, True, reduction)
    got, uncertainty = ensemble.merge("normals", normals, reduction=reduction)
    assert spread is not None
    torch.testing.assert_close(got, want[0])
    torch.testing.assert_close(uncertainty, spread[0, 0])


def test_normals_that_cancel_out_stay_unit_vectors() -> None:
    up = torch.tensor([0.0, 1.0, 0.0])[:, None, None].expand(3, 2, 2)
    merged, uncertainty = ensemble.merge("normals", torch.stack([up, -up]), reduction="mean")
    torch.testing.assert_close(merged.norm(dim=0), torch.ones(2, 2))
    torch.testing.assert_close(uncertainty, torch.full((2, 2), 0.5))


@pytest.mark.parametrize("seed", range(3))
def test_least_squares_recovers_what_the_runs_share(seed: int) -> None:
    """Exactly without noise; with it, better than any single run; and continuous: 1e-6 in stays below 1e-4 out."""
    truth, exact = runs(seed, m=7, noise=0.0)
    merged, uncertainty = ensemble.merge("depth_affine", exact, solver="least_squares")
    torch.testing.assert_close(merged[0], truth, rtol=0, atol=1e-5)
    assert float(uncertainty.max()) < 1e-5
    truth, noisy = runs(seed, m=7, noise=0.05)
    merged, uncertainty = ensemble.merge("depth_affine", noisy, solver="least_squares")

    def residual(x: Tensor) -> float:
        """RMS to the truth after the best scale and shift."""
        design = torch.stack([x.flatten(), torch.ones(x.numel())], 1)
        fitted = design @ torch.linalg.lstsq(design, truth.flatten()[:, None]).solution
        return float((fitted[:, 0] - truth.flatten()).square().mean().sqrt())

    assert residual(merged) < 0.7 * min(residual(run) for run in noisy)
    assert 0.005 < float(uncertainty.mean()) < 0.1
    shaken = noisy + 1e-6 * torch.randn(noisy.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        ensemble.merge("depth_affine", shaken, solver="least_squares")[0], merged, rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("solver", ensemble.SOLVERS)
def test_flat_runs_merge_to_finite_maps(solver: str) -> None:
    flat = torch.full((3, 1, 4, 5), 0.25)
    merged, uncertainty = ensemble.merge("depth_affine", flat, solver=solver)
    assert merged.isfinite().all() and uncertainty.isfinite().all()
    assert float(merged.min()) >= 0 and float(merged.max()) <= 1


def test_other_maps_merge_to_their_mean() -> None:
    maps = torch.tensor([0.0, 0.5, 1.0])[:, None, None, None].expand(3, 1, 2, 2)
    merged, uncertainty = ensemble.merge("alpha", maps)
    torch.testing.assert_close(merged, torch.full((1, 2, 2), 0.5))
    torch.testing.assert_close(uncertainty, torch.full((2, 2), 0.5))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("depth_affine", {"reducton": "mean"}, "unknown reducton for depth_affine; choose from reduction, solver"),
        ("depth_affine", {"reduction": "max"}, "choose median, mean"),
        ("depth_affine", {"solver": "adam"}, "choose bfgs, least_squares"),
        ("normals", {"reduction": "median"}, "choose closest, mean"),
        ("alpha", {"reduction": "mean"}, r"choose from \(none\)"),
        ("keypoints", {}, "not merged as maps"),
    ],
)
def test_wrong_options_say_what_there_is(kind: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ensemble.merge(kind, torch.rand(2, 3 if kind == "normals" else 1, 4, 4), **options)
