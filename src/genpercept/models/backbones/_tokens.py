"""What backbones that take pixels share: transformers' plain vision transformers, read behind four of their blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

import torch
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn
from transformers import PreTrainedModel

from genpercept.checkpoints.parts import write_config
from genpercept.checkpoints.schema import known
from genpercept.core.files import read_json
from genpercept.core.modules import Pretrained
from genpercept.core.values import Features
from genpercept.models.backbones import as_backbone
from genpercept.models.backbones._blocks import KEY, check_size, choose, to_map


class _Shape(Protocol):
    """What is read of transformers' configurations of such models."""

    num_channels: int
    patch_size: int
    hidden_size: int


class PixelBackbone:
    """Mixed in before a transformers model of patches: pixels in [-1, 1] -> the token maps behind its chosen blocks.

    All maps have one size; the deepest block's counts as the coarsest level, as DPT reads plain transformers (Ranftl et al.
    2021). The class token is left out. No latent comes out, and neither timestep nor text is read.
    """

    label: ClassVar[str]
    mean: ClassVar[tuple[float, float, float]]  # of the model's own training images, in [0, 1]
    std: ClassVar[tuple[float, float, float]]
    context_width = None
    empty_prompt: Tensor | None = None

    def embed(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, H, W) -> tokens (B, 1 + N, C), class token first, with position embeddings of this size."""
        raise NotImplementedError

    def blocks(self) -> nn.ModuleList:
        raise NotImplementedError

    def finish(self, tokens: Tensor) -> Tensor:
        """What a head reads of a block's tokens."""
        return tokens

    def unread(self) -> Iterable[nn.Parameter]:
        """Parameters outside of the blocks that no feature map depends on."""
        return ()

    @property
    def _shape(self) -> _Shape:
        return cast(_Shape, cast(Pretrained, self).config)

    @property
    def in_channels(self) -> int:
        return int(self._shape.num_channels)

    @property
    def patch(self) -> int:
        return int(self._shape.patch_size)

    @property
    def pyramid_blocks(self) -> tuple[int, ...]:
        """Counted from 0. `pyramid_blocks` in config.json, or four evenly spaced ones."""
        return choose(getattr(self._shape, KEY, None), len(self.blocks()))

    def choose_blocks(self, blocks: Sequence[int]) -> None:
        """Read the pyramid behind these blocks from now on. ValueError for blocks that are not there."""
        setattr(self._shape, KEY, list(choose(blocks, len(self.blocks()))))

    @property
    def pyramid_channels(self) -> tuple[int, ...]:
        return (int(self._shape.hidden_size),) * len(self.pyramid_blocks)

    @property
    def pyramid_strides(self) -> tuple[int, ...]:
        """Image pixels per token, the same at every level."""
        return (self.patch,) * len(self.pyramid_blocks)

    def output_parameters(self) -> Iterator[nn.Parameter]:
        later = self.blocks()[self.pyramid_blocks[-1] + 1 :]
        yield from chain(self.unread(), *(block.parameters() for block in later))

    @apply_forward_hook  # so that model CPU offload brings the weights in, as it does for `forward`
    def forward_features(self, x: Tensor, t: Tensor, context: Tensor, *, latent: bool = True) -> Features:
        """x (B, 3, H, W) in [-1, 1], H and W multiples of `patch` -> pyramid alone; t, context and `latent` are not read."""
        size, grid = (int(x.shape[-2]), int(x.shape[-1])), check_size(self.label, x, self.patch)
        mean, std = (x.new_tensor(v).view(1, 3, 1, 1) for v in (self.mean, self.std))
        tokens = self.embed(((x + 1) / 2 - mean) / std)
        chosen = self.pyramid_blocks
        maps: list[Tensor] = []
        for number, block in enumerate(self.blocks()[: chosen[-1] + 1]):
            tokens = block(tokens, attention_mask=None)
            if number in chosen:
                maps.append(to_map(self.finish(tokens)[:, 1:], grid))
        return Features(None, tuple(reversed(maps)), size)

    def enable_gradient_checkpointing(self) -> None:
        renamed = getattr(self, "activation_checkpointing_enable", None)  # by transformers 5
        (renamed or cast(PreTrainedModel, self).gradient_checkpointing_enable)()

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        """In transformers' layout, as the parent's class; always safetensors."""
        kwargs.pop("safe_serialization", None)
        base: Any = super()
        base.save_pretrained(save_directory, *args, **kwargs)
        path = Path(save_directory) / "config.json"
        config = read_json(path)
        config["architectures"] = [type(self).__mro__[2].__name__]
        write_config(path, config, sort_keys=True)


def settings(config: dict, of: type) -> dict[str, Any]:
    """The part of a config.json that makes the network: arguments of the class `of`, and which blocks are read.

    Nothing else reaches transformers, which would fetch code by some keys (_attn_implementation), and tables by others.
    """
    return known(config, of) | ({KEY: config[KEY]} if KEY in config else {})


def plain_pixels(module: nn.Module, channels: int) -> nn.Module:
    """The module, as `BackbonePlugin.adapt` gives it. ValueError for anything but an image's own channels."""
    own = as_backbone(module).in_channels
    if own != channels:
        raise ValueError(f"a backbone that takes pixels reads {own} channels, not {channels}")
    return module


def stays_on_cpu(numbers: int) -> Tensor:
    """0, 1, ... as a buffer that files do not hold, so that it must not stay on the meta device. (1, numbers) int64."""
    return torch.arange(numbers, device="cpu").expand(1, -1)
