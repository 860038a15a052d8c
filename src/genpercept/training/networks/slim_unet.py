"""A U-Net of Stable Diffusion's architecture with blocks left out, over the weights of the whole one, to be distilled.

As BK-SDM (Kim et al. 2023, section 3): of each level the residual blocks with their attention behind the first ones
go, and on the way up those between, so that the block that takes the skip connection of the level above stays; the
middle and the innermost levels may go, too. Beyond that paper, the finest levels may lose their attention, whose cost
is quadratic in the pixels. What is left is described by diffusers' own configuration.
"""

from __future__ import annotations

import re
from typing import Any, cast

import torch
from torch import nn

from genpercept.core.modules import config_of
from genpercept.models.backbones import BACKBONES
from genpercept.models.backbones.sd21 import SD21UNet

_PLAIN = {"CrossAttnDownBlock2D": "DownBlock2D", "CrossAttnUpBlock2D": "UpBlock2D"}
_BY_LEVEL = ("block_out_channels", "down_block_types", "attention_head_dim", "num_attention_heads")
_BY_LEVEL += ("layers_per_block", "transformer_layers_per_block", "cross_attention_dim", "only_cross_attention")
_PLACE = re.compile(r"(down|up)_blocks\.(\d+)\.(?:(resnets|attentions)\.(\d+)\.)?")


def slim_config(
    config: dict[str, Any], blocks: int = 0, levels: int = 0, middle: bool = True, without_attention: int = 0
) -> dict[str, Any]:
    """Configuration of a UNet2DConditionModel with fewer blocks. See `slim_unet`. ValueError for more than there is."""
    count, own = len(config["block_out_channels"]), config["layers_per_block"]
    if levels >= count:
        raise ValueError(f"distil.levels {levels}: the U-Net has {count}; leave out fewer")
    if without_attention > count:
        raise ValueError(f"distil.without_attention {without_attention}: the U-Net has {count} levels")
    if blocks > (least := min(own) if isinstance(own, list | tuple) else own):
        raise ValueError(
            f"distil.blocks {blocks}: the U-Net has {least} per level on its way down; choose as many or fewer"
        )
    found = {k: v for k, v in config.items() if not k.startswith("_")}
    kept = count - levels
    found |= {k: list(found[k])[:kept] for k in _BY_LEVEL if isinstance(found.get(k), list | tuple)}
    found["up_block_types"] = list(config["up_block_types"])[levels:]
    for key, finest in (
        ("down_block_types", range(without_attention)),
        ("up_block_types", range(-1, -1 - without_attention, -1)),
    ):
        types = found[key]
        for place in list(finest)[:kept]:
            types[place] = _PLAIN.get(types[place], types[place])
    return found | ({"layers_per_block": blocks} if blocks else {}) | ({} if middle else {"mid_block_type": None})


@torch.no_grad()
def slim_unet(
    unet: nn.Module, blocks: int = 0, levels: int = 0, middle: bool = True, without_attention: int = 0
) -> SD21UNet:
    """A copy with fewer blocks of a U-Net, which stays as it is.

    blocks: residual blocks with their attention per level of the way down, the first ones; the way up keeps one more;
    0: all. levels: innermost levels that go. middle: False leaves that out. without_attention: so many levels, from
    the finest, lose theirs. A layer behind which a level went, and which reads other channels now, begins at random.
    ValueError for another network than a UNet2DConditionModel, and for more than there is.
    """
    if not isinstance(unet, SD21UNet) or type(unet).parent_name != "UNet2DConditionModel":
        raise ValueError(
            f'distil.part "denoiser": a {type(unet).__name__} cannot lose blocks, only a UNet2DConditionModel'
        )
    if unet.bottleneck is not None:
        raise ValueError('distil.part "denoiser": a U-Net with a block behind its middle cannot lose others, yet')
    whole = config_of(unet)
    config = slim_config(whole, blocks, levels, middle, without_attention)
    device = next(unet.parameters()).device
    with torch.device(device):
        slim = cast(SD21UNet, BACKBONES.find("sd21").build(config))
    nn.Module.to(slim, dtype=torch.float32)
    theirs, own = unet.state_dict(), slim.state_dict()
    for name, tensor in own.items():
        found = theirs.get(origin(name, blocks, levels, whole["layers_per_block"]))
        if found is not None and found.shape == tensor.shape:
            own[name] = found.detach().to(torch.float32).clone()
    slim.load_state_dict(own, strict=True, assign=device.type == "meta")
    return slim.eval()


def origin(name: str, blocks: int, levels: int, layers: int | list[int]) -> str:
    """The whole U-Net's name of the tensor that the slim one's `name` comes from."""
    place = _PLACE.match(name)
    if place is None:
        return name
    way, level, kind, number = place[1], int(place[2]), place[3], place[4]
    level += levels if way == "up" else 0
    if kind is None:
        return f"{way}_blocks.{level}.{name[place.end() :]}"
    block = int(number)
    if way == "up" and blocks and block == blocks:  # the last one, which takes the skip of the level above
        own = layers if isinstance(layers, int) else list(reversed(layers))[level]
        block = own
    return f"{way}_blocks.{level}.{kind}.{block}.{name[place.end() :]}"
