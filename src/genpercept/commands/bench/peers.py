"""Public depth networks with random weights at their published sizes: speed needs no training.

They are diffusers' and transformers' own, but for those that neither has, which are ours; DepthFM's are diffusers' networks,
sampled by our paradigm.

Configurations are written out from each project's published files; parameters are counted and compared with what it says.
Timed is the network alone on an image already resized (by us: their image processors need torchvision) and on the device;
Marigold's is its whole pipeline, since denoising and merging are its own code, and DepthFM's goes from the image to log-depth.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genpercept.commands.bench import flops, machine
from genpercept.commands.bench.build import configurations
from genpercept.commands.bench.clock import timed
from genpercept.commands.bench.setting import Effort, Setting
from genpercept.commands.bench.whole_peers import TOKENS, Flow, InLatents
from genpercept.core import dtypes
from genpercept.core.names import hint
from genpercept.models.backbones import BACKBONES
from genpercept.models.codecs import CODECS
from genpercept.pipeline.specialise.compiled import Compiled, Graphed, Pools

_TRAIN_STEPS = 1000


@dataclass(frozen=True)
class Peer:
    """parameters: counted from the configuration here; published: what `source` says, in millions.

    edge: of the square its network sees; None: the edge asked for. steps, members: of those that take several; 0
    for those of one pass.
    """

    name: str
    family: str
    parameters: int
    published: float
    source: str
    edge: int | None = None
    steps: int = 0
    members: int = 1

    def build(self) -> Any:
        """The network, or Marigold's pipeline, in float32 with random weights, under `torch.device` where that says."""
        return _BUILDERS[self.family](self)

    def sees(self, resolution: int) -> int:
        """The edge of the square that its network sees when `resolution` is asked for."""
        return self.edge or resolution


# ---- configurations --------------------------------------------------------------------------------------------------


def _marigold(peer: Peer) -> Any:
    """Marigold v1-0: Stable Diffusion 2's U-Net on 8 channels, v-prediction; no text encoder, its embedding is constant."""
    from diffusers import AutoencoderKL, DDIMScheduler, MarigoldDepthPipeline, UNet2DConditionModel

    configs = configurations("sd21", "kl")
    scheduler = DDIMScheduler(
        num_train_timesteps=_TRAIN_STEPS,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        set_alpha_to_one=False,
        steps_offset=1,
        clip_sample=False,
    )
    unet = configs["unet"] | {"in_channels": 2 * configs["vae"]["latent_channels"]}
    parts: dict[str, Any] = {
        "unet": UNet2DConditionModel.from_config(unet),
        "vae": AutoencoderKL.from_config(configs["vae"]),
        "scheduler": scheduler,
        "text_encoder": None,
        "tokenizer": None,
    }
    pipe = MarigoldDepthPipeline(
        **parts, prediction_type="depth", default_denoising_steps=peer.steps, default_processing_resolution=768
    )
    pipe.empty_text_embedding = torch.zeros(1, TOKENS, configs["unet"]["cross_attention_dim"], device="cpu")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _depthfm(peer: Peer) -> nn.Module:
    """DepthFM: Stable Diffusion 2's U-Net on 8 channels with 8 heads on every level, 1.5's autoencoder, a stored prompt."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    configs = configurations("sd21", "kl")
    unet = configs["unet"] | {"in_channels": 2 * configs["vae"]["latent_channels"], "attention_head_dim": 8}
    vae = AutoencoderKL.from_config(configs["vae"])
    return Flow(UNet2DConditionModel.from_config(unet), vae, unet["cross_attention_dim"])


def _geowizard(peer: Peer) -> nn.Module:
    from genpercept.commands.bench.joint_peer import JointPeer

    return JointPeer(configurations("sd21", "kl")["vae"])


_DINOV2 = {"depth-anything-v2-small": (384, 12, 6), "depth-anything-v2-base": (768, 12, 12)}
_DINOV2["depth-anything-v2-large"] = (1024, 24, 16)  # width, layers, heads
_NECKS = {384: (64, [48, 96, 192, 384]), 768: (128, [96, 192, 384, 768]), 1024: (256, [256, 512, 1024, 1024])}
_TAPS = {"depth-anything-v2-small": [3, 6, 9, 12], "depth-anything-v2-base": [3, 6, 9, 12]}
_TAPS["depth-anything-v2-large"] = [5, 12, 18, 24]


def _depth_anything(peer: Peer) -> nn.Module:
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    name = peer.name.partition("@")[0]
    width, layers, heads = _DINOV2[name]
    fusion, neck = _NECKS[width]
    backbone: dict[str, Any] = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "image_size": 518,
        "patch_size": 14,
        "out_indices": _TAPS[name],
        "apply_layernorm": True,
        "reshape_hidden_states": False,
    }
    return DepthAnythingForDepthEstimation(
        DepthAnythingConfig(
            backbone_config=Dinov2Config(**backbone),
            patch_size=14,
            reassemble_hidden_size=width,
            fusion_hidden_size=fusion,
            neck_hidden_sizes=neck,
        )
    )


def _dpt(peer: Peer) -> nn.Module:
    from transformers import DPTConfig, DPTForDepthEstimation

    return DPTForDepthEstimation(
        DPTConfig(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=24,
            num_attention_heads=16,
            backbone_out_indices=[5, 11, 17, 23],
            neck_hidden_sizes=[256, 512, 1024, 1024],
            image_size=384,
            patch_size=16,
        )
    )


def _zoedepth(peer: Peer) -> nn.Module:
    """ZoeD_N: BEiT-L at 384 pixels and one head of metric bins, for NYU."""
    from transformers import BeitConfig, ZoeDepthConfig, ZoeDepthForDepthEstimation

    backbone: dict[str, Any] = {
        "image_size": 384,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "use_relative_position_bias": True,
        "reshape_hidden_states": False,
        "out_features": ["stage6", "stage12", "stage18", "stage24"],
    }
    bins = [{"name": "nyu", "n_bins": 64, "min_depth": 1e-3, "max_depth": 10.0}]
    config: dict[str, Any] = {
        "backbone_config": BeitConfig(**backbone),
        "neck_hidden_sizes": [256, 512, 1024, 1024],
        "bin_centers_type": "softplus",
        "bin_configurations": bins,
        "num_patch_transformer_layers": None,
    }
    return ZoeDepthForDepthEstimation(ZoeDepthConfig(**config))


def _depth_pro(peer: Peer) -> nn.Module:
    """Three DINOv2-L: patches at three scales, the whole image, the field of view."""
    from transformers import DepthProConfig, DepthProForDepthEstimation

    vit = {
        "model_type": "dinov2",
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 16,
        "apply_layernorm": True,
        "reshape_hidden_states": False,
        "use_mask_token": False,
    }
    config = DepthProConfig(
        image_model_config=vit, patch_model_config=vit, fov_model_config=vit, use_fov_model=True, patch_size=384
    )
    return DepthProForDepthEstimation(config)


def _depthmaster(peer: Peer) -> nn.Module:
    """Stable Diffusion 2's U-Net with a Fourier block, and its autoencoder; its step, timestep 1, by our own modules."""
    configs = configurations("sd21", "kl")
    unet = BACKBONES.find("sd21_fourier").build(configs["unet"])
    return InLatents(unet, CODECS.find("kl").build(configs["vae"]))


_BUILDERS: dict[str, Callable[[Peer], Any]] = {
    "marigold": _marigold,
    "depthmaster": _depthmaster,
    "geowizard": _geowizard,
    "depthfm": _depthfm,
    "depth-anything": _depth_anything,
    "dpt": _dpt,
    "zoedepth": _zoedepth,
    "depth-pro": _depth_pro,
}

_MARIGOLD = (949_576_107, 949.6, "Stable Diffusion 2's U-Net, 4 more input channels, and its autoencoder")
_GEOWIZARD = (1_248_806_315, 1248.8, "its training code's configuration, an autoencoder and CLIP's ViT-L/14")
_DEPTHFM = (*_MARIGOLD[:2], "arguments in its checkpoint, and Stable Diffusion 1.5's autoencoder")
_ANYTHING = "README of Depth Anything V2"
PEERS: tuple[Peer, ...] = (
    Peer("marigold-1", "marigold", *_MARIGOLD, steps=1),
    Peer("marigold-4", "marigold", *_MARIGOLD, steps=4),
    Peer("marigold-10", "marigold", *_MARIGOLD, steps=10),
    Peer("marigold-10x10", "marigold", *_MARIGOLD, steps=10, members=10),
    Peer("depthmaster", "depthmaster", 1_028_219_307, 1028.2, "counted from its public code, with its autoencoder"),
    Peer("geowizard-1", "geowizard", *_GEOWIZARD, steps=1),
    Peer("geowizard-10", "geowizard", *_GEOWIZARD, steps=10),
    Peer("geowizard-10x10", "geowizard", *_GEOWIZARD, steps=10, members=10),
    Peer("depthfm-2", "depthfm", *_DEPTHFM, steps=2),
    Peer("depthfm-2x4", "depthfm", *_DEPTHFM, steps=2, members=4),
    Peer("depth-anything-v2-small", "depth-anything", 24_785_089, 24.8, _ANYTHING, edge=518),
    Peer("depth-anything-v2-base", "depth-anything", 97_470_785, 97.5, _ANYTHING, edge=518),
    Peer("depth-anything-v2-large", "depth-anything", 335_315_649, 335.3, _ANYTHING, edge=518),
    Peer("depth-anything-v2-large@392", "depth-anything", 335_315_649, 335.3, _ANYTHING, edge=392),
    Peer("depth-anything-v2-small@770", "depth-anything", 24_785_089, 24.8, _ANYTHING, edge=770),
    Peer("depth-anything-v2-large@770", "depth-anything", 335_315_649, 335.3, _ANYTHING, edge=770),
    Peer("dpt-large", "dpt", 343_030_465, 343.0, "Ranftl et al. 2021, model statistics", edge=384),
    Peer("zoedepth-nyu", "zoedepth", 343_789_698, 345.0, "Bhat et al. 2023, BEiT-L", edge=384),
    Peer("depth-pro", "depth-pro", 951_991_330, 952.0, "model card of takara-ai/DepthPro-Safetensors", edge=1536),
)


def find(name: str) -> Peer:
    """ValueError, with the names, for another."""
    for peer in PEERS:
        if peer.name == name:
            return peer
    raise ValueError(f"peer {name!r}: {hint(name, [peer.name for peer in PEERS])}")


def chosen(names: Sequence[str]) -> list[str]:
    """Names of peers, "all" spelt out, each once. ValueError for an unknown one."""
    wanted = [name for given in names for name in ([p.name for p in PEERS] if given == "all" else [given])]
    return list(dict.fromkeys(find(name).name for name in wanted))


# ---- measuring -------------------------------------------------------------------------------------------------------


def count_parameters(built: Any) -> int:
    if isinstance(built, nn.Module):  # which is all of its parts
        return sum(p.numel() for p in built.parameters())
    parts = (built.unet, built.vae) if hasattr(built, "unet") else (built,)
    return sum(p.numel() for part in parts for p in part.parameters())


def tflops(peer: Peer, resolution: int) -> float:
    """Of one image, counted on the meta device; of several steps encoder + steps x members x U-Net + members x decoder."""
    with torch.device("meta"):
        built = peer.build()
    edge = peer.sees(resolution)
    if not peer.steps:
        found: flops.Count = {}
        with torch.inference_mode(), flops.counted(found):
            built.eval()(torch.empty(1, 3, edge, edge, device="meta"))
        return found["total"]
    if peer.family == "geowizard":
        return built.tflops(edge, peer.steps, peer.members)
    encoder, unet, decoder = {}, {}, {}
    cells, channels = edge // built.vae_scale_factor, built.vae.config.latent_channels
    latent = torch.empty(1, 2 * channels, cells, cells, device="meta")
    prompt = built.empty_text_embedding.to("meta")
    with torch.inference_mode():
        with flops.counted(encoder):
            built.vae.encode(torch.empty(1, 3, edge, edge, device="meta"))
        with flops.counted(unet):
            built.unet(latent, torch.zeros((), device="meta"), prompt)
        with flops.counted(decoder):
            built.vae.decode(latent[:, :channels])
    return encoder["total"] + peer.members * (peer.steps * unet["total"] + decoder["total"])


@dataclass(frozen=True)
class Way:
    """The means that a specialised pipeline has, for a peer: compile (see genpercept.specialise), CUDA graphs."""

    compile: str = ""
    cuda_graphs: bool = False

    @property
    def label(self) -> str:
        ways = [f"compiled ({self.compile})"] if self.compile else []
        return ", ".join([*ways, *(["CUDA graphs"] if self.cuda_graphs else [])])

    def quicken(self, modules: Sequence[nn.Module]) -> list[Graphed]:
        """Compile and record the modules' forward passes, as ours are."""
        pools, found = Pools(), []
        for module in modules:
            function: Any = module.forward
            if self.compile:
                function = Compiled(function, self.compile)
            if self.cuda_graphs:
                function = Graphed(function, pools)
                found.append(function)
            module.forward = function
        return found


def measure(peer: Peer, of: Setting, effort: Effort, way: Way = Way()) -> dict[str, Any]:  # frozen
    """Seconds and peak bytes of one image at the setting's resolution, dtype and device. The input lies on the device."""
    dtype = dtypes.to_torch(of.dtype)
    count = tflops(peer, of.resolution)
    torch.manual_seed(0)
    with torch.device(of.device):
        built = peer.build()
    if isinstance(built, nn.Module):
        built.eval()
    model: Any = built.to(dtype)
    networks = [model.unet, model.vae.encoder, model.vae.decoder] if peer.steps else [_Depth(model)]
    graphed = way.quicken(networks)
    if not peer.steps:
        model = networks[0]
    edge = peer.sees(of.resolution)
    image = torch.rand(1, 3, edge, edge, generator=torch.Generator().manual_seed(0)).to(of.device)
    machine.reset_peak(of.device)
    with torch.inference_mode():
        times = timed(_call(peer, model, image, dtype), of.device, effort)
    if reasons := [graph.off for graph in graphed if graph.off]:
        raise ValueError(f"CUDA graphs could not be recorded, and their times would be of something else: {reasons[0]}")
    row = {"name": peer.name, "edge": edge, "parameters": count_parameters(built), "published": peer.published}
    row |= {"way": way.label, "source": peer.source, "tflops": count, "network": times, "peak": machine.peak(of.device)}
    del built, model
    gc.collect()
    if of.device.startswith("cuda"):
        torch.cuda.empty_cache()
    return row


class _Depth(nn.Module):
    """A network of transformers as one from tensor to tensor, which can be recorded."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model(image).predicted_depth


def _call(peer: Peer, model: Any, image: Tensor, dtype: torch.dtype) -> Callable[[], Any]:
    if not peer.steps:
        normalised = ((image - 0.5) / 0.5).to(dtype)
        return lambda: model(normalised)
    return lambda: model(
        image.to(dtype),
        num_inference_steps=peer.steps,
        ensemble_size=peer.members,
        batch_size=peer.members,
        processing_resolution=image.shape[-1],
        output_type="pt",
        generator=torch.Generator(image.device).manual_seed(0),
    )
