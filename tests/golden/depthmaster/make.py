"""Golden answers of DepthMaster's own code (github.com/indu1ge/DepthMaster, commit 4c1efa1) on a tiny checkpoint.

    python tests/golden/depthmaster/make.py PATH_OF_THEIR_CODE

in an environment of its own: Python 3.11, torch 2.13.0 (CPU; theirs is 2.3.0), and their diffusers 0.29.0, transformers 4.41.2,
huggingface-hub 0.27.1, numpy 1.26, pillow 10.2, matplotlib, scipy. torchvision is replaced by the few lines below, which do
what its functions do to tensors: `resize` by antialiased interpolation in float32, rounded for integers; `pil_to_tensor`.

The checkpoint is sd-tiny beside this folder, `conv_out.bias` moved by 0.125, and the block of block.safetensors: their
`BlockFE(dim=64)`, since their U-Net builds it without arguments, for the 1280 channels of Stable Diffusion 2. It is drawn with
a seed; weights and biases are then enlarged, so that every branch counts in the answer.
"""

from __future__ import annotations

import copy
import json
import shutil
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
SD_TINY = HERE.parent / "sd-tiny"
WEIGHTS = "diffusion_pytorch_model.safetensors"
SIZES = {"square": (64, 64), "odd": (70, 93), "tall": (101, 48), "wide": (200, 328)}  # height, width
RESIZED = {"official": ("odd", 50), "enlarged": ("odd", 128)}  # image and processing_res


class InterpolationMode(Enum):
    """torchvision's names."""

    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    NEAREST_EXACT = "nearest-exact"


def resize(img: torch.Tensor, size: tuple[int, int], interpolation: InterpolationMode, antialias: bool) -> torch.Tensor:
    """torchvision 0.18's for tensors: (..., H, W) to `size`; integers are resized as float32 and rounded."""
    if tuple(img.shape[-2:]) == tuple(size):
        return img
    assert interpolation is InterpolationMode.BILINEAR
    x = F.interpolate(img.float(), tuple(size), mode="bilinear", align_corners=False, antialias=antialias)
    return x if img.is_floating_point() else x.round().to(img.dtype)


def pil_to_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


def stand_in() -> None:
    """A torchvision that has what their code imports; after the libraries that would ask for all of it."""
    import diffusers  # noqa: F401
    import transformers  # noqa: F401

    for name, has in {
        "torchvision": {},
        "torchvision.transforms": {"InterpolationMode": InterpolationMode},
        "torchvision.transforms.functional": {"resize": resize, "pil_to_tensor": pil_to_tensor},
    }.items():
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__dict__.update(has)


def checkpoint(folder: Path, block: dict[str, torch.Tensor]) -> None:
    """The published layout: unet, vae, text_encoder, tokenizer; no scheduler."""
    for part in ("unet", "vae", "text_encoder", "tokenizer"):
        shutil.copytree(SD_TINY / part, folder / part)
    tensors = load_file(folder / "unet" / WEIGHTS)
    tensors["conv_out.bias"] += 0.125
    save_file(tensors | {f"fftblock.{name}": t for name, t in block.items()}, folder / "unet" / WEIGHTS)
    parts = {"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}
    parts |= {"text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"]}
    index = {"_class_name": "DepthMasterPipeline", "scale_invariant": True, "shift_invariant": True, **parts}
    (folder / "model_index.json").write_text(json.dumps(index))


def photo(height: int, width: int, seed: int) -> np.ndarray:
    """A smooth picture with noise, (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / 32
    waves = [np.sin(x * a + y * b + c) for a, b, c in rng.uniform(-2, 2, (3, 3))]
    noise = rng.normal(0, 0.02, (height, width, 3))
    return np.clip((np.stack(waves, -1) * 0.4 + noise + 0.5) * 255, 0, 255).astype(np.uint8)


def wrong_variants(pipe: Any, run: Callable[[], np.ndarray], right: np.ndarray) -> dict[str, float]:
    """Largest differences of answers under what somebody could get wrong."""
    found: dict[str, float] = {}

    @contextmanager
    def having(name: str, owner: Any, attribute: str, value: Any) -> Iterator[None]:
        own = getattr(owner, attribute)
        setattr(owner, attribute, value)
        yield
        found[name] = float(np.abs(run() - right).max())
        setattr(owner, attribute, own)

    unet, block = pipe.unet, pipe.unet.fftblock
    for timestep in (0, 2, 999):
        with having(f"timestep {timestep}", unet, "forward", partial(told, unet.forward, timestep)):
            pass
    fuse = copy.deepcopy(block.fuse)
    fuse.weight.copy_(fuse.weight.roll(fuse.out_channels, 1))
    rfft2, irfft2 = torch.fft.rfft2, torch.fft.irfft2
    empty = pipe.tokenizer("", padding="max_length", max_length=pipe.tokenizer.model_max_length, return_tensors="pt")
    padded = pipe.text_encoder(empty.input_ids)[0]
    for name, owner, attribute, value in (
        ("sign flipped, as GenPercept's", pipe, "depth_latent_scale_factor", -0.18215),
        ("answer not scaled", pipe, "depth_latent_scale_factor", 1.0),
        ("image latent not scaled", pipe, "rgb_latent_scale_factor", 1.0),
        ("prompt padded", pipe, "empty_text_embed", padded),
        ("branches swapped", block, "fuse", fuse),
        ("without conv_f4", block, "conv_f4", torch.nn.Identity()),
        ("transform not orthonormal", torch.fft, "rfft2", lambda x, dim, norm: rfft2(x, dim=dim)),
        ("nothing from the frequencies", torch.fft, "irfft2", lambda x, **how: irfft2(x, **how) * 0),
        ("normalised in 32 groups", block, "norm", torch.nn.GroupNorm(32, 64)),
    ):
        with having(name, owner, attribute, value):
            pass
    assert np.array_equal(run(), right)
    return found


def told(forward: Callable[..., Any], timestep: int, x: torch.Tensor, _: int, **more: Any) -> Any:
    return forward(x, timestep, **more)


def main() -> None:
    stand_in()
    sys.path.insert(0, sys.argv[1])
    from depthmaster import DepthMasterPipeline
    from depthmaster.modules import unet_2d_condition_s2 as theirs
    from diffusers import UNet2DConditionModel

    torch.manual_seed(20250115)
    block = theirs.BlockFE(dim=64)
    for name, factor in {"conv_f1": 2, "conv_f2": 3, "conv_f3": 3, "conv_f4": 4, "conv_s2": 3, "fuse": 8}.items():
        getattr(block, name).weight.mul_(factor)
    block.conv_f2.bias.add_(0.5)
    block.conv_f4.bias.add_(0.25)
    theirs.BlockFE = partial(theirs.BlockFE, dim=64)
    save_file(block.state_dict(), HERE / "block.safetensors")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint(folder, block.state_dict())
        pipe = DepthMasterPipeline.from_pretrained(folder)
        stock = pipe.unet  # what diffusers' own class makes of the folder: the block is left out
        assert type(stock) is UNet2DConditionModel
        pipe.unet = theirs.UNet2DConditionModel.from_pretrained(folder / "unet")
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.eval()
    found: dict[str, np.ndarray] = {}
    seen: dict[str, torch.Tensor] = {}
    pipe.unet.fftblock.register_forward_hook(lambda _, x, y: seen.update(before=x[0], after=y))
    pipe.unet.register_forward_hook(lambda _, x, y: seen.update(latent=x[0], output=y.sample))

    def run(image: np.ndarray, resolution: int) -> np.ndarray:
        return pipe(Image.fromarray(image), processing_res=resolution, color_map=None, show_progress_bar=False).depth_np

    for seed, (key, size) in enumerate(SIZES.items()):
        found[f"image_{key}"] = photo(*size, seed)
        found[f"answer_{key}"] = run(found[f"image_{key}"], 0)
        for what in ("latent", "before", "after", "output"):
            found[f"{what}_{key}"] = seen[what].detach().numpy()
    for key, (image, resolution) in RESIZED.items():
        found[f"answer_{key}"] = run(found[f"image_{image}"], resolution)
    found["prompt"] = pipe.empty_text_embed.detach().numpy()

    wrong = wrong_variants(pipe, lambda: run(found["image_wide"], 0), found["answer_wide"])
    pipe.unet = stock.eval()
    found["answer_wide_stock"] = run(found["image_wide"], 0)
    wrong["block left out"] = float(np.abs(found["answer_wide_stock"] - found["answer_wide"]).max())
    np.savez_compressed(HERE / "answers.npz", **found)
    facts = {
        "parameters of BlockFE(1280)": sum(p.numel() for p in theirs.BlockFE.func().parameters()),
        "parameters of BlockFE(64)": sum(p.numel() for p in block.parameters()),
        "standard deviation of answer_wide": float(found["answer_wide"].std()),
        "largest difference of wrong variants": wrong,
    }
    (HERE / "facts.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    with torch.no_grad():
        main()
