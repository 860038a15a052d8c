"""Batch normalisation over the samples of all processes, so that what is learnt does not depend on how many there are.

torch.nn.SyncBatchNorm does the same on accelerators only. This one runs wherever the processes can talk (gloo, NCCL), so that
what the tests see on CPUs is what runs on GPUs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm


def across_processes(net: nn.Module) -> None:
    """Let every batch norm of `net` measure the samples of all processes while it trains.

    The modules stay where they are, batch norms of torch with the names they had: what is saved does not change.
    """
    for module in net.modules():
        if kind := _KINDS.get(type(module)):
            module.__class__ = kind  # in place: parents may hold a module in more ways than as a child


class _AcrossProcesses(_BatchNorm):
    def forward(self, input: Tensor) -> Tensor:
        """(B, C, ...) -> normalised by mean and variance of all but C, over all processes; in eval mode by the running ones.

        A single value per channel in all of them has no variance: the running statistics normalise it, and stay as they are.
        """
        if not self.training:
            return super().forward(input)
        if dist.is_initialized() and dist.get_world_size() > 1:
            return self._together(input)
        if input.numel() > input.shape[1] or self.running_mean is None:
            return super().forward(input)
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)

    def _together(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        mean, variance, count = _measure(input)
        if self.running_mean is not None and self.running_var is not None:
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum  # type: ignore[arg-type]
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
            self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var.dtype), share)
        scale = torch.rsqrt(variance + self.eps)
        return _Normalise.apply(input, self.weight, self.bias, mean, scale, count)


class BatchNorm1d(_AcrossProcesses, nn.BatchNorm1d):
    pass


class BatchNorm2d(_AcrossProcesses, nn.BatchNorm2d):
    pass


class BatchNorm3d(_AcrossProcesses, nn.BatchNorm3d):
    pass


_KINDS: dict[type, type[_AcrossProcesses]] = {
    nn.BatchNorm1d: BatchNorm1d,
    nn.BatchNorm2d: BatchNorm2d,
    nn.BatchNorm3d: BatchNorm3d,
}


def _exact(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _dims(x: Tensor) -> list[int]:
    return [i for i in range(x.ndim) if i != 1]


def _spread(c: Tensor, x: Tensor) -> Tensor:
    """(C,) as it is added to and multiplied with x (B, C, ...)."""
    return c.reshape(1, -1, *[1] * (x.ndim - 2))


@torch.no_grad()
def _measure(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance (C,) of every process's (B, C, ...), and how many values per channel there are.

    Each process's squares are about its own mean, and put together as in Chan, Golub and LeVeque 1983: no cancellation.
    """
    x = _exact(x)
    dims = _dims(x)
    mean = x.mean(dims)
    squares = (x - _spread(mean, x)).square().sum(dims)
    own = torch.cat([mean, squares, mean.new_tensor([x.numel() // x.shape[1]])])
    everyone = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, own)
    table = torch.stack(everyone).double()
    channels = len(mean)
    means, squares, counts = table[:, :channels], table[:, channels:-1], table[:, -1:]
    count = counts.sum()
    whole = (counts * means).sum(0) / count
    variance = (squares.sum(0) + (counts * (means - whole).square()).sum(0)) / count
    return whole.to(own.dtype), variance.to(own.dtype), count.to(own.dtype)


class _Normalise(torch.autograd.Function):
    """(x - mean) scale weight + bias, where mean and scale are functions of every process's x.

    The gradient of x is that of the sum of all processes' losses. Those of weight and bias are this process's own: whoever
    averages gradients over the processes averages them, too.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, scale: Tensor, count: Tensor
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, scale, count)
        out = (_exact(x) - _spread(mean, x)) * _spread(scale, x)
        if weight is not None:
            out = out * _spread(_exact(weight), x)
        if bias is not None:
            out = out + _spread(_exact(bias), x)
        return out.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, mean, scale, count = ctx.saved_tensors
        grad = _exact(grad_outputs[0])
        normal = (_exact(x) - _spread(mean, x)) * _spread(scale, x)
        dims = _dims(x)
        own = torch.stack([grad.sum(dims), (grad * normal).sum(dims)])
        whole = own.clone()
        dist.all_reduce(whole)
        whole = whole / count
        back = (grad - _spread(whole[0], x) - normal * _spread(whole[1], x)) * _spread(scale, x)
        if weight is None:
            return back.to(x.dtype), None, None, None, None, None
        return (
            (back * _spread(_exact(weight), x)).to(x.dtype),
            own[1].to(weight.dtype),
            own[0].to(weight.dtype),
            None,
            None,
            None,
        )
