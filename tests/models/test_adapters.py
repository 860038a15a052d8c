"""LoRA adapters and ControlNets: they start as the network they change, and what is saved is what was trained."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn

from genpercept.checkpoints import lowrank, parts
from genpercept.models import adapters
from genpercept.models.backbones import BACKBONES

CONFIG: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [16, 16],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "attention_head_dim": [2, 2],
    "cross_attention_dim": 16,
    "norm_num_groups": 4,
    "layers_per_block": 1,
}


@pytest.fixture
def unet() -> Any:
    torch.manual_seed(0)
    return BACKBONES.find("sd21").build(CONFIG)


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(2, 4, 8, 8, generator=g), torch.tensor([1, 900]), torch.randn(2, 3, 16, generator=g)


def shake(module: nn.Module, ending: str = "") -> None:
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in module.named_parameters():
            if ending in name:
                p.add_(torch.randn(p.shape, generator=g) * 0.1)


@torch.no_grad()
def test_lora_starts_as_the_denoiser_and_merges_into_one(unet: Any, inputs: Any, tmp_path: Path) -> None:
    before = unet(*inputs).sample
    adapters.add_lora(unet, rank=4)
    learning = {name for name, p in unet.named_parameters() if p.requires_grad}
    assert learning and all("lora_" in name for name in learning)
    assert {name.split(".lora_")[0].rsplit("attn", 1)[1][2:] for name in learning} == set(adapters.ATTENTION)
    assert torch.equal(unet(*inputs).sample, before)
    shake(unet, "lora_B")
    adapted = unet(*inputs).sample
    assert (adapted - before).abs().max() > 0.01
    plain = adapters.merged_copy(unet)
    assert (
        not adapters.has_lora(plain) and plain.state_dict().keys() == UNet2DConditionModel(**CONFIG).state_dict().keys()
    )
    torch.testing.assert_close(plain.forward_features(*inputs).latent, adapted, atol=1e-5, rtol=0)  # type: ignore[operator]
    adapters.merge(unet)
    adapters.merge(unet)  # once is enough
    torch.testing.assert_close(unet(*inputs).sample, adapted, atol=1e-5, rtol=0)
    adapters.unmerge(unet)
    torch.testing.assert_close(unet(*inputs).sample, adapted, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_saved_adapter_is_read_by_peft_diffusers_and_us(unet: Any, inputs: Any, tmp_path: Path) -> None:
    from peft import PeftModel

    fresh = [UNet2DConditionModel(**CONFIG) for _ in range(2)]
    ours = BACKBONES.find("sd21").build(CONFIG)
    for other in (*fresh, ours):
        other.load_state_dict(unet.state_dict())
    adapters.add_lora(unet, rank=4, alpha=8)
    shake(unet, "lora_B")
    adapters.save_lora(unet, tmp_path)
    want = unet(*inputs).sample
    by_peft = PeftModel.from_pretrained(fresh[0], tmp_path)  # type: ignore[arg-type]
    # what pipe.load_lora_weights(tmp_path) does
    state, alphas, metadata = StableDiffusionPipeline.lora_state_dict(tmp_path, return_lora_metadata=True)  # type: ignore[misc]
    StableDiffusionPipeline.load_lora_into_unet(state, alphas, fresh[1], metadata=metadata)
    adapters.load_lora(ours, tmp_path)
    for other in (by_peft, fresh[1], ours):
        torch.testing.assert_close(other(*inputs).sample, want, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="has an adapter already"):
        adapters.load_lora(ours, tmp_path)


def test_lora_errors(unet: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lora.targets \['to_x'\]"):
        adapters.add_lora(unet, 4, targets=("to_x",))
    with pytest.raises(ValueError, match=r"no adapter_model.safetensors"):
        adapters.load_lora(unet, tmp_path)
    with pytest.raises(ValueError, match="has no LoRA adapter"):
        adapters.merged_copy(unet)


@torch.no_grad()
def test_low_rank_difference_is_the_merged_adapter(unet: Any, inputs: Any, tmp_path: Path) -> None:
    """Adapters on every layer, convolutions too: base plus difference is the merged network; another network refuses it."""
    base = copy.deepcopy(unet)
    adapters.add_lora(unet, 3, alpha=6, targets=("all",))
    shake(unet, "lora_")
    difference = lowrank.from_lora(unet)
    layers = [n for n, m in base.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert sorted(difference) == sorted(f"{n}.weight.{part}" for n in layers for part in "AB")
    plain = adapters.merged_copy(unet)
    lowrank.check(base, {name: tuple(t.shape) for name, t in difference.items()}, "here")
    lowrank.add(base, difference)
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(base.state_dict()[name], tensor, msg=name)
    with torch.inference_mode():
        torch.testing.assert_close(base(*inputs).sample, plain(*inputs).sample, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="has no LoRA adapter"):
        lowrank.from_lora(base)
    for broken in (
        {"conv_in.weight.A": (3, 36)},
        {"conv_in.weight.A": (3, 35), "conv_in.weight.B": (16, 3)},
        {"x.weight.A": (1, 1), "x.weight.B": (1, 1)},
    ):
        with pytest.raises(ValueError, match="there: its difference at"):
            lowrank.check(base, broken, "there")


def test_controlnet_is_diffusers_own(unet: Any, inputs: Any, tmp_path: Path) -> None:
    """It starts as the U-Net alone, answers as diffusers' forward does, and comes back from disk bit by bit."""
    plugin: Any = BACKBONES.find("sd21_controlnet")
    controlled = plugin.control(unet)
    x, t, context = inputs
    assert torch.equal(controlled.forward_features(*inputs).latent, unet(*inputs).sample)
    assert {name.split(".")[0] for name, p in controlled.named_parameters() if p.requires_grad} == {"controlnet"}
    shake(controlled.controlnet)
    down, middle = controlled.controlnet(x, t, context, controlnet_cond=x, return_dict=False)
    want = unet(*inputs, down_block_additional_residuals=down, mid_block_additional_residual=middle).sample
    assert torch.equal(controlled.forward_features(*inputs).latent, want)
    controlled.save_pretrained(tmp_path)
    again: Any = parts.load_part(BACKBONES.find("sd21_controlnet"), tmp_path)
    assert torch.equal(again.forward_features(*inputs).latent, want)
