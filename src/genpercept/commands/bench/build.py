"""Pipelines with random weights at real sizes, or loaded ones, as a setting wants them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from genpercept.checkpoints import hub
from genpercept.checkpoints.parts import PartPlugin
from genpercept.commands.bench.setting import DECODERS, UNETS, Setting
from genpercept.core import dtypes
from genpercept.core.files import read_json
from genpercept.core.modules import config_of
from genpercept.models.backbones import BACKBONES
from genpercept.models.backbones.sd21 import SD21_CONFIG
from genpercept.models.codecs import CODECS, guided
from genpercept.models.codecs.kl import SD_VAE_CONFIG
from genpercept.models.codecs.tiny import matching_config
from genpercept.models.heads import HEADS
from genpercept.pipeline import exported, loading, quantised
from genpercept.pipeline.pipeline import GenPerceptPipeline
from genpercept.pipeline.specialise.pipeline import specialise
from genpercept.training.networks.slim_unet import slim_config

_PROMPT_TOKENS = 2  # the empty prompt, not padded


def pipeline(setting: Setting, graph: Path | None = None) -> GenPerceptPipeline:
    """Ready on the setting's device and in its dtype. Equal settings but for dtype and specialising have equal weights.

    graph: of a runtime that is not torch, the file that `export` wrote.
    """
    dtype = dtypes.to_torch(setting.dtype)
    if setting.runtime != "torch":
        if graph is None:
            raise ValueError(f"{setting.label}: its graph is missing")
        return cast(GenPerceptPipeline, exported.load(graph, setting.dtype))  # whose call it shares
    if setting.model:
        plain = False if setting.quantise else None  # or as it was saved
        pipe = loading.load(setting.model, torch_dtype=dtype, device=setting.device, specialised=plain)
    else:
        pipe = random(setting, setting.device, dtype)
    if setting.quantise:
        pipe = quantised.quantise(pipe, setting.quantise)
    if setting.attention_slicing:
        pipe.enable_attention_slicing()
    if setting.vae_tiling:
        enable = getattr(pipe.vae, "enable_tiling", None)
        if enable is None:
            raise ValueError(f"{setting.network}: its codec cannot work in tiles; leave --vae-tiling out")
        enable()
    if setting.specialised:
        ways = {"compile": setting.compile, "cuda_graphs": setting.cuda_graphs, "layout": setting.layout}
        pipe = specialise(pipe, strips=setting.strips, **ways)
        pipe.to(setting.device)
    return pipe


def export(setting: Setting, folder: Path) -> Path:
    """Write the graph of the setting's runtime into `folder`; returns its file."""
    from genpercept.commands.export.write import write

    to, _, dtype = setting.runtime.partition("-")
    path = folder / f"model{exported.SUFFIXES[to]}"
    write(pipeline(replace(setting, runtime="torch", dtype="fp32")), to, path, dtype or "fp32")
    return path


def networks(setting: Setting) -> GenPerceptPipeline:
    """The setting's networks as torch has them, for counting: without weights where they are random anyway."""
    if setting.model:
        return loading.load(setting.model, device="cpu", specialised=False)
    return random(setting, "meta", torch.float32)


def random(setting: Setting, device: str, dtype: torch.dtype) -> GenPerceptPipeline:
    """A depth predictor with random weights in the setting's shape; drawn in float32, then rounded."""
    configs = configurations(setting.shape, setting.codec)
    codec = setting.codec
    if setting.decoder:
        codec, configs["vae"] = "pair", guided_pair(setting.shape, configs["vae"], DECODERS[setting.decoder])
    if setting.unet:
        configs["unet"] = slim_config(configs["unet"], **UNETS[setting.unet][setting.shape])
    torch.manual_seed(0)
    head_module = None
    with torch.device(device):
        unet = BACKBONES.find("sd21").build(configs["unet"])
        vae = CODECS.find(codec).build(configs["vae"])
        if setting.head != "vae":
            sizes = {"neck_hidden_sizes": list(configs["unet"]["block_out_channels"])}
            head_module = HEADS.find(setting.head).build(sizes)
    width = int(config_of(unet)["cross_attention_dim"])
    return GenPerceptPipeline.from_parts(
        unet=_rounded(unet, dtype),
        vae=_rounded(vae, dtype),
        prompt_embeds=torch.randn(1, _PROMPT_TOKENS, width, generator=torch.Generator().manual_seed(1)),
        task="depth",
        head=setting.head,
        head_module=None if head_module is None else _rounded(head_module, dtype),
        codec=codec,
        resolution=setting.resolution,
    )


def _rounded(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    return nn.Module.to(module, dtype)  # diffusers' own warns of parts to be kept in float32, of which there are none


def configurations(shape: str, codec: str) -> dict[str, dict[str, Any]]:
    """Configurations of "unet" and "vae": Stable Diffusion 2.1's, or the embedded base's."""
    if shape == "sd21":
        unet, kl = SD21_CONFIG, SD_VAE_CONFIG
    else:
        root = hub.embedded_root() / "base"
        unet, kl = (read_json(root / part / "config.json") for part in ("unet", "vae"))
    return {"unet": unet, "vae": kl if codec == "kl" else matching_config(kl)}


def guided_pair(shape: str, encoder: dict[str, Any], levels: int) -> dict[str, Any]:
    """Configuration of this codec's encoder beside a guided decoder of one channel over the shape's AutoencoderKL."""
    decoder = guided.matching_config(configurations(shape, "kl")["vae"], levels, channels=1)
    return {"encoder": {"_class_name": CODECS.find("kl").class_name} | encoder, "decoder": decoder}


def on_meta(pipe: GenPerceptPipeline) -> GenPerceptPipeline:
    """The plain pipeline of the same networks without weights, on the meta device."""
    info = {k: v for k, v in pipe.info.items() if k != "specialised"}

    def again(plugin: PartPlugin, part: nn.Module | None) -> nn.Module | None:
        return None if part is None else plugin.build(config_of(part))

    with torch.device("meta"):
        unet = again(BACKBONES.find(info["backbone"]), pipe.unet)
        vae = again(CODECS.find(info["codec"]), pipe.vae)
        head = again(HEADS.find(info["head"]), pipe.head)
        encoder = None
        if pipe.image_encoder is not None:
            from genpercept.models.image_encoder import PLUGIN  # transformers', which others do without

            encoder = again(PLUGIN, pipe.image_encoder)
    assert unet is not None
    return GenPerceptPipeline(unet, vae, pipe.prompt_embeds, info, head, encoder)
