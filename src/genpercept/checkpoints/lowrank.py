"""Denoisers stored as low-rank differences to another one: what a LoRA adapter on every layer comes to, without peft.

A file of safetensors: for a layer's weight W (m, n), or (m, c, k, k) with n = c k k, NAME.A (r, n) and NAME.B (m, r);
W + B A is the new weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def from_lora(denoiser: nn.Module) -> dict[str, Tensor]:
    """The difference that a denoiser's adapters make, by the names of its weights without them, float32."""
    from peft.tuners.lora import LoraLayer

    found: dict[str, Tensor] = {}
    for name, layer in denoiser.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        adapters: Any = layer  # peft builds its attributes at run time
        for adapter, scale in adapters.scaling.items():
            a, b = (part[adapter].weight.detach().float().cpu() for part in (adapters.lora_A, adapters.lora_B))
            found[f"{name}.weight.A"] = a.flatten(1).contiguous()
            found[f"{name}.weight.B"] = (b.flatten(1) * scale).contiguous()
    if not found:
        raise ValueError("the denoiser has no LoRA adapter: its difference to the base is not of low rank")
    return found


@torch.no_grad()
def add(denoiser: nn.Module, difference: Mapping[str, Tensor], source: str) -> None:
    """W <- W + B A, in place, computed in float32. ValueError, begun by `source`, where it is another network's."""
    weights: dict[str, Any] = dict(denoiser.named_parameters())
    for name in sorted({key.rpartition(".")[0] for key in difference}):
        a, b = difference.get(f"{name}.A"), difference.get(f"{name}.B")
        weight = weights.get(name)
        if a is None or b is None or weight is None or (b.shape[0], a.shape[1]) != tuple(weight.flatten(1).shape):
            raise ValueError(f"{source}: its difference at {name!r} does not fit the denoiser; copy the model again")
        weight.copy_((weight.float() + (b.float() @ a.float()).view_as(weight)).to(weight.dtype))
