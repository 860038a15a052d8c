"""The networks of a recipe at full size on the meta device: shapes without memory, and arithmetic that costs no time."""

from __future__ import annotations

from typing import Any, cast

import torch

from genpercept.models.backbones import BACKBONES
from genpercept.models.backbones.clip import BIGG_CONFIG
from genpercept.models.backbones.dinov2 import GIANT_CONFIG
from genpercept.models.backbones.pixart_alpha import PIXART_512_CONFIG
from genpercept.models.backbones.sd21 import SD21_CONFIG
from genpercept.models.codecs import CODECS
from genpercept.models.codecs.kl import SD_VAE_CONFIG
from genpercept.models.heads import HEADS, neck_config
from genpercept.models.paradigms import PARADIGMS
from genpercept.tasks import TASKS
from genpercept.training import recipe as recipes
from genpercept.training.networks.predictor import Parts, find_task

# base of a recipe -> backbone and its full size; Stable Diffusion 2.1 for the others
_OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "PixArt-alpha/PixArt-XL-2-512x512": ("pixart_alpha", PIXART_512_CONFIG | {"out_channels": 4}),
    "facebook/dinov2-giant": ("dinov2", GIANT_CONFIG),
    "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k": ("clip", BIGG_CONFIG),
}


def full_size(recipe: recipes.Recipe) -> Parts:
    """The networks of a recipe at full size, without memory."""
    paradigm = PARADIGMS.find(recipe.paradigm).with_options(**recipe.paradigm_options)
    backbone, config = _OTHERS.get(recipe.model.base, ("sd21", SD21_CONFIG))
    pixels = BACKBONES.find(backbone).input == "pixels"
    codec_name = "pixels" if pixels else "kl"
    with torch.device("meta"):
        vae = None if pixels else CODECS.find("kl").build(SD_VAE_CONFIG).requires_grad_(False)
        codec = CODECS.find(codec_name).wrap(vae)
        channels = paradigm.input_channels(codec.channels)
        unet: Any = BACKBONES.find(backbone).build(config if pixels else config | {"in_channels": channels})
        name = recipe.model.head or TASKS.find(recipe.task).head
        plugin, task = HEADS.find(name), find_task(recipe)
        outputs = {"out_channels": task.outputs(next(s for s in plugin.spaces if s in task.spaces))}
        neck = neck_config(unet.pyramid_channels, unet.pyramid_strides)
        module = plugin.build(neck | outputs | recipe.model.head_config) if plugin.class_name else None
    nothing = cast(Any, None)  # prompts are given to forward
    return Parts(unet, vae, module, codec, plugin.wrap(module), paradigm, nothing, backbone, codec_name, name)
