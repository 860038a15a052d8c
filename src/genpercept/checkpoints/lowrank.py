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


def check(denoiser: nn.Module, stored: Mapping[str, tuple[int, ...]], source: str) -> None:
    """ValueError, begun by `source`, where tensors of these shapes are the difference to another network."""
    weights = dict(denoiser.named_parameters())
    for name in sorted({key.rpartition(".")[0] for key in stored}):
        a, b, weight = stored.get(f"{name}.A"), stored.get(f"{name}.B"), weights.get(name)
        fits = False
        if a is not None and b is not None and weight is not None and len(a) == len(b) == 2:
            rows, columns = weight.flatten(1).shape if weight.ndim > 1 else (0, 0)
            fits = (b[0], a[1]) == (rows, columns) and a[0] == b[1] <= max(rows, columns)
        if not fits:
            raise ValueError(f"{source}: its difference at {name!r} does not fit the denoiser; copy the model again")


def add(denoiser: nn.Module, difference: Mapping[str, Tensor]) -> None:
    """W <- W + B A, in place, computed in float32, for a difference that `check` passes."""
    weights: dict[str, Any] = dict(denoiser.named_parameters())
    with torch.no_grad():
        for name in sorted({key.rpartition(".")[0] for key in difference}):
            a, b, weight = difference[f"{name}.A"], difference[f"{name}.B"], weights[name]
            weight.copy_((weight.float() + (b.float() @ a.float()).view_as(weight)).to(weight.dtype))
