"""A run in another memory format than torch's own goes on from a checkpoint as if it had not stopped."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from genpercept.training.optim.build import build
from genpercept.training.recipe import Optim
from genpercept.training.run import sharding


def fresh(kind: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    net = nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net, build([{"params": list(net.parameters()), "lr": 1e-2}], Optim(kind=kind))


def step(net: nn.Module, optimiser: torch.optim.Optimizer, seed: int) -> None:
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed)).to(memory_format=torch.channels_last)
    net(x).square().mean().backward()
    optimiser.step()
    optimiser.zero_grad()


@pytest.mark.parametrize("kind", ["fused", "adamw", "adam", "muon"])
def test_channels_last(kind: str) -> None:
    """Moments are written contiguous; the fused kernel, given them so, would pair them with other weights."""
    net, optimiser = fresh(kind)
    for seed in range(2):
        step(net, optimiser, seed)
    weights = {name: p.detach().clone() for name, p in net.named_parameters()}
    state = sharding.whole(optimiser.state_dict())
    step(net, optimiser, 2)

    again, restored = fresh(kind)
    with torch.no_grad():
        for name, p in again.named_parameters():
            p.copy_(weights[name])
    restored.load_state_dict(sharding.spread_state(state, restored))
    step(again, restored, 2)
    for a, b in zip(net.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
