"""LoRA (Hu et al. 2021) on a denoiser, by peft: add, save, load, merge. An adapter is a folder that peft and diffusers read."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from safetensors.torch import load_file, save_file
from torch import nn

if TYPE_CHECKING:
    from peft import PeftConfig

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")  # ends of names: the projections of every attention layer
_NAME = "default"
_PEFT_PREFIX = "base_model.model."  # of the names in a PeftModel's file


class _Adapted(Protocol):
    """A module that peft has put adapters into."""

    peft_config: dict[str, PeftConfig]


def add_lora(denoiser: nn.Module, rank: int, alpha: int = 0, targets: Sequence[str] = ATTENTION, seed: int = 0) -> None:
    """Put adapters into the layers whose names end with one of `targets`, in place; the other weights are frozen.

    The update is (alpha / rank) B A with B = 0 at first, so the network answers as before. alpha 0: as rank. targets
    ("all",): every linear layer and convolution. ValueError when no layer has such a name.
    """
    from peft import LoraConfig, inject_adapter_in_model

    layers = [name for name, m in denoiser.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    if tuple(targets) != ("all",):
        layers = [name for name in layers if name.endswith(tuple(f".{t}" for t in targets))]
    if not layers:
        raise ValueError(
            f"lora.targets {list(targets)}: the denoiser has no linear layer or convolution of such a name"
        )
    config = LoraConfig(r=rank, lora_alpha=alpha or rank, target_modules=layers, init_lora_weights=True)
    denoiser.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, denoiser, adapter_name=_NAME)


def has_lora(denoiser: nn.Module) -> bool:
    return _NAME in getattr(denoiser, "peft_config", {})


def save_lora(denoiser: nn.Module, folder: Path) -> None:
    """Write the adapter twice, under the names that its readers look for.

    adapter_config.json and adapter_model.safetensors: `PeftModel.from_pretrained(unet, folder)`, `load_lora` here.
    pytorch_lora_weights.safetensors, of a U-Net only: diffusers' `pipe.load_lora_weights(folder)`.
    """
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from peft.utils.save_and_load import get_peft_model_state_dict

    _require(denoiser)
    config = cast(_Adapted, denoiser).peft_config[_NAME]
    state = get_peft_model_state_dict(denoiser, adapter_name=_NAME)
    state = {name: t.detach().cpu().contiguous() for name, t in state.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file({_PEFT_PREFIX + name: t for name, t in state.items()}, folder / "adapter_model.safetensors")
    config.save_pretrained(str(folder))
    if not isinstance(denoiser, UNet2DConditionModel):  # diffusers' pipelines of the others load no adapters
        return
    metadata = {k: sorted(v) if isinstance(v, set) else v for k, v in config.to_dict().items()}
    layers: dict[str, nn.Module | torch.Tensor] = {**state}
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers, unet_lora_adapter_metadata=metadata)


def load_lora(denoiser: nn.Module, folder: Path) -> None:
    """Put a saved adapter into a denoiser without one, in place. ValueError for a folder that holds none."""
    if not (folder / "adapter_model.safetensors").is_file():
        raise ValueError(f"{folder}: no adapter_model.safetensors in it: not an adapter that genpercept or peft saved")
    if has_lora(denoiser):
        raise ValueError(f"{folder}: the denoiser has an adapter already; merge it first")
    from peft import LoraConfig, inject_adapter_in_model
    from peft.utils.save_and_load import set_peft_model_state_dict

    tensors = load_file(folder / "adapter_model.safetensors")
    config: Any = LoraConfig.from_pretrained(str(folder))
    ranks = {t.shape[0] for name, t in tensors.items() if ".lora_A." in name}
    if not config.rank_pattern and ranks - {config.r}:
        raise ValueError(f"{folder}: adapter_config.json says rank {config.r}, its tensors have {sorted(ranks)}")
    inject_adapter_in_model(config, denoiser, adapter_name=_NAME)
    state = {name.removeprefix(_PEFT_PREFIX): t for name, t in tensors.items()}
    found = set_peft_model_state_dict(denoiser, state, adapter_name=_NAME)
    if found.unexpected_keys:
        raise ValueError(
            f"{folder}: the adapter is for another denoiser: it has {found.unexpected_keys[0]}, this has not"
        )


def merge(denoiser: nn.Module) -> None:
    """W <- W + (alpha / rank) B A in every adapted layer, in place; the adapter stays, switched off, for `unmerge`."""
    _require(denoiser)
    for layer in _layers(denoiser):
        if not layer.merged:
            layer.merge()


def unmerge(denoiser: nn.Module) -> None:
    """Take the update out again. What `merge` rounded stays rounded: about 1e-7 of a weight in float32."""
    _require(denoiser)
    for layer in _layers(denoiser):
        if layer.merged:
            layer.unmerge()


def merged_copy(denoiser: nn.Module) -> nn.Module:
    """A copy on the CPU with the adapter merged and gone: a plain denoiser. The original is not touched."""
    from diffusers.utils.peft_utils import recurse_remove_peft_layers

    _require(denoiser)
    plain = copy.deepcopy(denoiser).cpu()
    merge(plain)
    recurse_remove_peft_layers(plain)
    del plain.peft_config
    return plain.requires_grad_(True)


def _layers(denoiser: nn.Module) -> list[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [m for m in denoiser.modules() if isinstance(m, BaseTunerLayer)]


def _require(denoiser: nn.Module) -> None:
    if not has_lora(denoiser):
        raise ValueError("the denoiser has no LoRA adapter: add one with add_lora or load_lora")
