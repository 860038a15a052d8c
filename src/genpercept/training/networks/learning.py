"""What of a network a step of training changes, and in which mode the rest of it stands."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

Place = tuple[nn.Module, str, nn.Module]


def frozen(net: nn.Module) -> Iterator[Place]:
    """Parent, name and module of the largest parts that have parameters, none of which learns."""
    for name, module in net.named_children():
        if any(p.requires_grad for p in module.parameters()):
            yield from frozen(module)
        elif next(module.parameters(), None) is not None:
            yield net, name, module


def train(net: nn.Module) -> None:
    """Train mode for what learns. Frozen parts stay in eval mode: their batch norms' statistics must not drift."""
    net.train()
    for _, _, module in frozen(net):
        module.eval()


def changing(net: nn.Module) -> dict[str, Tensor]:
    """Every tensor that a step changes, by its name in `state_dict`: parameters that learn, persistent buffers beside them.

    Batch norms have such buffers: running mean and variance, and how many batches those have seen.
    """
    still = {id(child) for _, _, module in frozen(net) for child in module.modules()}
    found: dict[str, Tensor] = {name: p for name, p in net.named_parameters() if p.requires_grad}
    for path, module in net.named_modules():
        if id(module) in still:
            continue
        for name, buffer in module.named_buffers(path, recurse=False):
            if name.rpartition(".")[2] not in module._non_persistent_buffers_set:
                found[name] = buffer
    return found
