"""Copies of a pipeline's networks that share its weights, and the surgery that replaces their layers. See `layers`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeGuard, TypeVar, cast

import torch
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.vae import Decoder
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from genpercept.models.backbones.sd21 import SD21UNet
from genpercept.models.heads.dpt import DPTHead
from genpercept.pipeline.specialise.layers import (
    EarlyProjection,
    Norm,
    NormConv,
    Nothing,
    OnesConv,
    Resnet,
    SpatialAttention,
    Transformer,
    Upsample,
    frozen,
    with_bias,
)

M = TypeVar("M", bound=nn.Module)


def twin(module: M, dtype: torch.dtype | None = None, channels_last: bool = False) -> M:
    """A copy of a module's structure over the same tensors; only those in another dtype or memory format are new.

    Without either, the very Parameter objects are shared, so that moving one moves both.
    """
    memo: dict[int, Any] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        if dtype is None:
            memo[id(tensor)] = tensor
            continue
        cast_to = dtype if tensor.is_floating_point() else tensor.dtype
        layout = torch.preserve_format
        if tensor.ndim == 4:
            layout = torch.channels_last if channels_last else torch.contiguous_format
        new = tensor.detach().to(cast_to, memory_format=layout)
        memo[id(tensor)] = nn.Parameter(new, requires_grad=False) if isinstance(tensor, nn.Parameter) else new
    return copy.deepcopy(module, memo).eval()


def exact_norms(module: nn.Module) -> None:
    """In place: the group normalisations of a copy round no worse in channels_last; see `layers.Norm`."""
    for part in module.modules():
        if type(part) is nn.GroupNorm:
            part.__class__ = Norm


@dataclass
class Constants:
    """What layers of a denoiser were given in one step, by their names: it does not depend on the image."""

    embeddings: dict[str, Tensor] = field(default_factory=dict)  # of time (and conditions), (1, width)
    contexts: dict[str, Tensor] = field(default_factory=dict)  # of the prompt, (1, tokens, width)
    calls: int = 0  # of the denoiser


@contextmanager
def recorded(unet: nn.Module) -> Iterator[Constants]:
    """Records them while the denoiser runs, once, in a `with` block."""
    found = Constants()
    handles = []

    def note(name: str, key: str, store: dict[str, Tensor]) -> Callable[..., None]:
        def hook(_module: nn.Module, args: Any, kwargs: Any) -> None:
            value = kwargs.get(key, args[1] if len(args) > 1 else None)
            if value is not None:
                store[name] = value.detach()[:1].clone()

        return hook

    def count(*_unused: Any) -> None:
        found.calls += 1

    handles.append(unet.get_submodule("conv_in").register_forward_pre_hook(count))
    for name, module in unet.named_modules():
        if isinstance(module, ResnetBlock2D):
            hook = note(name, "temb", found.embeddings)
        elif isinstance(module, Transformer2DModel):
            hook = note(name, "encoder_hidden_states", found.contexts)
        else:
            continue
        handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


class FoldedUNet(SD21UNet):
    """An SD21UNet whose layers hold the time embedding and the prompt: it ignores both arguments."""

    def get_time_embed(self, *_unused: Any, **_more: Any) -> None:  # type: ignore[override]
        return None

    def get_class_embed(self, *_unused: Any, **_more: Any) -> None:  # type: ignore[override]
        return None


@torch.no_grad()
def fold_unet(unet: nn.Module, constants: Constants) -> nn.Module:
    """The denoiser for these constants, sharing its other weights. ValueError names a layer that cannot be folded."""
    folded = twin(cast(SD21UNet, unet))
    _replace(folded, _unet_layer, constants)
    folded.__class__ = FoldedUNet
    folded.register_module("time_proj", Nothing())
    folded.register_module("time_embedding", Nothing())
    folded.class_embedding = None
    if isinstance(folded.conv_act, nn.SiLU):
        folded.conv_act = nn.SiLU(inplace=True)
    return folded


@torch.no_grad()
def fold_codec(vae: nn.Module, in_strips: bool = False) -> nn.Module:
    """Any of our codecs' modules, sharing its other weights: its 1 x 1 convolutions are merged, its upsampling is quicker.

    in_strips: residual blocks work through large maps strip by strip, for less memory.
    """
    folded = twin(vae)
    _replace(folded, _codec_layer, Constants())
    for module in folded.modules():
        if isinstance(module, AutoencoderKL):
            _merge_pointwise(module)
        if isinstance(module, nn.Sequential):
            _merge_upsampling(module)
        if isinstance(module, Resnet | Upsample):
            module.in_strips = in_strips
        if isinstance(module, Decoder) and in_strips:
            end: Any = module
            end.conv_out = NormConv(end.conv_norm_out, end.conv_act, end.conv_out)
            end.conv_norm_out, end.conv_act = nn.Identity(), nn.Identity()
        if isinstance(module, nn.ReLU):
            module.inplace = True  # AutoencoderTiny's follow convolutions and sums
    return folded


@torch.no_grad()
def fold_head(head: nn.Module) -> nn.Module:
    """A head with its batch normalisation merged into convolutions, DPT's with quicker upsampling; shares its other weights."""
    folded = twin(head)
    if isinstance(folded, DPTHead):
        folded.register_module("feature_upsample_0", Upsample(folded.feature_upsample_0.conv))
        stages = folded.neck.fusion_stage.layers
        folded.neck.fusion_stage.layers = nn.ModuleList(EarlyProjection(stage) for stage in stages)
    for module in folded.modules():
        children = dict(module.named_children())
        for conv, norm in _NORMALISED:
            if isinstance(after := children.get(norm), nn.BatchNorm2d):
                before = cast(nn.Conv2d | nn.ConvTranspose2d, children[conv])
                merged = fuse_conv_bn_eval(before, after, transpose=isinstance(before, nn.ConvTranspose2d))
                setattr(module, conv, merged.requires_grad_(False))
                setattr(module, norm, nn.Identity())
    return folded


# In transformers' UperNet and ViTPose modules: a convolution's name, and that of the normalisation of its answer.
_NORMALISED = (("conv", "batch_norm"), ("deconv1", "batchnorm1"), ("deconv2", "batchnorm2"))


def _replace(root: nn.Module, make: Callable[[str, Any, Constants], nn.Module | None], constants: Constants) -> None:
    for name, module in list(root.named_modules()):
        if name and (new := make(name, module, constants)) is not None:
            parent, _, leaf = name.rpartition(".")
            holder = root.get_submodule(parent)
            if isinstance(holder, nn.ModuleList):
                holder[int(leaf)] = new
            else:
                setattr(holder, leaf, new)


def _unet_layer(name: str, module: Any, constants: Constants) -> nn.Module | None:
    if isinstance(module, ResnetBlock2D):
        return _resnet(name, module, constants.embeddings.get(name))
    if isinstance(module, Transformer2DModel):
        if name not in constants.contexts:
            raise ValueError(f"{name}: a transformer that reads no prompt, which cannot be specialised")
        return Transformer(module, constants.contexts[name], name)
    if isinstance(module, Upsample2D) and _doubles(module):
        return Upsample(cast(nn.Conv2d, module.conv))
    if isinstance(module, Attention) and ".transformer_blocks." not in name:
        raise ValueError(f"{name}: an attention layer outside a transformer, which cannot be specialised")
    return None


def _codec_layer(name: str, module: Any, constants: Constants) -> nn.Module | None:
    if isinstance(module, ResnetBlock2D):
        return _resnet(name, module, None)
    if isinstance(module, Upsample2D) and _doubles(module):
        return Upsample(cast(nn.Conv2d, module.conv))
    if isinstance(module, Attention):
        if module.group_norm is None or not module.residual_connection:
            raise ValueError(f"{name}: an autoencoder's attention of a kind that cannot be specialised")
        return SpatialAttention(module, name)
    if name.endswith("conv_act") and isinstance(module, nn.SiLU):
        return nn.SiLU(inplace=True)
    return None


def _resnet(name: str, module: ResnetBlock2D, emb: Tensor | None) -> nn.Module:
    resizes = module.upsample is not None or module.downsample is not None
    adds = module.time_embedding_norm == "default"  # others, but for scale_shift, leave the embedding out
    if resizes or module.output_scale_factor != 1 or module.time_embedding_norm == "scale_shift":
        raise ValueError(f"{name}: a residual block of a kind that cannot be specialised; use the plain pipeline")
    return Resnet(module, emb if adds else None)


def _doubles(module: Upsample2D) -> bool:
    plain = module.norm is None and module.interpolate and not module.use_conv_transpose
    return plain and module.name == "conv" and _is_3x3(module.conv)


def _is_3x3(conv: object) -> TypeGuard[nn.Conv2d]:
    if not isinstance(conv, nn.Conv2d) or conv.groups != 1 or conv.dilation != (1, 1):
        return False
    return conv.kernel_size == (3, 3) and conv.padding == (1, 1) and conv.stride == (1, 1)


def _merge_pointwise(vae: Any) -> None:
    """quant_conv into the encoder's last convolution, post_quant_conv into the decoder's first."""
    if vae.encoder is not None and vae.quant_conv is not None:
        pointwise, last = vae.quant_conv, vae.encoder.conv_out
        weight = torch.einsum("oc,ciab->oiab", pointwise.weight.double()[:, :, 0, 0], last.weight.double())
        bias = pointwise.weight.double()[:, :, 0, 0] @ last.bias.double() + pointwise.bias.double()
        merged = with_bias(last, bias)
        merged.weight = frozen(weight, last.weight)
        vae.encoder.conv_out, vae.quant_conv = merged, None
    if vae.decoder is not None and vae.post_quant_conv is not None:
        vae.decoder.conv_in, vae.post_quant_conv = OnesConv(vae.post_quant_conv, vae.decoder.conv_in), None


def _merge_upsampling(layers: nn.Sequential) -> None:
    """nn.Upsample (nearest, 2) followed by a 3 x 3 convolution, as AutoencoderTiny's decoder has it."""
    for i in range(len(layers) - 1):
        first, then = layers[i], layers[i + 1]
        if isinstance(first, nn.Upsample) and first.mode == "nearest" and first.scale_factor == 2 and _is_3x3(then):
            layers[i], layers[i + 1] = Upsample(then), nn.Identity()
