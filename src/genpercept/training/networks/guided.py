"""A decoder that leaves its finest levels to a small network guided by the photograph, to be distilled from the whole one."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from genpercept.models.codecs import CODECS
from genpercept.models.codecs.guided import GuidedDecoder, matching_config
from genpercept.training.networks.prune import prune, slim_config


def guided_config(
    config: dict[str, Any],
    levels: int = 1,
    width: float = 1.0,
    blocks: int = 0,
    channels: int = 3,
    attention: bool = True,
) -> dict[str, Any]:
    """Configuration of a GuidedDecoder for the latents of the AutoencoderKL that `config` describes. See `guided`."""
    return matching_config(slim_config(config, "decoder", width, blocks, 3, attention), levels, channels)


def guided(
    vae: nn.Module, levels: int = 1, width: float = 1.0, blocks: int = 0, channels: int = 3, attention: bool = True
) -> GuidedDecoder:
    """The decoder of `vae` without its `levels` finest levels, over copies of its weights; `vae` stays as it is.

    width, blocks, attention: pruned, too, as `prune` has it. channels: of the answer. Its last convolution, which gives the
    label at the small size, and the upsampler are new. ValueError for a codec of another class, and for too many levels.
    """
    slim = prune(vae, "decoder", width, blocks, attention=attention)
    config = matching_config(dict(slim.config), levels, channels)
    made = cast(GuidedDecoder, CODECS.find("guided").build(config))
    device = next(vae.parameters()).device
    nn.Module.to(made, device=device, dtype=torch.float32)
    own = made.state_dict()
    kept = {name: tensor for name, tensor in slim.state_dict().items() if _stays(name, tensor, own)}
    made.load_state_dict(own | kept, strict=True, assign=device.type == "meta")
    return made.eval()


def _stays(name: str, tensor: Tensor, own: dict[str, Tensor]) -> bool:
    """Whether the small decoder takes this of the whole one: all that it has but the layers that write the answer."""
    return name in own and not name.startswith(("decoder.conv_out.", "decoder.conv_norm_out."))
