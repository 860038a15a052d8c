"""A narrower copy of one end of an AutoencoderKL, to be distilled: whole groups of channels go, and whole residual blocks.

Channels that a group normalisation sees go by groups, the same share of every layer's, so that any width is legal and a group
that is kept stays whole. What is kept is what the layers behind read most of; each of them has one vote. A layer reads of a
channel the square of its weights, times that of the normalisation's scale before it, or, without one, times the square of the
weights that write the channel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import Decoder, Encoder
from torch import Tensor, nn

from genpercept.models.codecs import CODECS

Part = Literal["encoder", "decoder"]
_OTHER = {"encoder": ("decoder", "post_quant_conv"), "decoder": ("encoder", "quant_conv")}  # what a half does without


def slim_config(
    config: dict[str, Any], part: Part, width: float, blocks: int = 0, channels: int = 3, attention: bool = True
) -> dict[str, Any]:
    """The configuration of an AutoencoderKL of which `part` is slim. See `prune`."""
    groups = int(config["norm_num_groups"])
    kept = max(1, round(groups * width))
    extra = 1 if part == "decoder" else 0  # a decoder has one block more than its configuration says
    own = int(config["layers_per_block"]) + extra
    if blocks > own:
        raise ValueError(
            f"distil.blocks {blocks}: the {part} has {own} residual blocks per level; choose as many or fewer"
        )
    kind = {k: v for k, v in config.items() if not k.startswith("_")} | {"_class_name": "AutoencoderKL"}
    return kind | {
        "block_out_channels": [c // groups * kept for c in config["block_out_channels"]],
        "norm_num_groups": kept,
        "layers_per_block": (blocks or own) - extra,
        "out_channels": channels if part == "decoder" else config["out_channels"],
        "mid_block_add_attention": attention and bool(config.get("mid_block_add_attention", True)),
    }


@torch.no_grad()
def prune(
    vae: nn.Module, part: Part, width: float, blocks: int = 0, channels: int = 3, attention: bool = True
) -> AutoencoderKL:
    """A half of an AutoencoderKL, `part` alone, with new weights out of those of `vae`, which stays as it is.

    width: share of the groups of channels that are kept, at least one, from 0 to 1. blocks: residual blocks per level, 0: all;
    those whose residuals are smallest go, never the first of a level. channels: of a decoder's answer; 1 is the mean of its
    three. attention: False leaves out that of the middle, whose cost is quadratic. At width 1 with all blocks the answer is
    the same to rounding. ValueError for a codec of another class and for more blocks than there are.
    """
    if not isinstance(vae, AutoencoderKL) or getattr(vae, part) is None:
        raise ValueError(
            f"distil.part {part!r}: a {type(vae).__name__} cannot be pruned, only an AutoencoderKL that has one"
        )
    if part == "decoder" and channels not in (1, vae.config["out_channels"]):
        raise ValueError(
            f"a decoder of {vae.config['out_channels']} channels can answer with these or their mean, not {channels}"
        )
    config = slim_config(dict(vae.config), part, width, blocks, channels, attention)
    end = cast(Encoder | Decoder, getattr(vae, part))
    plan = _Plan(end, blocks, config["mid_block_add_attention"])
    kept = plan.choose(
        config["norm_num_groups"] / int(vae.config["norm_num_groups"]), int(vae.config["norm_num_groups"])
    )
    tensors = {f"{part}.{name}": t for name, t in plan.tensors(kept).items()}
    if part == "decoder" and channels == 1:
        for name in ("decoder.conv_out.weight", "decoder.conv_out.bias"):
            tensors[name] = tensors[name].mean(0, keepdim=True)
    pointwise = "quant_conv" if part == "encoder" else "post_quant_conv"
    tensors |= {k: t.detach().clone() for k, t in vae.state_dict().items() if k.startswith(f"{pointwise}.")}
    return _filled(config, part, tensors)


def _filled(config: dict[str, Any], part: Part, tensors: dict[str, Tensor]) -> AutoencoderKL:
    with torch.device("meta"):
        slim = cast(AutoencoderKL, CODECS.find("kl").build(config))
    for unused in _OTHER[part]:
        setattr(slim, unused, None)
    slim.load_state_dict(tensors, strict=True, assign=True)
    return slim.eval()


@dataclass
class _Space:
    """Channels that layers share. grouped: a group normalisation sees them. readers: each with the normalisation before it."""

    size: int
    grouped: bool = True
    readers: list[tuple[nn.Module, nn.Module | None]] = field(default_factory=list)
    writers: list[nn.Module] = field(default_factory=list)

    def scores(self) -> Tensor:
        """How much of each channel is read, (size,); attention's queries and keys, read by nothing else, by their products."""
        written = [_energy(layer, 0) for layer in self.writers]
        if not self.readers:
            return torch.stack(written).prod(0)
        raw = torch.stack(written).sum(0)
        votes = [_energy(layer, 1) * (_energy(norm, 0) if norm is not None else raw) for layer, norm in self.readers]
        return torch.stack([vote / vote.sum().clamp_min(1e-30) for vote in votes]).sum(0)

    def choose(self, share: float, groups: int) -> Tensor:
        """The channels that are kept, in their order."""
        per_group = self.size // groups if self.grouped else 1
        scores = self.scores().view(-1, per_group).sum(1)
        best = scores.topk(round(len(scores) * share)).indices.sort().values
        return (best[:, None] * per_group + torch.arange(per_group)).flatten()


def _energy(layer: nn.Module, dim: int) -> Tensor:
    """Sum of the squares of a layer's weights for each channel that it writes (dim 0) or reads (1)."""
    weight = cast(Tensor, layer.weight).detach()
    # of shapes without values (a dry run) all channels are alike
    weight = torch.ones(weight.shape) if weight.is_meta else weight.float().cpu().square()
    return weight if weight.ndim == 1 else weight.transpose(0, dim).flatten(1).sum(1)


class _Plan:
    """Which channels of which layer are one space, walking through an end in the order in which it computes."""

    def __init__(self, end: Encoder | Decoder, blocks: int, attention: bool) -> None:
        self.spaces: list[_Space] = []
        # name in the slim end -> the layer, the spaces that it writes and reads; None: channels that all stay
        self.layers: dict[str, tuple[Any, _Space | None, _Space | None]] = {}
        self._attention = attention
        x = self._layer("conv_in", end.conv_in, None)
        if isinstance(end, Decoder):
            x = self._middle(end.mid_block, x)
            x = self._levels("up_blocks", end.up_blocks, x, blocks)
        else:
            x = self._levels("down_blocks", end.down_blocks, x, blocks)
            x = self._middle(end.mid_block, x)
        self._norm("conv_norm_out", end.conv_norm_out, x)
        x.readers.append((end.conv_out, end.conv_norm_out))
        self.layers["conv_out"] = (end.conv_out, None, x)

    def _levels(self, name: str, levels: Any, x: _Space, blocks: int) -> _Space:
        for i, level in enumerate(levels):
            for number, resnet in enumerate(_largest(list(level.resnets), blocks)):
                x = self._resnet(f"{name}.{i}.resnets.{number}", resnet, x)
            for kind in ("upsamplers", "downsamplers"):
                for sampler in getattr(level, kind, None) or ():
                    x = self._layer(f"{name}.{i}.{kind}.0.conv", sampler.conv, x)
        return x

    def _middle(self, block: Any, x: _Space) -> _Space:
        x = self._resnet("mid_block.resnets.0", block.resnets[0], x)
        if block.attentions[0] is not None and self._attention:
            self._attend("mid_block.attentions.0", block.attentions[0], x)
        return self._resnet("mid_block.resnets.1", block.resnets[1], x)

    def _resnet(self, name: str, block: Any, x: _Space) -> _Space:
        self._norm(f"{name}.norm1", block.norm1, x)
        inner = self._layer(f"{name}.conv1", block.conv1, x, block.norm1)
        self._norm(f"{name}.norm2", block.norm2, inner)
        out = x if block.conv_shortcut is None else self._layer(f"{name}.conv_shortcut", block.conv_shortcut, x)
        self._layer(f"{name}.conv2", block.conv2, inner, block.norm2, out)
        return out

    def _attend(self, name: str, block: Any, x: _Space) -> None:
        self._norm(f"{name}.group_norm", block.group_norm, x)
        matched = self._space(len(block.to_q.weight), grouped=False)
        for part in ("to_q", "to_k"):
            self._layer(f"{name}.{part}", getattr(block, part), x, block.group_norm, matched)
        value = self._space(len(block.to_v.weight), grouped=False)
        self._layer(f"{name}.to_v", block.to_v, x, block.group_norm, value)
        self._layer(f"{name}.to_out.0", block.to_out[0], value, None, x)

    def _space(self, size: int, grouped: bool = True) -> _Space:
        self.spaces.append(_Space(size, grouped))
        return self.spaces[-1]

    def _layer(
        self, name: str, layer: nn.Module, x: _Space | None, norm: nn.Module | None = None, out: _Space | None = None
    ) -> _Space:
        """A layer that reads `x`, behind `norm`, and writes `out`, or a space of its own, which is returned."""
        out = self._space(len(cast(Tensor, layer.weight))) if out is None else out
        out.writers.append(layer)
        if x is not None:
            x.readers.append((layer, norm))
        self.layers[name] = (layer, out, x)
        return out

    def _norm(self, name: str, norm: nn.Module, x: _Space) -> None:
        self.layers[name] = (norm, x, None)

    def choose(self, share: float, groups: int) -> dict[int, Tensor]:
        """The channels that are kept, by the identity of their space."""
        return {id(space): space.choose(share, groups) for space in self.spaces}

    def tensors(self, kept: dict[int, Tensor]) -> dict[str, Tensor]:
        """The slim end's, by name."""
        found = {}
        for name, (layer, out, x) in self.layers.items():
            weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
            if out is not None:
                rows = kept[id(out)].to(weight.device)
                weight, bias = weight[rows], bias[rows]
            if x is not None:
                weight = weight[:, kept[id(x)].to(weight.device)]
            if name.endswith(".to_q"):  # scores are divided by the square root of the channels
                factor = math.sqrt(len(weight) / len(layer.weight))
                weight, bias = weight * factor, bias * factor
            found |= {f"{name}.weight": weight, f"{name}.bias": bias}
        return found


def _largest(resnets: list[Any], blocks: int) -> list[Any]:
    """The first block of a level and those of the others that add most to what passes them; 0: all."""
    if not blocks or blocks >= len(resnets):
        return resnets
    sizes = [float((_energy(block.conv2, 1) * _energy(block.norm2, 0)).sum()) for block in resnets[1:]]
    best = sorted(range(len(sizes)), key=lambda i: -sizes[i])[: blocks - 1]
    return [resnets[0], *(resnets[1 + i] for i in sorted(best))]
