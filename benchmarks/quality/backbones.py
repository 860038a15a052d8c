"""Every backbone at its published size: parameters without memory, and one forward pass of a few blocks at its real width.

    python benchmarks/quality/backbones.py --out benchmarks/quality/backbones.md

Random weights on the CPU in float32, one image of 224 x 224 (256 x 256 behind a codec): what a forward pass takes in and gives.
Blocks are left out because a whole model in float32 takes up to 10 GB; widths, heads and conditions are the published ones.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from genpercept.models.backbones import BACKBONES

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
from benchmarks._page import made
from genpercept.models.backbones.clip import BIGG_CONFIG
from genpercept.models.backbones.dinov2 import GIANT_CONFIG, LARGE_CONFIG
from genpercept.models.backbones.pixart_alpha import PIXART_512_CONFIG, PIXART_1024_CONFIG
from genpercept.models.backbones.sd21 import SD15_CONFIG, SD21_CONFIG, SDXL_CONFIG


@dataclass(frozen=True)
class Case:
    """published: as its source states it. shallow: what is left of the configuration for the forward pass."""

    name: str
    plugin: str
    config: dict[str, Any]
    published: str
    source: str
    shallow: dict[str, Any]


_ONE_LAYER = {"layers_per_block": 1}
CASES = (
    Case("Stable Diffusion 1.5 U-Net", "sd21", SD15_CONFIG, "859,520,964", "diffusers' documentation", _ONE_LAYER),
    Case("Stable Diffusion 2.1 U-Net", "sd21", SD21_CONFIG, "865.91 M", "Stability's README: 865 M", _ONE_LAYER),
    Case(
        "Stable Diffusion XL U-Net",
        "sd21",
        SDXL_CONFIG,
        "2,567,463,684",
        "its files; the paper: 2.6 B",
        _ONE_LAYER | {"transformer_layers_per_block": 1},
    ),
    Case(
        "PixArt-alpha XL-2 512", "pixart_alpha", PIXART_512_CONFIG, "0.6 B", "model card and paper", {"num_layers": 4}
    ),
    Case("PixArt-alpha XL-2 1024", "pixart_alpha", PIXART_1024_CONFIG, "0.6 B", "model card", {"num_layers": 4}),
    Case("DINOv2 giant", "dinov2", GIANT_CONFIG, "1,100 M", "model card", {"num_hidden_layers": 4}),
    Case("DINOv2 large", "dinov2", LARGE_CONFIG, "300 M", "model card", {"num_hidden_layers": 4}),
    Case(
        "CLIP ViT-bigG-14 image tower",
        "clip",
        BIGG_CONFIG,
        "1,844.91 M with its 2.13 M projection",
        "open_clip's model_profile.csv",
        {"num_hidden_layers": 4},
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    text = table([row(case) for case in CASES])
    print(text)
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    return 0


def row(case: Case) -> tuple[str, ...]:
    plugin = BACKBONES.find(case.plugin)
    with torch.device("meta"):
        whole: Any = plugin.build(case.config)
    count = sum(p.numel() for p in whole.parameters())
    shapes, blocks, seconds = forward(plugin, case)
    channels = ", ".join(f"{c} @ 1/{s}" for c, s in zip(whole.pyramid_channels, whole.pyramid_strides, strict=True))
    return case.name, f"{count:,}", case.published, case.source, channels, f"{blocks:,}", shapes, f"{seconds:.2f}"


@torch.inference_mode()
def forward(plugin: Any, case: Case) -> tuple[str, int, float]:
    """What a pass of the shallow network gives, the network's parameters, and the pass's seconds."""
    torch.manual_seed(0)
    net: Any = plugin.build(case.config | case.shallow).eval()
    size = (32, 32) if plugin.input == "latent" else (224, 224)
    x = torch.randn(1, net.in_channels, *size)
    context = torch.randn(1, 2, net.context_width or 0)
    start = time.perf_counter()
    features = net.forward_features(x, torch.tensor([1]), context)
    seconds = time.perf_counter() - start
    finest, latent = features.pyramid[-1], features.latent
    if not all(bool(torch.isfinite(t).all()) for t in (*features.pyramid, *(() if latent is None else (latent,)))):
        raise RuntimeError(f"{case.name}: values that are not finite")
    given = f"{list(x.shape[1:])} to " + ("no latent" if latent is None else f"{list(latent.shape[1:])}")
    return f"{given}, finest map {list(finest.shape[1:])}", sum(p.numel() for p in net.parameters()), seconds


def table(rows: list[tuple[str, ...]]) -> str:
    heads = ("backbone", "parameters here", "published", "source", "pyramid, coarsest first", "shallow", "shapes", "s")
    lines = ["# Backbones at their published sizes", "", f"{made(__file__)}.", ""]
    lines += [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads), *(f"| {' | '.join(r)} |" for r in rows), ""]
    lines += [
        "Parameters are counted on the meta device. `shallow`: those of the network of real width and few blocks whose one",
        "forward pass on the CPU (float32, batch of one) gave `shapes` in `s` seconds, on a machine that did other things too.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
