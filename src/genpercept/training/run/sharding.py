"""Parameters spread over the processes, as accelerate's FSDP settings (version 2) ask. They come together to be saved."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from accelerate import Accelerator, DistributedType, FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map

from genpercept.training.networks import learning


def adopt(accelerator: Accelerator) -> bool:
    """Whether this run shards its parameters. ValueError for ways of sharding that are not supported.

    accelerate reads its FSDP settings where there are accelerators only; over gloo they hold just as well.
    """
    state = accelerator.state
    asked = os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
    if asked and accelerator.distributed_type == DistributedType.MULTI_CPU:
        plugin = FullyShardedDataParallelPlugin()
        if accelerator.mixed_precision != "no":
            plugin.set_mixed_precision(accelerator.mixed_precision)
        state.fsdp_plugin, state.distributed_type = plugin, DistributedType.FSDP
    kind = accelerator.distributed_type
    if kind in (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise ValueError(f"{kind.value} is not supported: launch with DDP or FSDP (fsdp_version: 2)")
    if kind != DistributedType.FSDP:
        return False
    if not accelerator.is_fsdp2:
        raise ValueError("FSDP version 1 is not supported: set fsdp_version: 2 in accelerate's configuration")
    return True


def prepare(
    accelerator: Accelerator, net: nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Both as accelerate shards them, in place. What does not learn stays whole: it runs outside of the network too."""
    plugin: Any = accelerator.state.fsdp_plugin
    plugin.cpu_ram_efficient_loading = False  # every process has read the weights already
    net.to(accelerator.device)
    with _hidden(list(learning.frozen(net))):
        return cast(tuple[nn.Module, torch.optim.Optimizer], accelerator.prepare(net, optimiser))


@contextmanager
def _hidden(places: list[learning.Place]) -> Iterator[None]:
    """The modules out of sight of their parents, which keep their places in the order."""
    for parent, name, _ in places:
        parent._modules[name] = None
    try:
        yield
    finally:
        for parent, name, module in places:
            parent._modules[name] = module


def whole(value: Any, keep: bool = True) -> Any:
    """Copies on the CPU of all tensors in a nest of containers, sharded ones in one piece. All processes must call it.

    Without `keep` this process takes part, and has None for each: one copy in memory is enough for all.
    """

    def gather(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        x = x.full_tensor() if isinstance(x, DTensor) else x
        return torch.empty(x.shape, dtype=x.dtype).copy_(x.detach()) if keep else None

    return tree_map(gather, value)


def own(tensor: Tensor) -> Tensor:
    """This process's part of a tensor, which shares its memory; the tensor itself where it is whole."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, pattern: Tensor) -> Tensor:
    """This process's part of a whole tensor, as `pattern` is sharded; the tensor itself where that is whole."""
    if not isinstance(pattern, DTensor):
        return tensor
    part = tensor.to(pattern.device)
    return distribute_tensor(part, pattern.device_mesh, pattern.placements, src_data_rank=None)


def _laid_out(tensor: Tensor, pattern: Tensor) -> Tensor:
    """The tensor with the strides of `pattern`, which has its shape."""
    if isinstance(pattern, DTensor) or tensor.stride() == pattern.stride():
        return tensor
    return torch.empty_like(pattern, dtype=tensor.dtype, device=tensor.device).copy_(tensor)


def spread_state(state: dict[str, Any], optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's whole state_dict, its moments sharded as the parameters they belong to, its settings as they are now.

    Moments lie in memory as their parameters do: fused kernels go through both in the order of storage, so that moments of
    another memory format would be those of other weights.
    """
    params = [p for group in optimiser.param_groups for p in group["params"]]
    spread = {
        number: {
            key: _laid_out(like(x, params[number]), params[number])
            if isinstance(x, Tensor) and x.shape == params[number].shape
            else x
            for key, x in entry.items()
        }
        for number, entry in state["state"].items()
    }
    return {"state": spread, "param_groups": optimiser.state_dict()["param_groups"]}
