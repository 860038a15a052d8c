"""Batch norms over several processes measure, learn and remember what one process with all samples does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from genpercept.training.networks import batch_norm, learning
from tests.support.processes import together


def network(**options: Any) -> nn.Sequential:
    """Two batch norms: on maps, and behind global pooling on one value per sample and channel."""
    torch.manual_seed(0)
    norms = [nn.BatchNorm2d(5, **options), nn.BatchNorm2d(4, **options)]
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), norms[0], nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(5, 4, 1), norms[1], nn.Flatten()
    ).double()


def samples() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(4, 3, 6, 7).double() * 3 + 1, torch.randn(4, 4).double()


def descend(net: nn.Module, x: Tensor, y: Tensor, steps: int = 5) -> list[float]:
    optimiser = torch.optim.SGD(net.parameters(), 0.3)
    losses = []
    for _ in range(steps):
        loss = F.mse_loss(net(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


def shared(out: Path, options: dict[str, Any]) -> None:
    """One of several processes: its share of the samples, gradients averaged by DDP; the first one saves the network."""
    dist.init_process_group("gloo")
    net = network(**options)
    batch_norm.across_processes(net)
    share = len(samples()[0]) // dist.get_world_size()
    x, y = (part[dist.get_rank() * share :][:share] for part in samples())
    descend(nn.parallel.DistributedDataParallel(net), x, y)
    if dist.get_rank() == 0:
        torch.save(net.state_dict(), out)


@pytest.mark.parametrize("processes", [2, 4])  # four: one sample each, which a batch norm of its own refuses
@pytest.mark.parametrize("options", [{}, {"affine": False, "momentum": None}])
def test_processes_normalise_as_one(tmp_path: Path, processes: int, options: dict[str, Any]) -> None:
    plain = network(**options)
    descend(plain, *samples())
    together(processes, lambda: shared(tmp_path / "net.pt", options), tmp_path / "log")
    found, want = torch.load(tmp_path / "net.pt"), plain.state_dict()
    assert found.keys() == want.keys() and int(found["1.num_batches_tracked"]) == 5
    for name in want:
        torch.testing.assert_close(found[name], want[name], rtol=1e-10, atol=1e-10)


def test_one_process_normalises_as_torch_does_to_the_bit() -> None:
    plain, ours = network(), network()
    batch_norm.across_processes(ours)
    assert descend(plain, *samples()) == descend(ours, *samples())
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), ours.state_dict().values(), strict=True))
    assert all(type(m).__name__ == "BatchNorm2d" and isinstance(m, nn.BatchNorm2d) for m in (ours[1], ours[5]))


def test_a_single_value_is_normalised_by_the_running_statistics() -> None:
    norm = nn.Sequential(nn.BatchNorm2d(2))
    norm[0].running_mean.copy_(torch.tensor([1.0, -1.0]))  # type: ignore[union-attr]
    norm[0].running_var.fill_(4.0)  # type: ignore[union-attr]
    batch_norm.across_processes(norm)
    learning.train(norm)
    x = torch.tensor([3.0, 3.0]).reshape(1, 2, 1, 1).requires_grad_()
    out = norm(x)
    torch.testing.assert_close(out.detach().flatten(), torch.tensor([1.0, 2.0]), rtol=1e-5, atol=1e-5)
    out.sum().backward()
    torch.testing.assert_close(x.grad.flatten(), torch.tensor([0.5, 0.5]), rtol=1e-5, atol=1e-5)  # type: ignore[union-attr]
    assert norm[0].running_mean.tolist() == [1, -1] and norm[0].num_batches_tracked == 0  # type: ignore[union-attr]


def test_frozen_batch_norms_do_not_drift() -> None:
    """A frozen part, and a frozen norm in a part that learns, keep their statistics; they are not among what changes."""
    net = nn.ModuleDict({"frozen": network(), "learns": network()})
    net["frozen"].requires_grad_(False)
    learns: Any = net["learns"]
    learns[5].requires_grad_(False)
    learns.register_buffer("table", torch.ones(2), persistent=False)
    learning.train(net)
    assert learns.training and learns[1].training and not learns[5].training and not net["frozen"].training
    before = {name: x.clone() for name, x in net.state_dict().items()}
    net["frozen"](samples()[0])
    descend(learns, *samples())
    moved = {name for name, x in net.state_dict().items() if not torch.equal(x, before[name])}
    statistics = {f"learns.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    weights = {f"learns.{i}.{name}" for i in (0, 1, 4) for name in ("weight", "bias")}
    assert moved == statistics | weights == learning.changing(net).keys()
