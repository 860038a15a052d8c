"""A decoder that leaves its finest levels to a small network guided by the photograph, to be distilled from the whole one."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genpercept.models.codecs import CODECS
from genpercept.models.codecs.guided import GuidedDecoder, matching_config
from genpercept.training.networks.prune import prune, slim_config

_PLACES = 4096  # of each image, by which the last convolution is fitted
_RIDGE = 1e-5  # over the mean square of what it reads


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


@torch.no_grad()
def fit(made: GuidedDecoder, latents: Tensor, answers: Tensor) -> None:
    """Set the small decoder's last convolution, in place, so that training begins near its end.

    latents (B, C, h, w), not scaled; answers (B, out_channels, H, W): the whole decoder's. By least squares: the label at the
    small size is to be the whole one's, averaged over the pixels of each small one.
    """
    conv = made.decoder.conv_out
    label = made.config["out_channels"]
    wanted = F.avg_pool2d(answers.double(), 2 ** made.config["levels"])
    products: Tensor | float = 0.0
    right: Tensor | float = 0.0
    made.decoder.conv_out = cast(nn.Conv2d, nn.Identity())
    try:
        for z, target in zip(latents.split(1), wanted.split(1), strict=True):
            z = z if made.post_quant_conv is None else made.post_quant_conv(z)
            columns = F.unfold(made.decoder(z).float(), 3, padding=1)[0]
            kept = torch.linspace(0, columns.shape[1] - 1, min(_PLACES, columns.shape[1])).long()
            x = columns[:, kept].double()
            x = torch.cat([x, torch.ones_like(x[:1])])
            products = products + x @ x.T
            right = right + x @ target[0].flatten(1)[:, kept].T
    finally:
        made.decoder.conv_out = conv
    products = cast(Tensor, products)
    ridge = _RIDGE * products.diagonal().mean() * torch.eye(len(products), dtype=products.dtype, device=products.device)
    found = torch.linalg.solve(products + ridge, cast(Tensor, right)).T  # (label, 9 channels and one)
    conv.weight[:label] = found[:, :-1].reshape(conv.weight[:label].shape).to(conv.weight.dtype)
    cast(Tensor, conv.bias)[:label] = found[:, -1].to(conv.weight.dtype)
