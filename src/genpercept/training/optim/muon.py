"""Muon (Jordan et al. 2024): weight matrices move along the orthogonal factor of their momentum, all else by AdamW.

torch.optim.Muon takes matrices only, one at a time; here convolutions count as matrices (out, in x kernel), and those of one
shape are orthogonalised together, which matters where the networks are small.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Newton and Schulz's quintic iteration, as in Jordan's note and in torch
_ITERATIONS = 5
_MOMENTUM = 0.95
_SMALLEST = 32  # matrices thinner than this, such as first and last layers, are AdamW's
_RMS = 0.2  # root mean square of an update relative to lr, AdamW's usual one: both share one lr (Liu et al. 2025)


class Muon(torch.optim.Optimizer):
    """Over parameter groups as AdamW takes them; betas and eps are of the AdamW part, lr and weight decay of both."""

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        split = []
        for group in groups:
            for matrices in (True, False):
                chosen = [p for p in group["params"] if _is_matrix(p) == matrices]
                if chosen:
                    split.append({**group, "params": chosen, "matrices": matrices})
        super().__init__(split, {"lr": 1e-3, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            if group["matrices"]:
                self._orthogonal(params, group["lr"])
            else:
                self._adam(params, group)

    def _orthogonal(self, params: list[Tensor], lr: float) -> None:
        shapes: dict[tuple[int, int], list[Tensor]] = {}
        for p in params:
            shapes.setdefault((p.shape[0], p.numel() // p.shape[0]), []).append(p)
        for (rows, columns), same in shapes.items():
            momenta = [self._moment(p, "momentum") for p in same]
            grads = [p.grad for p in same if p.grad is not None]
            torch._foreach_lerp_(momenta, grads, 1 - _MOMENTUM)
            ahead = torch._foreach_lerp(grads, momenta, _MOMENTUM)  # Nesterov's
            update = orthogonal(torch.stack([x.reshape(rows, columns) for x in ahead]))
            size = lr * _RMS * max(rows, columns) ** 0.5
            torch._foreach_add_(same, [u.view_as(p).to(p) for u, p in zip(update, same, strict=True)], alpha=-size)

    def _adam(self, params: list[Tensor], group: dict[str, Any]) -> None:
        (beta1, beta2), grads = group["betas"], [p.grad for p in params if p.grad is not None]
        first = [self._moment(p, "exp_avg") for p in params]
        second = [self._moment(p, "exp_avg_sq") for p in params]
        steps = [self.state[p].setdefault("step", torch.zeros(())) for p in params]
        torch._foreach_add_(steps, 1)
        torch._foreach_lerp_(first, grads, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, grads, grads, 1 - beta2)
        bias = [((1 - beta2 ** float(s)) ** 0.5, 1 - beta1 ** float(s)) for s in steps]
        scale = torch._foreach_sqrt(second)
        torch._foreach_div_(scale, [b for b, _ in bias])
        torch._foreach_add_(scale, group["eps"])
        torch._foreach_addcdiv_(params, first, scale, [-group["lr"] / b for _, b in bias])

    def _moment(self, p: Tensor, name: str) -> Tensor:
        state = self.state[p]
        if name not in state:
            state[name] = torch.zeros_like(p)
        return state[name]


def orthogonal(matrices: Tensor) -> Tensor:
    """(n, rows, columns) -> the nearest matrices with singular values near 1 (0.7 to 1.2), in bfloat16."""
    a, b, c = _COEFFICIENTS
    x = matrices.bfloat16()
    wide = x.shape[-2] <= x.shape[-1]
    x = x if wide else x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT


def _is_matrix(p: Tensor) -> bool:
    return p.ndim >= 2 and min(p.shape[0], p.numel() // p.shape[0]) >= _SMALLEST
