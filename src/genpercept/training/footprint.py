"""What a fine-tuning run takes of memory and disk: parameters counted, activations of a pass measured on shapes alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genpercept.models.backbones import as_backbone
from genpercept.models.codecs import is_guided
from genpercept.training.stages.finetune import FinetuneStage

_FLOAT = 4  # bytes: weights, gradients, averages and the optimiser's means are float32
_MEANS = {
    "muon": 1,
    "8bit": 0.5,
}  # of the gradient and its square that an optimiser keeps, in float32; 2 for the others
_GIB = 2**30


@dataclass(frozen=True)
class Footprint:
    """Bytes. activations: an estimate for one pass of `passed` samples of the largest size."""

    weights: int
    gradients: int
    optimiser: int
    average: int
    activations: int
    passed: int
    checkpoint: int  # one of them
    model: int  # as it is saved
    keep: int

    @property
    def fixed(self) -> int:
        """Of memory, whatever the batch."""
        return self.weights + self.gradients + self.optimiser + self.average

    @property
    def disk(self) -> int:
        """Checkpoints and the one being written, the best model and the last, and the one being written."""
        return (self.keep + 1) * self.checkpoint + 3 * self.model

    def __str__(self) -> str:
        parts = {"weights": self.weights, "gradients": self.gradients, "optimiser": self.optimiser}
        parts |= {"average": self.average} if self.average else {}
        said = ", ".join(f"{name} {size / _GIB:.1f}" for name, size in parts.items())
        return (
            f"memory: about {(self.fixed + self.activations) / _GIB:.1f} GiB a process, an estimate: {said}, activations of "
            f"{self.passed} at once {self.activations / _GIB:.1f}\n"
            f"disk: about {self.disk / _GIB:.1f} GiB: {self.keep} checkpoints of {self.checkpoint / _GIB:.1f}, the best and "
            f"the last model of {self.model / _GIB:.1f}, and room to write the next of each"
        )


def of_stage(stage: FinetuneStage, passed: int) -> Footprint:
    """Of a stage on the meta device. passed: samples that go through the network together."""
    recipe = stage.recipe
    learning = _count(p for p in stage.net.parameters() if p.requires_grad)
    everything = _count(p for part in _parts(stage) for p in part.parameters())
    means = int(learning * _FLOAT * _MEANS.get(recipe.optim.kind, 2))
    average = learning * _FLOAT if recipe.ema.decay else 0
    return Footprint(
        weights=everything * _FLOAT,
        gradients=learning * _FLOAT,
        optimiser=means,
        average=average,
        activations=_activations(stage, passed),
        passed=passed,
        checkpoint=learning * _FLOAT + average + means,
        model=everything * _FLOAT,
        keep=recipe.checkpoint.keep,
    )


def _parts(stage: FinetuneStage) -> list[nn.Module]:
    parts = (stage.parts.denoiser, stage.parts.vae, stage.parts.head_module)
    return [part for part in parts if part is not None]


def _count(parameters: Iterable[Tensor]) -> int:
    return sum(p.numel() for p in parameters)


def _activations(stage: FinetuneStage, passed: int) -> int:
    """What the forward pass keeps for the backward one, in the recipe's precision. Shapes alone: nothing is computed."""
    parts, recipe = stage.parts, stage.recipe
    h, w = max((size for n in range(len(recipe.data)) for size in recipe.sizes(n)), key=lambda size: size[0] * size[1])
    stride, net = parts.codec.stride, as_backbone(parts.denoiser)
    kept: dict[int, int] = {}
    own = {id(p) for p in stage.net.parameters()}
    held: list[Tensor] = []  # so that no two tensors have one id

    def keep(tensor: Tensor) -> Tensor:
        if id(tensor) not in own:
            held.append(tensor)
            kept[id(tensor.untyped_storage())] = tensor.numel() * tensor.element_size()
        return tensor

    context = parts.prompts.fixed.to("meta").expand(passed, -1, -1)
    rows, columns = h // stride, w // stride
    x = torch.empty(passed, net.in_channels, rows, columns, device="meta")
    guide = torch.empty(passed, 3, rows * stride, columns * stride, device="meta") if is_guided(parts.codec) else None
    stage.net.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        stage.net(x, torch.ones(passed, device="meta"), context, None, guide)
    return sum(kept.values()) // (1 if recipe.precision == "fp32" else 2)
